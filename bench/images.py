"""Small data sets of images: the last layer on frozen features, as `train.model: auto` tries it, beside the small network from
scratch, and beside a rival, the mean of the pre-trained network's last features with the same regression.

StratifiedGroupKFold(5) by groups: clips of fire by their names and others by blocks of 100 numbers, cells by the photograph
that they were cut from, tiles by the clusters of the product's own split. For each seed the mean over the folds with its
standard deviation, and macro F1 and accuracy over the predictions of all folds. The small network keeps its last epoch, so that
no fold's test items choose anything.

Run: python -m bench.images [fire-cctv apple-leaf blood-cells magnetic-tile] [--seeds 3] [--side 224] [--json]
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.features import GROUPS, features, read
from bench.trained import bring_in, image_scenario
from evergreen.energy.meter import Meter
from evergreen.environment import import_tensorflow
from evergreen.kinds.base.split import SPLITS, Split
from evergreen.kinds.classify.learner import SMALL_SIDE, class_weights
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.training.checkpoint import Checkpoint
from evergreen.training.fitting import Fitting, TrainingData
from evergreen.training.last_layer import fit_last_layer
from evergreen.training.tracking import Untracked
from evergreen.workspace import Workspace

TILES = "magnetic-tile"
ROOT = Path(__file__).resolve().parents[1]

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]  # the rows of train and test to the predictions for test


def tiles(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `bench.features.read`, with the clusters that the scenario `inspection` finds for groups."""
    import pyarrow.parquet as pq

    from bench.report import environment, fresh_checkout, samples
    from evergreen.preparation.arrays import open_split

    with tempfile.TemporaryDirectory() as scratch:
        checkout = fresh_checkout(Path(scratch) / "checkout")
        file = checkout / "scenarios" / "inspection.yaml"
        text = file.read_text(encoding="utf-8")
        for name in ("height", "width"):
            text = re.sub(rf"\b{name}: \d+", f"{name}: {side}", text)
        file.write_text(text, encoding="utf-8")
        bring_in("inspection", checkout, environment(checkout) | {"EVERGREEN_SAMPLES": str(samples())})
        splits = Workspace(checkout).splits("inspection")
        rows = pq.read_table(splits / "items.parquet", columns=["cluster", "split", "row"]).to_pandas()
        parts = []
        for name in SPLITS:
            of_split, split = rows[rows["split"] == name].sort_values("row"), open_split(splits, name)
            parts.append((np.repeat(split["images"], 3, axis=3), split["labels"].astype(int), of_split["cluster"].to_numpy()))
    images, labels, groups = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images, labels, groups


def on_features(values: np.ndarray, labels: np.ndarray) -> Predict:
    count = int(labels.max()) + 1

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        layer = fit_last_layer(values[train], labels[train], count, class_weights(labels[train], count))
        found: np.ndarray = layer.probabilities(values[test]).argmax(axis=1)
        return found

    return predict


def small_network(images: np.ndarray, labels: np.ndarray, seed: int) -> Predict:
    """The small network with the settings that `evergreen new` proposes for so many items."""
    scenario = _scenario(images.shape[1:], len(labels), [str(label) for label in range(int(labels.max()) + 1)], seed)
    every = Split("train", {"images": images, "labels": labels}, {"labels": list(scenario.validation.labels)})

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        data = TrainingData(every.rows(train), every.rows(np.array([], int)))
        with tempfile.TemporaryDirectory() as scratch, Meter() as meter:
            workspace = Workspace(Path(scratch))
            tracker = Untracked(scenario, workspace, experiment="", description="")
            fitting = Fitting(scenario, data, Checkpoint(workspace.root / "checkpoints", "one"), tracker, meter, None)
            fitting.run("train", [])
            found: np.ndarray = fitting.best_model().predict(images[test], batch_size=32, verbose=0).argmax(axis=1)
        return found

    return predict


def _scenario(shape: tuple[int, ...], items: int, labels: list[str], seed: int) -> ImageScenario:
    quickstart = image_scenario(ROOT / "scenarios", "quickstart")
    height, width, channels = shape
    preprocess = quickstart.preprocess.model_copy(update={"height": height, "width": width, "channels": channels})
    settings = {
        "model": "residual", "filters": 32, "reduction": max(1, min(height, width) // SMALL_SIDE), "class_weights": "balanced",
        "epochs": 80 if items < 2_000 else 30, "batch_size": 32, "learning_rate": 0.1, "label_smoothing": 0.1,
        "flip": "horizontal", "shift": min(height, width) // 16,
    }  # fmt: skip
    validation = quickstart.validation.model_copy(update={"labels": labels})
    changed = {"preprocess": preprocess, "validation": validation, "seed": seed}
    return quickstart.model_copy(update=changed).with_train(settings)


def judged(predict: Predict, labels: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, float]:
    """Macro F1 and accuracy in %, over all folds and as the mean over the folds."""
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedGroupKFold

    predicted, each, started = np.zeros_like(labels), [], time.monotonic()
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups):
        predicted[test] = predict(train, test)
        each.append(100 * float(f1_score(labels[test], predicted[test], average="macro")))
    return {
        "f1_macro_pooled": 100 * float(f1_score(labels, predicted, average="macro")),
        "accuracy_pooled": 100 * float((predicted == labels).mean()),
        "f1_macro_mean": float(np.mean(each)),
        "f1_macro_deviation": float(np.std(each, ddof=1)),
        "seconds": time.monotonic() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", default=[*sorted(GROUPS), TILES])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    import_tensorflow()
    from evergreen.models.backbones import DEPTHS

    for data in arguments.data:
        images, labels, groups = tiles(arguments.side) if data == TILES else read(data, arguments.side)
        every = features(images)
        frozen, head = np.concatenate([every[depth] for depth in DEPTHS], axis=1), every[-1][:, : every[-1].shape[1] // 3]
        for seed in range(arguments.seeds):
            ways = {
                "last layer on frozen features": on_features(frozen, labels),
                "rival: the head's mean": on_features(head, labels),
                "small network from scratch": small_network(images, labels, seed),
            }
            for name, predict in ways.items():
                row = {"data": data, "items": len(labels), "seed": seed, "way": name} | judged(predict, labels, groups, seed)
                text = (
                    f"{data}, seed {seed}, {name}: macro F1 {row['f1_macro_pooled']:.1f} % pooled, {row['f1_macro_mean']:.1f} ± "
                    f"{row['f1_macro_deviation']:.1f} % over folds; accuracy {row['accuracy_pooled']:.1f} %; {row['seconds']:.0f} s"
                )
                print(json.dumps(row) if arguments.json else text, flush=True)


if __name__ == "__main__":
    main()
