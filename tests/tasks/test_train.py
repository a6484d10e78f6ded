from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen import figures
from evergreen.errors import EvergreenError
from evergreen.preparation.arrays import open_split
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.training.checkpoint import Checkpoint, Saved, fingerprint
from evergreen.training.fitting import Diverged
from evergreen.training.tracking import Tracker
from evergreen.workspace import Workspace
from tasks import train as train_file
from tasks.train import Training, train

SETTINGS = {"filters": 8, "epochs": 3, "batch_size": 32, "shift": 1, "flip": "horizontal", "learning_rate": 0.1}


def scenario(**settings: Any) -> Scenario:
    """The quickstart with a smaller network and these settings of `train`."""
    quickstart = load_scenario(Path(__file__).resolve().parents[2] / "scenarios", "quickstart")
    train_settings = type(quickstart.train).model_validate({**SETTINGS, **settings})
    return quickstart.model_copy(update={"train": train_settings})


def write_splits(workspace: Workspace, train_items: int = 256, val_items: int = 64, enlarged: int = 1) -> None:
    """Scikit-learn's digits as `preprocess` writes them; `enlarged` times as high and wide."""
    from sklearn.datasets import load_digits

    digits, folder = load_digits(), workspace.splits("quickstart")
    folder.mkdir(parents=True)
    images, labels = (digits.images * 15).astype(np.uint8)[..., None], digits.target.astype(np.uint8)
    images = images.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    for name, chosen in {"train": slice(0, train_items), "val": slice(train_items, train_items + val_items)}.items():
        np.save(folder / f"{name}-images.npy", images[chosen])
        np.save(folder / f"{name}-labels.npy", labels[chosen])
    (folder / "labels.json").write_text(json.dumps([str(label) for label in range(10)]))
    pq.write_table(pa.table({"id": [f"{row:064}" for row in range(train_items + val_items)]}), folder / "items.parquet")


@pytest.fixture
def prepared(workspace: Workspace) -> Workspace:
    write_splits(workspace)
    return workspace


def model_files(workspace: Workspace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workspace.model("quickstart").iterdir()}


def record(workspace: Workspace) -> dict[str, Any]:
    return dict(json.loads((workspace.record("quickstart") / "train.json").read_text()))


def checkpoints(workspace: Workspace) -> list[Path]:
    return list(workspace.checkpoints("quickstart").rglob("*.npz"))


def saved(workspace: Workspace) -> Saved:
    """What the only checkpoint holds."""
    (path,) = checkpoints(workspace)
    found = Checkpoint(path.parents[1], path.parent.name).read()
    assert found
    return found


CHILD = """
import sys
from pathlib import Path
from evergreen.workspace import Workspace
from tests.tasks.test_train import VARIED, scenario
from tasks.train import train
train(scenario(epochs=6, **VARIED), Workspace(Path(sys.argv[1])))
"""
# Every random variation of images and batches: an interruption must not change their course.
VARIED: dict[str, Any] = {
    "flip": "horizontal", "shift": 1, "erase": 2, "rotate": 10.0, "brightness": 0.1, "blur": 0.5, "mixup": 0.2,
    "sampling": "balanced", "class_weights": "square_root", "loss": "focal", "average_weights": 0.9,
}  # fmt: skip


@pytest.mark.slow
def test_a_training_killed_in_the_midst_ends_with_the_very_model_of_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed, killed = Workspace(tmp_path / "undisturbed"), Workspace(tmp_path / "killed")
    for workspace in (undisturbed, killed):
        write_splits(workspace)
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(killed.root)], cwd=root)
    while not checkpoints(killed):
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)  # somewhere in the second epoch
    assert child.wait() == -signal.SIGKILL
    assert not killed.model("quickstart").exists()
    done = len(saved(killed).state.history)
    assert 1 <= done < 6

    resumed, whole = (train(scenario(epochs=6, **VARIED), workspace) for workspace in (killed, undisturbed))
    assert resumed.history == whole.history and resumed.best_epoch == whole.best_epoch
    assert model_files(killed) == model_files(undisturbed)
    assert record(killed)["attempts"] == 2 and record(undisturbed)["attempts"] == 1
    assert not checkpoints(killed)


