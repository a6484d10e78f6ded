"""Batches for training and evaluation, straight from the arrays that `preprocess` wrote.

The arrays are mapped, not read: a batch is gathered by its items' numbers in one call, so nothing is parsed or decoded, memory
does not grow with the data set, and any order of the items is as good as their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evergreen.errors import EvergreenError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Split:
    """One split's arrays, mapped.

    `images` is uint8 `(items, height, width, channels)`; `labels` is uint8 or uint16 `(items,)`, places in the label list.
    """

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def open(cls, folder: Path, name: str) -> Split:
        """The split `name` (`train`, `val` or `test`) of `outputs/NAME/splits`.

        Raises:
            EvergreenError: its arrays are missing, damaged, or don't fit each other.
        """
        try:
            images = np.load(folder / f"{name}-images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / f"{name}-labels.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise EvergreenError(
                f"the {name} split cannot be read: {error}", fix="Make it again: delete the splits folder and run again."
            ) from None
        if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise EvergreenError(
                f"the {name} split's arrays don't fit",
                expected="images uint8 (items, height, width, channels) and one label for each",
                received=(images.dtype.name, images.shape, labels.shape),
                fix="Make them again: delete the splits folder and run again.",
            )
        return cls(images, labels)

    def __len__(self) -> int:
        return len(self.labels)


def label_names(folder: Path) -> list[str]:
    """The labels of `outputs/NAME/splits`, in the order of the model's output."""
    return list(json.loads((folder / "labels.json").read_text(encoding="utf-8")))


def epoch_order(items: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the items in one epoch: a permutation, int64 `(items,)`, the same whenever it is asked for."""
    return np.random.default_rng((seed, epoch)).permutation(items)


def training_batches(
    split: Split, label_count: int, batch_size: int, *, seed: int, first_epoch: int = 0, epochs: int
) -> tf.data.Dataset:
    """Shuffled batches of the epochs `first_epoch` to `epochs`, without a break between them.

    Yields:
        images uint8 `(batch_size, height, width, channels)`, labels one-hot float32 `(batch_size, label_count)`. Every batch is
        full: what is left of an epoch, fewer than `batch_size` items, is left out of it (see `steps_per_epoch`).
    """
    size, steps = min(batch_size, len(split)), steps_per_epoch(len(split), batch_size)
    # Handing over to TensorFlow costs as much as gathering a small batch: several are handed over at once.
    together = max(1, 8_000_000 // (size * split.images[0].nbytes)) * size

    def choices() -> Iterator[np.ndarray]:
        for epoch in range(first_epoch, epochs):
            order = epoch_order(len(split), seed, epoch)[: steps * size]
            yield from (order[start : start + together] for start in range(0, len(order), together))

    return _dataset(split, label_count, choices, size, steps * (epochs - first_epoch))


def ordered_batches(split: Split, label_count: int, batch_size: int) -> tf.data.Dataset:
    """Every item once, in the order of the arrays; the last batch may be smaller. Yields as `training_batches`."""

    def choices() -> Iterator[np.ndarray]:
        yield from (np.arange(start, min(start + batch_size, len(split))) for start in range(0, len(split), batch_size))

    return _dataset(split, label_count, choices, None, -(-len(split) // batch_size))


def steps_per_epoch(items: int, batch_size: int) -> int:
    """How many full batches an epoch has; one of all items where there are fewer than `batch_size`."""
    return max(1, items // batch_size)


def _dataset(
    split: Split, label_count: int, choices: Callable[[], Iterator[np.ndarray]], size: int | None, batch_count: int
) -> tf.data.Dataset:
    """Batches of the items that `choices` yields the numbers of: cut to `size` items each, or as they come where it is None."""
    import tensorflow as tf

    images, shape = split.images.view(np.ndarray), split.images.shape[1:]  # a plain view is gathered from faster
    one_hot = np.eye(label_count, dtype=np.float32)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for choice in choices():
            cut = (-1, size or len(choice))
            yield images.take(choice, axis=0).reshape(*cut, *shape), one_hot[split.labels[choice]].reshape(*cut, label_count)

    signature = (
        tf.TensorSpec((None, size, *shape), tf.uint8),
        tf.TensorSpec((None, size, label_count), tf.float32),
    )
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.flat_map(lambda *several: tf.data.Dataset.from_tensor_slices(several))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batch_count)).prefetch(4)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
