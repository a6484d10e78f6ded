"""Batches for training and evaluation, straight from the arrays that `preprocess` wrote.

The arrays are mapped, not read: a batch is gathered by its items' numbers in one call, so nothing is parsed or decoded, memory
does not grow with the data set, and any order of the items is as good as their own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evergreen.errors import EvergreenError
from evergreen.media.images import PixelRange

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


def pixel_range(folder: Path) -> PixelRange | None:
    """The range with which deep images became the arrays of `outputs/NAME/splits`; None where no image is deep."""
    path = folder / "range.json"
    return PixelRange(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


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
    together = min(steps, max(1, 8_000_000 // (size * split.images[0].nbytes)))
    calls = -(-steps // together)  # an epoch's
    order_of = functools.lru_cache(maxsize=1)(lambda epoch: epoch_order(len(split), seed, epoch)[: steps * size])

    def choice(call: int) -> np.ndarray:
        epoch, start = first_epoch + call // calls, call % calls * together * size
        return order_of(epoch)[start : start + together * size]

    return _dataset(split, label_count, choice, calls * (epochs - first_epoch), size, steps * (epochs - first_epoch))


def ordered_batches(split: Split, label_count: int, batch_size: int) -> tf.data.Dataset:
    """Every item once, in the order of the arrays; the last batch may be smaller. Yields as `training_batches`."""

    def choice(call: int) -> np.ndarray:
        return np.arange(call * batch_size, min((call + 1) * batch_size, len(split)))

    batches = -(-len(split) // batch_size)
    return _dataset(split, label_count, choice, batches, None, batches)


def steps_per_epoch(items: int, batch_size: int) -> int:
    """How many full batches an epoch has; one of all items where there are fewer than `batch_size`."""
    return max(1, items // batch_size)


def _dataset(
    split: Split, label_count: int, choice: Callable[[int], np.ndarray], calls: int, size: int | None, batch_count: int
) -> tf.data.Dataset:
    """`batch_count` batches of the items whose numbers `choice` tells for each of `calls` calls: those of a call cut to `size` items
    each, or one batch where it is None."""
    import tensorflow as tf

    images, shape = split.images.view(np.ndarray), split.images.shape[1:]  # a plain view is gathered from faster
    one_hot = np.eye(label_count, dtype=np.float32)

    def gather(call: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chosen = choice(int(call))
        cut = (-1, size or len(chosen))
        return images.take(chosen, axis=0).reshape(*cut, *shape), one_hot[split.labels[chosen]].reshape(*cut, label_count)

    def batches(call: tf.Tensor) -> tf.data.Dataset:
        # A function called by number: `from_generator` costs more to start and to ask.
        several = tf.numpy_function(gather, [call], [tf.uint8, tf.float32])
        for tensor, item in zip(several, (shape, (label_count,)), strict=True):
            tensor.set_shape((None, size, *item))
        return tf.data.Dataset.from_tensor_slices(tuple(several))

    dataset = tf.data.Dataset.range(calls).flat_map(batches)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batch_count)).prefetch(4)
    options = tf.data.Options()
    # There is nothing to tune, and the tuner's thread, which wakes once a minute in a long training, now and then misses that it should
    # end: the training then stood still for up to a minute after its last epoch.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
