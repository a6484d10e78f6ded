"""tune: real trials of a small network, within a budget; killed, gone on with, and written into the scenario."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from evergreen.energy.ledger import Cost, Entry, device, note
from evergreen.energy.meter import Energy, Meter
from evergreen.errors import EvergreenError, WrongUse
from evergreen.scenario.loading import load_scenario
from flows.tuning import write_settings
from tasks import tune as tune_file
from tasks.tune import Tuning, page, tune
from tests.conftest import ROOT
from tests.evergreen.data.test_versions import change
from tests.tiny import NAME, Tiny

MUCH = 1000.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_file, "MEASURE_SECONDS", 0.01)


def test_the_scenarios_own_settings_are_tried_first_and_the_best_is_named(tiny: Tiny) -> None:
    change(tiny.workspace, "train", epochs=2)
    found = tune(tiny.scenario, tiny.workspace, MUCH, 3)
    assert [one.state for one in found.trials] == ["finished"] * 3 and found.stopped == "trials"
    own = found.trials[0]
    assert own.own and own.settings["filters"] == tiny.scenario.train.filters and own.settings["epochs"] == 2
    assert own.score == own.quality
    assert found.best.score == max(one.score or 0 for one in found.trials)
    assert found.energy_wh == pytest.approx(sum(one.energy_wh or 0 for one in found.trials)) and found.energy_wh > 0
    assert found.winner in found.front and str(found).startswith("trials: 3 finished")
    folder = tiny.workspace.outputs(NAME) / "tuning"
    assert (folder / "front.png").stat().st_size > 5_000 and len((folder / "trials.csv").read_text().splitlines()) == 4
    shown = page(tiny.scenario, tiny.workspace, found)
    assert len(shown.tables["Trials"]) == len(shown.tables["Their settings"]) == 3 and shown.links
    assert TypeAdapter(Tuning).validate_python(json.loads(json.dumps(asdict(found)))) == found
    # Asked again, it goes on: what was finished is not trained again.
    more = tune(tiny.scenario, tiny.workspace, MUCH, 4)
    assert more.trials[:3] == found.trials and len(more.trials) == 4
    runs = tiny.client().search_runs([tiny.client().get_experiment_by_name(f"evergreen-{NAME}-tuning").experiment_id])
    assert len(runs) == 4


def test_the_budget_ends_a_study_which_a_larger_one_goes_on_with(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    change(tiny.workspace, "train", epochs=4)
    spent = iter(range(1, 10_000))
    # A watt-hour a reading: the own settings are through, and the second trial is in the midst of its epochs.
    monkeypatch.setattr(Meter, "spent", lambda meter: Energy(3600.0 * next(spent), 0.0, ("estimate",), 1.0))
    with pytest.raises(EvergreenError, match="spent before the scenario's own settings were through"):
        tune(tiny.scenario, tiny.workspace, 1.5, 3)
    monkeypatch.undo()
    monkeypatch.setattr(tune_file, "MEASURE_SECONDS", 0.01)
    found = tune(tiny.scenario, tiny.workspace, MUCH, 1)
    assert [one.state for one in found.trials] == ["unfinished", "finished"] and found.own.number == 1
    assert found.own.own and found.trials[0].own


def test_what_the_month_leaves_is_a_limit_as_well(tiny: Tiny) -> None:
    from datetime import UTC, datetime

    change(tiny.workspace, "budget", month={"wh": 10.0})
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note(tiny.workspace, NAME, Entry("x", now, device(), None, "", Cost(1, 11.0, 1, 4, None)))
    with pytest.raises(EvergreenError, match="0 Wh spent"):
        tune(tiny.scenario, tiny.workspace, MUCH, 3)


def test_a_trial_that_stands_worse_is_pruned_and_its_energy_counts(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.preparation.arrays import open_split
    from evergreen.training import tuning

    change(tiny.workspace, "train", epochs=10)
    monkeypatch.setattr(tuning, "STARTUP_TRIALS", 2)
    study_folder = tiny.workspace.private / "tuning" / NAME
    tune(tiny.scenario, tiny.workspace, MUCH, 1)
    (path,) = study_folder.glob("*/study.db")
    study = tuning.open_study(path, NAME, 0)
    study.enqueue_trial(study.trials[0].params)
    hopeless = {
        one.name: one.low
        for one in ImageLearner().search_space(tiny.scenario, open_split(tiny.workspace.splits(NAME), "train"))
    }
    study.enqueue_trial(hopeless | {"epochs": 5, "learning_rate": tiny.scenario.train.learning_rate / 4, "filters": 4})
    found = tune(tiny.scenario, tiny.workspace, MUCH, 3)
    last = found.trials[-1]
    assert last.state == "pruned" and last.quality is None and last.energy_wh


@pytest.mark.slow
def test_killed_in_the_midst_it_goes_on_and_what_it_took_counts(tiny: Tiny) -> None:
    change(tiny.workspace, "train", epochs=200)
    program = (
        "from evergreen.environment import configure; from evergreen.workspace import Workspace; from evergreen.scenario.loading import load_scenario\n"
        "from tasks.tune import tune\n"
        f"w = Workspace.find(); configure(w); tune(load_scenario(w.scenarios, '{NAME}'), w, 1000, 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tiny.root, env=environment(tiny), stderr=subprocess.DEVNULL)
    folder, until = tiny.workspace.private / "tuning" / NAME, time.monotonic() + 120
    while not epoch_is_noted(folder):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    found = tune(tiny.scenario, tiny.workspace, MUCH, 1)
    killed, own = found.trials
    assert (killed.state, own.state, own.own) == ("unfinished", "finished", True)
    assert killed.energy_wh is not None and found.energy_wh == pytest.approx(killed.energy_wh + (own.energy_wh or 0))


def epoch_is_noted(folder: Path) -> bool:
    """Whether the study knows what a trial has taken so far."""
    for path in folder.glob("*/study.db"):
        with contextlib.suppress(sqlite3.OperationalError), sqlite3.connect(path) as study:
            return bool(study.execute("SELECT 1 FROM trial_user_attributes WHERE key = 'energy_wh'").fetchone())
    return False


def environment(tiny: Tiny) -> dict[str, str]:
    return os.environ | {"EVERGREEN_ROOT": str(tiny.root), "PYTHONPATH": str(ROOT)}


def test_without_splits_it_says_what_to_do_first(tiny: Tiny) -> None:
    import shutil

    shutil.rmtree(tiny.workspace.splits(NAME))
    with pytest.raises(EvergreenError, match="no splits.*evergreen run quickstart"):
        tune(tiny.scenario, tiny.workspace, MUCH, 1)


def test_where_the_scenario_leaves_open_how_to_train_there_is_nothing_to_tune(tiny: Tiny) -> None:
    with pytest.raises(WrongUse, match=r"leaves open how to train.*Name the one that the last run chose"):
        tune(tiny.scenario.with_train({"model": "auto"}), tiny.workspace, 1.0, 3)


def test_where_energy_cannot_be_measured_no_budget_is_promised(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_file, "available_methods", lambda: ())
    with pytest.raises(EvergreenError, match="cannot be kept.*evergreen doctor"):
        tune(tiny.scenario, tiny.workspace, MUCH, 1)


def test_the_winner_is_written_into_the_scenario_and_the_comments_stay(tiny: Tiny) -> None:
    path = tiny.workspace.scenarios / f"{NAME}.yaml"
    path.write_text("# mine\n" + path.read_text().replace("train:", "train:  # how it is learned"))
    write_settings(tiny.workspace, NAME, {"epochs": 33, "learning_rate": 0.123})
    train = load_scenario(tiny.workspace.scenarios, NAME).train
    assert (train.epochs, train.learning_rate) == (33, 0.123)
    assert path.read_text().startswith("# mine\n") and "# how it is learned" in path.read_text()


def test_settings_that_are_not_allowed_leave_the_scenario_as_it_was(tiny: Tiny) -> None:
    path = tiny.workspace.scenarios / f"{NAME}.yaml"
    before = path.read_bytes()
    with pytest.raises(WrongUse, match="train.epochs"):
        write_settings(tiny.workspace, NAME, {"epochs": 0})
    assert path.read_bytes() == before
