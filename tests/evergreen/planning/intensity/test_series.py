"""A series of intensities: its parts, gaps and steps."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.errors import WrongUse
from evergreen.planning.intensity.series import HALF_HOUR, IntensitySeries
from tests.evergreen.planning.intensity import DAY, HOUR, MONDAY, values_of

NAN = float("nan")


def series(*values: float, start: datetime = MONDAY, step: timedelta = HALF_HOUR) -> IntensitySeries:
    return IntensitySeries(start, step, np.array(values, float), "DE", "made up")


def test_of_the_past_only_steps_that_have_ended_are_known() -> None:
    grid = series(1, 2, 3)
    assert values_of(grid.known_by(MONDAY + timedelta(minutes=59))) == [1]
    assert values_of(grid.known_by(MONDAY + timedelta(minutes=60))) == [1, 2]
    assert values_of(grid.known_by(MONDAY - DAY)) == []
    assert values_of(grid.known_by(MONDAY + DAY)) == [1, 2, 3]


def test_a_part_of_a_series_begins_with_its_first_whole_step() -> None:
    part = series(1, 2, 3, 4).between(MONDAY + timedelta(minutes=10), MONDAY + timedelta(minutes=90))
    assert values_of(part) == [2, 3] and part.start == MONDAY + HALF_HOUR


def test_a_short_gap_is_filled_by_a_straight_line_and_a_long_one_stays_unknown() -> None:
    grid = series(NAN, 1, NAN, NAN, 4, *[NAN] * 7, 5, NAN)
    assert values_of(grid.interpolated(3 * HOUR)) == [None, 1, 2, 3, 4, *[None] * 7, 5, None]
    assert values_of(grid)[2] is None  # and the series itself is as it was
    assert None not in values_of(grid.interpolated(3.5 * HOUR))[1:-1]


def test_steps_can_be_joined_to_means_and_cut_to_equals() -> None:
    assert values_of(series(1, 3, 5, NAN).with_step(HOUR)) == [2, 5]
    assert values_of(series(1, 3, step=HOUR).with_step(HALF_HOUR)) == [1, 1, 3, 3]
    assert values_of(series(1, 3, 5, start=MONDAY + HALF_HOUR).with_step(HOUR)) == [1, 4]
    with pytest.raises(WrongUse, match="in steps of 0:30:00 can't be given in steps of 0:45:00"):
        series(1).with_step(timedelta(minutes=45))


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=50), st.integers(1, 6))
def test_cutting_steps_and_joining_them_again_changes_nothing(values: list[float], parts: int) -> None:
    grid = series(*values, step=HOUR)
    assert np.allclose(grid.with_step(HOUR / parts).with_step(HOUR).intensity_gco2e_per_kwh, values)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(WrongUse, match="has no time zone"):
        series(1, start=datetime(2020, 6, 1))
