"""A shipped scenario's data made ready in a checkout of its own, and its network trained and tested there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bench.report import environment, fresh_checkout, samples
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.metrics import quality
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.preparation.arrays import open_split
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace


def prepared(name: str, folder: Path) -> Workspace:
    """A checkout in `folder` in which the scenario's data is collected and split."""
    checkout = fresh_checkout(folder)
    variables = environment(checkout) | ({} if name == "quickstart" else {"EVERGREEN_SAMPLES": str(samples())})
    bring_in(name, checkout, variables)
    return Workspace(checkout)


def bring_in(name: str, checkout: Path, variables: dict[str, str]) -> None:
    """Collect, validate, version and preprocess a scenario's data in a checkout."""
    command = [sys.executable, "-m", "bench.data_stages", name]
    subprocess.run(command, cwd=checkout, env=variables, check=True, capture_output=True)


def image_scenario(folder: Path, name: str) -> ImageScenario:
    """A scenario of the kind `classify`, as `load_scenario`."""
    scenario = load_scenario(folder, name)
    assert isinstance(scenario, ImageScenario)
    return scenario


def trained(name: str, workspace: Workspace, **settings: object) -> tuple[float, dict[str, float]]:
    """Seconds of the whole stage `train`, and the figures on the test split of what it wrote.

    Args:
        settings: of the scenario's section `train`, in place of its own.
    """
    from tasks.train import train

    scenario = image_scenario(workspace.scenarios, name).with_train(settings)
    started = time.perf_counter()
    train(scenario, workspace)
    spent = time.perf_counter() - started
    test = open_split(workspace.splits(name), "test")
    return spent, quality(test["labels"].astype(int), probabilities(workspace.model(name), test))


def probabilities(model: Path, split: Split) -> np.ndarray:
    """Of a model's folder, for the items of a split: float32 `(items, labels)`."""
    from evergreen.serving.scoring import Model

    return Model.open(model).run({"images": split["images"]})["probabilities"]
