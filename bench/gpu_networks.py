"""The two trainings of `bench.gpu` with nothing around the networks: neither the stages nor TensorFlow. It runs on the backend
that KERAS_BACKEND names, and so also where a GPU has JAX's libraries and not those of TensorFlow.

    KERAS_BACKEND=jax python -m bench.gpu_networks            (or one part alone: cifar10, fine-tuning)

It needs Keras, the backend, NumPy, OpenCV, pydantic, ruamel.yaml and the package of the pre-trained weights. The data are
read from the scenario's archive. Each training runs twice in one process: from a cold start, in which kernels are chosen and
compiled, and from a warm one. The model is that of the last epoch. Where no GPU is, it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from bench.report import ROOT, samples
from evergreen.energy.meter import Meter
from evergreen.energy.methods import gpu_count
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.kinds.classify.metrics import quality
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.media.images import prepare
from evergreen.preparation.arrays import epoch_order, steps_per_epoch
from evergreen.training.precision import dtype_policy

SETTINGS: dict[str, tuple[str, dict[str, object]]] = {
    "cifar10": ("cifar10", {"filters": 96, "epochs": 40, "batch_size": 1024}),
    "fine-tuning": ("security", {"model": "efficientnet_lite0", "epochs": 8, "flip": "horizontal", "shift": 14}),
}


def scenario_of(name: str, settings: dict[str, object]) -> ImageScenario:
    """A shipped scenario with other settings of `train`; without its schedule, which needs Prefect to be read."""
    document = YAML(typ="safe").load((ROOT / "scenarios" / f"{name}.yaml").read_text(encoding="utf-8"))
    document.pop("retraining", None)
    return ImageScenario.model_validate(document).with_train(settings)


def read(scenario: ImageScenario, folder: Path) -> dict[str, Split]:
    """The splits `train` and `test`: those of the archive, or by groups of neighbouring pictures, three tenths for the test."""
    sizes, labels = scenario.preprocess, list(scenario.validation.labels)
    assert scenario.collect.file
    path = re.compile(scenario.collect.pattern)
    images, numbers, names, groups = [], [], [], []
    with tarfile.open(folder / scenario.collect.file) as archive:
        for member in archive:
            if not member.isfile() or not (found := path.fullmatch(member.name)):
                continue
            content = archive.extractfile(member)
            assert content is not None
            images.append(prepare(content.read(), sizes.height, sizes.width, sizes.channels))
            numbers.append(labels.index(found["label"]))
            names.append(found.groupdict().get("split"))
            groups.append(_group(scenario, member.name))
    every = Split("all", {"images": np.stack(images), "labels": np.array(numbers)}, {"labels": labels})
    if names[0] is not None:
        is_test = np.array([name == "test" for name in names])
    else:
        chosen = np.unique(groups)
        tests = np.random.default_rng(scenario.seed).permutation(chosen)[: round(0.3 * len(chosen))]
        is_test = np.isin(groups, tests)
    return {"train": every.rows(np.flatnonzero(~is_test)), "test": every.rows(np.flatnonzero(is_test))}


def _group(scenario: ImageScenario, name: str) -> str:
    group = scenario.preprocess.group
    found = re.search(group.pattern, name) if group and group.pattern else None
    return found[1] if found else name


def batches(scenario: ImageScenario, train: Split, learner: ImageLearner) -> Iterator[tuple[np.ndarray, ...]]:
    """The batches of all epochs with their items' weights, in the order in which `training_batches` gives them."""
    of_class = learner.class_weight(scenario, train) or dict.fromkeys(range(len(train.facts["labels"])), 1.0)
    item_weights = np.array([of_class[label] for label in sorted(of_class)], np.float32)[train["labels"]]
    size = min(scenario.train.batch_size, len(train))
    weights = learner.item_weights(scenario, train)
    for epoch in range(scenario.train.epochs):
        order = epoch_order(len(train), scenario.seed, epoch, weights)
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield train["images"].take(rows, axis=0), learner.targets(train, rows), item_weights[rows]


def measure(
    part: str, start: str, scenario: ImageScenario, splits: dict[str, Split], settings: dict[str, object]
) -> dict[str, Any]:
    """Train once, and judge the network on test."""
    import keras

    learner, train, test = ImageLearner(), splits["train"], splits["test"]
    steps = steps_per_epoch(len(train), scenario.train.batch_size)
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(scenario.seed)
    epochs: list[float] = []
    times = keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: epochs.append(time.perf_counter()))
    with Meter() as meter, dtype_policy("mixed_bfloat16"):
        model = learner.build(scenario, train, steps=steps * scenario.train.epochs)
        learner.first_epoch(scenario, model, train, train.rows(np.array([], int)), lambda _done: None)
        model.fit(
            batches(scenario, train, learner), steps_per_epoch=steps, epochs=scenario.train.epochs,
            callbacks=[times], shuffle=False, verbose=0,
        )  # fmt: skip
        spent = meter.spent()
    probabilities = np.asarray(model.predict(test["images"], batch_size=500, verbose=0), np.float32)
    found = quality(test["labels"].astype(int), probabilities)
    each = float(np.median(np.diff(epochs))) if len(epochs) > 1 else spent.seconds
    return {
        "part": part, "start": start, "backend": keras.config.backend(), "settings": settings, "seconds": spent.seconds,
        "images_per_second": len(train) / each, "energy_wh": spent.energy_wh, "uncertainty_wh": spent.uncertainty_wh,
        "methods": spent.methods, "accuracy": found["accuracy"], "f1_macro": found["f1_macro"], "train_items": len(train),
    }  # fmt: skip


def main(arguments: list[str], gpus: int) -> int:
    """Measure what was asked for, and print a line of JSON for each training.

    Args:
        arguments: of the command line.
        gpus: of this machine.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_networks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{' or '.join(SETTINGS)}; without any, all")
    parser.add_argument("--set", default="{}", help="settings of train in place of the part's, as JSON")
    parser.add_argument("--starts", nargs="+", default=["cold", "warm"], help="names of the trainings, one after another")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.parts if name not in SETTINGS]:
        parser.error(f"there is no part {unknown[0]!r}: choose {' or '.join(SETTINGS)}")
    if not gpus:
        print("This machine has no NVIDIA GPU (the driver lists none): nothing was measured.", file=sys.stderr)
        return 0
    for part in given.parts or SETTINGS:
        name, settings = SETTINGS[part]
        settings = settings | json.loads(given.set)
        scenario = scenario_of(name, settings)
        splits = read(scenario, samples())
        for start in given.starts:
            print(json.dumps(measure(part, start, scenario, splits, settings)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], gpu_count()))
