"""A dated number as an item: a line of a CSV file, in °C."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.data.dataset import Records, records, table
from evergreen.data.inbox import Inbox
from evergreen.data.sources.base import Source
from evergreen.data.sources.opening import open_source
from evergreen.errors import BadItem
from evergreen.kinds.base.codec import Codec
from evergreen.kinds.base.contract import Contract, DataSet, Prepared
from evergreen.kinds.base.expectations import expect, of_the_collection
from evergreen.kinds.base.proposal import Ask, Sections, SourceDoesNotFit
from evergreen.kinds.base.split import NONE, TRAIN, WITHOUT_HISTORY, Assignment
from evergreen.preparation.time_split import assign_by_time
from tests.support.readings.recognition import Inspection, Lines, id_of, is_reading, lines_of, read
from tests.support.readings.settings import ReadingsScenario


class ReadingsContract(Contract[ReadingsScenario]):
    noun = "reading"
    description = "A prediction of the next reading."
    left_out_because = "they lie between two splits, or have too few readings before them"
    properties = ("temperature",)

    def propose(self, source: Path, *, labels_at: int | None, follow_links: bool, ask: Ask | None) -> Sections:
        files = [entry for entry in open_source(source, follow_links=follow_links).stream() if entry.name.endswith(".csv")]
        count = sum(is_reading(line) for file in files if file.data for line in lines_of(file.data))
        if not count:
            raise SourceDoesNotFit(f"there are no readings in {source}", expected="CSV files with lines such as 2026-01-31,4.5")
        return Sections({}, {"preprocess": {}, "train": {"epochs": 30}}, [f"{count:,} readings."], {}, [])

    def recogniser(self, scenario: ReadingsScenario, source: Source) -> Lines:
        return Lines()

    def inbox_recogniser(self, scenario: ReadingsScenario, inbox: Inbox) -> Lines:
        return Lines()

    def inspector(self, scenario: ReadingsScenario, folders: Sequence[Path], source: Source, recogniser: Any) -> Inspection:
        return Inspection()

    def count(self, scenario: ReadingsScenario, source: Source, name: str) -> int:
        return 365 if name.endswith(".csv") else 0

    def ids_in(self, scenario: ReadingsScenario, content: bytes) -> set[str]:
        return {id_of(line).hex() for line in lines_of(content)}

    def corrected(self, scenario: ReadingsScenario, text: str) -> str:
        try:
            return str(read(f"2000-01-01,{text}").number)
        except BadItem as bad:
            raise BadItem("correction-unknown-label", bad.detail) from None

    def expectations(self, scenario: ReadingsScenario, accepted: Mapping[str, float]) -> list[Any]:
        import great_expectations.expectations as gx

        low, high = scenario.validation.lowest, scenario.validation.highest
        about, expected = "temperature", f"{low:g} to {high:g} °C"
        return [
            expect(gx.ExpectColumnValuesToBeUnique, "day", "unique", "share theirs", column="day"),
            expect(gx.ExpectColumnValuesToBeBetween, about, expected, "are outside", column="label", min_value=low, max_value=high),
            *of_the_collection(scenario.validation),
        ]  # fmt: skip

    def columns(self, scenario: ReadingsScenario) -> tuple[str, ...]:
        return ("day",)

    def prepare(self, scenario: ReadingsScenario, data: DataSet, scratch: Path) -> Prepared:
        """`history`, float32 `(items, history)`: the readings before each one, 0 where there are too few; `next`, float64
        `(items,)`; and its `day`, int64 `(items,)`, as a number. A reading that was withdrawn is predicted no more, and still
        is what came before the next one."""
        count, numbers = scenario.preprocess.history, data.rows["label"].to_numpy()
        days = np.array([date.fromisoformat(day).toordinal() for day in data.rows["day"].to_pylist()])
        order = np.argsort(days, kind="stable")
        history = np.zeros((len(numbers), count), np.float32)
        if len(numbers) > count:
            windows = np.lib.stride_tricks.sliding_window_view(numbers[order], count)
            history[order[count:]] = windows[:-1]
        assignment = self._split(scenario, days, order[:count])
        learned = numbers[(assignment.split == TRAIN) & ~data.withdrawn]
        facts = {"mean": float(learned.mean()), "spread": float(learned.std()) or 1.0} if len(learned) else {}
        return Prepared({"history": history, "next": numbers, "day": days}, facts, assignment)

    def assign(self, scenario: ReadingsScenario, data: DataSet, prepared: Prepared) -> Assignment:
        assignment: Assignment = prepared.details
        return assignment

    def _split(self, scenario: ReadingsScenario, days: np.ndarray, early: np.ndarray) -> Assignment:
        settings = scenario.preprocess
        shares = {"val_share": settings.val_share, "test_share": settings.test_share}
        found = assign_by_time(days, **shares, gap=settings.history)
        found.split[early], found.left_out[early] = NONE, WITHOUT_HISTORY
        return found

    def counts(self, prepared: Prepared, chosen: np.ndarray) -> dict[str, int]:
        return {}

    def items(self, scenario: ReadingsScenario, folders: Sequence[Path], ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        count, chosen = scenario.preprocess.history, set(ids)
        rows = table(folders, ["id", "label", "day"], Records(records(folders).labels)).to_pydict()
        order = sorted(range(len(rows["id"])), key=rows["day"].__getitem__)
        numbers = [rows["label"][index] for index in order]
        before = {rows["id"][index]: numbers[at - count : at] for at, index in enumerate(order) if at >= count}
        for id in rows["id"]:
            if id in chosen and id in before:
                yield id, " ".join(map(str, before[id]))

    def measure(self, items: Sequence[str], codec: Codec, folders: Sequence[Path]) -> np.ndarray:
        return codec.encode(items)["history"][:, -1:]
