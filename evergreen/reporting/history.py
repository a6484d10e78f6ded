"""Reads a scenario's history from its records: its model versions, what each cost, its data versions, and what was refused.

Nothing is stored here. MLflow has the versions, their runs and the files logged with them, `data/` the items, `quarantine/` the
refused ones. Anything missing from the records is None.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.data.dataset import Records, batches, iter_parts, read_quarantine, records, table
from evergreen.energy.ledger import Cost
from evergreen.energy.ledger import read as read_ledger
from evergreen.energy.meter import Energy
from evergreen.errors import EvergreenError, WrongUse
from evergreen.kinds.base.comparison import Figure
from evergreen.kinds.base.contract import Contract
from evergreen.kinds.base.judge import NOTHING_TO_REVIEW, Judge, Review
from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.base.metric import Metric
from evergreen.registry.models import champion_notes, connect, model_name
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("evergreen")

OF_THE_MODEL = ("preprocess", "train", "evaluate")  # the stages that make a model
THUMBNAILS = 8  # shown of each data version, and of the quarantine
READABLE = ("label-conflict", "unknown-label")  # reasons that have nothing to do with an item's bytes


@dataclass(frozen=True)
class Version:
    """A model version and what is on record about it.

    Attributes:
        version: its number.
        made_at: when it was registered, UTC.
        data_version: the version of the data that it was trained on.
        batches: the names of the batch folders in that data version.
        quality: the metrics of the kind's judge on its test split by key, each with the ends of its 95 % interval (`Figure`).
        test_items: the number of items in that split.
        energy_wh, energy_uncertainty_wh, energy_methods, seconds: of the run that made it; if unknown, of the stages.
        carbon_gco2e: of that energy.
        money: the cost of that energy and time at the scenario's current price, in its currency.
        energy_wh_per_1000, energy_uncertainty_wh_per_1000: of 1,000 predictions.
        promoted, reason: the gate's decision in its run.
        gap: a sentence if its results on val and test differ by more than chance; None if they don't, or nothing is on record.
        saved_by_waiting_gco2e, saved_by_warm_start_wh: compared with starting at once, and with training from scratch.
    """

    version: int
    made_at: datetime
    data_version: str | None
    batches: tuple[str, ...] | None
    quality: dict[str, Figure]
    test_items: int | None
    energy_wh: float | None
    energy_uncertainty_wh: float | None
    energy_methods: tuple[str, ...]
    seconds: float | None
    carbon_gco2e: float | None
    money: float | None
    energy_wh_per_1000: float | None
    energy_uncertainty_wh_per_1000: float | None
    promoted: bool | None
    reason: str | None
    saved_by_waiting_gco2e: float | None
    saved_by_warm_start_wh: float | None
    gap: str | None = None


@dataclass(frozen=True)
class Event:
    """A change of champion. `at` and `instead_of` are None if not on record."""

    at: datetime | None
    how: str
    version: int
    instead_of: int | None


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, as a `data:` URL in `address`, which is None if no picture can be made."""

    address: str | None
    label: str
    source: str
    reason: str = ""


