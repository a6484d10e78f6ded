"""Finds images whose label is likely wrong, by confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 2021), as the library cleanlab implements it.

Each image gets the probability of every label from a model that was fitted neither to it nor to images like it: a logistic
regression on frozen features, in folds that keep look-alikes and groups together. A label that such a model finds improbable,
while it finds another one probable, is suspect.
"""

from __future__ import annotations

import numpy as np

from evergreen.kinds.base.explorer import LabelError
from evergreen.kinds.classify.item_features import ItemFeatures, compared, item_features
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.preparation.folds import grouped_folds
from evergreen.progress import task
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
        float64 `(items, labels)`; None if there are fewer than two clusters or labels.
    """
    from evergreen.training.last_layer import fit_last_layer

    count = min(FOLDS, len(np.unique(items.clusters)))
    if count < 2 or len(np.unique(items.labels)) < 2:
        return None
    found = np.zeros((len(items), len(items.names)))
    with task("Probabilities of the labels", total=count, unit="folds") as report:
        for fold, (rest, held_out) in enumerate(grouped_folds(items.labels, items.clusters, count=count, seed=seed)):
            layer = fit_last_layer(items.features[rest], items.labels[rest], len(items.names), balanced=False)
            found[held_out] = layer.probabilities(items.features[held_out])
            report(fold + 1)
    return found


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
    known = np.flatnonzero(suggested != items.labels)
    quality = get_label_quality_scores(items.labels, probabilities, method="self_confidence")
    ranked = known[np.argsort(quality[known], kind="stable")]
    if not len(ranked):
        return []
    similar = nearest(points, ranked, SIMILAR)
    return [
        LabelError(
            items.ids[item], items.names[items.labels[item]], items.names[suggested[item]],
            float(probabilities[item, items.labels[item]]), float(probabilities[item, suggested[item]]),
            tuple(items.ids[other] for other in others),
        )
        for item, others in zip(ranked.tolist(), similar.tolist(), strict=True)
    ]  # fmt: skip


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
