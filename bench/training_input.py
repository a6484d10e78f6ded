"""Images a second that reach the training loop: ours, Keras's reader of image folders, and arrays that are held in memory."""

from __future__ import annotations

import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import ROOT, Row, median, report, samples, seconds
from bench.trained import image_scenario

ITEMS, BATCH, REPEATS = 20_000, 128, 5


def write_images(archive: Path, folder: Path) -> int:
    """The first ITEMS training images of CIFAR-10, as the JPEG files that they are: `folder/LABEL/NAME.jpg`."""
    written = 0
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            found = re.fullmatch(r"(?:.*/)?train/([^/]+)/([^/]+\.jpg)", member.name)
            if found and (file := tar.extractfile(member)):
                path = folder / found[1] / found[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())
                written += 1
            if written == ITEMS:
                break
    return written


def write_arrays(folder: Path, splits: Path) -> None:
    """The images of `write_images` as a split `train`, with all of CIFAR-10's labels, of which the first images have only
    some."""
    import cv2

    paths = sorted(folder.glob("*/*.jpg"))
    names = image_scenario(ROOT / "scenarios", "cifar10").validation.labels
    images = []
    for path in paths:
        image = cv2.imread(str(path))
        assert image is not None
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    splits.mkdir()
    np.save(splits / "train-images.npy", np.stack(images))
    np.save(splits / "train-labels.npy", np.array([names.index(path.parent.name) for path in paths], np.uint8))
    (splits / "labels.json").write_text(json.dumps(names))


def rate(batches: Iterable[Any], items: int) -> float:
    """Images a second over one whole pass."""

    def work() -> None:
        for _ in batches:
            pass

    return items / seconds(work)


def rows() -> list[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    archive = samples() / "cifar10.tar.gz"
    import keras
    import tensorflow as tf

    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.preparation.arrays import open_split, steps_per_epoch, training_batches

    scenario = image_scenario(ROOT / "scenarios", "cifar10").with_train({"epochs": 1, "batch_size": BATCH})
    with tempfile.TemporaryDirectory() as name:
        folder, splits = Path(name) / "images", Path(name) / "splits"
        items = write_images(archive, folder)
        write_arrays(folder, splits)
        split = open_split(splits, "train")
        images, labels = np.array(split["images"]), np.array(split["labels"])
        full = steps_per_epoch(items, BATCH) * BATCH
        from_folders = keras.utils.image_dataset_from_directory(
            folder, image_size=(32, 32), batch_size=BATCH, seed=1, label_mode="categorical", verbose=False
        )
        in_memory = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(items).batch(BATCH).prefetch(4)
        found: dict[str, list[float]] = {"ours": [], "folders": [], "memory": []}
        for attempt in range(REPEATS + 1):  # the first warms up
            measured = {
                "ours": rate(training_batches(scenario.model_copy(update={"seed": attempt}), split, ImageLearner()), full),
                "folders": rate(from_folders, items),
                "memory": rate(in_memory, items),
            }
            for key, value in measured.items() if attempt else ():
                found[key].append(value)
    ours, folders, memory = (median(found[key]) for key in ("ours", "folders", "memory"))
    return [
        Row(
            "training input, 32×32×3, shuffled",
            f"{ours:,.0f} images/s",
            f"image_dataset_from_directory {folders:,.0f} images/s",
            f"{ours / folders:.1f} times",
            "8 times",
            ours >= 8 * folders,
        ),
        Row(
            "training input, 32×32×3, shuffled",
            f"{ours:,.0f} images/s",
            f"arrays in memory {memory:,.0f} images/s",
            f"{100 * ours / memory:.0f} %",
            "80 %",
            ours >= 0.8 * memory,
        ),
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")
