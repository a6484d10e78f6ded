"""The ledger: what was spent stays written, whatever else writes or is killed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from evergreen.energy.ledger import Cost, Entry, device, note, of_month, path, read
from evergreen.errors import WrongUse
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace
from tests.conftest import ROOT
from tests.evergreen.data.test_versions import change


def entry(stage: str = "train", at: str = "2026-11-25T12:00:00+00:00", **cost: Any) -> Entry:
    known = {"seconds": 10.0, "energy_wh": 2.0, "energy_uncertainty_wh": 0.8, "carbon_gco2e": 1.0, "money": None} | cost
    return Entry(stage, at, device(), 100.0, "items", Cost(**known))


def test_what_is_noted_is_read_in_order(workspace: Workspace) -> None:
    lines = [entry("collect"), entry("train", energy_wh=None)]
    for line in lines:
        note(workspace, "quickstart", line)
    assert read(workspace, "quickstart") == lines
    assert read(workspace, "cifar10") == []


def test_entries_under_a_former_name_of_a_stage_are_read_under_the_present_one(workspace: Workspace) -> None:
    for line in (entry("look"), entry("train")):
        note(workspace, "quickstart", line)
    assert read(workspace, "quickstart") == [entry("monitor"), entry("train")]


@pytest.mark.parametrize("torn", [b'{"stage": "tr', b"[]\n", b"null\n", b'{"stage": "train"}\n', b"\xff\xfe\n", b"\n"])
def test_a_line_that_cannot_be_understood_hides_no_other(workspace: Workspace, torn: bytes) -> None:
    note(workspace, "quickstart", entry("collect"))
    with open(path(workspace, "quickstart"), "ab") as file:
        file.write(torn)
    assert read(workspace, "quickstart") == [entry("collect")]


@pytest.mark.slow
def test_many_writers_at_once_lose_no_line(workspace: Workspace) -> None:
    code = (
        "import sys; from pathlib import Path; from evergreen.workspace import Workspace; from evergreen.energy.ledger import note; "
        "from tests.evergreen.energy.test_ledger import entry\n"
        "for number in range(200): note(Workspace(Path(sys.argv[1])), 'quickstart', entry(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(workspace.root)]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("train", "collect")]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = [one.stage for one in read(workspace, "quickstart")]
    assert sorted(found) == ["collect"] * 200 + ["train"] * 200


def test_a_month_is_a_calendar_month_in_utc() -> None:
    lines = [entry(at=at) for at in ("2026-10-31T23:59:59+00:00", "2026-11-01T00:00:00+00:00", "2026-11-30T23:59:59+00:00")]
    assert of_month(lines, datetime(2026, 11, 15, tzinfo=UTC)) == lines[1:]


def test_money_is_of_machine_hours_and_energy(workspace: Workspace) -> None:
    change(workspace, "price", currency="EUR", per_kwh=0.30, per_machine_hour=1.20)
    scenario = load_scenario(workspace.scenarios, "quickstart")
    cost = Cost.of(scenario, 1800, 500, 200)
    assert cost.money == pytest.approx(0.5 * 1.20 + 0.5 * 0.30)
    assert cost.carbon_gco2e == pytest.approx(0.5 * 380.95)
    assert Cost.of(scenario, 1800, None, None).money is None  # the price of unknown energy is unknown, not 0


def test_unknown_parts_make_an_unknown_sum() -> None:
    known, unknown = entry().cost, entry(energy_wh=None).cost
    assert (known + known).energy_wh == 4 and (known + unknown).energy_wh is None
    assert (known + unknown).seconds == 20 and (known + known).money is None


@pytest.mark.parametrize(
    ("section", "settings", "reported"),
    [
        ("price", {"currency": "EUR", "per_kwh": 0}, "price.per_kwh: Input should be greater than 0; got 0"),
        (
            "price",
            {"currency": "EUR", "per_machine_hour": -1},
            "price.per_machine_hour: Input should be greater than 0; got -1",
        ),
        ("price", {"currency": "EUR"}, "at least one of per_kwh and per_machine_hour must be given"),
        ("price", {"currency": "euro", "per_kwh": 1}, "price.currency"),
        ("budget", {"run": {"wh": 0}}, "budget.run.wh: Input should be greater than 0; got 0"),
        ("budget", {"month": {"gco2e": -5}}, "budget.month.gco2e: Input should be greater than 0; got -5"),
        ("budget", {"month": {"money": 5}}, "a limit in money needs the section price"),
        ("budget", {"year": {"wh": 5}}, "unknown key; allowed are month, run"),
    ],
)
def test_a_price_or_budget_that_makes_no_sense_is_refused(
    workspace: Workspace, section: str, settings: dict[str, Any], reported: str
) -> None:
    change(workspace, section, **settings)
    with pytest.raises(WrongUse) as refused:
        load_scenario(workspace.scenarios, "quickstart")
    assert reported in str(refused.value)
