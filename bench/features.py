"""Frozen features of the pre-trained network with a logistic regression, on small data sets: from which depths, and with which
strength of the regularization. The rival is the network's own last features, averaged over positions, with the same regression.

Five folds by groups, each photograph with those that belong to it: clips of fire by their names and others by blocks of 100
numbers, cells by the photograph that they were cut from. Macro F1 over the predictions of all folds, for each seed.

Run: python -m bench.features [--data fire-cctv] [--side 224] [--seeds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.report import samples
from evergreen.environment import import_tensorflow
from evergreen.kinds.classify.learner import class_weights
from evergreen.media.images import prepare
from evergreen.training import last_layer

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
DEPTHS = {
    "stages 1 to 6": (1, 2, 3, 4, 5, 6),
    "stages 1, 2, 4, 6": (1, 2, 4, 6),
    "stages 2, 4, 6 and the head": (2, 4, 6, 7),
    "the head's mean": (),
}


def _clip(name: str) -> str:
    numbered = re.match(r"img_(\d+)", name)
    return f"block {int(numbered[1]) // 100}" if numbered else re.sub(r"(?:[-_]\d+)?_jpg.*", "", name)


GROUPS: dict[str, Callable[[str], str]] = {
    "fire-cctv": _clip,
    "blood-cells": lambda name: name.rpartition("_")[0],
    "apple-leaf": lambda name: name,
}


def read(data: str, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 `(items, side, side, 3)`, and labels and groups as int `(items,)`."""
    images, labels, groups = [], [], []
    with tarfile.open(samples() / f"{data}.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if file is None:
                continue
            path = Path(member.name)
            images.append(prepare(file.read(), side, side, 3, sys.maxsize, None))
            labels.append(path.parent.name)
            groups.append(GROUPS[data](path.name))
    return np.stack(images), _numbers(labels), _numbers(groups)


def _numbers(names: list[str]) -> np.ndarray:
    numbers: np.ndarray = np.unique(names, return_inverse=True)[1]
    return numbers


def features(images: np.ndarray) -> list[np.ndarray]:
    """The statistics of every stage and of the head, float32 `(items, 3 channels)` each."""
    import_tensorflow()
    import keras

    from evergreen.models import efficientnet_lite
    from evergreen.models.pretrained import Statistics

    given = keras.Input(images.shape[1:], dtype="uint8")
    network = keras.Model(given, [Statistics()(maps) for maps in efficientnet_lite.backbone(given)])
    efficientnet_lite.load_weights(network)
    parts = [network.predict_on_batch(images[start : start + 32]) for start in range(0, len(images), 32)]
    return [np.concatenate(depth) for depth in zip(*parts, strict=True)]


def pooled_f1(found: np.ndarray, labels: np.ndarray, groups: np.ndarray, strength: float, seed: int) -> float:
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedGroupKFold

    predicted, count = np.zeros_like(labels), int(labels.max()) + 1
    last_layer.STRENGTH = strength
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(found, labels, groups):
        layer = last_layer.fit_last_layer(found[train], labels[train], count, class_weights(labels[train], count))
        predicted[test] = layer.probabilities(found[test]).argmax(axis=1)
    return float(f1_score(labels, predicted, average="macro"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(GROUPS), action="append")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for data in arguments.data or sorted(GROUPS):
        images, labels, groups = read(data, arguments.side)
        started = time.monotonic()
        every = features(images)
        seconds = time.monotonic() - started
        for name, depths in DEPTHS.items():
            found = (
                np.concatenate([every[depth] for depth in depths], axis=1)
                if depths
                else every[-1][:, : every[-1].shape[1] // 3]
            )
            scores = {
                strength: [pooled_f1(found, labels, groups, strength, seed) for seed in range(arguments.seeds)]
                for strength in STRENGTHS
            }
            row = {
                "data": data, "items": len(labels), "groups": int(groups.max()) + 1, "seconds": round(seconds, 1),
                "features": name, "number": found.shape[1], "f1_macro": scores,
            }  # fmt: skip
            texts = [
                f"{strength:g}: " + ", ".join(f"{100 * one:.1f}" for one in of_seeds) for strength, of_seeds in scores.items()
            ]
            text = f"{data}, {len(labels):,} images in {seconds:.0f} s; {found.shape[1]:,} features of {name}: macro F1 by C {'; '.join(texts)}"
            print(json.dumps(row) if arguments.json else text, flush=True)


if __name__ == "__main__":
    main()
