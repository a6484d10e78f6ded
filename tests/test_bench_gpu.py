"""The measurement on a GPU, step by step on the processor with a few digits: nobody should find out on a rented machine that it
fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bench import gpu_networks
from bench.gpu import Part, main
from evergreen.kinds.base.split import Split
from evergreen.workspace import Workspace
from tests.support.shipped import ROOT
from tests.tasks.test_train import write_splits

TINY = {
    "from nothing": Part("quickstart", {"epochs": 2, "filters": 4}, aim=0.1),
    "fine-tuning": Part("quickstart", {"epochs": 1, "filters": 4}),  # the pre-trained network itself is tested elsewhere
}


def checkout(_scenario: str, folder: Path) -> Workspace:
    """A few of the digits."""
    workspace = Workspace(folder)
    workspace.scenarios.mkdir()
    shutil.copy(ROOT / "scenarios" / "quickstart.yaml", workspace.scenarios)
    write_splits(workspace)
    splits = workspace.splits("quickstart")
    for array in ("images", "labels"):
        shutil.copy(splits / f"val-{array}.npy", splits / f"test-{array}.npy")
    return workspace


@pytest.mark.slow
def test_each_part_is_trained_from_a_cold_and_a_warm_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.trial.TRIAL_SECONDS", 0.1)
    assert main(["--json"], checkout, TINY, gpus=1) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert [(one["part"], one["start"]) for one in found] == [(part, start) for part in TINY for start in ("cold", "warm")]
    for one in found:
        assert one["images_per_second"] > 0 and 0 <= one["accuracy"] <= 1
        assert one["energy"]["energy_joules"] > 0 and one["expected_seconds"] > 0


def test_without_a_gpu_nothing_is_measured_and_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], checkout, TINY, gpus=0) == 0
    printed = capsys.readouterr()
    assert not printed.out and "no NVIDIA GPU" in printed.err and "nothing was measured" in printed.err


def test_an_unknown_part_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["imagenet"], checkout, TINY, gpus=1)
    assert refused.value.code == 2
    assert "no part 'imagenet': choose from nothing or fine-tuning" in capsys.readouterr().err


def test_the_networks_alone_are_trained_without_the_stages() -> None:
    scenario = gpu_networks.scenario_of("cifar10", {"filters": 4, "epochs": 2, "batch_size": 16, "class_weights": "balanced"})
    random = np.random.default_rng(0)
    facts = {"labels": list(scenario.validation.labels)}
    arrays = {"images": random.integers(0, 256, (64, 32, 32, 3), np.uint8), "labels": np.arange(64) % 10}
    found = gpu_networks.measure("tiny", "cold", scenario, dict.fromkeys(("train", "test"), Split("train", arrays, facts)), {})
    assert found["backend"] == "tensorflow" and found["train_items"] == 64
    assert found["images_per_second"] > 0 and 0 <= found["accuracy"] <= 1
