"""Folds that keep clusters together: for comparing ways to train where the validation split is small, and for predictions of
all items by models that were not fitted to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evergreen.kinds.base.split import Split


def labels_and_clusters(splits: Path) -> tuple[np.ndarray, np.ndarray]:
    """The label and the cluster of each item of train, in the order of its arrays: str and int `(items,)`.

    Args:
        splits: the folder `outputs/NAME/splits`.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = pq.read_table(splits / "items.parquet", columns=["label", "cluster", "split", "row"])
    rows = rows.filter(pc.equal(rows["split"], "train")).sort_by("row")
    labels = pc.fill_null(rows["label"].cast("string"), "")
    return labels.to_numpy(zero_copy_only=False), rows["cluster"].to_numpy()


def further_folds(
    train: Split, val: Split, labels: np.ndarray, clusters: np.ndarray, *, count: int, seed: int
) -> Iterator[tuple[Split, Split]]:
    """Exchange the validation split with parts of the training split of about its size.

    The parts have no item in common, keep clusters together, and have labels in similar proportions as far as the clusters
    permit.

    Args:
        labels, clusters: of the items of `train`, `(items,)` each.
        count: how many folds, at most; fewer if the items are too few.

    Yields:
        A training and a validation split, each a copy.
    """
    parts = max(count, round(len(train) / max(1, len(val))))
    folds = grouped_folds(labels, clusters, count=parts, seed=seed)
    for _, (rest, held_out) in zip(range(count), folds, strict=False):
        yield train.rows(rest).followed_by(val), Split(val.name, train.rows(held_out).arrays, val.facts)


def grouped_folds(
    labels: np.ndarray, clusters: np.ndarray, *, count: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Divide items into folds of about equal size, in which labels are in similar proportions as far as the clusters permit.

    Args:
        labels, clusters: `(items,)` each; items of one cluster are in one fold.
        count: of the folds. There are none if it is below 2, or above the number of clusters.

    Yields:
        Indices of the items in all other folds, and of those in the fold, int `(n,)` each.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if count < 2 or len(np.unique(clusters)) < count:
        return
    yield from StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, clusters)
