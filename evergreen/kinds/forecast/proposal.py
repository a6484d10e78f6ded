"""Proposes a scenario for tables of series, for `evergreen new`."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import islice
from pathlib import Path

from evergreen.data.sources.opening import open_source
from evergreen.data.sources.table import TableFormat, is_table, open_table
from evergreen.errors import BadItem, EvergreenError
from evergreen.kinds.base.proposal import Sections, SourceDoesNotFit
from evergreen.kinds.forecast.recognition import number
from evergreen.kinds.forecast.times import Clock

ROWS = 500  # of each table that are looked at
FORMS = (None, "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d.%m.%Y %H:%M", "%Y/%m/%d %H:%M", "%d/%m/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S")
MOSTLY = 0.95  # of the rows


def propose(source: Path, *, follow_links: bool) -> Sections:
    """Propose the sections by the first table: the first column of times, in the form that most of its rows have, and all
    columns
    of numbers that change.

    Raises:
        SourceDoesNotFit: there is no table with such columns.
    """
    entries = open_source(source, follow_links=follow_links).stream()
    tables = [entry for entry in entries if is_table(entry.name) and entry.data is not None]
    for entry in tables:
        assert entry.data is not None
        try:
            table = open_table(entry.name, entry.data, TableFormat())
            batch = next(table.batches(table.columns), None)
        except EvergreenError:
            continue
        if batch is None or any(_is_a_number(name) or _is_a_time(name) for name in table.columns):
            continue  # it has no header
        columns = {name: list(islice(batch.column(place).to_pylist(), ROWS)) for place, name in enumerate(table.columns)}
        times = next(((name, form) for name in columns for form in FORMS if _are_times(columns[name], form)), None)
        if times is None:
            continue
        time, form = times
        values = [name for name in columns if name != time and _are_numbers(columns[name], table.decimal)]
        if not values:
            continue
        reasons = [
            f"{entry.name}: the times are in the column {time!r}{'' if form is None else f' as {form}'}; numbers that change are in "
            f"{', '.join(map(repr, values))}. Remove from collect.values what is not to be forecast.",
            f"{len(tables):,} tables. A network is trained beside simple baselines, and promoted if it beats them.",
        ]
        collect = {"time": time, "values": values} | ({} if form is None else {"time_format": form})
        train = {"model": "gru", "epochs": 15, "learning_rate": 0.003}
        return Sections(collect, {"preprocess": {"history": 12}, "train": train}, reasons, {}, [])
    raise SourceDoesNotFit(
        f"there is no table of a series in {source}",
        expected="a .csv, .tsv, .jsonl or .parquet file with a column of times and a column of numbers",
    )


def _are_times(written: list[object], form: str | None) -> bool:
    """Whether most are times of a form, and go up more often than down."""
    clock, found, read = Clock(form, None), [], Counter[bool]()
    for one in written:
        if isinstance(one, int | float) and not isinstance(one, datetime):
            return False
        try:
            found.append(clock.read("", one))
            read[True] += 1
        except BadItem:
            read[False] += 1
    ups = sum(later > earlier for earlier, later in zip(found, found[1:], strict=False))
    return len(written) > 1 and read[True] >= MOSTLY * len(written) and 2 * ups > len(found) - 1


def _is_a_time(name: str) -> bool:
    try:
        Clock(None, None).read("", name)
    except BadItem:
        return False
    return True


def _is_a_number(name: str) -> bool:
    try:
        number(name, ".")
    except BadItem:
        return False
    return True


def _are_numbers(written: list[object], decimal: str) -> bool:
    found = set()
    bad = 0
    for one in written:
        try:
            found.add(number(one, decimal))
        except BadItem as refused:
            bad += refused.reason == "no-number"
    return len(found) > 1 and bad <= (1 - MOSTLY) * len(written)
