"""A shipped scenario's data made ready in a checkout of its own, and its network trained and tested there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.report import environment, fresh_checkout, samples
from evergreen.kinds.classify.metrics import quality
from evergreen.preparation.arrays import open_split
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

PREPARE = """
import sys
from evergreen.environment import configure; from evergreen.workspace import Workspace
from evergreen.scenario.settings import Scenario; from tasks import collect, validate, version, preprocess
w = Workspace.find(); configure(w); s = Scenario.load(w.scenarios, sys.argv[1])
c = collect.stage.perform(s, w).result; validate.stage.perform(s, w, c); version.stage.perform(s, w, c); preprocess.stage.perform(s, w)
"""


def prepared(name: str, folder: Path) -> Workspace:
    """A checkout in `folder` in which the scenario's data is collected and split."""
    checkout = fresh_checkout(folder)
    told = environment(checkout) | ({} if name == "quickstart" else {"EVERGREEN_SAMPLES": str(samples())})
    subprocess.run([sys.executable, "-c", PREPARE, name], cwd=checkout, env=told, check=True, capture_output=True)
    return Workspace(checkout)


def trained(name: str, workspace: Workspace, **settings: object) -> tuple[float, dict[str, float]]:
    """Seconds of the whole stage `train`, and the figures on the test split of what it wrote.

    Args:
        settings: of the scenario's section `train`, in place of its own.
    """
    from evergreen.serving.scoring import Model
    from tasks.train import train

    scenario = Scenario.load(workspace.scenarios, name)
    scenario = scenario.model_copy(update={"train": scenario.train.model_copy(update=settings)})
    started = time.perf_counter()
    train(scenario, workspace)
    spent = time.perf_counter() - started
    test = open_split(workspace.splits(name), "test")
    probabilities = Model.open(workspace.model(name)).probabilities(test.images)
    return spent, quality(test.labels.astype(int), probabilities)
