"""The ledger: the cost of every stage of every run on this machine, in an append-only file with one line each.

MLflow records what a *model* cost; the ledger records what was *spent*, including by runs that failed, found nothing to do or
made no model. Budgets are checked against it and estimates are made from it. A line is written by one append, so that
concurrent runs can't mix their lines and a kill leaves a whole line or none. A stage that is killed leaves none: what it spent
is unknown and not part of any sum.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from evergreen.energy.methods import gpu_count
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

FORMER_NAMES = {"look": "monitor"}  # of stages, in entries that earlier versions wrote


@dataclass(frozen=True)
class Cost:
    """An expected or actual cost. Unknown amounts are None; money also if the scenario sets no price.

    Attributes:
        seconds: wall-clock time.
        energy_wh, energy_uncertainty_wh: the true value is within the latter of the former.
        carbon_gco2e: of that energy, at the grid's intensity.
        money: of machine hours and energy, in the scenario's currency.
    """

    seconds: float
    energy_wh: float | None
    energy_uncertainty_wh: float | None
    carbon_gco2e: float | None
    money: float | None

    @classmethod
    def of(cls, scenario: Scenario, seconds: float, energy_wh: float | None, energy_uncertainty_wh: float | None) -> Cost:
        """The cost with the scenario's grid and prices.

        Raises:
            WrongUse: the intensity of the grid of the scenario's country is unknown.
        """
        from evergreen.energy.carbon import intensity

        grid, price = intensity(scenario.country), scenario.price
        carbon = None if energy_wh is None else energy_wh / 1000 * grid.gco2e_per_kwh
        money = None
        if price is not None and (price.per_kwh is None or energy_wh is not None):
            money = seconds / 3600 * (price.per_machine_hour or 0) + (energy_wh or 0) / 1000 * (price.per_kwh or 0)
        return cls(seconds, energy_wh, energy_uncertainty_wh, carbon, money)

    def __add__(self, other: Cost) -> Cost:
        """The total of both. An amount is unknown if either part is."""

        def both(one: float | None, two: float | None) -> float | None:
            return None if one is None or two is None else one + two

        return Cost(
            self.seconds + other.seconds,
            both(self.energy_wh, other.energy_wh),
            both(self.energy_uncertainty_wh, other.energy_uncertainty_wh),
            both(self.carbon_gco2e, other.carbon_gco2e),
            both(self.money, other.money),
        )


@dataclass(frozen=True)
class Entry:
    """One stage of one run.

    Attributes:
        stage: its name.
        ended_at: when, in UTC, as ISO 8601.
        device: `device()` of the machine.
        work: the amount of work done, in units of `work_kind`; None if the stage failed or doesn't report it.
        work_kind: for entries of the same stage, device and kind of work, time and energy are proportional to the work.
        cost: of the stage.
    """

    stage: str
    ended_at: str
    device: str
    work: float | None
    work_kind: str
    cost: Cost


def path(workspace: Workspace, name: str) -> Path:
    """The file of a scenario's entries, one JSON object per line."""
    return workspace.private / "ledger" / f"{name}.jsonl"


def note(workspace: Workspace, name: str, entry: Entry) -> None:
    """Append an entry.

    Raises:
        OSError: it could not be written completely.
    """
    file, line = path(workspace, name), json.dumps(asdict(entry)).encode() + b"\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(f"{file} could not be written to the end of a line: the disk is full")
    finally:
        os.close(descriptor)


def read(workspace: Workspace, name: str) -> list[Entry]:
    """All entries, oldest first, with the stages' present names. Lines that can't be parsed (such as one truncated by a full
    disk) are skipped."""
    try:
        lines = path(workspace, name).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            fields = json.loads(line)
            stage = FORMER_NAMES.get(fields["stage"], fields["stage"])
            entries.append(Entry(**{**fields, "stage": stage, "cost": Cost(**fields["cost"])}))
        except (ValueError, TypeError, KeyError):
            continue
    return entries


def of_month(entries: Iterable[Entry], moment: datetime) -> list[Entry]:
    """The entries that ended in the calendar month of `moment`, in UTC."""
    month = moment.astimezone(UTC).strftime("%Y-%m")
    return [entry for entry in entries if entry.ended_at.startswith(month)]


def device() -> str:
    """The properties of this machine that determine the cost of work: its processor, the available threads and the number of
    GPUs."""
    model = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found[1] if found else model
    except OSError:
        pass
    cards = gpu_count()
    return f"{model}, {len(os.sched_getaffinity(0))} threads" + (f", {cards} GPUs" if cards else "")
