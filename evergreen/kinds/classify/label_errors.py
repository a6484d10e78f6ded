"""Finds images whose label is likely wrong, by confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 2021), as the library cleanlab implements it.

Each image gets the probability of every label from a model that was fitted neither to it nor to images like it: a linear
discriminant on frozen features, in folds that keep look-alikes and groups together. A label that such a model finds improbable,
while it finds another one probable, is suspect.
"""

from __future__ import annotations

import numpy as np

from evergreen.kinds.base.explorer import LabelError
from evergreen.kinds.classify.item_features import ItemFeatures, compared, item_features
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.preparation.folds import grouped_folds
from evergreen.progress import task
from evergreen.training.discriminant import out_of_fold
from evergreen.workspace import Workspace

__all__ = ["LabelError", "find_label_errors"]

FOLDS = 5
SIMILAR = 5  # items that are named beside a suspect one


def find_label_errors(scenario: ImageScenario, workspace: Workspace) -> list[LabelError]:
    """Find the items of a scenario's data set whose label is likely wrong, the most likely ones first.

    Listed is every item for which another label is more probable; how many of them are wrong indeed differs between data sets,
    so go on from the top as long as it pays. Empty if the items are too few, or all of one label or cluster.

    Raises:
        EvergreenError: the data set has no items, or an image of it cannot be decoded.
    """
    items = item_features(scenario, workspace)
    return label_errors(items, out_of_sample(items, seed=scenario.seed), compared(items.features))


def out_of_sample(items: ItemFeatures, *, seed: int) -> np.ndarray | None:
    """The probability of each label for each item, by models that were not fitted to its cluster.

    Returns:
        float64 `(items, labels)`, NaN for items whose label no other fold has; None if there are fewer than two clusters or
        labels.
    """
    count = min(FOLDS, len(np.unique(items.clusters)))
    if count < 2 or len(np.unique(items.labels)) < 2:
        return None
    with task("Probabilities of the labels", total=count, unit="folds") as report:
        folds = [held_out for _, held_out in grouped_folds(items.labels, items.clusters, count=count, seed=seed)]
        return out_of_fold(items.features, items.labels, len(items.names), folds, report)


def label_errors(items: ItemFeatures, probabilities: np.ndarray | None, points: np.ndarray) -> list[LabelError]:
    """The items for which another label is more probable than their own, those with the least probable label first.

    Args:
        probabilities: from `out_of_sample`.
        points: from `compared`, in which similar items are near each other.
    """
    if probabilities is None:
        return []
    from cleanlab.rank import get_label_quality_scores

    suggested = probabilities.argmax(axis=1)
    suspect = np.flatnonzero((suggested != items.labels) & ~np.isnan(probabilities).any(axis=1))
    if not len(suspect):
        return []
    # Of cleanlab's scores this one finds the most flipped labels (bench/README.md).
    quality = get_label_quality_scores(items.labels[suspect], probabilities[suspect], method="self_confidence")
    ranked = suspect[np.argsort(quality, kind="stable")]
    similar = nearest(points, ranked, SIMILAR)
    return [
        LabelError(
            items.ids[item], items.names[items.labels[item]], items.names[suggested[item]],
            float(probabilities[item, items.labels[item]]), float(probabilities[item, suggested[item]]),
            tuple(items.ids[other] for other in others),
        )
        for item, others in zip(ranked.tolist(), similar.tolist(), strict=True)
    ]  # fmt: skip


def estimated_errors(items: ItemFeatures, probabilities: np.ndarray | None) -> int | None:
    """An estimate of the number of wrong labels, by the confident joint; None if nothing could be judged."""
    if probabilities is None:
        return None
    judged = ~np.isnan(probabilities).any(axis=1)
    known, labels = np.unique(items.labels[judged], return_inverse=True)
    if len(known) < 2:
        return None
    from cleanlab.count import num_label_issues

    among = probabilities[judged][:, known]
    return int(num_label_issues(labels, among / among.sum(axis=1, keepdims=True), estimation_method="off_diagonal"))


def nearest(points: np.ndarray, chosen: np.ndarray, count: int) -> np.ndarray:
    """The indices of the nearest other items of the chosen ones, the nearest first.

    Args:
        points: float32 `(items, dimensions)`.
        chosen: int `(n,)`: indices of items.
        count: how many each; fewer if there are fewer others.

    Returns:
        int `(n, count)`.
    """
    from sklearn.neighbors import NearestNeighbors

    count = min(count, len(points) - 1)
    found = (
        NearestNeighbors(n_neighbors=count + 1, algorithm="brute").fit(points).kneighbors(points[chosen], return_distance=False)
    )
    itself = found == chosen[:, None]
    itself[~itself.any(axis=1), -1] = True  # as near as many equal ones: one of them is left out instead
    others: np.ndarray = found[~itself].reshape(len(chosen), count)
    return others
