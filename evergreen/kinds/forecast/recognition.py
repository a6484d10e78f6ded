"""The readings in tables: which rows and columns are items, and what is read from them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa

from evergreen.data.collecting.base import Candidate
from evergreen.data.skipped import Skipped
from evergreen.data.sources.base import SourceEntry
from evergreen.data.sources.table import Table, TableFormat, is_table, open_table, require
from evergreen.errors import BadItem, WrongUse
from evergreen.kinds.base.split import SPLITS
from evergreen.kinds.forecast.settings import ForecastCollect
from evergreen.kinds.forecast.times import Clock

NO_VALUE = frozenset(["", "na", "n/a", "nan", "null", "none", "-", "?"])  # what tables write where nothing was measured


class Reading(NamedTuple):
    """An item: the number that a series has at a time.

    Attributes:
        series: its name.
        microseconds: since 1970-01-01, UTC.
        value: finite.
        known: of the columns that are known in advance; NaN where one is not.
    """

    series: str
    microseconds: int
    value: float
    known: tuple[float, ...]


def number(written: object, decimal: str) -> float:
    """A finite number.

    Args:
        written: text, or a number of a table that has types.
        decimal: the decimal sign of text.

    Raises:
        BadItem: there is none (`no-value`), it is not finite (`not-finite`), or it is no number (`no-number`).
    """
    if isinstance(written, bool) or not isinstance(written, str | int | float | type(None)):
        raise BadItem("no-number", f"{written!r} is no number")
    text = "" if written is None else str(written).strip()
    if text.lower() in NO_VALUE:
        raise BadItem("no-value", "there is no number for this time")
    try:
        if decimal == "," and isinstance(written, str):
            if "." in text:
                raise ValueError
            text = text.replace(",", ".")
        found = float(text)
    except ValueError:
        raise BadItem("no-number", f"{text[:80]!r} is no number with the decimal sign {decimal!r}") from None
    if "_" in text:
        raise BadItem("no-number", f"{text[:80]!r} is no number")
    if not math.isfinite(found):
        raise BadItem("not-finite", f"{text[:80]!r} is not finite")
    return found


def id_of(series: str, microseconds: int) -> bytes:
    """The id of a reading, 32 bytes: of its series and time, so that another number at the same time contradicts it."""
    return hashlib.sha256(f"{series}\0{microseconds}".encode()).digest()


class Rows:
    """Recognises the readings in tables (a `Recogniser`)."""

    def __init__(self, settings: ForecastCollect) -> None:
        self.skipped = Skipped()
        self._settings = settings
        self._form = TableFormat(settings.separator, settings.decimal, settings.text_encoding)
        self._pattern = re.compile(settings.pattern or "")
        self._split = re.compile(settings.split_pattern) if settings.split_pattern else None

    def may_hold_items(self, entry: SourceEntry) -> bool:
        return is_table(entry.name) and self._pattern.search(entry.name) is not None

    def recognise(self, entry: SourceEntry) -> Iterable[Candidate]:
        if not self.may_hold_items(entry) or entry.problem == "link":
            reason = None if is_table(entry.name) or entry.problem else "files that are no tables"
            self.skipped.skip(entry, "files that collect.pattern does not take" if is_table(entry.name) else reason)
            return
        self.skipped.take(entry.name)
        if entry.data is None:
            yield Candidate(entry, None, "", None, None, None)
            return
        table, named = open_table(entry.name, entry.data, self._form), self._settings
        columns = [named.time, *([named.series] if named.series else []), *named.values, *named.known]
        where = "collect.time, collect.values, collect.series or collect.known"
        require(table, entry.name, columns, where)
        yield from self._readings(entry, table, columns)
        for row in table.refused:
            detail = f"row {row.number}: {row.detail}"
            yield self._bad(entry, [row.text], BadItem("wrong-columns", detail))

    def _readings(self, entry: SourceEntry, table: Table, columns: Sequence[str]) -> Iterator[Candidate]:
        named, split = self._settings, self._split_of(entry)
        clock = Clock(named.time_format, named.timezone)
        number_of_row = 1
        for batch in table.batches(columns):
            values = {column: batch.column(place).to_pylist() for place, column in enumerate(columns)}
            for row in range(batch.num_rows):
                number_of_row += 1
                group = str(values[named.series][row]).strip() if named.series else ""
                known = [_known(values[column][row], table.decimal) for column in named.known]
                for column in named.values:
                    name = f"{group}/{column}" if group and len(named.values) > 1 else group or column
                    written = [name, values[named.time][row], values[column][row]]
                    try:
                        at = clock.read(name, written[1])
                        reading = Reading(name, at, number(written[2], table.decimal), tuple(known))
                    except BadItem as bad:
                        yield self._bad(entry, written, BadItem(bad.reason, f"row {number_of_row}: {bad.detail}"))
                        continue
                    yield Candidate(
                        entry, id_of(name, at), str(reading.value), None, split, json.dumps([*reading]).encode()
                    )  # fmt: skip

    def _bad(self, entry: SourceEntry, written: Sequence[object], bad: BadItem) -> Candidate:
        content = json.dumps({"row": [str(one) for one in written], "reason": bad.reason, "detail": bad.detail}).encode()
        return Candidate(entry, hashlib.sha256(content).digest(), "", None, None, content)

    def _split_of(self, entry: SourceEntry) -> str | None:
        found = self._split.search(entry.name) if self._split else None
        split = found.group(1) if found else None
        if split is not None and split not in SPLITS:
            raise WrongUse(
                f"collect.split_pattern finds a split in {entry.name} that there is not", expected=f"one of {', '.join(SPLITS)}",
                received=split, fix="Correct collect.split_pattern.",
            )  # fmt: skip
        return split

    def finish(self, items: int) -> None:
        if not items:
            raise WrongUse(
                "the source holds no reading", expected="tables (.csv, .tsv, .jsonl, .parquet) that collect.pattern takes",
                fix="Correct the section collect.",
            )  # fmt: skip


class InboxRows(Rows):
    """Recognises the readings in the inbox, which may be empty."""

    def finish(self, items: int) -> None: ...


def _known(written: object, decimal: str) -> float:
    try:
        return number(written, decimal)
    except BadItem:
        return math.nan


SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.float64(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("split", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("collected_at", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("series", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("value", pa.float32(), nullable=False),  # the label as collected: a property, which drift is looked for in
        pa.field("known", pa.list_(pa.float32()), nullable=False),
    ]
)


class Inspection:
    """Inspects readings (an `Inspector`). They harm nobody, so that no process of its own is needed."""

    noun, schema, max_pending = "reading", SCHEMA, 1

    def submit(self, candidates: Sequence[Candidate]) -> Future[list[Any]]:
        answer: Future[list[Any]] = Future()
        answer.set_result([_inspect(candidate) for candidate in candidates])
        return answer

    def row(self, candidate: Candidate, inspection: Reading, collected_at: datetime) -> tuple[Any, ...]:
        assert candidate.id is not None
        series, microseconds, value, known = inspection
        name = candidate.entry.name
        return (candidate.id.hex(), value, None, candidate.split, name, collected_at, series, microseconds, value, [*known])

    def record(self, folder: Any) -> None: ...

    def summary(self) -> str:
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def _inspect(candidate: Candidate) -> Reading | BadItem:
    if candidate.content is None:
        return BadItem(candidate.entry.problem or "unreadable", candidate.entry.detail)
    found = json.loads(candidate.content)
    if isinstance(found, dict):
        return BadItem(found["reason"], found["detail"])
    series, microseconds, value, known = found
    return Reading(series, microseconds, value, tuple(known))
