"""The idle power that `evergreen doctor` measures, and every later process knows."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from evergreen.energy import methods as metering
from evergreen.environment import IDLE_WATTS, Servers, configure, idle_watts_file
from evergreen.workspace import Workspace
from flows import doctor
from tests.evergreen.energy.test_meter import count, zone


def test_the_idle_power_is_measured_once_and_known_to_later_runs(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop(IDLE_WATTS, None)
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


def seen(findings: Iterable[doctor.Finding]) -> dict[str, tuple[str, str]]:
    return {finding.what: (finding.state, f"{finding.seen} {finding.fix}") for finding in findings}


def test_global_settings_that_are_ignored_proxies_and_shadows_are_named(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other" / "tasks").mkdir(parents=True)
    (tmp_path / ".prefect").mkdir()
    (tmp_path / ".prefect" / "profiles.toml").write_text('PREFECT_API_URL = "https://another"')
    theirs = {
        "HOME": str(tmp_path), "KERAS_BACKEND": "jax", "http_proxy": "http://proxy:3128", "PYTHONPATH": str(tmp_path / "other"),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name != "EVERGREEN_IGNORED"}
    monkeypatch.setattr(os, "environ", kept | theirs)
    configure(workspace)
    found = seen(doctor._settings(workspace))
    assert found["global setting"][0] == "note" and "KERAS_BACKEND" in found["global setting"][1]
    assert "http_proxy" in found["proxy"][1] and found["proxy"][0] == "fine"
    assert found["MLFLOW_TRACKING_URI"][0] == "broken" and "unset" in found["MLFLOW_TRACKING_URI"][1]
    assert "PREFECT_API_URL" in found["Prefect profile"][1]
    assert found["PYTHONPATH"][0] == "broken" and "tasks" in found["PYTHONPATH"][1]


def test_servers_that_were_killed_are_not_said_to_be_up(workspace: Workspace) -> None:
    Servers(1, "http://127.0.0.1:9", "http://127.0.0.1:9").write(workspace)
    ((state, said),) = seen(doctor._servers(workspace)).values()
    assert state == "note" and "evergreen up" in said


def test_a_cron_that_prefect_refuses_is_named(workspace: Workspace) -> None:
    path = workspace.scenarios / "quickstart.yaml"
    path.write_text(path.read_text().replace("15 3 * * *", "0 3 LW * *"))
    state, said = seen(doctor._scenarios(workspace))["scenario quickstart"]
    assert state == "broken" and "cron" in said


def test_a_merge_conflict_and_a_forgetting_that_was_killed_are_found(tmp_path: Path) -> None:
    from flows.doctor import _data
    from tests.evergreen.data.test_versions import repository

    workspace = repository(tmp_path / "checkout")
    (workspace.root / "data.dvc").write_text("<<<<<<< HEAD\nouts:\n=======\nouts:\n>>>>>>> theirs\n")
    (workspace.private / "forget").mkdir(parents=True)
    (workspace.private / "forget/pets.json").write_text("{}")
    broken = {finding.what: finding.fix for finding in _data(workspace) if finding.state == "broken"}
    assert broken.keys() == {"merge", "forget"}
    assert "git checkout --theirs data.dvc" in broken["merge"] and "evergreen forget pets" in broken["forget"]


def test_letters_of_labels_that_no_font_has_are_found_with_the_package_that_has_them(workspace: Workspace) -> None:
    assert list(doctor._fonts(workspace)) == []
    path = workspace.scenarios / "quickstart.yaml"
    text = path.read_text()
    path.write_text(text.replace('"0",', '"größe",'))
    assert [finding.state for finding in doctor._fonts(workspace)] == ["fine"]
    path.write_text(text.replace('"0",', '"\U0010fffd",'))  # for private use: no font has it
    (finding,) = doctor._fonts(workspace)
    assert finding.state == "note" and "sudo apt install" in finding.fix