@dataclass(frozen=True)
class DataState:
    """A state of the scenario's data set, and its changes from the state before.

    Attributes:
        data_version: None if it is the current state of `data/` and no model was trained on it.
        model_versions: the versions trained on it.
        at: when the first of these was registered.
        items, added: counts as by `Contract.by_label`, in all and compared with the state before; None if some batch is no
            longer in `data/`.
        relabelled: the number of items whose label its corrections changed.
        withdrawn: the number of items that it took out of use.
        thumbnails: of a few added items.
    """

    data_version: str | None
    model_versions: tuple[int, ...]
    at: datetime | None
    items: dict[str, int] | None
    added: dict[str, int] | None
    relabelled: int | None
    withdrawn: int | None
    thumbnails: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Quarantined:
    """Refused items: the number of records by reason, and pictures of a few."""

    by_reason: dict[str, int]
    thumbnails: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class History:
    """A scenario's whole history. `versions`, `events` and `data` are oldest first; `unfinished` counts runs without a version;
    `spent` is the cost of all stages of all runs on this machine (including those that made no model), None without a ledger;
    `currency` is the scenario's; `review` is the kind's judge's view of the current champion's results on its test split;
    `metrics` are the kind's, the headline metric first."""

    scenario: str
    champion: int | None
    previous: int | None
    versions: tuple[Version, ...]
    events: tuple[Event, ...]
    data: tuple[DataState, ...]
    quarantined: Quarantined
    unfinished: int
    spent: Cost | None
    currency: str | None
    metrics: tuple[Metric, ...]
    review: Review = NOTHING_TO_REVIEW

    def version(self, number: int | None) -> Version | None:
        """The version with this number; None if there is none."""
        return next((version for version in self.versions if version.version == number), None)

    def front(self) -> list[int]:
        """The Pareto front: the versions that no other one beats. A version beats another if it is at least as good, takes no
        more energy per prediction, and is better in one of the two beyond the 95 % intervals of both."""
        metric = self.metrics[0]
        known = [v for v in self.versions if v.quality[metric.key][0] is not None and v.energy_wh_per_1000 is not None]
        return [v.version for v in known if not any(_beats(other, v, metric) for other in known)]


def _beats(one: Version, other: Version, metric: Metric) -> bool:
    (value, low, high), (other_value, other_low, other_high) = (
        [0.0 if end is None and number == 0 else end for number, end in enumerate(version.quality[metric.key])]
        for version in (one, other)
    )
    energy, other_energy = one.energy_wh_per_1000 or 0.0, other.energy_wh_per_1000 or 0.0
    if metric.gain(other_value, value) < 0 or energy > other_energy:
        return False
    worst, other_best = (low, other_high) if metric.higher_is_better else (high, other_low)
    worst, other_best = (value if worst is None else worst), (other_value if other_best is None else other_best)
    most = energy + (one.energy_uncertainty_wh_per_1000 or 0.0)
    other_least = other_energy - (other.energy_uncertainty_wh_per_1000 or 0.0)
    return metric.gain(other_best, worst) > 0 or most < other_least


def read_history(scenario: Scenario, workspace: Workspace) -> History:
    """Read a scenario's history from its records.

    Raises:
        EvergreenError: MLflow can't be reached.
    """
    mlflow = connect(workspace)
    name, client = scenario.name, mlflow.MlflowClient()
    try:
        found = sorted(client.search_model_versions(f"name='{model_name(name)}'"), key=lambda version: int(version.version))
        named = client.get_registered_model(model_name(name)).aliases if found else {}
        experiment = client.get_experiment_by_name(model_name(name))
        runs = _runs(client, experiment.experiment_id) if experiment else {}
        versions = tuple(_version(mlflow, scenario, version, runs.get(version.run_id or "")) for version in found)
        events = _events(found, versions, named)
    except mlflow.MlflowException as error:
        raise EvergreenError(
            f"MLflow's records can't be read: {error}", fix="See that MLflow answers, and try again."
        ) from None
    ended = {run_id for run_id, run in runs.items() if run.info.status in ("FINISHED", "FAILED", "KILLED")}
    aliases = {alias: int(number) for alias, number in named.items()}
    return History(
        scenario=name,
        champion=aliases.get("champion"),
        previous=aliases.get("previous"),
        versions=versions,
        events=events,
        data=_data_states(workspace, scenario, versions),
        quarantined=_quarantined(workspace, scenario),
        unfinished=len(ended - {version.run_id for version in found}),
        spent=_known_sum([entry.cost for entry in read_ledger(workspace, name)]),
        currency=scenario.price.currency if scenario.price else None,
        metrics=_metrics(scenario),
        review=_review(
            mlflow,
            scenario,
            workspace,
            {int(version.version): version.run_id for version in found}.get(aliases.get("champion", 0)),
        ),
    )