def test_the_model_comes_as_keras_and_as_onnx_which_agree(prepared: Workspace) -> None:
    import onnxruntime

    from evergreen.models import cnn

    training = train(scenario(), prepared)
    folder = prepared.model("quickstart")
    images = np.array(open_split(prepared.splits("quickstart"), "val")["images"])
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (given,), (made, embedding) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["n", 8, 8, 1])
    assert (made.name, made.type, made.shape) == ("probabilities", "tensor(float)", ["n", 10])
    assert (embedding.name, embedding.type, embedding.shape) == ("embedding", "tensor(float)", ["n", 32])
    by_keras = cnn.load(folder / "model.keras").predict(images, verbose=0)
    by_onnx = session.run(None, {"images": images})[0]
    assert np.abs(by_keras - by_onnx).max() < 1e-4

    history = json.loads((folder / "history.json").read_text())
    assert [set(entry) for entry in history] == [{"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}] * 3
    assert history == training.history
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["labels"] == [str(label) for label in range(10)] and settings["shape"] == [8, 8, 1]
    losses = [entry["val_loss"] for entry in history]
    assert training.best_epoch == 1 + losses.index(min(losses))
    assert training.quality == figures.percent(history[training.best_epoch - 1]["val_accuracy"], items=64)


@pytest.mark.parametrize("settings", [{}, {"mirror": True}], ids=["one way", "both ways"])
def test_a_calibrated_model_says_the_same_with_probabilities_that_fit_val(
    prepared: Workspace, tmp_path: Path, settings: dict[str, Any]
) -> None:
    from evergreen.kinds.classify.metrics import quality
    from evergreen.serving.scoring import Model

    other = Workspace(tmp_path / "calibrated")
    write_splits(other)
    plain, calibrated = train(scenario(**settings), prepared), train(scenario(**settings, calibrate=True), other)
    assert calibrated.history == plain.history
    val = open_split(prepared.splits("quickstart"), "val")
    before, after = (
        Model.open(workspace.model("quickstart")).run({"images": np.array(val["images"])})["probabilities"]
        for workspace in (prepared, other)
    )
    labels = val["labels"].astype(int)
    same = (before.argmax(axis=1) == after.argmax(axis=1)).mean()
    assert same > 0.9 if settings else same == 1  # the mean of both ways may turn where they disagree
    assert not np.allclose(before, after, atol=0.01)
    assert quality(labels, after)["log_loss"] < quality(labels, before)["log_loss"]
    kept = {name: json.loads((one.model("quickstart") / "settings.json").read_text())["train"] for name, one in
            {"plain": prepared, "calibrated": other}.items()}  # fmt: skip
    assert kept["calibrated"]["calibrate"] is True and "calibrate" not in kept["plain"]


ANSWERS = {"unknown_below": 0.3, "unlike": 0.05, "thresholds": {"3": {"recall": 0.75}, "8": {"precision": 0.99}}}


def test_the_rules_for_answers_are_chosen_on_val_and_served_with_the_network(
    prepared: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    from evergreen.serving.scoring import Model

    train(scenario(answers=ANSWERS, mirror=True), prepared)
    settings = json.loads((prepared.model("quickstart") / "settings.json").read_text())
    assert settings["train"]["answers"]["thresholds"] == {
        "3": {"recall": 0.75, "precision": None},
        "8": {"recall": None, "precision": 0.99},
    }
    section, val = settings["answers"], open_split(prepared.splits("quickstart"), "val")
    three, eight = section["thresholds"]
    assert three["threshold"] is not None and eight["threshold"] is None and "needs at least 99" in eight["why"]
    assert f"no threshold is set for 8: {eight['why']}" in caplog.text
    model = Model.open(prepared.model("quickstart"))
    outputs = model.run({"images": np.array(val["images"])})
    assert set(outputs) == {"probabilities", "distance", "answer", "unknown"}
    counted = section["val"]
    assert counted["unlike"] == int((outputs["unknown"] == 2).sum()) <= 2 and counted["unsure"] == int(
        (outputs["unknown"] == 1).sum()
    )
    assert counted["labels"]["3"]["hits"] >= 0.75 * counted["labels"]["3"]["items"]
    unlike = np.full((1, 8, 8, 1), 255, np.uint8)  # a white image
    assert model.run({"images": unlike})["distance"] > np.median(outputs["distance"])


def test_without_rules_for_answers_a_model_is_what_it_was(prepared: Workspace) -> None:
    train(scenario(), prepared)
    settings = json.loads((prepared.model("quickstart") / "settings.json").read_text())
    assert "answers" not in settings and "answers" not in settings["train"]


PRETRAINED = {"model": "efficientnet_lite0", "fine_tuning_rate": 1e-3}


@pytest.fixture
def photographs(workspace: Workspace) -> Workspace:
    """Digits of 48×48 pixels, in place of photographs."""
    write_splits(workspace, 128, 64, enlarged=6)
    return workspace


def test_the_first_epoch_of_a_pretrained_network_fits_its_last_layer_the_same_in_every_run(photographs: Workspace) -> None:
    import onnxruntime

    training = train(scenario(**PRETRAINED, epochs=1), photographs)
    (epoch,) = training.history
    assert (training.epochs, training.best_epoch, training.stopped) == (1, 1, "epochs")
    assert str(training).startswith("1 epoch, kept epoch 1, ")
    assert epoch["val_accuracy"] > 0.8 and epoch["loss"] < epoch["val_loss"] < 1.5
    assert not checkpoints(photographs)

    val = open_split(photographs.splits("quickstart"), "val")
    session = onnxruntime.InferenceSession(photographs.model("quickstart") / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["probabilities", "embedding", "class_activation"]
    found = session.run(None, {"images": np.array(val["images"])})[0]
    assert (found.argmax(axis=1) == val["labels"]).mean() == epoch["val_accuracy"]

    files = model_files(photographs)
    assert train(scenario(**PRETRAINED, epochs=1), photographs).history == training.history
    assert model_files(photographs) == files


def test_several_resolutions_are_part_of_the_served_network(photographs: Workspace) -> None:
    from evergreen.evaluation.energy_ratio import work_of
    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.training.export import compare

    wide = {**PRETRAINED, "epochs": 2, "resolutions": (2.0, 1.0), "flip": "horizontal", "mirror": True}
    training = train(scenario(**wide), photographs)
    assert training.history[0]["val_accuracy"] > 0.8 and len({epoch["val_loss"] for epoch in training.history}) == 2
    split = open_split(photographs.splits("quickstart"), "val")
    assert compare(photographs.model("quickstart"), split, ImageLearner()) < 1e-4
    assert json.loads((photographs.model("quickstart") / "settings.json").read_text())["train"]["resolutions"] == [2.0, 1.0]
    work = work_of(photographs.model("quickstart") / "model.onnx")
    train(scenario(**{**wide, "epochs": 1, "resolutions": (1.0,)}), photographs)
    single = work_of(photographs.model("quickstart") / "model.onnx")
    assert work and single and 4 < work[0] / single[0] < 5


def test_tiles_are_part_of_the_served_network(workspace: Workspace) -> None:
    from evergreen.evaluation.energy_ratio import work_of
    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.training.export import compare

    write_splits(workspace, 96, 32, enlarged=9)
    tiled = {
        **PRETRAINED,
        "epochs": 2,
        "tiles": {"side": 48, "overlap": 24, "join": "max"},
        "flip": "horizontal",
        "mirror": True,
    }
    training = train(scenario(**tiled, answers={"unlike": 0.1}), workspace)
    assert training.history[0]["val_accuracy"] > 0.7
    split = open_split(workspace.splits("quickstart"), "val")
    assert compare(workspace.model("quickstart"), split, ImageLearner()) < 1e-4
    assert work_of(workspace.model("quickstart") / "model.onnx") is not None


def test_later_epochs_adjust_the_whole_network_and_an_interruption_changes_nothing(
    photographs: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen.training.callbacks import LogEpochs

    undisturbed = Workspace(tmp_path / "undisturbed")
    write_splits(undisturbed, 128, 64, enlarged=6)
    whole = train(scenario(**PRETRAINED, epochs=3), undisturbed)
    assert len(whole.history) == 3 and len({epoch["val_loss"] for epoch in whole.history}) == 3

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(LogEpochs, "on_epoch_end", interrupt)
        train(scenario(**PRETRAINED, epochs=3), photographs)
    assert len(saved(photographs).state.history) == 1
    resumed = train(scenario(**PRETRAINED, epochs=3), photographs)
    assert resumed.history == whole.history
    assert model_files(photographs) == model_files(undisturbed)


def test_the_run_in_mlflow_has_settings_every_epoch_and_the_learning_curve(prepared: Workspace) -> None:
    from evergreen.registry.models import connect

    training = train(scenario(epochs=2), prepared)
    client = connect(prepared).MlflowClient()
    run = client.get_run(training.run_id)
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "evergreen-quickstart"
    assert run.data.params["train.filters"] == "8" and run.data.params["train_items"] == "256"
    for metric in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch_seconds"):
        assert [entry.step for entry in client.get_metric_history(training.run_id, metric)] == [1, 2]
    assert [entry.value for entry in client.get_metric_history(training.run_id, "loss")] == [
        e["loss"] for e in training.history
    ]
    assert "learning_curve.png" in [file.path for file in client.list_artifacts(training.run_id)]


def test_training_keeps_its_work_when_mlflow_goes_away(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start_run = Tracker.start_run

    def start_and_lose_the_server(self: Tracker, *arguments: Any) -> str | None:
        run_id = start_run(self, *arguments)
        self.mlflow.set_tracking_uri("http://127.0.0.1:9")  # nothing answers at the discard port
        return run_id

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(Tracker, "start_run", start_and_lose_the_server)
    with caplog.at_level(logging.WARNING, "evergreen"):
        training = train(scenario(), prepared)
    assert training.epochs == 3 and (prepared.model("quickstart") / "model.onnx").is_file()
    assert sum("MLflow can't be reached" in entry.message for entry in caplog.records) == 1


def test_it_stops_when_the_validation_loss_no_longer_falls_and_keeps_the_best_weights(prepared: Workspace) -> None:
    training = train(scenario(epochs=60, patience=2, learning_rate=1.0), prepared)
    losses = [entry["val_loss"] for entry in training.history]
    assert training.stopped == "patience"
    assert training.best_epoch == int(np.argmin(losses)) + 1 == training.epochs - 2

    from evergreen.models import cnn

    val = open_split(prepared.splits("quickstart"), "val")
    predicted = (
        cnn.load(prepared.model("quickstart") / "model.keras").predict(np.array(val["images"]), verbose=0).argmax(axis=1)
    )
    assert np.mean(predicted == val["labels"]) == pytest.approx(
        training.history[training.best_epoch - 1]["val_accuracy"], abs=2 / len(val)
    )


@pytest.mark.parametrize(("budget", "reason"), [({"max_seconds": 0.01}, "seconds"), ({"max_wh": 1e-9}, "energy")])
def test_a_spent_budget_ends_the_training_cleanly(prepared: Workspace, budget: dict[str, float], reason: str) -> None:
    training = train(scenario(epochs=50, **budget), prepared)
    assert (training.stopped, training.epochs, training.best_epoch) == (reason, 1, 1)
    assert set(model_files(prepared)) == {"model.keras", "model.onnx", "history.json", "settings.json"}


def test_budgets_count_what_an_earlier_attempt_has_spent(prepared: Workspace) -> None:
    settings = scenario(epochs=50, max_seconds=3600)
    split = open_split(prepared.splits("quickstart"), "train")
    key = fingerprint(settings, prepared.splits("quickstart"), split, None)
    earlier = Stopped(prepared, settings, after=2)
    checkpoint = Checkpoint(prepared.checkpoints("quickstart"), key)
    earlier.found.state.seconds = 3600.0
    checkpoint.write(*earlier.found)
    training = train(settings, prepared)
    assert (training.stopped, training.epochs) == ("seconds", 3)
    assert record(prepared)["seconds"] > 3600


class Stopped:
    """A training that an exception ended after so many epochs; `found` is what its checkpoint holds."""

    def __init__(self, workspace: Workspace, settings: Scenario, after: int) -> None:
        log_metrics = Tracker.log_metrics

        def stop(tracker: Tracker, metrics: dict[str, float], epoch: int) -> None:
            log_metrics(tracker, metrics, epoch)
            if epoch == after:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tracker, "log_metrics", stop)
            with pytest.raises(KeyboardInterrupt):
                train(settings, workspace)
        self.found = saved(workspace)


def test_a_training_that_was_ended_goes_on_in_the_same_mlflow_run_unless_settings_changed(prepared: Workspace) -> None:
    stopped = Stopped(prepared, scenario(), after=1)
    run_id = stopped.found.state.run_id
    assert run_id
    again = train(scenario(), prepared)
    assert again.run_id == run_id and record(prepared)["attempts"] == 2
    other = train(scenario(learning_rate=0.2), prepared)
    assert other.run_id != run_id and record(prepared)["attempts"] == 1


EXPLODES: dict[str, Any] = {"learning_rate": 10.0, "weight_decay": 1.0, "epochs": 6}  # each step multiplies the weights by -9


def test_a_training_that_diverges_is_ended_makes_no_model_and_is_not_repeated(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(scenario(epochs=1), prepared)
    before = model_files(prepared)
    with pytest.raises(Diverged, match=r"diverged in epoch \d.*Lower train.learning_rate \(it is 10\)") as first:
        train(scenario(**EXPLODES), prepared)
    assert "as it did before" not in str(first.value) and model_files(prepared) == before
    with monkeypatch.context() as patched, pytest.raises(Diverged, match="as it did before with the same items and settings"):
        patched.setattr("keras.Model.fit", None)  # it is not trained again
        train(scenario(**EXPLODES), prepared)
    assert train(scenario(epochs=1, shift=2), prepared).stopped == "epochs"  # other settings are another training


def test_a_finite_loss_far_beyond_guessing_is_divergence_too(prepared: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evergreen.training.fitting.DIVERGED", 0.1)  # times log(10): any first epoch's loss is larger
    with pytest.raises(Diverged, match="diverged in epoch 1: the loss is [0-9.]+; .*expected at most 0.23"):
        train(scenario(), prepared)


def test_the_run_of_a_training_that_diverged_has_failed_in_mlflow(prepared: Workspace) -> None:
    with pytest.raises(Diverged):
        train(scenario(**EXPLODES), prepared)
    from evergreen.registry.models import connect

    (run,) = connect(prepared).search_runs(experiment_names=["evergreen-quickstart"], output_format="list")
    assert run.info.status == "FAILED"


def test_balanced_weights_make_a_difference_on_unbalanced_data(prepared: Workspace) -> None:
    losses = {
        which: train(scenario(epochs=1, class_weights=which), prepared).history[0]["loss"] for which in ("none", "balanced")
    }
    assert losses["none"] != losses["balanced"]


def test_an_empty_train_split_is_refused(workspace: Workspace) -> None:
    write_splits(workspace, train_items=0)
    with pytest.raises(EvergreenError, match="the train split is empty"):
        train(scenario(), workspace)


def test_without_a_validation_split_the_last_weights_are_kept(workspace: Workspace) -> None:
    write_splits(workspace, val_items=0)
    training = train(scenario(epochs=2), workspace)
    assert training.best_epoch == 2 and training.quality == "" and "val" not in str(training)


def test_a_training_survives_the_way_through_json(workspace: Workspace) -> None:
    from dataclasses import asdict, replace

    from pydantic import TypeAdapter

    training = Training(3, 2, "patience", 10, 5, 100, "float32", "90 %", "abc", [{"loss": 1.0}])
    assert TypeAdapter(Training).validate_python(json.loads(json.dumps(asdict(training)))) == training
    assert str(training) == "3 epochs (stopped: patience), kept epoch 2, 90 % on val, 100 parameters"
    history = [{"loss": 1 / 3, "accuracy": 2 / 3, "val_loss": 0.5, "val_accuracy": 1.0, "learning_rate": 1.2345e-5}]
    shown = train_file.page(scenario(), workspace, replace(training, history=history, best_epoch=1)).tables["Epochs"]
    assert shown == [
        {
            "epoch": "1, kept",
            "loss": "0.333",
            "accuracy": "67 %",
            "val loss": "0.500",
            "val accuracy": "100 %",
            "learning rate": "0.000012",
        }
    ]
    assert train_file.stage.in_dvc and train_file.stage.name == "train"  # as dvc.yaml names it
