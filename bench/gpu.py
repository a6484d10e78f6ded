"""Training on a GPU: the time, the images a second and the energy of CIFAR-10 from nothing (the aim is 94 % on its test split),
and of fine-tuning the pre-trained network at 224 pixels. Where no GPU is, it says so and measures nothing.

Each training is measured twice in one process: from a cold start, in which kernels are chosen and compiled, and from a warm
one. The energy is that of NVML's counter with the processor's share, beside what was estimated beforehand from a trial of
seconds.

On a bare machine, installation included, in some eight minutes on an H100: make bench-gpu. One part alone:
python -m bench.gpu cifar10 (or fine-tuning).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.report import Row, show
from bench.trained import image_scenario, prepared, probabilities
from evergreen import figures
from evergreen.energy.meter import Energy, Meter
from evergreen.energy.methods import gpu_count
from evergreen.environment import import_tensorflow
from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.classify.metrics import quality
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.planning.estimate import Expected
from evergreen.preparation.arrays import open_split
from evergreen.workspace import Workspace

AIM = 0.94  # accuracy on CIFAR-10's test split


@dataclass(frozen=True)
class Part:
    """A training that is measured.

    Attributes:
        scenario: its name.
        settings: of the section `train`, in place of the scenario's own.
        aim: accuracy on test; None for a training that is measured for its cost alone.
    """

    scenario: str
    settings: dict[str, object]
    aim: float | None = None


# The proportions of airbench94 (Jordan 2024), with more filters and epochs, for which a GPU has the time. They were chosen
# without one at hand.
PARTS = {
    "cifar10": Part("cifar10", {"filters": 96, "epochs": 40, "batch_size": 1024}, AIM),
    "fine-tuning": Part("security", {"model": "efficientnet_lite0", "epochs": 8, "flip": "horizontal", "shift": 14}),
}


@dataclass(frozen=True)
class Measured:
    """One training.

    Attributes:
        start: `cold` or `warm`.
        images_per_second: seen in training, over the whole stage.
        accuracy, f1_macro: on the test split.
        expected_wh, expected_seconds: as estimated beforehand; the energy is None if unknown.
    """

    part: str
    start: str
    energy: Energy
    images_per_second: float
    accuracy: float
    f1_macro: float
    expected_wh: float | None
    expected_seconds: float


def measure(name: str, part: Part, workspace: Workspace) -> list[Measured]:
    """Train a part twice in a checkout in which its data is split."""
    from tasks.trial import trial

    scenario = image_scenario(workspace.scenarios, part.scenario).with_train(part.settings)
    items = len(open_split(workspace.splits(part.scenario), "train"))
    expected = trial(scenario, items * kind_of(scenario).learner.equivalent_epochs(scenario))
    return [_once(name, start, scenario, workspace, items, expected) for start in ("cold", "warm")]


def _once(name: str, start: str, scenario: ImageScenario, workspace: Workspace, items: int, expected: Expected) -> Measured:
    from tasks.train import train

    with Meter() as meter:
        training = train(scenario, workspace)
    spent, test = meter.spent(), open_split(workspace.splits(scenario.name), "test")
    found = quality(test["labels"].astype(int), probabilities(workspace.model(scenario.name), test))
    return Measured(
        name, start, spent, items * training.epochs / spent.seconds, found["accuracy"], found["f1_macro"],
        expected.energy_wh, expected.seconds,
    )  # fmt: skip


def row(one: Measured, aim: float | None) -> Row:
    """A line of the table; its rival is the estimate."""
    return Row(
        f"{one.part}, {one.start} start",
        f"{figures.duration(one.energy.seconds)}, {one.images_per_second:,.0f} images/s, "
        f"{figures.energy(one.energy.energy_wh, one.energy.uncertainty_wh)} by {' and '.join(one.energy.methods) or 'no method'}",
        f"estimated: {figures.duration(one.expected_seconds)}, {figures.energy(one.expected_wh)}",
        f"accuracy {one.accuracy:.1%}, macro F1 {one.f1_macro:.1%}",
        "-" if aim is None else f"accuracy {aim:.0%}",
        None if aim is None else one.accuracy >= aim,
    )


def main(arguments: list[str], prepare: Callable[[str, Path], Workspace], parts: dict[str, Part], gpus: int) -> int:
    """Measure what was asked for, and print it.

    Args:
        arguments: of the command line.
        prepare: makes a checkout in a folder, in which a scenario's data is split.
        parts: what can be measured, by name.
        gpus: of this machine.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{' or '.join(parts)}; without any, all")
    parser.add_argument("--json", action="store_true", help="print the measurements as JSON")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.parts if name not in parts]:
        parser.error(f"there is no part {unknown[0]!r}: choose {' or '.join(parts)}")
    if not gpus:
        print("This machine has no NVIDIA GPU (the driver lists none): nothing was measured.", file=sys.stderr)
        return 0
    import_tensorflow()
    measured = []
    for name in given.parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            measured += measure(name, parts[name], prepare(parts[name].scenario, Path(folder)))
    if given.json:
        print(json.dumps([asdict(one) for one in measured]))
    else:
        show([row(one, parts[one.part].aim) for one in measured])
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1:], prepared, PARTS, gpu_count()))