def _metrics(scenario: Scenario) -> tuple[Metric, ...]:
    """The kind's metrics, the headline metric first."""
    judge = kind_of(scenario).judge
    headline = judge.headline(scenario)
    return headline, *(metric for metric in judge.metrics if metric != headline)


def _review(mlflow: Any, scenario: Scenario, workspace: Workspace, run_id: str | None) -> Review:
    """The judge's review of this run's version on its test split."""
    kind = kind_of(scenario)
    with tempfile.TemporaryDirectory() as scratch:
        predictions = _Fetch(mlflow, run_id, Path(scratch)).file("evaluation/predictions.parquet")
        return kind.judge.review(predictions, batches(workspace, scenario.name))


def _known_sum(costs: Sequence[Cost]) -> Cost | None:
    """The sum; a figure is unknown if any part of it is. None without costs."""
    return sum(costs[1:], start=costs[0]) if costs else None


def _runs(client: Any, experiment_id: str) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        runs |= {run.info.run_id: run for run in page}
        token = page.token
        if not token:
            return runs


def _version(mlflow: Any, scenario: Scenario, found: ModelVersion, run: Run | None) -> Version:
    judge = kind_of(scenario).judge
    metrics: dict[str, float] = dict(run.data.metrics) if run else {}
    recorded = metrics | _numbers(dict(run.data.tags) if run else {})
    with tempfile.TemporaryDirectory() as scratch:
        fetch = _Fetch(mlflow, found.run_id, Path(scratch))
        summary = fetch.json("summary.json")
        records = fetch.folder("lineage/record")
        intervals = _intervals(judge, fetch.file("evaluation/predictions.parquet"))
    if summary.get("model_version") != int(found.version):
        summary = {}
    energy = _energy(summary, records, found, metrics)
    carbon = summary.get("carbon_gco2e") if _trained(summary) else None
    money = None
    with contextlib.suppress(WrongUse):  # the intensity of the country's grid is unknown
        cost = Cost.of(scenario, energy.seconds, energy.energy_wh, energy.uncertainty_wh)
        carbon = cost.carbon_gco2e if carbon is None else carbon
        money = cost.money if energy.seconds else None
    of_data = records.get("stage-version", {}).get("result", {}).get("batches")
    test_items = metrics.get("test_items")
    return Version(
        version=int(found.version),
        made_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        data_version=found.tags.get("data_version"),
        batches=None if of_data is None else tuple(of_data),
        quality={
            key: (
                metrics.get(f"test_{key}"),
                *intervals.get(key, (metrics.get(f"test_{key}_low"), metrics.get(f"test_{key}_high"))),
            )
            for key in (metric.key for metric in judge.metrics)
        },
        test_items=None if test_items is None else int(test_items),
        energy_wh=energy.energy_wh,
        energy_uncertainty_wh=energy.uncertainty_wh,
        energy_methods=energy.methods,
        seconds=energy.seconds or None,
        carbon_gco2e=carbon,
        money=money,
        energy_wh_per_1000=metrics.get("energy_wh_per_1000"),
        energy_uncertainty_wh_per_1000=metrics.get("energy_uncertainty_wh_per_1000"),
        promoted=summary.get("promoted"),
        reason=summary.get("reason"),
        saved_by_waiting_gco2e=recorded.get("carbon_gco2e_saved_by_waiting"),
        saved_by_warm_start_wh=recorded.get("energy_wh_saved_by_warm_start"),
        gap=(summary.get("validation_and_test") or {}).get("sentence"),
    )


