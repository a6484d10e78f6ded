"""How far an item is from those that a network was trained on, measured in the network's embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DIRECTIONS = 128  # of the largest variance, each with its own
SHRINKAGE = 0.5  # of each variance towards their mean; on three data sets better than less (bench/README.md)
MOST_ITEMS = 5_000  # of train, at equal distances in their order


@dataclass(frozen=True)
class Normal:
    """Normal distributions about some centers, with the same covariance.

    A few hundred items do not give the covariance of a thousand dimensions. Along the directions of the largest variance it is
    that of the items, shrunk towards the mean over all directions; in the others together it is the mean of what remains.

    Attributes:
        centers: float32 `(centers, dimensions)`.
        directions: orthonormal, float32 `(dimensions, directions)`.
        variances: along these directions, float32 `(directions,)`.
        remaining: the variance in each other direction.
    """

    centers: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    remaining: float

    @classmethod
    def fit(cls, embeddings: np.ndarray, labels: np.ndarray) -> Normal:
        """A center for each label that occurs. Arguments as for `Spread.fit`."""
        embeddings = embeddings.astype(np.float64)
        known, row = np.unique(labels, return_inverse=True)
        centers = np.stack([embeddings[labels == label].mean(axis=0) for label in known])
        variances, directions = _principal(embeddings - centers[row])
        if not len(variances):  # no two items have the same center: one direction without a length stands for none
            variances, directions = np.zeros(1), np.zeros((embeddings.shape[1], 1))
        mean, dimensions = variances.sum() / embeddings.shape[1], embeddings.shape[1]
        kept = min(DIRECTIONS, len(variances))
        remaining = variances[kept:].sum() / max(1, dimensions - kept)
        shrunk = (1 - SHRINKAGE) * np.append(variances[:kept], remaining) + SHRINKAGE * max(mean, 1e-12)
        return cls(
            centers.astype(np.float32),
            directions[:, :kept].astype(np.float32),
            shrunk[:-1].astype(np.float32),
            float(shrunk[-1]),
        )

    def squared_distance(self, embeddings: np.ndarray) -> np.ndarray:
        """The squared Mahalanobis distance from the nearest center: float64 `(items,)`."""
        found = []
        for center in self.centers.astype(np.float64):
            away = embeddings - center
            along = away @ self.directions
            across = (away**2).sum(axis=1) - (along**2).sum(axis=1)
            found.append((along**2 / self.variances).sum(axis=1) + across / self.remaining)
        nearest: np.ndarray = np.min(found, axis=0)
        return nearest


@dataclass(frozen=True)
class Spread:
    """The distribution of the embeddings of the items that a network was trained on.

    Attributes:
        of_labels: about a center for each label.
        of_all: about one center, whatever the labels are.
    """

    of_labels: Normal
    of_all: Normal

    @classmethod
    def fit(cls, embeddings: np.ndarray, labels: np.ndarray) -> Spread:
        """
        Args:
            embeddings: float `(items, dimensions)`.
            labels: int `(items,)`.
        """
        return cls(Normal.fit(embeddings, labels), Normal.fit(embeddings, np.zeros_like(labels)))

    def distance(self, embeddings: np.ndarray) -> np.ndarray:
        """The relative Mahalanobis distance (Ren et al. 2021, "A simple fix to Mahalanobis distance for improving near-OOD
        detection"), per dimension: that from the nearest label, minus that from all items, both squared. What any item of these
        pictures has counts less than what sets the labels apart. float64 `(items,)`; it may be negative."""
        apart = self.of_labels.squared_distance(embeddings) - self.of_all.squared_distance(embeddings)
        relative: np.ndarray = apart / embeddings.shape[1]
        return relative


def chosen_rows(items: int) -> np.ndarray:
    """The items from which the distribution is estimated: int `(rows,)`."""
    return np.linspace(0, items - 1, min(items, MOST_ITEMS)).astype(int)


def _principal(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The variances along the principal directions, the largest first, and these directions, `(dimensions, directions)`; those
    without a variance are left out."""
    items, dimensions = centered.shape
    few = items < dimensions  # then the items' products are the smaller matrix, with the same values other than 0
    values, vectors = np.linalg.eigh(centered @ centered.T if few else centered.T @ centered)
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > 1e-9 * max(values.max(initial=0), 1e-12)]
    values, vectors = values[order], vectors[:, order]
    return values / items, centered.T @ (vectors / np.sqrt(values)) if few else vectors
