"""When a retraining starts: at the hour of lowest emissions before the scenario's deadline; at once if in doubt.

`when` plans anew at each call; `saved_gco2e` computes afterwards what the wait has saved. Nothing here waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from evergreen.errors import EvergreenError
from evergreen.planning.intensity.csv_file import CsvFile
from evergreen.planning.intensity.electricity_maps import ElectricityMaps
from evergreen.planning.intensity.great_britain import GreatBritain
from evergreen.planning.intensity.provider import Provider
from evergreen.planning.start import STEP, Plan, plan_with
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace


@dataclass(frozen=True)
class Start:
    """When to start.

    Attributes:
        now: whether to start at once.
        ask_again_at: if not, when to plan again: half-way to the planned hour, since forecasts improve as it approaches, and at
            that hour.
        reason: a sentence for people.
    """

    now: bool
    ask_again_at: datetime | None
    reason: str


def provider(scenario: Scenario, workspace: Workspace) -> Provider | None:
    """The scenario's source of the grid's intensity over time; None if it names none."""
    settings, cache = scenario.start, workspace.private / "intensity"
    match settings.source:
        case "csv":
            assert settings.file is not None and settings.zone is not None  # ensured by the scenario's validation
            return CsvFile(workspace.root / settings.file, settings.zone, settings.timezone)
        case "electricity-maps":
            assert settings.zone is not None
            return ElectricityMaps(settings.zone, cache)
        case "great-britain":
            return GreatBritain(cache)
    return None


def when(
    scenario: Scenario, source: Provider | None, *, seconds: float | None, reason_found_at: datetime, now: datetime
) -> Start:
    """Decide whether a training that takes so many seconds starts now.

    Args:
        seconds: the estimated duration; None if unknown.
        reason_found_at: when the reason to train was found; the deadline is `start.within_hours` later.
    """

    def at_once(reason: str) -> Start:
        return Start(True, None, f"starts now: {reason}")

    if scenario.start.within_hours is None:
        return at_once("the scenario sets no deadline to wait for (start.within_hours)")
    deadline = reason_found_at + timedelta(hours=scenario.start.within_hours)
    if source is None:
        return at_once("the scenario names nobody who tells the grid's intensity (start.source)")
    if seconds is None:
        return at_once("nobody knows yet how long it takes")
    if deadline <= now:
        return at_once(f"its deadline was {deadline:%F %H:%M} UTC")
    found: Plan = plan_with(source, now=now, duration=timedelta(seconds=max(1.0, seconds)), deadline=deadline)
    if found.starts_now:
        return Start(True, None, found.reason)
    half_way = now + max(STEP, (found.start - now) / 2)
    return Start(False, min(found.start, half_way), found.reason)


def saved_gco2e(
    source: Provider | None, *, energy_wh: float | None, seconds: float, reason_found_at: datetime, started_at: datetime
) -> float | None:
    """The emissions that the wait has saved, in gCO2e (negative if it has added some), by the grid's actual intensity.

    It is the energy times the difference of two means: the intensity over the same duration from when the reason was found,
    less the intensity while the training ran. None if unknown. Intensities are location-based averages: what a kWh of the grid
    emitted, not what one kWh more would have.
    """
    if source is None or energy_wh is None:
        return None
    length = max(timedelta(seconds=seconds), STEP)
    try:
        then, now = (
            source.history(moment, moment + length).interpolated().intensity_gco2e_per_kwh
            for moment in (reason_found_at, started_at)
        )
    except EvergreenError:
        return None
    if not len(then) or not len(now):
        return None
    saved = float(then.mean() - now.mean()) * energy_wh / 1000
    return saved if saved == saved else None  # NaN if the intensity of those hours is missing
