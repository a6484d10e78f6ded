"""`evergreen list` and `evergreen status`: the scenarios, what is running, and what would run next. Neither starts or changes
anything."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evergreen import figures
from evergreen.data.dataset import batches, parts
from evergreen.environment import Servers
from evergreen.errors import EvergreenError, WrongUse
from evergreen.kinds.base.kind import kind_of
from evergreen.privacy.retention import expired
from evergreen.scenario.loading import load_scenario, parse_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace


@dataclass(frozen=True)
class Row:
    """A scenario in `evergreen list`.

    Attributes:
        name: the scenario's name.
        items: number of items in its data set.
        champion: the version in use; None if there is none.
        quality: of the champion on its test split, in words.
        measured: the kind's first metric with its confidence limits, by key; the values are None if there is no champion. Empty
            if the file is invalid.
        last_run: when one of its stages last ended on this machine, in UTC.
        schedule: when it is retrained (cron); None without a schedule.
        problem: why the file is invalid or the store can't be read; else None.
    """

    name: str
    items: int
    champion: int | None
    quality: str
    measured: dict[str, float | None]
    last_run: datetime | None
    schedule: str | None
    problem: str | None

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON; the metric's figures are top-level keys, such as `accuracy`, `accuracy_low` and `accuracy_high`."""
        return {
            "name": self.name,
            "items": self.items,
            "champion": self.champion,
            **self.measured,
            "last_run": self.last_run,
            "schedule": self.schedule,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Outlook:
    """What a run of a scenario would do.

    Attributes:
        name: the scenario's name.
        inbox: the content of its inbox, in words; empty if there is none.
        next_stage: the first stage that would run; None if all are unchanged.
        why: the reason, in words.
        retention: what a run would remove for good because of its age, in words; empty if the scenario keeps items for ever.
    """

    name: str
    inbox: str
    next_stage: str | None
    why: str
    retention: str = ""


@dataclass(frozen=True)
class Status:
    """The servers' URLs by name, the holders of locks, and what a run of each scenario would do."""

    servers: dict[str, str]
    running: tuple[str, ...]
    scenarios: tuple[Outlook, ...]


def version() -> str:
    """The version of this program."""
    import importlib.metadata
    import tomllib

    try:
        return importlib.metadata.version("evergreen-mlops")
    except importlib.metadata.PackageNotFoundError:  # run from the checkout without being installed
        project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())
        return str(project["project"]["version"])


def scenario_rows(workspace: Workspace) -> list[Row]:
    """All scenarios, sorted by name."""
    return [_row(workspace, path) for path in sorted(workspace.scenarios.glob("*.yaml"))]


def status(workspace: Workspace, names: list[str]) -> Status:
    """The status of the named scenarios, or of all if none is named.

    Raises:
        WrongUse: there is no such scenario.
    """
    chosen = names or sorted(path.stem for path in workspace.scenarios.glob("*.yaml"))
    for name in names:
        load_scenario(workspace.scenarios, name)
    servers = Servers.running(workspace)
    return Status(
        servers={} if servers is None else _addresses(servers),
        running=tuple(holder for lock, holder in held_locks(workspace) if not names or lock.partition("-")[2] in names),
        scenarios=tuple(_outlook(workspace, name) for name in chosen),
    )


