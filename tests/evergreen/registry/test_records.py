"""What was recorded of a model version stays as it is, whatever happens afterwards."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evergreen.energy.meter import Energy
from evergreen.registry.models import connect, rollback, set_champion
from evergreen.registry.store import artifacts, database
from evergreen.reporting.history import read_history
from flows.summary import conclude
from tasks import evaluate, preprocess, train
from tasks.promote import Promotion
from tasks.register import Registration
from tasks.stage import Outcome, Run
from tests.tiny import NAME, Tiny

CARD = "model_card.md"
KEPT = ("metrics", "latest_metrics", "params", "tags", "model_version_tags", "inputs", "datasets")


def finish(tiny: Tiny, registration: Registration, *, promoted: bool, energy_wh: float) -> None:
    """Conclude a run that trained, and registered or found this version."""
    docs = tiny.workspace.data_docs(NAME)
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "index.html").write_text(f"Data Docs of a run of {energy_wh} Wh")
    energy = Energy(3600 * energy_wh, 360 * energy_wh, ("rapl",), 60.0)
    outcomes = [
        Outcome(stage.name, "ran", 20.0, energy * (1 / 3), None) for stage in (preprocess.stage, train.stage, evaluate.stage)
    ]
    promotion = Promotion(registration.model, registration.model_version, promoted, f"at {energy_wh} Wh", 1, None, {})
    run = Run(tiny.scenario, tiny.workspace, outcomes)
    conclude(run, tiny.data_version, tiny.evaluation, registration, promotion)


def rows(tiny: Tiny) -> dict[str, set[Any]]:
    """What MLflow's store has in the tables of what was measured and noted."""
    with sqlite3.connect(database(tiny.workspace)) as connection:
        return {table: set(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in KEPT}


def files(tiny: Tiny) -> dict[Path, bytes]:
    folder = artifacts(database(tiny.workspace))
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def recorded(registered: Tiny) -> Tiny:
    """Version 1 is the champion, version 2 was refused; the runs of both are on record."""
    set_champion(registered.workspace, NAME, 1)
    finish(registered, registered.register(), promoted=True, energy_wh=3.0)
    second = registered.register_confused()
    registered.promote(2)
    finish(registered, second, promoted=False, energy_wh=5.0)
    return registered


def test_nothing_that_was_recorded_is_changed_by_what_is_measured_or_decided_later(
    recorded: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_before, files_before = rows(recorded), files(recorded)
    history_before = read_history(recorded.scenario, recorded.workspace).versions
    assert [(v.promoted, round(v.energy_wh or 0, 6)) for v in history_before] == [(True, 3.0), (False, 5.0)]

    monkeypatch.setattr("tasks.evaluate.MEASURE_SECONDS", 0.05)
    evaluate.stage.perform(recorded.scenario, recorded.workspace)  # measured again: other latencies
    first = recorded.register()
    assert first.model_version == 1
    recorded.promote(2)  # held against the champion again
    recorded.promote(2, force=True)
    rollback(recorded.workspace, NAME)
    finish(recorded, first, promoted=False, energy_wh=7.0)

    rows_after, files_after = rows(recorded), files(recorded)
    for table, before in rows_before.items():
        assert before <= rows_after[table], table
    for path, content in files_before.items():
        if path.name == CARD:  # comparisons are added at its end
            assert files_after[path].startswith(content)
        else:
            assert files_after[path] == content, path
    assert read_history(recorded.scenario, recorded.workspace).versions == history_before


def test_what_is_measured_later_is_added_with_its_date(recorded: Tiny) -> None:
    finish(recorded, recorded.register(), promoted=False, energy_wh=7.0)
    version = recorded.client().get_model_version("evergreen-quickstart", "1")
    (later,) = recorded.client().list_artifacts(version.run_id, "later")
    assert later.path.startswith("later/20")
    load = connect(recorded.workspace).artifacts.load_text
    assert json.loads(load(f"runs:/{version.run_id}/{later.path}/summary.json"))["reason"] == "at 7.0 Wh"
    assert load(f"runs:/{version.run_id}/{later.path}/data-docs/index.html") == "Data Docs of a run of 7.0 Wh"
    assert json.loads(load(f"runs:/{version.run_id}/summary.json"))["reason"] == "at 3.0 Wh"
    assert recorded.client().get_run(version.run_id).data.metrics["energy_wh"] == pytest.approx(3.0)


def test_a_run_that_was_killed_between_its_summary_and_its_figures_gets_those_of_its_own_summary(recorded: Tiny) -> None:
    first = recorded.register()
    with sqlite3.connect(database(recorded.workspace)) as connection:
        for table in ("metrics", "latest_metrics"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ? AND key = 'energy_wh'", (first.run_id,))
    finish(recorded, first, promoted=False, energy_wh=7.0)
    assert recorded.client().get_run(first.run_id).data.metrics["energy_wh"] == pytest.approx(3.0)


def test_a_second_version_of_the_same_training_has_a_run_of_its_own(recorded: Tiny) -> None:
    card = connect(recorded.workspace).artifacts.load_text
    first = recorded.register()
    before = card(f"runs:/{first.run_id}/{CARD}")
    from tasks.register import register

    more = replace(recorded.data_version, batches=(*recorded.data_version.batches, "00001-abc"))
    third = register(recorded.scenario, recorded.workspace, more, recorded.evaluation)
    assert third.model_version == 3 and third.run_id != first.run_id
    assert card(f"runs:/{first.run_id}/{CARD}") == before
    reported = recorded.client().get_metric_history(third.run_id, "val_loss")
    history = json.loads((recorded.workspace.model(NAME) / "history.json").read_text())
    assert [entry.value for entry in reported] == [entry["val_loss"] for entry in history]
