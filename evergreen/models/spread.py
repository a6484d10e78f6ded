"""How far an item is from those that a network was trained on, measured in the network's embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DIRECTIONS = 64  # of the largest variance within the labels, each with its own variance
MOST_ITEMS = 10_000  # of train, at equal distances in their order


@dataclass(frozen=True)
class Spread:
    """The distribution of embeddings: a normal one about a center for each label, with the same covariance for all.

    A few hundred items do not give the covariance of a thousand dimensions. Along the directions of the largest variance it is
    that of the items; in all others together it is the mean of what remains (probabilistic principal components, Tipping and
    Bishop 1999).

    Attributes:
        centers: of each label that occurs, float32 `(labels, dimensions)`.
        directions: orthonormal, float32 `(dimensions, directions)`.
        variances: along these directions, float32 `(directions,)`.
        remaining: the variance in each other direction.
    """

    centers: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    remaining: float

    def distance(self, embeddings: np.ndarray) -> np.ndarray:
        """The Mahalanobis distance from the nearest center, per dimension: float64 `(items,)`."""
        found = []
        for center in self.centers.astype(np.float64):
            away = embeddings - center
            along = away @ self.directions
            across = (away**2).sum(axis=1) - (along**2).sum(axis=1)
            found.append((along**2 / self.variances).sum(axis=1) + across / self.remaining)
        nearest: np.ndarray = np.sqrt(np.maximum(np.min(found, axis=0), 0) / embeddings.shape[1])
        return nearest


def chosen_rows(items: int) -> np.ndarray:
    """The items from which the distribution is estimated: int `(rows,)`."""
    return np.linspace(0, items - 1, min(items, MOST_ITEMS)).astype(int)


def fit_spread(embeddings: np.ndarray, labels: np.ndarray) -> Spread:
    """
    Args:
        embeddings: float `(items, dimensions)`.
        labels: int `(items,)`.
    """
    embeddings = embeddings.astype(np.float64)
    known, row = np.unique(labels, return_inverse=True)
    centers = np.stack([embeddings[labels == label].mean(axis=0) for label in known])
    items, dimensions = embeddings.shape
    _, singular, directions = np.linalg.svd(embeddings - centers[row], full_matrices=False)
    variances = singular**2 / max(1, items - len(known))
    kept = min(DIRECTIONS, int((variances > 1e-6 * max(variances[0], 1e-12)).sum()))
    remaining = variances[kept:].sum() / max(1, dimensions - kept)
    smallest = max(float(remaining), 1e-3 * float(variances[:kept].mean() if kept else 1.0), 1e-9)
    return Spread(
        centers.astype(np.float32), directions[:kept].T.astype(np.float32),
        np.maximum(variances[:kept], smallest).astype(np.float32), smallest,
    )  # fmt: skip
