"""What a warm start saves: CIFAR-10 with the first 60 % of its training items, then with all of them. The champion of the 60 %
is fine-tuned on all, as a retraining does, and a network is trained from scratch on all beside it; the gate compares both with
the champion, and with each other. The test split is the source's own and learned from by none.

Run: python -m bench.warm [--json] [--seeds 3] [--shipped]      (--shipped: the scenario's own 72 filters and 17 epochs: about
an hour)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.cifar10 import FAST
from bench.report import Row, median, show
from bench.trained import image_scenario, prepared, probabilities
from evergreen.energy.meter import Meter
from evergreen.evaluation.gate import decide
from evergreen.kinds.classify.comparison import LabelComparison
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.preparation.arrays import open_split
from evergreen.training.fine_tuning import Start, WarmStart
from evergreen.workspace import Workspace, replace_file
from tasks.train import train

FIRST = 0.6
EPOCHS = 8  # of the small network


def measured(scenario: ImageScenario, workspace: Workspace, start: Start = "scratch") -> tuple[np.ndarray, float, float]:
    """Train; what the model makes of the test items, and the energy (Wh) and seconds that it took."""
    with Meter() as meter:
        train(scenario, workspace, start)
    test = open_split(workspace.splits(scenario.name), "test")
    spent = meter.spent()
    predicted: np.ndarray = probabilities(workspace.model(scenario.name), test).argmax(axis=1)
    return predicted, spent.energy_wh or float("nan"), spent.seconds


def first_part(whole: Workspace, folder: Path) -> Workspace:
    """A checkout with the same val and test splits, and a fraction of the training items."""
    part = Workspace(folder)
    shutil.copytree(whole.scenarios, part.scenarios)
    shutil.copytree(whole.splits("cifar10"), part.splits("cifar10"))
    items = open_split(whole.splits("cifar10"), "train")
    chosen = np.sort(np.random.default_rng(0).permutation(len(items))[: round(FIRST * len(items))])
    np.save(part.splits("cifar10") / "train-images.npy", items["images"][chosen])
    np.save(part.splits("cifar10") / "train-labels.npy", items["labels"][chosen])
    return part


def one(scenario: ImageScenario, part: Workspace, whole: Workspace) -> dict[str, float | bool]:
    """With one seed: accuracies, energies, seconds, and what the gate says."""
    test = open_split(whole.splits("cifar10"), "test")
    labels, names = test["labels"].astype(int), test.facts["labels"]
    champion, champion_wh, _ = measured(scenario, part)
    weights = (part.model("cifar10") / "model.keras").read_bytes()
    replace_file(whole.private / "warm" / "cifar10" / "model.keras", weights)
    settings = scenario.retraining
    start = WarmStart(1, hashlib.sha256(weights).hexdigest(), settings.fine_tune_epochs, settings.fine_tune_rate)
    warm, warm_wh, warm_seconds = measured(scenario, whole, start)
    scratch, scratch_wh, scratch_seconds = measured(scenario, whole)
    found: dict[str, float | bool] = {
        name: float((predicted == labels).mean())
        for name, predicted in (("champion", champion), ("warm", warm), ("scratch", scratch))
    }
    for name, predicted in (("warm", warm), ("scratch", scratch)):
        verdict = decide(
            LabelComparison(labels, champion, predicted, names), scenario.promote, None, seed=scenario.seed, tries=2
        )
        found[f"{name}_promoted"] = verdict.promote
    against = decide(LabelComparison(labels, warm, scratch, names), scenario.promote, None, seed=scenario.seed)
    return found | {
        "scratch_better_p": against.p_value,
        "champion_wh": champion_wh,
        "warm_wh": warm_wh,
        "scratch_wh": scratch_wh,
        "warm_seconds": warm_seconds,
        "scratch_seconds": scratch_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shipped", action="store_true")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        whole = prepared("cifar10", Path(folder) / "whole")
        part = first_part(whole, Path(folder) / "part")
        scenario = image_scenario(whole.scenarios, "cifar10")
        if not arguments.shipped:
            small = scenario.train.model_copy(update=FAST | {"epochs": EPOCHS})
            scenario = scenario.model_copy(update={"train": small})
        for seed in range(scenario.seed, scenario.seed + arguments.seeds):
            found.append(one(scenario.model_copy(update={"seed": seed}), part, whole))
            print(json.dumps(found[-1]), flush=True)

    def middle(name: str) -> float:
        return median([float(row[name]) for row in found])

    saved = 1 - middle("warm_wh") / middle("scratch_wh")
    row = Row(
        f"CIFAR-10, 60 % and then all: retraining ({scenario.train.filters} filters, {arguments.seeds} seeds)",
        f"fine-tuned from the champion ({middle('champion'):.2%}): {middle('warm'):.2%} for {middle('warm_wh'):.3g} Wh, {middle('warm_seconds'):.0f} s; "
        f"promoted {sum(bool(row['warm_promoted']) for row in found)} of {len(found)} times",
        f"from scratch, {scenario.train.epochs} epochs: {middle('scratch'):.2%} for {middle('scratch_wh'):.3g} Wh, {middle('scratch_seconds'):.0f} s; "
        f"promoted {sum(bool(row['scratch_promoted']) for row in found)} times",
        f"{saved:.0%} of the energy saved; from scratch better by more than chance {sum(row['scratch_better_p'] <= 0.05 for row in found)} times",
        "",
    )
    if arguments.json:
        print(json.dumps([asdict(row)]))
    else:
        show([row])


if __name__ == "__main__":
    main()
