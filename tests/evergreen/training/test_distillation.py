from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.preparation.arrays import ordered_batches
from evergreen.training import distillation
from evergreen.training.distillation import TEACHER_ANSWERS, cross_fitted, mixed, taught
from evergreen.workspace import Workspace
from tasks.train import train
from tests.evergreen.training.test_selection import opened, scenario, write_splits

STUDENT = {"model": "efficientnet_lite0_small", "epochs": 3, "fine_tuning_rate": 1e-3, "distil": True, "mixup": 0.2}


def planted(clusters: int, of_cluster: int, labels: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and clusters of items that are alike within a cluster; the features tell nothing of the labels."""
    random = np.random.default_rng(0)
    features = random.normal(size=(clusters, 200)).repeat(of_cluster, axis=0).astype(np.float32)
    return features, (np.arange(clusters) % labels).repeat(of_cluster), np.arange(clusters).repeat(of_cluster)


def test_a_teacher_has_seen_neither_the_item_nor_its_cluster() -> None:
    features, labels, clusters = planted(60, 3)
    found = cross_fitted(features, labels, clusters, 3, None, seed=0)
    assert found.shape == (180, 3) and found.dtype == np.float32 and np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found.argmax(axis=1) == labels).mean() < 0.6  # guessing is right for a third
    leaking = cross_fitted(features, labels, np.arange(180), 3, None, seed=0)
    assert (leaking.argmax(axis=1) == labels).mean() > 0.9


def test_the_answers_are_the_same_in_every_call_and_others_with_another_seed() -> None:
    items = planted(30, 2)
    first = cross_fitted(*items, 3, None, seed=1)
    assert np.array_equal(first, cross_fitted(*items, 3, None, seed=1))
    assert not np.array_equal(first, cross_fitted(*items, 3, None, seed=2))


def test_items_of_one_cluster_are_taught_by_a_teacher_that_has_seen_them() -> None:
    features, labels, _ = planted(30, 1)
    found = cross_fitted(features, labels, np.zeros(30, int), 3, None, seed=0)
    assert (found.argmax(axis=1) == labels).mean() > 0.9


def test_a_label_of_one_cluster_keeps_half_of_its_target() -> None:
    features, labels, clusters = planted(20, 2, labels=2)
    labels[:2] = 2
    found = cross_fitted(features, labels, clusters, 3, None, seed=0)
    assert found[:2, 2].max() < 1e-6
    assert np.allclose(mixed(np.eye(3)[labels], found)[:2, 2], 0.5)


def test_the_targets_are_halfway_between_labels_and_answers() -> None:
    found = mixed(np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([[0.6, 0.3, 0.1], [0.9, 0.1, 0.0]]))
    assert found.dtype == np.float32
    assert np.allclose(found, [[0.8, 0.15, 0.05], [0.45, 0.55, 0.0]])  # the second teacher is wrong: the label still is first


def test_batches_have_these_targets_where_there_are_answers() -> None:
    arrays = {"images": np.zeros((2, 4, 4, 1), np.uint8), "labels": np.array([1, 0])}
    answers = np.array([[0.5, 0.5], [1.0, 0.0]], np.float32)
    for more, expected in (({}, [[0, 1], [1, 0]]), ({TEACHER_ANSWERS: answers}, [[0.25, 0.75], [1, 0]])):
        split = Split("train", {**arrays, **more}, {"labels": ["a", "b"]})
        ((_, targets),) = ordered_batches(split, ImageLearner(), 2).as_numpy_iterator()
        assert np.allclose(targets, expected)


def test_without_distil_nobody_is_asked(workspace: Workspace, tmp_path: Path) -> None:
    write_splits(workspace, 8, 4)
    data = opened(workspace)
    assert taught(scenario(model="residual"), workspace.splits("quickstart"), data, tmp_path / "kept") is data
    assert not (tmp_path / "kept").exists()


@pytest.mark.slow
def test_a_taught_network_is_another_one_and_an_interruption_changes_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen.training.callbacks import LogEpochs

    undisturbed, untaught = Workspace(tmp_path / "undisturbed"), Workspace(tmp_path / "untaught")
    for one in (workspace, undisturbed, untaught):
        write_splits(one)
    whole = train(scenario(**STUDENT), undisturbed)
    plain = train(scenario(**STUDENT | {"distil": False}), untaught)
    assert whole.history[-1]["val_loss"] != plain.history[-1]["val_loss"]
    assert whole.history[0]["val_loss"] == plain.history[0]["val_loss"]  # the last layer on frozen features: the labels alone
    assert whole.history[0]["val_accuracy"] > 0.6

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(LogEpochs, "on_epoch_end", interrupt)
        train(scenario(**STUDENT), workspace)
    monkeypatch.setattr(distillation, "cross_fitted", None)  # nobody is asked again
    assert train(scenario(**STUDENT), workspace).history == whole.history
    ours, theirs = (one.model("quickstart") / "model.onnx" for one in (workspace, undisturbed))
    assert ours.read_bytes() == theirs.read_bytes()
    assert not workspace.checkpoints("quickstart").exists()


@pytest.mark.slow
def test_a_small_network_from_scratch_can_be_taught_too(workspace: Workspace) -> None:
    write_splits(workspace, 64, 16)
    training = train(scenario(model="residual", distil=True, epochs=1), workspace)
    assert len(training.history) == 1 and np.isfinite(training.history[0]["loss"])
