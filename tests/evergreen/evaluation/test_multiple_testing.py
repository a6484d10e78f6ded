"""Several tests at once: Holm's procedure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.evaluation.multiple_testing import holm


def test_holms_procedure_is_that_of_the_paper() -> None:
    """Ordered: 4 × 0.005, 3 × 0.01, 2 × 0.03, and 0.04, which is less than the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]


@given(st.lists(st.floats(1e-300, 1), min_size=1, max_size=10))
def test_holms_p_values_lie_between_those_alone_and_bonferronis(p_values: list[float]) -> None:
    together = holm(p_values)
    assert all(alone <= one <= min(1, alone * len(p_values)) for alone, one in zip(p_values, together, strict=True))
    assert [one for _, one in sorted(zip(p_values, together, strict=True))] == sorted(together)
