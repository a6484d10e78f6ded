"""Which lines of a source are readings, and what they hold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import date, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa

from evergreen.data.collecting.base import Candidate
from evergreen.data.skipped import Skipped
from evergreen.data.sources.base import SourceEntry
from evergreen.errors import BadItem


class Reading(NamedTuple):
    """A line of a CSV file: a day, ISO 8601, and a number in °C."""

    day: str
    number: float


def read(line: str) -> Reading:
    """What a line says.

    Raises:
        BadItem: it is no reading (`not-a-reading`).
    """
    day, _, text = line.partition(",")
    try:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"{text} is no finite number")
        return Reading(date.fromisoformat(day).isoformat(), number)
    except ValueError as error:
        raise BadItem("not-a-reading", str(error)) from None


def is_reading(line: str) -> bool:
    """Whether a line can be read."""
    try:
        read(line)
    except BadItem:
        return False
    return True


def id_of(line: str) -> bytes:
    """The id of a line's reading, 32 bytes: the SHA-256 of its day, so that another number for the same day contradicts it."""
    return hashlib.sha256(line.partition(",")[0].encode()).digest()


def lines_of(content: bytes) -> Iterator[str]:
    """The lines of a file that say anything."""
    return filter(None, map(str.strip, content.decode("utf-8", "replace").splitlines()))


class Lines:
    """Recognises the lines of CSV files (a `Recogniser`)."""

    def __init__(self) -> None:
        self.skipped = Skipped()

    def may_hold_items(self, entry: SourceEntry) -> bool:
        return entry.name.endswith(".csv")

    def recognise(self, entry: SourceEntry) -> Iterable[Candidate]:
        if not self.may_hold_items(entry) or entry.data is None:
            self.skipped.skip(entry)
            return
        for line in lines_of(entry.data):
            try:
                label = str(read(line).number)  # labels are compared as text
            except BadItem:  # as its inspection will find
                label = ""
            yield Candidate(entry, id_of(line), label, None, None, line.encode())

    def finish(self, items: int) -> None: ...


SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.float64(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("split", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("collected_at", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("day", pa.string(), nullable=False),
        pa.field("temperature", pa.float32(), nullable=False),
    ]
)


class Inspection:
    """Inspects lines (an `Inspector`). They harm nobody, so that no process of its own is needed."""

    noun, schema, max_pending = "reading", SCHEMA, 1

    def submit(self, candidates: Sequence[Candidate]) -> Future[list[Any]]:
        answer: Future[list[Any]] = Future()
        answer.set_result([self._inspect(candidate) for candidate in candidates])
        return answer

    def _inspect(self, candidate: Candidate) -> Reading | BadItem:
        assert candidate.content is not None
        try:
            return read(candidate.content.decode())
        except BadItem as bad:
            return bad

    def row(self, candidate: Candidate, inspection: Reading, collected_at: datetime) -> tuple[Any, ...]:
        assert candidate.id is not None
        day, number = inspection
        return (candidate.id.hex(), number, None, None, candidate.entry.name, collected_at, day, number)

    def record(self, folder: Any) -> None: ...

    def summary(self) -> str:
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
