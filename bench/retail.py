"""Fashion-MNIST from its IDX files (`retail`): what the shipped scenario reaches on the source's 10,000 test items, with the
time and energy of the stage *train*, beside the table in the source's README.

Settings are compared on val: --val leaves the test items alone, and --set changes settings of the section `train`.

Run: python -m bench.retail [--val] [--set '{"filters": 64, "epochs": 16}']
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from bench.report import machine
from bench.trained import image_scenario, prepared, probabilities
from evergreen import figures
from evergreen.energy.meter import Meter
from evergreen.kinds.classify.metrics import quality
from evergreen.preparation.arrays import open_split

# Test accuracy, from the README of zalandoresearch/fashion-mnist.
PUBLISHED = {
    "2 convolutions, under 100,000 parameters": 0.925, "ResNet18": 0.949, "MobileNet": 0.950, "DenseNet-BC, 768,000 parameters": 0.954,
    "WRN-28-10": 0.959, "WRN40-4": 0.967,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--val", action="store_true", help="measure on val and not on test")
    parser.add_argument(
        "--set", type=json.loads, default={}, metavar="JSON", help="settings of train, in place of the scenario's"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tasks.train import train

    with tempfile.TemporaryDirectory() as folder:
        workspace = prepared("retail", Path(folder))
        scenario = image_scenario(workspace.scenarios, "retail").with_train(arguments.set)
        with Meter() as meter:
            train(scenario, workspace)
            spent = meter.spent()
        split = open_split(workspace.splits("retail"), "val" if arguments.val else "test")
        found = quality(split["labels"].astype(int), probabilities(workspace.model("retail"), split))
    accuracy = figures.percent(found["accuracy"], found["accuracy_low"], found["accuracy_high"])
    settings = f"{scenario.train.filters} filters, {scenario.train.epochs} epochs"
    print(f"{machine()}\n{settings}: accuracy {accuracy} of {len(split):,} {split.name} items")
    print(
        f"train took {figures.duration(spent.seconds)} and {figures.energy(spent.energy_wh, spent.uncertainty_wh)} ({', '.join(spent.methods)})"
    )
    print("published: " + ", ".join(f"{name} {value:.1%}" for name, value in PUBLISHED.items()))


if __name__ == "__main__":
    main()
