"""The idle power that `evergreen doctor` measures, and every later process knows."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from evergreen import metering
from evergreen.environment import configure, idle_watts_file
from evergreen.workspace import Workspace
from flows import doctor
from tests.evergreen.test_energy import count, zone


def test_the_idle_power_is_measured_once_and_known_to_later_runs(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop(metering.IDLE_WATTS, None)
    powercap = tmp_path / "powercap"
    zone(powercap, "intel-rapl:0", "package-0", 5)
    monkeypatch.setattr(metering, "POWERCAP", powercap)
    monkeypatch.setattr(metering, "machine_seconds", lambda: 0.0)
    monkeypatch.setattr(doctor, "IDLE_SECONDS", 0.2)
    threading.Timer(0.05, count, (powercap, 4.0)).start()
    (finding,) = doctor._idle(workspace)
    assert finding.state == "fine" and "W, measured now" in finding.seen
    configure(workspace)
    assert metering.idle_watts() == float(idle_watts_file(workspace).read_text()) == pytest.approx(20, rel=0.5)


def test_a_busy_machine_is_not_taken_for_an_idle_one(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    powercap = tmp_path / "powercap"
    zone(powercap, "intel-rapl:0", "package-0", 5)
    monkeypatch.setattr(metering, "POWERCAP", powercap)
    busy = iter((0.0, 1e6))
    monkeypatch.setattr(metering, "machine_seconds", lambda: next(busy))
    monkeypatch.setattr(doctor, "IDLE_SECONDS", 0.01)
    (finding,) = doctor._idle(workspace)
    assert finding.state == "note" and "other programs" in finding.seen and not idle_watts_file(workspace).exists()


def test_without_counters_nothing_is_waited_for(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "POWERCAP", tmp_path / "nothing")
    monkeypatch.setattr(doctor, "IDLE_SECONDS", 3600.0)
    assert list(doctor._idle(workspace)) == []