class _Fetch:
    """Fetches files that were logged with a run; missing ones are None or empty."""

    def __init__(self, mlflow: Any, run_id: str | None, scratch: Path) -> None:
        self._mlflow, self._run_id, self._scratch = mlflow, run_id, scratch

    def file(self, path: str) -> Path | None:
        if not self._run_id:
            return None
        try:
            return Path(
                self._mlflow.artifacts.download_artifacts(run_id=self._run_id, artifact_path=path, dst_path=str(self._scratch))
            )
        except (self._mlflow.MlflowException, OSError) as error:
            log.debug("run %s has no %s: %s", self._run_id, path, error)
            return None

    def json(self, path: str) -> dict[str, Any]:
        return _json(self.file(path))

    def folder(self, path: str) -> dict[str, dict[str, Any]]:
        """The JSON objects in a folder, by file name without suffix."""
        folder = self.file(path)
        return {file.stem: _json(file) for file in sorted(folder.glob("*.json"))} if folder and folder.is_dir() else {}


def _json(path: Path | None) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(tags: dict[str, str]) -> dict[str, float]:
    numbers = {}
    for key, value in tags.items():
        with contextlib.suppress(ValueError):
            numbers[key] = float(value)
    return numbers


def _trained(summary: dict[str, Any]) -> bool:
    """Whether this summary's run trained the model, rather than reusing an existing one."""
    return bool(summary.get("stages", {}).get("train", {}).get("state") == "ran")


def _energy(
    summary: dict[str, Any], records: dict[str, dict[str, Any]], found: ModelVersion, metrics: dict[str, float]
) -> Energy:
    """The energy of making a version: of its whole run, else of its stages, else the bare number in the version's tag."""
    if _trained(summary) and summary.get("energy_wh") is not None:
        uncertainty_wh = summary.get("energy_uncertainty_wh")
        return Energy(
            summary["energy_wh"] * 3600, None if uncertainty_wh is None else uncertainty_wh * 3600,
            tuple(summary.get("energy_methods", ())), summary.get("seconds", 0.0),
        )  # fmt: skip
    with contextlib.suppress(KeyError, TypeError):
        stages = [Energy(**records[f"stage-{stage}"]["energy"]) for stage in OF_THE_MODEL]
        return sum(stages, start=Energy.nothing())
    bare = _numbers(found.tags).get("energy_wh")
    return Energy(None if bare is None else bare * 3600, None, (), metrics.get("run_seconds", 0.0))


def _intervals(judge: Judge[Any], predictions: Path | None) -> dict[str, tuple[float, float]]:
    """Intervals of the metrics that were logged without one, by key."""
    try:
        return {} if predictions is None else judge.intervals(predictions)
    except (OSError, ValueError, KeyError):
        return {}


def _events(found: Sequence[ModelVersion], versions: Sequence[Version], named: dict[str, str]) -> tuple[Event, ...]:
    """The changes of champion: from the versions' tags; older ones without tags, as far as summaries and aliases show them."""
    events = [
        Event(at, how, int(version.version), instead_of)
        for version in found
        for at, how, instead_of in champion_notes(version.tags)
    ]
    noted = {event.version for event in events}
    events += [Event(v.made_at, "promoted", v.version, None) for v in versions if v.promoted and v.version not in noted]
    events.sort(key=lambda event: event.at or datetime.max.replace(tzinfo=UTC))
    champion, previous = (int(named[alias]) if alias in named else None for alias in ("champion", "previous"))
    if champion is not None and (not events or events[-1].version != champion):
        how = "rolled back to" if previous is not None and champion < previous else "promoted"
        events.append(Event(None, how, champion, previous))
    return tuple(events)


