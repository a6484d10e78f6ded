"""Splits by time that stay as the data grow, worked out by hand."""

from __future__ import annotations

import numpy as np

from evergreen.kinds.base.split import NONE, TEST, TIME_GAP, TOO_RECENT, TRAIN, VAL, Assignment
from evergreen.preparation.time_split import assign_by_periods


def periods(times: list[int], batch: list[int], given: list[int] | None = None, **settings: int) -> Assignment:
    return assign_by_periods(
        np.array(times), np.array(batch), np.array(given or [NONE] * len(times), np.int8),
        val_share=0.2, test_share=0.2, **{"gap": 0, "least": 5} | settings,
    )  # fmt: skip


def test_a_test_period_stays_and_a_later_period_makes_every_split_longer() -> None:
    first = periods(list(range(10)), [0] * 10)
    assert first.split.tolist() == [TRAIN] * 6 + [VAL] * 2 + [TEST] * 2
    both = periods(list(range(15)), [0] * 10 + [1] * 5)
    assert both.split[:10].tolist() == first.split.tolist() and both.split[10:].tolist() == [TRAIN] * 3 + [VAL, TEST]


def test_a_period_that_is_too_short_waits_for_more() -> None:
    found = periods(list(range(13)), [0] * 10 + [1] * 3)
    assert found.split[10:].tolist() == [NONE] * 3 and found.left_out[10:].tolist() == [TOO_RECENT] * 3
    assert periods(list(range(15)), [0] * 10 + [1] * 3 + [2] * 2).split[10:].tolist() == [TRAIN] * 3 + [VAL, TEST]


def test_an_item_that_comes_late_has_the_split_of_its_time() -> None:
    found = periods([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 3], [0] * 10 + [1])
    assert found.split[-1] == TRAIN


def test_the_gap_is_taken_from_the_lower_split_on_either_side() -> None:
    found = periods(list(range(20)), [0] * 10 + [1] * 10, gap=1)
    assert np.flatnonzero(found.left_out == TIME_GAP).tolist() == [5, 7, 10, 15, 17]
    assert found.split[8:10].tolist() == [TEST, TEST]


def test_a_split_that_the_source_gives_stays_and_val_is_taken_from_train() -> None:
    found = periods(list(range(10)), [0] * 10, [TRAIN] * 5 + [TEST] * 5)
    assert found.split.tolist() == [TRAIN] * 4 + [VAL] + [TEST] * 5
