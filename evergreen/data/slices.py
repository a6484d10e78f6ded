"""The columns of the items by which a scenario slices its test split (`promote.slices` and `promote.slice_pattern`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evergreen.data.dataset import batches, table
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

MISSING = "none"  # the value of an item that has none


def sliced_columns(scenario: Scenario, workspace: Workspace, ids: Sequence[str]) -> dict[str, list[str]]:
    """The values of the scenario's columns, by the column's name.

    Args:
        ids: of the items, in the order of the values.

    Returns:
        For each column a value per item: for a time its day, for a missing value "none". Empty if the scenario has no slices.
    """
    sliced, pattern = scenario.promote.slices, re.compile(scenario.promote.slice_pattern or "")
    found: dict[str, list[str]] = {column: [MISSING] * len(ids) for column in (*sliced, *pattern.groupindex)}
    if not found:
        return {}
    rows = {id: row for row, id in enumerate(ids)}
    for row in table(batches(workspace, scenario.name), sorted({"id", "source", *sliced})).to_pylist():
        if row["id"] not in rows:
            continue
        named = match.groupdict() if (match := pattern.search(row["source"])) else {}
        for column, value in ({column: row[column] for column in sliced} | named).items():
            if value is not None:
                found[column][rows[row["id"]]] = f"{value:%Y-%m-%d}" if column == "collected_at" else str(value)
    return found
