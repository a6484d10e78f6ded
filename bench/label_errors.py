"""How many wrong labels are among the first ones suggested: 5 % of the labels of a shipped scenario's data are flipped at
random, and the share of them is counted among the first 7.5 % of all items that `find_label_errors` suggests.

Rivals in the same run: random order, and the self-confidence of a model on the very items that it was fitted to (the least
probable labels first): the last layer on the same features, and with --network also the scenario's small network.

Run: python -m bench.label_errors [cifar10 medical …] [--seeds 3] [--network] [--checkout FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.cifar10 import FAST
from bench.report import environment, fresh_checkout, samples
from bench.trained import bring_in, image_scenario
from evergreen.energy.meter import Meter
from evergreen.environment import import_tensorflow
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.item_features import ItemFeatures, compared, item_features
from evergreen.kinds.classify.label_errors import label_errors, out_of_sample
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.preparation.arrays import open_split
from evergreen.training.checkpoint import Checkpoint
from evergreen.training.fitting import Fitting, TrainingData
from evergreen.training.last_layer import fit_last_layer
from evergreen.training.tracking import Untracked
from evergreen.workspace import Workspace

FLIPPED, SUGGESTED = 0.05, 0.075


def flipped(labels: np.ndarray, label_count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which 5 % are others, and which ones these are, bool `(items,)`."""
    random, wrong = np.random.default_rng(seed), np.zeros(len(labels), bool)
    wrong[random.permutation(len(labels))[: round(FLIPPED * len(labels))]] = True
    return np.where(wrong, (labels + random.integers(1, label_count, len(labels))) % label_count, labels), wrong


def share_found(order: np.ndarray, wrong: np.ndarray) -> float:
    """The share of the wrong labels among the first ones in an order."""
    return float(wrong[order[: round(SUGGESTED * len(wrong))]].sum() / wrong.sum())


def of_a_network(scenario: ImageScenario, workspace: Workspace, items: ItemFeatures) -> np.ndarray:
    """The probabilities that the small network gives the items that it was trained on, all of them: `(items, labels)`."""
    splits = [open_split(workspace.splits(scenario.name), name) for name in ("train", "val", "test")]
    rows = _rows(workspace, scenario.name)
    where = {id: (number, row) for id, number, row in rows}
    images = np.stack([splits[where[id][0]]["images"][where[id][1]] for id in items.ids])
    every = Split("train", {"images": images, "labels": items.labels.astype(np.uint8)}, splits[0].facts)
    data = TrainingData(every, every.rows(np.array([], int)))
    fast = scenario.with_train(FAST)
    with tempfile.TemporaryDirectory() as scratch, Meter() as meter:
        tracker = Untracked(fast, Workspace(Path(scratch)), experiment="", description="")
        fitting = Fitting(fast, data, Checkpoint(Path(scratch) / "checkpoints", "one"), tracker, meter, None)
        fitting.run("train", [])
        found: np.ndarray = fitting.best_model().predict(images, batch_size=500, verbose=0)
    return found


def _rows(workspace: Workspace, name: str) -> list[tuple[str, int, int]]:
    """Id, split and row of each item that is in a split."""
    import pyarrow.parquet as pq

    rows = pq.read_table(workspace.splits(name) / "items.parquet", columns=["id", "split", "row"]).to_pylist()
    return [(row["id"], ("train", "val", "test").index(row["split"]), row["row"]) for row in rows if row["split"]]


def measured(scenario: ImageScenario, workspace: Workspace, items: ItemFeatures, seed: int, network: bool) -> dict[str, float]:
    """The share of the flipped labels that each order finds, and the seconds of ours without the features."""
    labels, wrong = flipped(items.labels, len(items.names), seed)
    noisy, started = replace(items, labels=labels), time.monotonic()
    probabilities = out_of_sample(noisy, seed=seed)
    assert probabilities is not None
    suspects = [one.id for one in label_errors(noisy, probabilities, compared(noisy.features))]
    seconds = time.monotonic() - started
    number = {id: index for index, id in enumerate(items.ids)}
    rest = np.setdiff1d(np.arange(len(items)), [number[id] for id in suspects])
    order = np.concatenate([[number[id] for id in suspects], np.random.default_rng(seed).permutation(rest)]).astype(int)
    own = np.arange(len(items))
    layer = fit_last_layer(items.features, labels, len(items.names), None)
    found = {
        "seconds": seconds,
        "accuracy": float((probabilities.argmax(axis=1) == items.labels).mean()),
        "found": share_found(order, wrong),
        "random": share_found(np.random.default_rng(seed + 1).permutation(len(items)), wrong),
        "last_layer_on_its_own_items": share_found(np.argsort(layer.probabilities(items.features)[own, labels]), wrong),
    }
    if network:
        theirs = of_a_network(scenario, workspace, noisy)
        found["network_on_its_own_items"] = share_found(np.argsort(theirs[own, labels]), wrong)
    return found


def checkout_with(data: str, folder: Path) -> Workspace:
    """A checkout in which the data is collected; the one in `folder` is used again if there is one."""
    if not (folder / "dvc.yaml").exists():
        fresh_checkout(folder)
    workspace = Workspace(folder)
    if not workspace.splits(data).exists():
        bring_in(data, folder, environment(folder) | {"EVERGREEN_SAMPLES": str(samples())})
    return workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["cifar10", "medical", "inspection"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--network", action="store_true", help="train the small network too, on the first seed's labels")
    parser.add_argument("--checkout", type=Path, help="keep the data and the features there, and use them again")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import_tensorflow()
    with tempfile.TemporaryDirectory() as scratch:
        for data in arguments.data:
            workspace = checkout_with(data, arguments.checkout or Path(scratch) / "checkout")
            scenario, started = image_scenario(workspace.scenarios, data), time.monotonic()
            items = item_features(scenario, workspace)
            seconds = time.monotonic() - started
            for seed in range(arguments.seeds):
                found = measured(scenario, workspace, items, seed, arguments.network and seed == 0)
                row = {"data": data, "items": len(items), "features_seconds": round(seconds, 1), "seed": seed} | found
                texts = [f"{name.replace('_', ' ')} {100 * value:.1f} %" for name, value in found.items() if name != "seconds"]
                text = f"{data}, {len(items):,} images, seed {seed}: {', '.join(texts)}; {found['seconds']:.0f} s"
                print(json.dumps(row) if arguments.json else text, flush=True)


if __name__ == "__main__":
    main()
