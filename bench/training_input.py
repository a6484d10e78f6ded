"""Images a second that reach the training loop, small ones and pictures of 224 pixels: ours, Keras's reader of image folders,
arrays that are held in memory, and the bare decoder."""

from __future__ import annotations

import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import ROOT, Row, median, report, samples, seconds
from bench.trained import image_scenario
from evergreen.data.dataset import PartWriter
from evergreen.kinds.classify.decoding import pixels_of
from evergreen.kinds.classify.items import Item, schema
from evergreen.media.images import inspect

REPEATS = 5


@dataclass(frozen=True)
class Pictures:
    """Which JPEG files of an archive are read.

    Attributes:
        pattern: of their names; the first group is the label, the second the file's name.
        side: pixels of the input.
        items: how many are taken at most.
        batch: how many are in a batch.
    """

    archive: str
    pattern: str
    side: int
    items: int
    batch: int


SMALL = Pictures("cifar10.tar.gz", r"(?:.*/)?train/([^/]+)/([^/]+\.jpg)", 32, 20_000, 128)
LARGE = Pictures("apple-leaf.tar.gz", r"(?:.*/)?train/([^/]+)/([^/]+\.(?i:jpg))", 224, 2_000, 32)


def write_images(pictures: Pictures, folder: Path) -> int:
    """The JPEG files as they are: `folder/LABEL/NAME.jpg`. Returns their number."""
    written = 0
    with tarfile.open(samples() / pictures.archive, "r|gz") as tar:
        for member in tar:
            found = re.fullmatch(pictures.pattern, member.name)
            if found and (file := tar.extractfile(member)):
                path = folder / found[1] / found[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())
                written += 1
            if written == pictures.items:
                break
    return written


def write_arrays(folder: Path, splits: Path, side: int) -> None:
    """The images of `write_images` as a split `train`, as *preprocess* writes it."""
    paths = sorted(folder.glob("*/*.[jJ][pP][gG]"))
    names = sorted({path.parent.name for path in paths})
    splits.mkdir()
    np.save(
        splits / "train-images.npy",
        pixels_of([path.read_bytes() for path in paths], (side, side, 3), [str(path) for path in paths]),
    )
    np.save(splits / "train-labels.npy", np.array([names.index(path.parent.name) for path in paths], np.uint8))
    (splits / "labels.json").write_text(json.dumps(names))


def write_parts(folder: Path, batch: Path) -> int:
    """The images of `write_images` as a batch of a data set; returns their number."""
    paths = sorted(folder.glob("*/*.[jJ][pP][gG]"))
    batch.mkdir()
    with PartWriter(batch, schema()) as writer:
        for number, path in enumerate(paths):
            content = path.read_bytes()
            found = inspect(content)
            writer.add_row(
                Item(f"{number:064x}", content, path.parent.name, None, None, path.name, datetime.now(UTC), found).row()
            )
    return len(paths)


def bare_decoder(contents: list[bytes], side: int) -> None:
    """OpenCV alone, on all cores, with nothing kept."""
    import cv2

    def decode(content: bytes) -> None:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert image is not None
        cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)

    cv2.setNumThreads(1)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(decode, contents, chunksize=32):
            pass


def rate(batches: Iterable[Any], items: int) -> float:
    """Images a second over one whole pass."""

    def work() -> None:
        for _ in batches:
            pass

    return items / seconds(work)


def measured(pictures: Pictures) -> dict[str, list[float]]:
    """Images a second, several times each, by turns: our training input (`ours`), Keras's reader of folders (`folders`),
    arrays in memory (`memory`), OpenCV alone (`decoder`) and *preprocess*, which decodes once (`preprocess`)."""
    import keras
    import tensorflow as tf

    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.preparation.arrays import open_split, steps_per_epoch, training_batches
    from evergreen.preparation.decoding import decode_all

    side, batch = pictures.side, pictures.batch
    scenario = image_scenario(ROOT / "scenarios", "cifar10").with_train({"epochs": 1, "batch_size": batch})
    found: dict[str, list[float]] = {name: [] for name in ("ours", "folders", "memory", "decoder", "preprocess")}
    with tempfile.TemporaryDirectory() as name:
        folder, splits, parts = (Path(name) / one for one in ("images", "splits", "parts"))
        items = write_images(pictures, folder)
        write_arrays(folder, splits, side)
        write_parts(folder, parts)
        contents = [path.read_bytes() for path in sorted(folder.glob("*/*.[jJ][pP][gG]"))]
        split = open_split(splits, "train")
        images, labels = np.array(split["images"]), np.array(split["labels"])
        full = steps_per_epoch(items, batch) * batch
        from_folders = keras.utils.image_dataset_from_directory(
            folder, image_size=(side, side), batch_size=batch, seed=1, label_mode="categorical", verbose=False
        )
        in_memory = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(items).batch(batch).prefetch(4)
        for attempt in range(REPEATS + 1):  # the first warms up
            rates = {
                "ours": rate(training_batches(scenario.model_copy(update={"seed": attempt}), split, ImageLearner()), full),
                "folders": rate(from_folders, items),
                "memory": rate(in_memory, items),
                "decoder": items / seconds(lambda: bare_decoder(contents, side)),
                "preprocess": items
                / seconds(lambda: decode_all(pixels_of, [parts], (side, side, 3), Path(name) / "pixels", None)),
            }
            for key, value in rates.items() if attempt else ():
                found[key].append(value)
    return found


def rows() -> list[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    samples()
    found = []
    for pictures, times in ((SMALL, 8), (LARGE, 3)):
        what = f"training input, {pictures.side}×{pictures.side}×3, shuffled"
        rates = measured(pictures)
        middle = {name: median(values) for name, values in rates.items()}

        def shown(name: str, rates: dict[str, list[float]] = rates, middle: dict[str, float] = middle) -> str:
            return f"{middle[name]:,.0f} ({min(rates[name]):,.0f} to {max(rates[name]):,.0f}) images/s"

        ours = middle["ours"]
        ratio = ours / middle["folders"]
        found.append(
            Row(
                what,
                shown("ours"),
                f"image_dataset_from_directory {shown('folders')}",
                f"{ratio:.1f} times",
                f"{times} times",
                ratio >= times,
            )
        )
        share = ours / middle["memory"]
        beside = f"arrays in memory {shown('memory')}"
        if pictures is SMALL:
            found.append(Row(what, shown("ours"), beside, f"{share:.0%}", "80 %", share >= 0.8))
        else:
            found.append(Row(what, shown("ours"), beside, f"{share:.0%}", "–"))
        share = ours / middle["decoder"]
        found.append(Row(what, shown("ours"), f"the bare decoder {shown('decoder')}", f"{share:.0%}", "80 %", share >= 0.8))
        share = middle["preprocess"] / middle["decoder"]
        found.append(
            Row(
                "the decoding before it, once, in preprocess",
                shown("preprocess"),
                f"the bare decoder {shown('decoder')}",
                f"{share:.0%}",
                "–",
            )
        )
    return found


if __name__ == "__main__":
    report(rows, __doc__ or "")
