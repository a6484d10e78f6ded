"""A constant intensity."""

from __future__ import annotations

import pytest

from evergreen.errors import WrongUse
from evergreen.planning.intensity.provider import Constant
from tests.evergreen.planning.intensity import HOUR, MONDAY, values_of

NAN = float("nan")


def test_a_constant_is_the_same_at_any_hour() -> None:
    assert values_of(Constant(380, "DE").history(MONDAY, MONDAY + 2 * HOUR)) == [380] * 4


@pytest.mark.parametrize("value", [-1.0, NAN, float("inf")])
def test_a_constant_that_is_no_intensity_is_refused(value: float) -> None:
    with pytest.raises(WrongUse, match="is no intensity"):
        Constant(value, "DE")
