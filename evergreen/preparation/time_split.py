"""Splits of items that follow each other in time: the last ones are for testing, those before them for validation, and the
first ones for training.

Unlike other splits, these move as the data grow: test items later become training items, as happens in use. A gap between two
splits can be left out, so that no item of one is among the inputs of the next one's first items.
"""

from __future__ import annotations

import numpy as np

from evergreen.kinds.base.split import NONE, TEST, TIME_GAP, TRAIN, VAL, Assignment


def assign_by_time(times: np.ndarray, *, val_share: float, test_share: float, gap: int = 0) -> Assignment:
    """Split items by their times.

    Args:
        times: `(items,)`, of any sortable type; equal ones keep their order.
        val_share, test_share: fractions of the items.
        gap: the number of items that are left out before val and before test.

    Returns:
        The assignment; every item is a cluster of its own.
    """
    count = len(times)
    order = np.argsort(times, kind="stable")
    test, val = round(test_share * count), round(val_share * count)
    split, left_out = np.full(count, NONE, np.int8), np.full(count, NONE, np.int8)
    in_order = np.full(count, TRAIN, np.int8)
    in_order[count - test - val :] = VAL
    in_order[count - test :] = TEST
    gaps = np.zeros(count, bool)
    for first in (count - test - val, count - test):
        gaps[max(0, first - gap) : first] = True
    in_order[gaps] = NONE
    split[order] = in_order
    left_out[order] = np.where(gaps, TIME_GAP, NONE).astype(np.int8)
    return Assignment(split, np.arange(count, dtype=np.int32), left_out, [])
