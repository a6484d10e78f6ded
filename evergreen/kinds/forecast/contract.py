"""A reading as an item: the number that a series has at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.data.dataset import Records, parts, records, table
from evergreen.data.inbox import Inbox
from evergreen.data.sources.base import Source, SourceEntry
from evergreen.data.sources.table import is_table
from evergreen.errors import BadItem, EvergreenError
from evergreen.kinds.base.codec import Codec
from evergreen.kinds.base.contract import Contract, DataSet, Prepared
from evergreen.kinds.base.proposal import Ask, Sections
from evergreen.kinds.base.split import NONE, OFF_GRID, SPLITS, TRAIN, WITHOUT_HISTORY, Assignment
from evergreen.kinds.forecast import baselines, expectations, features
from evergreen.kinds.forecast.proposal import propose
from evergreen.kinds.forecast.recognition import InboxRows, Inspection, Rows, number
from evergreen.kinds.forecast.settings import ForecastScenario
from evergreen.kinds.forecast.windows import Grid, Readings, Windows, grid, indices, windows
from evergreen.preparation.time_split import assign_by_periods

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = ("series", "time", "known")
PERIOD = 10  # gaps between splits that a further period is long, at least
BYTES_OF_A_ROW = 30  # of a CSV file, roughly: for an estimate


class ForecastContract(Contract[ForecastScenario]):
    """Defines the items of series, and how they are split by time."""

    noun = "reading"
    description = "Forecasts of a series."
    left_out_because = (
        "they lie between two splits or off the grid, have too few readings before them, or are of a period that has just begun"
    )
    fix_of_empty_split = (
        "A forecast needs preprocess.history readings before it: collect a longer series, or lower preprocess.history."
    )
    properties = ("value",)

    def propose(self, source: Path, *, labels_at: int | None, follow_links: bool, ask: Ask | None) -> Sections:
        return propose(source, follow_links=follow_links)

    def recogniser(self, scenario: ForecastScenario, source: Source) -> Rows:
        return Rows(scenario.collect)

    def inbox_recogniser(self, scenario: ForecastScenario, inbox: Inbox) -> InboxRows:
        return InboxRows(scenario.collect)

    def inspector(self, scenario: ForecastScenario, folders: Sequence[Path], source: Source, recogniser: Any) -> Inspection:
        return Inspection()

    def count(self, scenario: ForecastScenario, source: Source, name: str) -> int:
        return 1000 if is_table(name) else 0

    def ids_in(self, scenario: ForecastScenario, content: bytes) -> set[str]:
        ending = ".parquet" if content.startswith(b"PAR1") else ".jsonl" if content.lstrip()[:1] == b"{" else ".csv"
        entry = SourceEntry(f"table{ending}", content, len(content))
        rows = Rows(scenario.collect.model_copy(update={"pattern": None, "split_pattern": None}))
        try:
            return {one.id.hex() for one in rows.recognise(entry) if one.id is not None}
        except EvergreenError:  # it is no such table, so that it holds none
            return set()

    def corrected(self, scenario: ForecastScenario, text: str) -> str:
        try:
            return str(number(text, scenario.collect.decimal or "."))
        except BadItem as bad:
            raise BadItem("correction-unknown-label", bad.detail) from None

    def expectations(self, scenario: ForecastScenario, accepted: Mapping[str, float]) -> list[Any]:
        return expectations.suite(scenario)

    def derived_columns(self, scenario: ForecastScenario, items: pd.DataFrame) -> Mapping[str, np.ndarray]:
        return expectations.derived(scenario, items)

    def columns(self, scenario: ForecastScenario) -> tuple[str, ...]:
        return COLUMNS

    def prepare(self, scenario: ForecastScenario, data: DataSet, scratch: Path) -> Prepared:
        """The inputs of `evergreen.kinds.forecast.features`; `targets`, float32 `(items, horizons)`, NaN where there is none,
        and `actual`, float64 `(items,)`, the first; `baselines`, float32 `(items, baselines, horizons)`, and
        `baseline_quantiles`, float32 `(items, horizons, quantiles)`, those of the linear model's residuals by hour; `crosses`,
        whether the history runs across a gap; `weeks_ago`, of the latest same weekday; `local`, int64 `(items,)`, seconds on
        the clock of the series. A reading that was withdrawn is forecast no more, and still is what came before the next
        one."""
        settings, readings = scenario.preprocess, _readings(data.rows)
        on = grid(readings.series, readings.microseconds, settings.step_seconds, settings.tolerance)
        found = windows(readings, on, settings, scenario.collect.timezone)
        assignment = self._split(scenario, data, readings, on, found)
        facts: dict[str, Any] = {"forecast": _shape(scenario, readings, on)}
        learned = (assignment.split == TRAIN) & ~data.withdrawn
        facts["statistics"] = baselines.statistics(
            readings.values[learned], found.local[learned], readings.series[learned], found.known[learned], len(readings.names),
            on.step_seconds, settings.smoothing,
        )  # fmt: skip
        arrays = features.inputs(found.history, found.known, found.local, readings.series, facts)
        used = np.where(data.withdrawn, NONE, assignment.split)
        compared, quantiles, fitted = _compare(scenario, arrays, found, readings, used, facts)
        arrays |= {
            "targets": found.targets,
            "actual": readings.values,
            "baselines": compared,
            "baseline_quantiles": quantiles,
            "crosses": found.crosses,
            "weeks_ago": found.weeks_ago,
            "local": found.local.astype(np.int64),
        }
        return Prepared(arrays, facts | fitted, assignment)

    def assign(self, scenario: ForecastScenario, data: DataSet, prepared: Prepared) -> Assignment:
        assignment: Assignment = prepared.details
        return assignment

    def _split(self, scenario: ForecastScenario, data: DataSet, readings: Readings, on: Grid, found: Windows) -> Assignment:
        settings = scenario.preprocess
        gap = settings.history + settings.horizons[-1] - 1
        assigned = assign_by_periods(
            on.step, _batch_of_each(data), readings.given,
            val_share=settings.val_share, test_share=settings.test_share, gap=gap, least=PERIOD * (gap + 1),
        )  # fmt: skip
        if data.former is not None:
            first = len(data.former.split)
            assigned.split[:first], assigned.left_out[:first] = data.former.split, data.former.left_out
        for out, why in ((~found.usable, WITHOUT_HISTORY), (on.off_grid, OFF_GRID)):
            assigned.split[out], assigned.left_out[out] = NONE, why
        return assigned

    def counts(self, prepared: Prepared, chosen: np.ndarray) -> dict[str, int]:
        return {}

    def items(
        self, scenario: ForecastScenario, folders: Sequence[Path], ids: Sequence[str]
    ) -> Iterator[tuple[str, dict[str, str]]]:
        rows = table(
            [folder for folder in folders if parts([folder])],
            ["id", "label", "split", *COLUMNS],
            Records(records(folders).labels),
        )
        readings, settings, chosen = _readings(rows), scenario.preprocess, set(ids)
        on = grid(readings.series, readings.microseconds, settings.step_seconds, settings.tolerance)
        found = windows(readings, on, settings, scenario.collect.timezone)
        for row, id in enumerate(rows["id"].to_pylist()):
            if id in chosen and found.usable[row] and not on.off_grid[row]:
                yield id, item(readings.names[readings.series[row]], found.local[row], found.history[row], found.known[row])

    def measure(self, items: Sequence[Mapping[str, str]], codec: Codec, folders: Sequence[Path]) -> np.ndarray:
        return codec.encode(items)["history"][:, -1:]


def item(series: str, local: np.datetime64, history: np.ndarray, known: np.ndarray) -> dict[str, str]:
    """An item as the codec takes it."""
    return {
        "series": series,
        "time": str(local),
        "history": " ".join(map(str, history)),
        "known": " ".join(map(str, known)),
    }


def _readings(rows: pa.Table) -> Readings:
    names, series = indices(rows["series"].to_pylist())
    given = rows["split"].to_pylist()
    known = rows["known"].combine_chunks()
    width = len(known[0]) if len(known) else 0
    import pyarrow as pa

    return Readings(
        names,
        series,
        rows["time"].cast(pa.int64()).to_numpy(),
        rows["label"].to_numpy().astype(np.float64),
        known.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(series), width),
        np.array([NONE if one is None else SPLITS.index(one) for one in given], np.int8),
    )


def _batch_of_each(data: DataSet) -> np.ndarray:
    """int64 `(items,)`: the number of the folder that each item is in."""
    import pyarrow.parquet as pq

    counts = [sum(pq.read_metadata(part).num_rows for part in parts([folder])) for folder in data.folders]
    return np.repeat(np.arange(len(counts)), counts)


def _shape(scenario: ForecastScenario, readings: Readings, on: Grid) -> dict[str, Any]:
    settings = scenario.preprocess
    return {
        "series": list(readings.names),
        "step_seconds": on.step_seconds,
        "history": settings.history,
        "horizons": list(settings.horizons),
        "quantiles": list(settings.quantiles),
        "known": list(scenario.collect.known),
        "timezone": scenario.collect.timezone,
    }


def _compare(
    scenario: ForecastScenario,
    inputs: Mapping[str, np.ndarray],
    found: Windows,
    readings: Readings,
    split: np.ndarray,
    facts: Mapping[str, Any],
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The forecasts of the baselines, the quantiles of the linear one, and the facts `linear` and `offsets`."""
    levels, length = scenario.preprocess.quantiles, scenario.preprocess.history
    rows, targets = baselines.linear_inputs(inputs, facts), baselines.scaled(inputs, found.targets, facts)
    linear = baselines.fit_linear(rows, targets, split)
    spread = np.array(facts["statistics"]["spread"])[readings.series][:, None]
    profile = inputs["profile"][:, length:].astype(np.float64)
    forecasts = baselines.naive(found, inputs, readings.values, split == TRAIN, facts)
    forecasts["linear model"] = profile + spread * (rows @ linear.kernel + linear.bias)
    forecasts["boosted trees"] = profile + spread * baselines.fit_trees(rows, targets, split, scenario.seed)
    hours, train = inputs["index"][:, 1], split == TRAIN
    by_hour = {
        over: baselines.offsets(((found.targets - forecasts[name]) / spread)[train], hours[train], levels)
        for over, name in (("last", "last value"), ("linear", "linear model"))
    }
    quantiles = forecasts["linear model"][..., None] + spread[..., None] * by_hour["linear"][hours]
    fitted = {
        "linear": {"kernel": linear.kernel.round(7).tolist(), "bias": linear.bias.round(7).tolist()},
        "offsets": {over: one.round(6).tolist() for over, one in by_hour.items()},
    }
    compared = np.stack([forecasts[name] for name in baselines.BASELINES], axis=1)
    return compared.astype(np.float32), quantiles.astype(np.float32), fitted
