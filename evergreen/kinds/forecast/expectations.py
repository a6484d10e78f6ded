"""What series must be: in order, without long gaps, in their range, and of a sensor that is not stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.kinds.base.expectations import expect, of_the_collection
from evergreen.kinds.forecast.settings import ForecastScenario
from evergreen.kinds.forecast.windows import grid, indices, runs_of_equal

if TYPE_CHECKING:
    import pandas as pd


def derived(scenario: ForecastScenario, items: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns that depend on several readings: `gap_steps` since the one before it in its series (1 for the first), whether it
    is
    `off_grid` (0 or 1), how many in a row have its value (`stuck_steps`); and of its series the number of `readings`, of
    `distinct_values` (2 stands for more), and the `missing_share` of its steps."""
    settings = scenario.preprocess
    _, series = indices(items["series"].tolist())
    microseconds = items["time"].to_numpy("datetime64[us]").astype(np.int64)
    values = items["label"].to_numpy(np.float64)
    on = grid(series, microseconds, settings.step_seconds, settings.tolerance)
    gap, stuck = np.ones(len(items), np.int64), np.ones(len(items), np.int64)
    readings, distinct, missing = np.zeros(len(items), np.int64), np.ones(len(items), np.int64), np.zeros(len(items))
    for one in np.unique(series):
        own = np.flatnonzero(series == one)
        rows = on.order[series[on.order] == one]
        gap[rows[1:]] = np.diff(on.step[rows])
        stuck[rows] = runs_of_equal(values[rows])
        readings[own], distinct[own] = len(own), min(2, len(np.unique(values[own])))
        if len(rows):
            missing[own] = 1 - len(rows) / (on.step[rows[-1]] - on.step[rows[0]] + 1)
    return {
        "gap_steps": gap, "off_grid": on.off_grid.astype(np.int64), "stuck_steps": stuck, "readings": readings,
        "distinct_values": distinct, "missing_share": missing,
    }  # fmt: skip


def suite(scenario: ForecastScenario) -> list[Any]:
    """The expectations on a table with the columns of `derived`."""
    import great_expectations.expectations as gx

    given, between = scenario.validation, gx.ExpectColumnValuesToBeBetween

    def most(about: str, column: str, limit: float, expected: str, unit: str) -> Any:
        return expect(gx.ExpectColumnMaxToBeBetween, about, expected, unit, column=column, max_value=limit)

    def percent(share: float) -> str:
        return f"at most {figures.short(100 * share, 4)} %"

    found = [
        expect(
            gx.ExpectCompoundColumnsToBeUnique, "times", "each once in a series", "share theirs", column_list=["series", "time"]
        ),
        expect(between, "series", "more than one value", "are of a series that never changes", column="distinct_values", min_value=2),
        expect(between, "readings of a series", f"at least {given.min_readings:,}", "are of a shorter series", column="readings", min_value=given.min_readings),
        most("steps without a reading", "missing_share", given.max_missing_share, percent(given.max_missing_share), "share"),
        most("readings in a row with the same value", "stuck_steps", given.max_stuck_steps, f"at most {given.max_stuck_steps:,}", ""),
        expect(gx.ExpectColumnMeanToBeBetween, "times off the grid", percent(given.max_irregular_share), "share", column="off_grid", max_value=given.max_irregular_share),
        *of_the_collection(given),
    ]  # fmt: skip
    if given.max_gap_steps is not None:
        found.append(most("longest gap, in steps", "gap_steps", given.max_gap_steps, f"at most {given.max_gap_steps:,}", ""))
    if given.lowest is not None or given.highest is not None:
        words = " and ".join(
            f"{word} {figures.plain(limit)}"
            for word, limit in (("at least", given.lowest), ("at most", given.highest))
            if limit is not None
        )
        found.append(
            expect(between, "values", words, "are outside", column="label", min_value=given.lowest, max_value=given.highest)
        )
    return found