def held_locks(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """Each lock held by a living process: its name, and a text such as "run of parts since 2026-11-26 10:00:00 (process
    4711)"."""
    from filelock import FileLock, Timeout

    for file in sorted((workspace.private / "locks").glob("*.holder.json")):
        lock = file.name.removesuffix(".holder.json")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            holder = json.loads(file.read_text())
            free = FileLock(file.with_name(f"{lock}.lock"))
            try:
                free.acquire(timeout=0)
                free.release()  # its holder was killed
            except Timeout:
                what, _, name = lock.partition("-")
                yield lock, f"{what}{f' of {name}' if name else ''} since {holder['since']} (process {holder['pid']})"


def _row(workspace: Workspace, path: Path) -> Row:
    from evergreen.serving.champion import champion

    name, problem, found, schedule, quality = path.stem, None, None, None, ""
    measured: dict[str, float | None] = {}
    try:
        scenario = parse_scenario(path)
        schedule, judge = scenario.retraining.cron, kind_of(scenario).judge
        measured = dict.fromkeys(f"{judge.metrics[0].key}{end}" for end in ("", "_low", "_high"))
        found = champion(workspace, name)
        if found is not None:
            stored = {key.removeprefix("test_"): value for key, value in found.metrics.items()}
            quality = " ".join(next(iter(judge.texts(stored, [judge.headline(scenario)]).items())))
            measured = {key: stored.get(key) for key in measured}
    except EvergreenError as error:
        problem = str(error)
    return Row(
        name,
        _items(workspace, name),
        None if found is None else found.version,
        quality,
        measured,
        _last_run(workspace, name),
        schedule,
        problem,
    )


def _items(workspace: Workspace, name: str) -> int:
    import pyarrow.parquet as pq

    with contextlib.suppress(OSError, ValueError):
        return sum(pq.read_metadata(part).num_rows for part in parts(batches(workspace, name)))
    return 0


def _last_run(workspace: Workspace, name: str) -> datetime | None:
    from evergreen.energy.ledger import read

    ended = [entry.ended_at for entry in read(workspace, name)]
    return datetime.fromisoformat(ended[-1]).astimezone(UTC) if ended else None


def _addresses(servers: Servers) -> dict[str, str]:
    found = {"Prefect": servers.prefect_url, "MLflow": f"{servers.mlflow_url}/#/experiments?workflowType=machine_learning"}
    pages: Any = getattr(servers, "pages_url", "")
    return found | ({"reports": pages} if pages else {})


def _outlook(workspace: Workspace, name: str) -> Outlook:
    try:
        scenario = load_scenario(workspace.scenarios, name)
        stage, why = _next_stage(scenario, workspace)
        aged = expired(scenario, workspace, datetime.now(UTC))
        retention = f"the next run deletes permanently what was {aged}" if aged else "" if aged is None else str(aged)
        return Outlook(name, _inbox(scenario, workspace), stage, why, retention)
    except WrongUse as error:
        return Outlook(name, "", None, str(error))


def _inbox(scenario: Scenario, workspace: Workspace) -> str:
    from evergreen.data.inbox import Inbox, inbox_of

    found = Inbox.look_into(inbox_of(scenario, workspace), 0.0)
    counts = {
        kind_of(scenario).contract.inbox_file: len(found.loose),
        "archive": len(found.archives),
        "file of corrections": len(found.corrections),
        "file without a label": len(found.unlabelled),
    }
    several = {"file of corrections": "files of corrections", "file without a label": "files without a label"}
    return ", ".join(figures.count(many, what, several.get(what, "")) for what, many in counts.items() if many)


def _next_stage(scenario: Scenario, workspace: Workspace) -> tuple[str | None, str]:
    """The first stage that would run, and why."""
    from flows.stages import first_to_run
    from tasks.stage import Run

    if not (workspace.record(scenario.name) / "stage-collect.json").exists():
        return "collect", "it was never run here"
    log = logging.getLogger("evergreen")
    before, log.disabled = log.disabled, True
    try:
        stage = first_to_run(Run(scenario, workspace), "any")
    except EvergreenError as error:
        return "collect", str(error)
    finally:
        log.disabled = before
    return stage, "nothing has changed since the last run" if stage is None else WHY[stage]


WHY = {
    "collect": "the source or the section collect has changed",
    "validate": "the data or the section validate have changed",
    "version": "the data have changed",
    "preprocess": "the data, or the section preprocess, have changed",
    "train": "the splits, or the section train, have changed",
    "evaluate": "the model has changed",
    "register": "the model is not registered yet",
    "promote": "the gate has not decided about the model yet",
}
