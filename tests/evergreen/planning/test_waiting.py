"""When a training with a reason starts, by a grid that is clean at noon each day; and what the wait was worth."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from evergreen.errors import WrongUse
from evergreen.planning.intensity.csv_file import CsvFile
from evergreen.planning.intensity.provider import Provider
from evergreen.planning.waiting import provider, saved_gco2e, when
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tests.evergreen.data.test_versions import change

NIGHT = datetime(2026, 11, 25, 0, 0, tzinfo=UTC)
NOON = NIGHT + timedelta(hours=12)


@pytest.fixture
def grid(tmp_path: Path) -> CsvFile:
    """100 gCO2e/kWh from 11 to 13 o'clock, else 500; known until the night in question, and on the day itself."""
    path = tmp_path / "grid.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", "intensity"])
        for step in range(-48 * 30, 48):
            moment = NIGHT + step * timedelta(minutes=30)
            rows.writerow([moment.isoformat(), 100 if 11 <= moment.hour < 13 else 500])
    return CsvFile(path, "XX")


def scenario(workspace: Workspace, **settings: Any) -> Scenario:
    change(workspace, "start", **settings)
    return load_scenario(workspace.scenarios, "quickstart")


@pytest.fixture
def patient(workspace: Workspace) -> Scenario:
    return scenario(workspace, within_hours=24, source="csv", file="grid.csv", zone="XX")


def test_it_waits_for_the_clean_hour_and_asks_again_half_way(patient: Scenario, grid: CsvFile) -> None:
    start = when(patient, grid, seconds=3600, reason_found_at=NIGHT, now=NIGHT)
    assert not start.now and start.ask_again_at is not None
    assert timedelta(hours=5) <= start.ask_again_at - NIGHT <= timedelta(hours=6)
    assert start.reason.startswith("starts at 2026-11-25 1") and "% less" in start.reason


def test_near_the_clean_hour_it_asks_again_at_that_hour_and_then_starts(patient: Scenario, grid: CsvFile) -> None:
    near = NOON - timedelta(minutes=75)
    start = when(patient, grid, seconds=3600, reason_found_at=NIGHT, now=near)
    assert not start.now and start.ask_again_at is not None and start.ask_again_at - near <= timedelta(minutes=45)
    assert when(patient, grid, seconds=3600, reason_found_at=NIGHT, now=NOON - timedelta(minutes=30)).now


class Broken:
    """A provider with nothing to tell."""

    def history(self, start: datetime, end: datetime) -> Any:
        raise WrongUse("there is no such zone")


@pytest.mark.parametrize(
    ("seconds", "found_hours_ago", "source", "reported"),
    [
        (None, 0, "grid", "nobody knows yet how long it takes"),
        (3600, 25, "grid", "its deadline was 2026-11-24 23:00 UTC"),
        (23.9 * 3600, 0, "grid", "starts now"),
        (3600, 0, "none", "names nobody who tells the grid's intensity"),
        (3600, 0, "broken", "its settings are wrong: there is no such zone"),
    ],
)
def test_in_doubt_it_starts_at_once_and_says_why(
    patient: Scenario, grid: CsvFile, seconds: float | None, found_hours_ago: float, source: str, reported: str
) -> None:
    sources: dict[str, Provider | None] = {"grid": grid, "none": None, "broken": Broken()}
    found_at = NIGHT - timedelta(hours=found_hours_ago)
    start = when(patient, sources[source], seconds=seconds, reason_found_at=found_at, now=NIGHT)
    assert start.now and start.ask_again_at is None and reported in start.reason


def test_without_a_deadline_nobody_waits(workspace: Workspace, grid: CsvFile) -> None:
    plain = load_scenario(workspace.scenarios, "quickstart")
    assert when(plain, grid, seconds=60, reason_found_at=NIGHT, now=NIGHT).now
    assert provider(plain, workspace) is None


def test_what_the_wait_has_saved_is_measured_by_what_the_grid_emitted(grid: CsvFile) -> None:
    reported = {"energy_wh": 50.0, "seconds": 3600.0, "reason_found_at": NIGHT}
    assert saved_gco2e(grid, started_at=NOON - timedelta(hours=1), **reported) == pytest.approx(400 * 0.05)  # type: ignore[arg-type]
    assert saved_gco2e(grid, started_at=NIGHT, **reported) == 0  # type: ignore[arg-type]
    assert saved_gco2e(grid, started_at=NIGHT + timedelta(days=9), **reported) is None  # type: ignore[arg-type]
    assert saved_gco2e(grid, started_at=NOON, **(reported | {"energy_wh": None})) is None  # type: ignore[arg-type]
    assert saved_gco2e(Broken(), started_at=NOON, **reported) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"within_hours": 0, "source": "great-britain"}, "start.within_hours: Input should be greater than 0; got 0"),
        ({"within_hours": 5}, "within_hours needs a source"),
        ({"source": "csv", "file": "a.csv"}, "source csv needs zone"),
        ({"source": "csv", "zone": "DE"}, "file is given with source csv"),
        ({"source": "electricity-maps"}, "source electricity-maps needs zone"),
        ({"source": "oracle"}, "start.source"),
    ],
)
def test_settings_that_make_no_sense_are_refused(workspace: Workspace, settings: dict[str, Any], reported: str) -> None:
    with pytest.raises(WrongUse) as refused:
        scenario(workspace, **settings)
    assert reported in str(refused.value)


def test_the_scenario_names_who_tells(workspace: Workspace) -> None:
    assert provider(scenario(workspace, source="csv", file="g.csv", zone="DE"), workspace) == CsvFile(
        workspace.root / "g.csv", "DE"
    )
