"""Expectations with their wording, and those that apply to every kind."""

from __future__ import annotations

from typing import Any

from evergreen import figures
from evergreen.scenario.settings import Validate


def expect(kind: type, about: str, expected: str, unit: str = "", **arguments: Any) -> Any:
    """An expectation of Great Expectations, worded as `Contract.expectations` requires.

    Args:
        kind: the expectation's class, from `great_expectations.expectations`.
        about: the subject.
        expected: what is required of it.
        unit: of the observed number, or what items do that violate the expectation.
        arguments: of the class.
    """
    meta = {"about": about, "expected": expected, "unit": unit}
    return kind(description=f"{about}: {expected}", meta=meta, **arguments)


def of_the_collection(settings: Validate) -> list[Any]:
    """Limits on the fraction of collected items that are copies of others, and on the fraction that contradict others."""
    import great_expectations.expectations as gx

    return [
        expect(
            gx.ExpectColumnMaxToBeBetween, about, f"at most {figures.short(100 * most, 4)} %", "share", column=column, max_value=most
        )
        for column, about, most in (
            ("duplicate_share", "exact copies in the source", settings.max_duplicate_share),
            ("conflict_share", "items under two labels", settings.max_conflict_share),
        )
    ]  # fmt: skip