def _data_states(workspace: Workspace, scenario: Scenario, versions: Iterable[Version]) -> tuple[DataState, ...]:
    folders = {folder.name: folder for folder in batches(workspace, scenario.name)}
    versions_of: dict[tuple[str, ...], list[Version]] = {}
    for version in versions:
        if version.batches is not None:
            versions_of.setdefault(version.batches, []).append(version)
    if folders and tuple(folders) not in versions_of:
        versions_of[tuple(folders)] = []
    contract = kind_of(scenario).contract
    states: list[DataState] = []
    collected: dict[str, str] = {}
    labels: dict[str, str] | None = {}
    known: tuple[str, ...] = ()
    for names, learned in versions_of.items():
        fresh = [folders[batch] for batch in names if batch not in known and batch in folders]
        complete = labels is not None and all(batch in folders for batch in names) and set(known) <= set(names)
        added: dict[str, int] = {}
        relabelled = withdrawn = 0
        if complete:
            assert labels is not None
            rows, changes = table(fresh, ["id", "label"], Records()), records([folders[batch] for batch in names])
            new = dict(zip(rows["id"].to_pylist(), map(str, rows["label"].to_pylist()), strict=True))
            added = contract.by_label(scenario, new.values())
            collected |= new
            before = labels | {id: label for id, label in new.items() if id not in changes.withdrawn}
            labels = {id: changes.labels.get(id, label) for id, label in collected.items() if id not in changes.withdrawn}
            relabelled = sum(before.get(id, label) != label for id, label in labels.items())
            withdrawn = len(before.keys() - labels.keys())
        else:
            labels = None
        states.append(
            DataState(
                data_version=learned[0].data_version if learned else None,
                model_versions=tuple(version.version for version in learned),
                at=learned[0].made_at if learned else None,
                items=contract.by_label(scenario, labels.values()) if labels is not None else None,
                added=added if complete else None,
                relabelled=relabelled if complete else None,
                withdrawn=withdrawn if complete else None,
                thumbnails=_new_thumbnails(contract, fresh, records([folders[batch] for batch in names if batch in folders])),
            )
        )
        known = names
    return tuple(states)


def _new_thumbnails(contract: Contract[Any], folders: Sequence[Path], known: Records) -> tuple[Thumbnail, ...]:
    """Thumbnails of a few items of the first row group (4 MB), of as many labels as possible; none if items are not stored
    encoded."""
    import pyarrow as pa

    for batch in iter_parts(folders, known=known):
        labels = [str(label) for label in batch["label"].to_pylist()]
        encoded = [field.name for field in batch.schema if pa.types.is_binary(field.type)]
        if not encoded:
            break
        return tuple(
            Thumbnail(
                contract.thumbnail(b"".join(batch[name][row].as_py() for name in encoded)),
                labels[row],
                batch["source"][row].as_py(),
            )
            for row in _in_turn(labels)[:THUMBNAILS]
        )
    return ()


def _in_turn(kinds: Sequence[str]) -> list[int]:
    """Indices in an order in which every kind has its first occurrence before any has its second."""
    seen: Counter[str] = Counter()
    rank = []
    for index, kind in enumerate(kinds):
        rank.append((seen[kind], kind, index))
        seen[kind] += 1
    return [index for _, _, index in sorted(rank)]


def _quarantined(workspace: Workspace, scenario: Scenario) -> Quarantined:
    records = read_quarantine(workspace, scenario.name)
    records.reverse()  # the newest first
    shown = [records[index] for index in _in_turn([record["reason"] for record in records])[:THUMBNAILS]]
    thumbnails = tuple(
        Thumbnail(_kept(workspace, scenario, record), record["label"] or "", record["source"], record["reason"])
        for record in shown
    )
    return Quarantined(dict(Counter(record["reason"] for record in records).most_common()), thumbnails)


def _kept(workspace: Workspace, scenario: Scenario, record: dict[str, Any]) -> str | None:
    """A picture of a refused item, only for items that could be decoded: others might crash the decoder, and so the report."""
    id = record["id"]
    if record["reason"] not in READABLE or not id or not re.fullmatch(r"[0-9a-f]{64}", id):
        return None
    try:
        content = (workspace.quarantine(scenario.name) / "items" / id[:2] / id).read_bytes()
        return kind_of(scenario).contract.thumbnail(content)
    except OSError:
        return None
