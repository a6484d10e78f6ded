"""Further validation folds, for comparing ways to train where the validation split is small."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evergreen.kinds.base.split import Split


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
    from sklearn.model_selection import StratifiedGroupKFold

    parts = max(count, round(len(train) / max(1, len(val))))
    if parts < 2 or len(np.unique(clusters)) < parts:
        return
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(labels, labels, clusters)
    for _, (rest, held_out) in zip(range(count), folds, strict=False):
        yield train.rows(rest).followed_by(val), Split(val.name, train.rows(held_out).arrays, val.facts)
