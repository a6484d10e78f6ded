"""Batches for training and evaluation, straight from the arrays that `preprocess` wrote.

The arrays are mapped, not read: a batch is gathered by its items' numbers in one call, so nothing is parsed or decoded, memory
does not grow with the data set, and any order of the items is as good as their own.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.errors import EvergreenError
from evergreen.kinds.base.learner import Learner
from evergreen.kinds.base.split import NONE, SPLITS, ArrayFile, Split

if TYPE_CHECKING:
    import pyarrow as pa
    import tensorflow as tf


def open_split(folder: Path, name: str) -> Split:
    """The split `name` (`train`, `val` or `test`) of `outputs/NAME/splits`.

    Raises:
        EvergreenError: its arrays are missing, damaged, or don't fit each other.
    """
    files = sorted(folder.glob(f"{name}-*.npy"))
    try:
        if not files:
            raise FileNotFoundError(f"there is no array {name}-*.npy in {folder}")
        arrays = {file.stem.removeprefix(f"{name}-"): np.load(file, mmap_mode="r", allow_pickle=False) for file in files}
        arrays = {
            array: values if values.ndim > 1 else np.array(values) for array, values in arrays.items()
        }  # small ones are read
    except (OSError, ValueError) as error:
        raise EvergreenError(
            f"the {name} split cannot be read: {error}", fix="Make it again: delete the splits folder and run again."
        ) from None
    if len({array.shape[:1] for array in arrays.values()}) != 1 or any(not array.ndim for array in arrays.values()):
        raise EvergreenError(
            f"the {name} split's arrays don't fit",
            expected="arrays with a row for each item",
            received={array: (values.dtype.name, values.shape) for array, values in arrays.items()},
            fix="Make them again: delete the splits folder and run again.",
        )
    return Split(name, arrays, facts(folder))


def facts(folder: Path) -> dict[str, Any]:
    """What the kind's contract has written of `outputs/NAME/splits` as a whole: the JSON files in it by name, but for the summary."""
    files = sorted(file for file in folder.glob("*.json") if file.stem != "summary")
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def indices_of(values: pa.ChunkedArray, known: Sequence[str]) -> np.ndarray:
    """int `(items,)`: the index of each value in `known`; -1 where it is not there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: np.ndarray = pc.fill_null(pc.index_in(values, pa.array(known, pa.string())), NONE).to_numpy()
    return found


def write_splits(folder: Path, arrays: Mapping[str, np.ndarray | ArrayFile], split: np.ndarray) -> np.ndarray:
    """Write `SPLIT-ARRAY.npy` for each split and array, with the items in the order of arrival.

    Plain files, not mapped ones: a mapped file's pages count as this process' memory.

    Args:
        arrays: by name, `(items, …)` each.
        split: int8 `(items,)`: indices in `SPLITS`; -1 for an item of none.

    Returns:
        int64 `(items,)`: each item's row in its split's arrays.
    """
    rows = np.zeros(len(split), np.int64)
    for number, name in enumerate(SPLITS):
        chosen = split == number
        rows[chosen] = np.arange(chosen.sum())
        for array, values in arrays.items():
            if isinstance(values, np.ndarray):
                np.save(folder / f"{name}-{array}.npy", values[chosen])
    for array, values in arrays.items():
        if isinstance(values, ArrayFile):
            _write_splits_of_file(folder, array, values, split)
    return rows


def _write_splits_of_file(folder: Path, name: str, array: ArrayFile, split: np.ndarray) -> None:
    with contextlib.ExitStack() as files:
        targets = [files.enter_context(open(folder / f"{one}-{name}.npy", "wb")) for one in SPLITS]
        for number, target in enumerate(targets):
            shape = (int((split == number).sum()), *array.shape[1:])
            header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(target, header)
        start = 0
        for block in array.blocks():
            for number, target in enumerate(targets):
                target.write(block[split[start : start + len(block)] == number].data)
            start += len(block)


def epoch_order(items: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the items in one epoch: a permutation, int64 `(items,)`, the same whenever it is asked for."""
    return np.random.default_rng((seed, epoch)).permutation(items)


