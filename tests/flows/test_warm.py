"""A retraining's tries, with the tiny model: from the champion's weights, and from scratch where the gate refuses that."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from evergreen.errors import EvergreenError
from evergreen.registry.card import trained_from
from evergreen.registry.models import aliases
from evergreen.training.checkpoint import Checkpoint, TrainingState
from evergreen.training.fine_tuning import NotPossible, WarmStart, warm_start
from flows.stages import first_to_run
from flows.summary import Trained
from flows.warm import starts, train_until_promoted
from tasks import evaluate
from tasks import train as train_file
from tasks.register import register
from tasks.train import train
from tests.evergreen.data.test_versions import change
from tests.flows.test_retraining import Unseen, source_of_digits
from tests.tasks.test_monitor import relax
from tests.tiny import NAME, Tiny


@pytest.fixture
def with_champion(registered: Tiny) -> Tiny:
    """A champion, and a source with as many digits again as it knows."""
    registered.promote()
    relax(registered.workspace)
    source_of_digits(registered, 1000)
    return registered


def run_of(tiny: Tiny) -> Unseen:
    return Unseen(tiny.scenario, tiny.workspace)


def metric(tiny: Tiny, version: int, name: str) -> float | None:
    client = tiny.client()
    run = client.get_run(client.get_model_version(f"evergreen-{NAME}", str(version)).run_id)
    found: float | None = run.data.metrics.get(name)
    return found


@pytest.fixture
def beginner(tiny: Tiny) -> Tiny:
    """A champion that has learned for one epoch; the scenario asks for twenty."""
    change(tiny.workspace, "train", epochs=1)
    run = run_of(tiny)
    train_file.stage.perform(run.scenario, run.workspace, "any")
    evaluated = evaluate.stage.perform(run.scenario, run.workspace).result
    register(run.scenario, run.workspace, tiny.data_version, evaluated)
    tiny.promote(force=True)  # the gate has its doubts
    change(tiny.workspace, "train", epochs=20)
    change(tiny.workspace, "promote", cheaper=None, gain_per_doubling=0.0)
    return tiny


def test_a_fine_tuned_champion_that_passes_the_gate_saves_the_training_from_scratch(beginner: Tiny) -> None:
    run = run_of(beginner)
    trained = train_until_promoted(run, starts(run, 1))
    (only,) = trained.tries
    assert (only.start, only.version, only.promoted) == ("version 1", 2, True), only.reason
    settings = json.loads((beginner.workspace.model(NAME) / "settings.json").read_text())
    assert settings["train"]["epochs"] == 10 and trained_from(settings) == "version 1"  # half of 20
    # How much is the machine's own affair: bench/warm.py measures it.
    assert trained.energy_wh_saved_by_warm_start == metric(beginner, 2, "energy_wh_saved_by_warm_start")


def test_what_the_gate_refuses_is_trained_from_scratch_at_a_shared_chance_and_the_loss_is_reported(with_champion: Tiny) -> None:
    change(with_champion.workspace, "promote", alpha=1e-9, cheaper=None)
    trained = retrain_now(with_champion)
    assert [(one.start, one.version) for one in trained.tries] == [("version 1", 2), ("scratch", 3)]
    assert all("needed 0.0000000005" in one.reason for one in trained.tries)
    assert trained.summary.model_version == 3 and not trained.summary.promoted
    assert aliases(with_champion.workspace, NAME) == {"champion": 1, "challenger": 3}
    saved, wasted = trained.energy_wh_saved_by_warm_start, trained.tries[0].energy_wh
    assert saved == (None if wasted is None else -wasted)
    assert metric(with_champion, 3, "energy_wh_saved_by_warm_start") == saved
    model = with_champion.client().get_model_version(f"evergreen-{NAME}", "2")
    assert model.tags["trained_from"] == "version 1"


def retrain_now(tiny: Tiny) -> Trained:
    run = run_of(tiny)
    return train_until_promoted(run, starts(run, 1))


def test_a_second_try_that_would_pass_the_budget_is_not_made(with_champion: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    change(with_champion.workspace, "promote", alpha=1e-9, cheaper=None)
    monkeypatch.setattr("tasks.trial.TRIAL_SECONDS", 0.2)
    run = run_of(with_champion)
    ways = starts(run, 1)
    change(with_champion.workspace, "budget", run={"money": 1.0})
    change(with_champion.workspace, "price", currency="EUR", per_machine_hour=1e9)  # whatever was spent is too much
    run.scenario = with_champion.scenario
    trained = train_until_promoted(run, ways)
    assert [one.start for one in trained.tries] == ["version 1", "scratch"]
    assert "would pass the run's budget of 1 EUR" in trained.tries[1].reason
    assert "are spent already" in trained.tries[1].reason
    assert trained.summary.model_version == 2 and aliases(with_champion.workspace, NAME)["champion"] == 1


def test_fine_tuning_begins_with_the_very_weights_of_the_champion(with_champion: Tiny) -> None:
    scenario, workspace = with_champion.scenario, with_champion.workspace
    start = warm_start(scenario, workspace, 1)
    weights = start.weights(workspace, NAME)
    nothing_learned = start.of(scenario)
    change(workspace, "train", epochs=1, learning_rate=1e-12, weight_decay=0.0)
    trained = train(with_champion.scenario, workspace, start)
    assert (trained.epochs, trained.start) == (1, start) and nothing_learned.train.epochs == 4
    from evergreen.models.cnn import load

    kept = [np.asarray(weight.value) for weight in load(workspace.model(NAME) / "model.keras").weights]
    kernels = [(one, other) for one, other in zip(weights, kept, strict=True) if one.ndim > 1]
    assert all(np.allclose(one, other, atol=1e-5) for one, other in kernels)


def test_a_killed_fine_tuning_goes_on_and_is_not_mixed_up_with_one_from_scratch(
    with_champion: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(with_champion.workspace, "train", epochs=20)
    start = warm_start(with_champion.scenario, with_champion.workspace, 1)
    write = Checkpoint.write

    def killed(checkpoint: Checkpoint, state: TrainingState, *arrays: Any) -> None:
        write(checkpoint, state, *arrays)
        if len(state.history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Checkpoint, "write", killed)
        train(with_champion.scenario, with_champion.workspace, start)
    trained = train(with_champion.scenario, with_champion.workspace, start)
    record = json.loads((with_champion.workspace.record(NAME) / "train.json").read_text())
    assert (trained.epochs, record["attempts"]) == (10, 2)


def test_an_ordinary_run_takes_the_fine_tuned_model_that_stands_there(with_champion: Tiny) -> None:
    run = run_of(with_champion)
    (start, scratch) = starts(run, 1)
    assert isinstance(start, WarmStart) and scratch == "scratch"
    train_file.stage.perform(with_champion.scenario, with_champion.workspace, start)
    last = train_file.stage.recall(with_champion.scenario, with_champion.workspace, "any")
    assert last.start == start
    assert train_file.stage.recall(with_champion.scenario, with_champion.workspace, start) == last
    assert (
        train_file.stage.recall(with_champion.scenario, with_champion.workspace, "scratch") is None
    )  # from scratch is another one
    assert first_to_run(run, "scratch") in ("collect", "train")


def test_epochs_for_one_run_are_not_taken_for_the_scenarios_own(with_champion: Tiny) -> None:
    """DVC knows the settings of the file alone; the run after it comes back to them."""
    own = with_champion.scenario
    shorter = own.model_copy(update={"train": own.train.model_copy(update={"epochs": 1})})
    train_file.stage.perform(shorter, with_champion.workspace, "any")
    assert train_file.stage.recall(shorter, with_champion.workspace, "any").epochs == 1
    assert train_file.stage.recall(own, with_champion.workspace, "any") is None
    back = train_file.stage.perform(own, with_champion.workspace, "any")
    assert (back.state, back.result.epochs) == ("ran", own.train.epochs)
    assert train_file.stage.perform(own, with_champion.workspace, "any").state == "unchanged"


@pytest.mark.parametrize(
    ("section", "settings", "reported"),
    [
        ("train", {"filters": 12}, "other filters"),
        ("train", {"model": "plain"}, "other model"),
        ("preprocess", {"height": 16, "width": 16}, "other image size"),
    ],
)
def test_another_network_is_not_fine_tuned(with_champion: Tiny, section: str, settings: dict[str, Any], reported: str) -> None:
    change(with_champion.workspace, section, **settings)
    with pytest.raises(NotPossible, match=reported):
        warm_start(with_champion.scenario, with_champion.workspace, 1)
    assert starts(run_of(with_champion), 1) == ("scratch",)


def test_from_scratch_where_it_is_asked_or_there_is_no_champion(with_champion: Tiny) -> None:
    assert starts(run_of(with_champion), None) == ("scratch",)
    change(with_champion.workspace, "retraining", start_from="scratch")
    assert starts(run_of(with_champion), 1) == ("scratch",)


def test_a_champion_without_its_keras_file_is_not_fine_tuned(with_champion: Tiny) -> None:
    (kept,) = (with_champion.workspace.mlruns / "artifacts").rglob("keras/model.keras")
    kept.unlink()
    with pytest.raises(NotPossible, match="the weights of version 1 can't be had"):
        warm_start(with_champion.scenario, with_champion.workspace, 1)


def test_weights_that_changed_meanwhile_are_not_begun_with(with_champion: Tiny) -> None:
    start = warm_start(with_champion.scenario, with_champion.workspace, 1)
    other = WarmStart(1, hashlib.sha256(b"other").hexdigest(), 0.3, 0.5)
    with pytest.raises(EvergreenError, match="not there any more"):
        other.weights(with_champion.workspace, NAME)
    assert len(start.weights(with_champion.workspace, NAME)) > 4
