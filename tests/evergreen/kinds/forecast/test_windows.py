"""Histories and targets, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from evergreen.kinds.base.split import NONE
from evergreen.kinds.forecast.settings import ForecastPreprocess
from evergreen.kinds.forecast.windows import Readings, Windows, commonest_step, grid, local_times, runs_of_equal, windows

HOUR = 3_600_000_000  # microseconds


def readings(hours: list[float], series: list[int] | None = None, given: list[int] | None = None) -> Readings:
    """The value of each is its hour."""
    count = len(hours)
    names = np.array(series or [0] * count)
    micro = (np.array(hours) * HOUR).astype(np.int64)
    split = np.array(given or [NONE] * count, np.int8)
    return Readings(("a", "b"), names, micro, np.array(hours, float), np.empty((count, 0), np.float32), split)


def made(found: Readings, **settings: Any) -> Windows:
    given = ForecastPreprocess.model_validate({"history": 2, "horizons": [1, 3]} | settings)
    on = grid(found.series, found.microseconds, 3600, given.tolerance)
    return windows(found, on, given, None)


def test_the_history_is_before_and_targets_are_at_and_after_a_reading_in_whatever_order_they_come() -> None:
    found = made(readings([3, 0, 2, 1, 4, 5]))
    assert found.usable.tolist() == [True, False, True, False, True, True]
    assert found.history[0].tolist() == [1, 2] and found.history[4].tolist() == [2, 3]
    assert found.targets[0].tolist() == [3, 5] and np.isnan(found.targets[4][1])


def test_a_missing_step_is_filled_with_the_reading_before_as_far_as_allowed() -> None:
    gap = readings([0, 1, 3, 4, 8, 9, 10])
    assert made(gap).usable.tolist() == [False, False, False, False, False, False, True]
    filled = made(gap, max_fill_steps=1)
    assert filled.history[2].tolist() == [1, 1] and filled.crosses.tolist()[2:4] == [True, True]
    assert filled.usable.tolist() == [False, False, True, True, False, False, True]


def test_across_gaps_the_history_is_of_the_readings_before_within_a_split_of_the_source() -> None:
    found = made(readings([0, 1, 3, 4, 8, 9, 10], given=[0, 0, 0, 0, 2, 2, 2]), across_gaps=True)
    assert found.usable.tolist() == [False, False, True, True, False, False, True]
    assert found.history[3].tolist() == [1, 3] and found.crosses.tolist() == [False, False, True, True, False, False, False]


def test_series_do_not_mix() -> None:
    found = made(readings([0, 0, 1, 1, 2, 2], series=[0, 1, 0, 1, 0, 1]))
    assert found.history[4].tolist() == [0, 1] and found.history[5].tolist() == [0, 1]


def test_a_time_is_moved_to_the_grid_within_the_tolerance_and_of_two_the_nearer_one_counts() -> None:
    found = readings([0, 1, 2.05, 3, 4.4, 5.02, 5])
    on = grid(found.series, found.microseconds, 3600, 0.1)
    assert on.off_grid.tolist() == [False, False, False, False, True, True, False]
    assert made(found).history[3].tolist() == [1, np.float32(2.05)]


def test_the_commonest_step_is_found_within_series() -> None:
    found = readings([0, 1, 2, 5, 0.5, 1.5, 2.5], series=[0, 0, 0, 0, 1, 1, 1])
    assert commonest_step(found.series, found.microseconds) == 3600


def test_the_latest_same_weekday_is_the_latest_there_is_and_says_how_old_it_is() -> None:
    week = 168
    found = made(readings([0, week, week + 1, week + 2, 3 * week]), horizons=[1])
    assert found.weeks_ago[:, 0].tolist() == [0, 1, 0, 0, 2]
    assert found.same_weekday[4, 0] == week


def test_clocks_show_the_local_time_on_both_sides_of_a_change() -> None:
    utc = np.array([np.datetime64(text, "us").astype(np.int64) for text in ("2026-03-29T00:59:59", "2026-03-29T01:00:00")])
    assert local_times(utc, "Europe/Berlin").astype(str).tolist() == ["2026-03-29T01:59:59", "2026-03-29T03:00:00"]
    assert local_times(utc, None).astype(str).tolist()[1] == "2026-03-29T01:00:00"


def test_runs_of_equal_values_are_counted() -> None:
    assert runs_of_equal(np.array([1.0, 1, 2, 2, 2, 1])).tolist() == [1, 2, 1, 2, 3, 1]
    assert runs_of_equal(np.array([])).tolist() == []
