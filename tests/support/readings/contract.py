"""A dated number an item: a line of a CSV file with a date and a number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from evergreen.data.collecting.base import Candidate, Recogniser
from evergreen.data.dataset import iter_parts, table
from evergreen.data.inbox import Inbox
from evergreen.data.skipped import Skipped
from evergreen.data.sources.base import Source, SourceEntry
from evergreen.errors import BadItem
from evergreen.kinds.base.contract import Contract, DataSet, Prepared
from evergreen.kinds.base.split import NONE, WITHOUT_HISTORY, Assignment
from evergreen.preparation.time_split import assign_by_time
from tests.support.readings.settings import ReadingsScenario


class Lines:
    """Recognises the lines of CSV files."""

    def __init__(self) -> None:
        self.skipped = Skipped()

    def may_hold_items(self, entry: SourceEntry) -> bool:
        return entry.name.endswith(".csv")

    def recognise(self, entry: SourceEntry) -> Iterable[Candidate]:
        if not self.may_hold_items(entry) or entry.data is None:
            self.skipped.skip(entry)
            return
        for line in entry.data.decode().splitlines():
            date, _, number = line.partition(",")
            yield Candidate(entry, hashlib.sha256(date.encode()).digest(), number, None, None, line.encode())

    def finish(self, items: int) -> None: ...


class Numbers:
    """Inspects lines: a date and a finite number."""

    noun, max_pending = "reading", 1

    @cached_property
    def schema(self) -> Any:
        import pyarrow as pa

        text, moment = pa.string(), pa.timestamp("ms", tz="UTC")
        return pa.schema(
            [
                pa.field("id", text, nullable=False), pa.field("label", pa.float64()), pa.field("group", text), pa.field("split", text),
                pa.field("source", text, nullable=False), pa.field("collected_at", moment, nullable=False),
                pa.field("date", text, nullable=False), pa.field("size", pa.float32()),
            ]
        )  # fmt: skip

    def submit(self, candidates: Sequence[Candidate]) -> Future[list[Any]]:
        answer: Future[list[Any]] = Future()
        answer.set_result([self._inspect(candidate.content or b"") for candidate in candidates])
        return answer

    def _inspect(self, line: bytes) -> Any:
        date, _, number = line.decode().partition(",")
        try:
            datetime.fromisoformat(date)
            return date, float(number)
        except ValueError as error:
            return BadItem("not-a-reading", str(error))

    def row(self, candidate: Candidate, inspection: Any, collected_at: datetime) -> tuple[Any, ...]:
        assert candidate.id is not None
        date, number = inspection
        return (candidate.id.hex(), number, None, None, candidate.entry.name, collected_at, date, abs(number))

    def record(self, folder: Path) -> None: ...

    def summary(self) -> str:
        return ""

    def __enter__(self) -> Numbers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class ReadingsContract(Contract[ReadingsScenario]):
    noun, description, properties = "reading", "A prediction of the next reading.", ("size",)

    def recogniser(self, scenario: ReadingsScenario, source: Source) -> Lines:
        return Lines()

    def inbox_recogniser(self, scenario: ReadingsScenario, inbox: Inbox) -> Lines:
        return Lines()

    def inspector(self, scenario: ReadingsScenario, folders: Sequence[Path], source: Source, recogniser: Recogniser) -> Numbers:
        return Numbers()

    def count(self, scenario: ReadingsScenario, source: Source, name: str) -> int:
        return 100 * name.endswith(".csv")

    def corrected(self, scenario: ReadingsScenario, text: str) -> str:
        try:
            return str(float(text))
        except ValueError:
            raise BadItem("correction-unknown-label", f"{text!r} is no number") from None

    def expectations(self, scenario: ReadingsScenario, accepted: Mapping[str, float]) -> list[Any]:
        import great_expectations.expectations as gx

        meta = {"about": "date", "expected": "unique", "unit": "share theirs"}
        return [gx.ExpectColumnValuesToBeUnique(column="date", description="date: unique", meta=meta)]

    def columns(self, scenario: ReadingsScenario) -> tuple[str, ...]:
        return ("date",)

    def prepare(self, scenario: ReadingsScenario, data: DataSet, scratch: Path) -> Prepared:
        dates, numbers = data.rows["date"].to_pylist(), data.rows["label"].to_numpy()
        order, count = np.argsort(dates, kind="stable"), scenario.preprocess.history
        history = np.zeros((len(numbers), count), np.float32)
        early = np.zeros(len(numbers), bool)
        for position, index in enumerate(order):
            if position < count:
                early[index] = True
            else:
                history[index] = numbers[order[position - count : position]]
        facts = {"middle": float(numbers.mean()), "spread": float(numbers.std() or 1.0)}
        return Prepared({"history": history, "next": numbers.astype(np.float64)}, facts, early)

    def assign(self, scenario: ReadingsScenario, data: DataSet, prepared: Prepared) -> Assignment:
        settings, early = scenario.preprocess, prepared.details
        found = assign_by_time(
            np.array(data.rows["date"].to_pylist()), val_share=settings.val_share, test_share=settings.test_share,
            gap=settings.history,
        )  # fmt: skip
        found.split[early], found.left_out[early] = NONE, WITHOUT_HISTORY
        return found

    def counts(self, prepared: Prepared, chosen: np.ndarray) -> dict[str, int]:
        return {}

    def items(self, scenario: ReadingsScenario, folders: Sequence[Path], ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        rows, wanted, count = table(folders, ["id", "label", "date"]).to_pylist(), set(ids), scenario.preprocess.history
        before = sorted(rows, key=lambda row: row["date"])
        number_of = {row["id"]: number for number, row in enumerate(before)}
        for batch in iter_parts(folders, ["id"]):
            for id in batch["id"].to_pylist():
                number = number_of[id]
                if id in wanted and number >= count:
                    yield id, " ".join(str(row["label"]) for row in before[number - count : number])

    def measure(self, items: Sequence[str], codec: Any, folders: Sequence[Path]) -> np.ndarray:
        return np.array([[abs(float(item.split()[-1]))] for item in items], np.float32).reshape(-1, 1)