def training_batches(
    split: Split, learner: Learner[Any], batch_size: int, *, seed: int, first_epoch: int = 0, epochs: int
) -> tf.data.Dataset:
    """Shuffled batches of the epochs `first_epoch` to `epochs`, without a break between them.

    Yields:
        The learner's inputs `(batch_size, …)`, an array or several by name, and its targets `(batch_size, …)`. Every batch is
        full: what is left of an epoch, fewer than `batch_size` items, is left out of it (see `steps_per_epoch`).
    """
    size, steps = min(batch_size, len(split)), steps_per_epoch(len(split), batch_size)
    # Handing over to TensorFlow costs as much as gathering a small batch: several are handed over at once.
    item_bytes = sum(split[name][0].nbytes for name in learner.inputs)
    together = min(steps, max(1, 8_000_000 // (size * item_bytes)))
    calls = -(-steps // together)  # an epoch's
    order_of = functools.lru_cache(maxsize=1)(lambda epoch: epoch_order(len(split), seed, epoch)[: steps * size])

    def choice(call: int) -> np.ndarray:
        epoch, start = first_epoch + call // calls, call % calls * together * size
        return order_of(epoch)[start : start + together * size]

    return _dataset(split, learner, choice, calls * (epochs - first_epoch), size, steps * (epochs - first_epoch))


def ordered_batches(split: Split, learner: Learner[Any], batch_size: int) -> tf.data.Dataset:
    """Every item once, in the order of the arrays; the last batch may be smaller. Yields as `training_batches`."""

    def choice(call: int) -> np.ndarray:
        return np.arange(call * batch_size, min((call + 1) * batch_size, len(split)))

    batches = -(-len(split) // batch_size)
    return _dataset(split, learner, choice, batches, None, batches)


def steps_per_epoch(items: int, batch_size: int) -> int:
    """How many full batches an epoch has; one of all items where there are fewer than `batch_size`."""
    return max(1, items // batch_size)


def network_inputs(split: Split, learner: Learner[Any]) -> Any:
    """The learner's inputs as its network takes them: an array, or several by name."""
    return one_or_named(learner.inputs, [np.asarray(split[name]) for name in learner.inputs])


def one_or_named(names: Sequence[str], values: Sequence[Any]) -> Any:
    """Several inputs of a network as Keras takes them: the only one, or all by name."""
    return values[0] if len(names) == 1 else dict(zip(names, values, strict=True))


def _dataset(
    split: Split, learner: Learner[Any], choice: Callable[[int], np.ndarray], calls: int, size: int | None, batch_count: int
) -> tf.data.Dataset:
    """`batch_count` batches of the items whose rows `choice` gives for each of `calls` calls: those of a call cut to `size` items
    each, or one batch where it is None."""
    import tensorflow as tf

    inputs = [split[name].view(np.ndarray) for name in learner.inputs]  # a plain view is gathered from faster
    example = learner.targets(split, np.arange(1))
    kinds = [(array.dtype, array.shape[1:]) for array in (*inputs, example)]

    def gather(call: np.ndarray) -> tuple[np.ndarray, ...]:
        chosen = choice(int(call))
        cut = (-1, size or len(chosen))
        arrays = [*(array.take(chosen, axis=0) for array in inputs), learner.targets(split, chosen)]
        return tuple(array.reshape(*cut, *array.shape[1:]) for array in arrays)

    def batches(call: tf.Tensor) -> tf.data.Dataset:
        # A function called by number: `from_generator` costs more to start and to ask.
        several = tf.numpy_function(gather, [call], [tf.as_dtype(dtype) for dtype, _ in kinds])
        for tensor, (_, shape) in zip(several, kinds, strict=True):
            tensor.set_shape((None, size, *shape))
        return tf.data.Dataset.from_tensor_slices((one_or_named(learner.inputs, several[:-1]), several[-1]))

    dataset = tf.data.Dataset.range(calls).flat_map(batches)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batch_count)).prefetch(4)
    options = tf.data.Options()
    # There is nothing to tune, and the tuner's thread, which wakes once a minute in a long training, now and then misses that it should
    # end: the training then stood still for up to a minute after its last epoch.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
