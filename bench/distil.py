"""Distillation on small data sets: `efficientnet_lite0_small`, taught by the labels alone and with `train.distil`, beside its
teacher, the last layer on frozen features of the whole network at 224 pixels, and (with --scratch) the small network from
scratch.

StratifiedGroupKFold(5) by groups, as in `bench.images`; the last epoch is kept, so that no fold's test items choose anything.
What a prediction with each takes is measured by `python -m bench.prediction_energy`.

Run: python -m bench.distil [apple-leaf blood-cells magnetic-tile fire-cctv] [--seeds 1] [--folds 5] [--epochs 20] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.features import GROUPS, features, read
from bench.images import ROOT, TILES, Predict, on_features, small_network, tiles
from bench.trained import image_scenario
from evergreen.energy.meter import Meter
from evergreen.environment import import_tensorflow
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.learner import class_weights
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.training.checkpoint import Checkpoint
from evergreen.training.distillation import TEACHER_ANSWERS, cross_fitted
from evergreen.training.fitting import Fitting, TrainingData
from evergreen.training.tracking import Untracked
from evergreen.workspace import Workspace

SIDE = 224


def averaged(images: np.ndarray, reduction: int) -> np.ndarray:
    """Images whose squares of so many by so many pixels are averaged, as `train.reduction` does it in the network: here once,
    rounded to whole values."""
    side = images.shape[1] // reduction
    cut = images[:, : side * reduction, : side * reduction]
    squares = cut.reshape(len(images), side, reduction, side, reduction, images.shape[3])
    return np.stack([one.mean(axis=(1, 3)).round().astype(np.uint8) for one in squares])


def student(images: np.ndarray, labels: np.ndarray, settings: dict[str, Any], seed: int) -> ImageScenario:
    """The scenario of a student with these settings of `train`."""
    quickstart = image_scenario(ROOT / "scenarios", "quickstart")
    height, width, channels = images.shape[1:]
    preprocess = quickstart.preprocess.model_copy(update={"height": height, "width": width, "channels": channels})
    names = [str(label) for label in range(int(labels.max()) + 1)]
    validation = quickstart.validation.model_copy(update={"labels": names})
    usual = {
        "model": "efficientnet_lite0_small", "class_weights": "balanced", "batch_size": 32, "label_smoothing": 0.0,
        "flip": "horizontal", "shift": images.shape[1] // 16,
    }  # fmt: skip
    changed = {"preprocess": preprocess, "validation": validation, "seed": seed}
    return quickstart.model_copy(update=changed).with_train(usual | settings)


def taught(
    scenario: ImageScenario, images: np.ndarray, labels: np.ndarray, groups: np.ndarray, frozen: np.ndarray | None
) -> Predict:
    """A student; if there are the teacher's frozen features, it is taught what the teacher says of its training items."""
    names = list(scenario.validation.labels)
    every = Split("train", {"images": images, "labels": labels}, {"labels": names})

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        of_train = every.rows(train)
        if frozen is not None:
            weights = class_weights(labels[train], len(names))
            answers = cross_fitted(frozen[train], labels[train], groups[train], len(names), weights, seed=scenario.seed)
            of_train = Split("train", {**of_train.arrays, TEACHER_ANSWERS: answers}, of_train.facts)
        data = TrainingData(of_train, every.rows(np.array([], int)))
        with tempfile.TemporaryDirectory() as scratch, Meter() as meter:
            workspace = Workspace(Path(scratch))
            tracker = Untracked(scenario, workspace, experiment="", description="")
            fitting = Fitting(scenario, data, Checkpoint(workspace.root / "checkpoints", "one"), tracker, meter, None)
            fitting.run("train", [])
            found: np.ndarray = fitting.best_model().predict(images[test], batch_size=32, verbose=0).argmax(axis=1)
        return found

    return predict


def judged(predict: Predict, labels: np.ndarray, groups: np.ndarray, seed: int, folds: int) -> dict[str, Any]:
    """Macro F1 in % of each of the first folds and over the items of all of them, and the seconds that it took."""
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedGroupKFold

    parts = list(StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups))[:folds]
    started = time.monotonic()
    found = [predict(train, test) for train, test in parts]
    each = [100 * float(f1_score(labels[test], one, average="macro")) for one, (_, test) in zip(found, parts, strict=True)]
    tested = labels[np.concatenate([test for _, test in parts])]
    pooled = 100 * float(f1_score(tested, np.concatenate(found), average="macro"))
    return {"f1_macro_pooled": pooled, "f1_macro": each, "seconds": time.monotonic() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help=f"of {', '.join(sorted(GROUPS))} and {TILES}; all without a name")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, default=5, help="how many of the five are measured")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1e-3, help="train.fine_tuning_rate")
    parser.add_argument("--reduction", type=int, default=3)
    parser.add_argument("--scratch", action="store_true", help="measure the small network from scratch too")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    import_tensorflow()
    from evergreen.models.backbones import DEPTHS

    settings = {"epochs": arguments.epochs, "fine_tuning_rate": arguments.rate}
    for data in arguments.data or [*sorted(GROUPS), TILES]:
        images, labels, groups = tiles(SIDE) if data == TILES else read(data, SIDE)
        every = features(images)
        frozen = np.concatenate([every[depth] for depth in DEPTHS], axis=1)
        small = averaged(images, arguments.reduction)
        for seed in range(arguments.seeds):
            scenario = student(small, labels, settings, seed)
            ways = {
                "teacher": on_features(frozen, labels),
                "student, labels alone": taught(scenario, small, labels, groups, None),
                "student, taught": taught(scenario, small, labels, groups, frozen),
            }
            if arguments.scratch:
                ways["small network from scratch"] = small_network(images, labels, seed)
            for name, predict in ways.items():
                row = {"data": data, "items": len(labels), "seed": seed, "way": name}
                row |= judged(predict, labels, groups, seed, arguments.folds)
                each = ", ".join(f"{one:.1f}" for one in row["f1_macro"])
                text = f"{data}, seed {seed}, {name}: macro F1 {row['f1_macro_pooled']:.1f} % pooled, by fold {each}; {row['seconds']:.0f} s"
                print(json.dumps(row) if arguments.json else text, flush=True)


if __name__ == "__main__":
    main()
