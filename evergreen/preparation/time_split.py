"""Splits of items that follow each other in time: the last ones are for testing, those before them for validation, and the
first ones for training.

There are two ways. `assign_by_time` divides all items anew: its splits move as the data grow, and test items later become
training items. `assign_by_periods` divides each period when it has come, and what was given a split keeps it: later data make
train, val and test longer. A gap between two splits can be left out, so that no item of one is among the inputs of the next
one's first items.
"""

from __future__ import annotations

import numpy as np

from evergreen.kinds.base.split import NONE, TEST, TIME_GAP, TOO_RECENT, TRAIN, VAL, Assignment


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


def assign_by_periods(
    times: np.ndarray, batch: np.ndarray, given: np.ndarray, *, val_share: float, test_share: float, gap: int, least: int
) -> Assignment:
    """Split items by their times, so that no item ever changes its split.

    The times of the first batch are one period. Later times make a further one as soon as there are `least` of them; until then
    their items are in no split. Of the times of a period the last ones are for testing, those before them for validation, the
    first ones for training. An item that comes late has the split of the period that its time lies in. Of items whose split the
    source gives, those for training are divided into train and val in the same way, unless it gives items for val too.

    Where two splits meet, items of the lower one (train before val before test) are left out that lie within `gap` of one of
    the other, in either direction.

    Args:
        times: int64 `(items,)`, in steps.
        batch: int64 `(items,)`: the number of the batch that each item came with, from 0.
        given: int8 `(items,)`: the split that the source gives, or -1.
        val_share, test_share: fractions of a period's times.
        gap: in steps.
        least: the number of times of a period after the first.

    Returns:
        The assignment; every item is a cluster of its own.
    """
    split, left_out = given.astype(np.int8), np.full(len(times), NONE, np.int8)
    free = given == NONE
    divided = [(free, val_share, test_share)]
    if (given != NONE).any() and not (given == VAL).any():
        divided.append((given == TRAIN, val_share, 0.0))
    for chosen, val, test in divided:
        cuts, splits, end = _cuts(times[chosen], batch[chosen], val, test, least)
        place = np.searchsorted(cuts, times[chosen], "right") - 1
        split[chosen] = np.where(times[chosen] > end, NONE, splits[np.maximum(place, 0)])
        left_out[chosen] = np.where(times[chosen] > end, TOO_RECENT, NONE)
    whole = split.copy()
    for lower in (TRAIN, VAL):
        near = (whole == lower) & (_distance(times, np.unique(times[whole > lower])) <= gap)
        split[near], left_out[near] = NONE, TIME_GAP
    return Assignment(split, np.arange(len(times), dtype=np.int32), left_out, [])


def _cuts(
    times: np.ndarray, batch: np.ndarray, val_share: float, test_share: float, least: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The times from which on items have other splits, these splits, and the last time that has one."""
    cuts: list[int] = []
    splits: list[int] = []
    end, pending = np.iinfo(np.int64).min, np.empty(0, np.int64)
    for number in np.unique(batch):
        pending = np.union1d(pending, times[(batch == number) & (times > end)])
        count = len(pending)
        if not count or cuts and count < least:
            continue
        test, val = round(test_share * count), round(val_share * count)
        for first, split in ((0, TRAIN), (count - test - val, VAL), (count - test, TEST)):
            if first < count:
                cuts.append(int(pending[first]))
                splits.append(split)
        end, pending = int(pending[-1]), pending[:0]
    return np.array(cuts or [0], np.int64), np.array(splits or [NONE], np.int8), int(end)


def _distance(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 `(items,)`: from each time to the nearest of others, which are sorted."""
    if not len(others):
        return np.full(len(times), np.iinfo(np.int64).max)
    after = np.searchsorted(others, times)
    before = np.maximum(after - 1, 0)
    distances: np.ndarray = np.minimum(
        np.abs(times - others[before]), np.abs(others[np.minimum(after, len(others) - 1)] - times)
    )
    return distances
