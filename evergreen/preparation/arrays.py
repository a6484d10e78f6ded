"""Batches for training and evaluation, directly from the arrays that `preprocess` wrote.

The arrays are memory-mapped. A batch is gathered by its items' indices in one call, so that nothing is parsed or decoded,
memory use does not grow with the data set, and a shuffled order costs no more than the stored one.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.errors import EvergreenError
from evergreen.kinds.base.learner import Learner
from evergreen.kinds.base.split import NONE, SPLITS, ArrayFile, Split
from evergreen.scenario.settings import Scenario
from evergreen.workspace import replace_file

if TYPE_CHECKING:
    import pyarrow as pa
    import tensorflow as tf

INPUT_BYTES_AT_ONCE = 8_000_000
Arrays = list[np.ndarray]


def open_split(folder: Path, name: str) -> Split:
    """Open the split `name` (`train`, `val` or `test`) in `outputs/NAME/splits`.

    Raises:
        EvergreenError: its arrays are missing, damaged, or differ in length.
    """
    files = sorted(folder.glob(f"{name}-*.npy"))
    try:
        if not files:
            raise FileNotFoundError(f"there is no array {name}-*.npy in {folder}")
        arrays = {file.stem.removeprefix(f"{name}-"): np.load(file, mmap_mode="r", allow_pickle=False) for file in files}
        arrays = {
            array: values if values.ndim > 1 else np.array(values) for array, values in arrays.items()
        }  # one-dimensional ones are small, and read into memory
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
    """The facts that the kind's contract has written about the splits in `outputs/NAME/splits`: its JSON files by name, except
    the summary."""
    files = sorted(file for file in folder.glob("*.json") if file.stem != "summary")
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def indices_of(values: pa.ChunkedArray, known: Sequence[str]) -> np.ndarray:
    """int `(items,)`: the index of each value in `known`; -1 for values that are not in it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: np.ndarray = pc.fill_null(pc.index_in(values, pa.array(known, pa.string())), NONE).to_numpy()
    return found


def write_splits(folder: Path, arrays: Mapping[str, np.ndarray | ArrayFile], split: np.ndarray) -> np.ndarray:
    """Write `SPLIT-ARRAY.npy` for each split and array, with the items in the order of arrival.

    The files are not memory-mapped, since the pages of a map count as this process' memory.

    Args:
        arrays: by name, `(items, …)` each.
        split: int8 `(items,)`: indices in `SPLITS`; -1 for items in no split.

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


def write_array(path: Path, values: np.ndarray) -> None:
    """Write one array atomically, as a `.npy` file."""
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    replace_file(path, content.getvalue())


def epoch_order(items: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The order of the items in one epoch, int64 `(items,)`, the same in every call.

    Args:
        weights: how often each item is to be drawn, relative to the others, `(items,)`; None for a permutation, which has every
            item once.
    """
    random = np.random.default_rng((seed, epoch))
    return random.permutation(items) if weights is None else random.choice(items, items, p=weights / weights.sum())


def training_batches(scenario: Scenario, split: Split, learner: Learner[Any], *, first_epoch: int = 0) -> tf.data.Dataset:
    """Shuffled batches of the scenario's epochs from `first_epoch` on, without a break between them.

    Yields:
        The learner's inputs `(batch_size, …)`, an array or several by name, and its targets `(batch_size, …)`. Every batch is
        full: the remainder of an epoch, fewer than `batch_size` items, is dropped (see `steps_per_epoch`).
    """
    seed, epochs, batch_size = scenario.seed, scenario.train.epochs, scenario.train.batch_size
    size, steps = min(batch_size, len(split)), steps_per_epoch(len(split), batch_size)
    # Passing data to TensorFlow costs as much as gathering a small batch, so several batches are passed at once.
    item_bytes = sum(split[name][0].nbytes for name in learner.inputs)
    together = min(steps, max(1, INPUT_BYTES_AT_ONCE // (size * item_bytes)))
    calls = -(-steps // together)  # per epoch
    weights = learner.item_weights(scenario, split)
    order_of = functools.lru_cache(maxsize=1)(lambda epoch: epoch_order(len(split), seed, epoch, weights)[: steps * size])

    def choice(call: int) -> np.ndarray:
        epoch, start = first_epoch + call // calls, call % calls * together * size
        return order_of(epoch)[start : start + together * size]

    def change(call: int, inputs: Arrays, targets: np.ndarray) -> tuple[Arrays, np.ndarray]:
        return learner.mix(scenario, inputs, targets, np.random.default_rng((seed, 1, first_epoch * calls + call)))

    return _dataset(split, learner, choice, change, calls * (epochs - first_epoch), size, steps * (epochs - first_epoch))


def ordered_batches(split: Split, learner: Learner[Any], batch_size: int) -> tf.data.Dataset:
    """Batches that contain every item once, in the order of the arrays; the last one may be smaller. Yields as
    `training_batches` does."""

    def choice(call: int) -> np.ndarray:
        return np.arange(call * batch_size, min((call + 1) * batch_size, len(split)))

    def unchanged(_call: int, inputs: Arrays, targets: np.ndarray) -> tuple[Arrays, np.ndarray]:
        return inputs, targets

    batches = -(-len(split) // batch_size)
    return _dataset(split, learner, choice, unchanged, batches, None, batches)


def items_at_once(split: Split, learner: Learner[Any], most: int) -> int:
    """The number of items that a network is given at a time to predict: `most`, or fewer if the items are large, since what it
    computes on the way takes hundreds of times the memory of its inputs."""
    item_bytes = sum(split[name].dtype.itemsize * math.prod(split[name].shape[1:]) for name in learner.inputs)
    return max(1, min(most, INPUT_BYTES_AT_ONCE // item_bytes))


def steps_per_epoch(items: int, batch_size: int) -> int:
    """The number of full batches per epoch; one batch of all items if there are fewer than `batch_size`."""
    return max(1, items // batch_size)


def network_inputs(split: Split, learner: Learner[Any]) -> Any:
    """The learner's inputs in the form that its network takes: an array, or several by name."""
    return one_or_named(learner.inputs, [np.asarray(split[name]) for name in learner.inputs])


def one_or_named(names: Sequence[str], values: Sequence[Any]) -> Any:
    """The inputs of a network in the form that Keras takes: the only one, or all by name."""
    return values[0] if len(names) == 1 else dict(zip(names, values, strict=True))


def _dataset(
    split: Split,
    learner: Learner[Any],
    choice: Callable[[int], np.ndarray],
    change: Callable[[int, Arrays, np.ndarray], tuple[Arrays, np.ndarray]],
    calls: int,
    size: int | None,
    batch_count: int,
) -> tf.data.Dataset:
    """A dataset of `batch_count` batches. `choice` gives the rows of each of `calls` calls, which are cut into batches of
    `size` items, or form one batch if it is None. `change` gets a call's inputs and targets, `(batches, items, …)` each."""
    import tensorflow as tf

    inputs = [split[name].view(np.ndarray) for name in learner.inputs]  # gathering from a plain view is faster
    example = learner.targets(split, np.arange(1))
    kinds = [(array.dtype, array.shape[1:]) for array in (*inputs, example)]

    def gather(call: np.ndarray) -> tuple[np.ndarray, ...]:
        chosen = choice(int(call))
        cut = (-1, size or len(chosen))
        arrays = [*(array.take(chosen, axis=0) for array in inputs), learner.targets(split, chosen)]
        *given, targets = (array.reshape(*cut, *array.shape[1:]) for array in arrays)
        given, targets = change(int(call), given, targets)
        return (*given, targets)

    def batches(call: tf.Tensor) -> tf.data.Dataset:
        # A function of the call's number: `from_generator` takes longer to start and for each element.
        several = tf.numpy_function(gather, [call], [tf.as_dtype(dtype) for dtype, _ in kinds])
        for tensor, (_, shape) in zip(several, kinds, strict=True):
            tensor.set_shape((None, size, *shape))
        return tf.data.Dataset.from_tensor_slices((one_or_named(learner.inputs, several[:-1]), several[-1]))

    dataset = tf.data.Dataset.range(calls).flat_map(batches)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batch_count)).prefetch(4)
    options = tf.data.Options()
    # There is nothing to tune, and the tuner's thread, which wakes once a minute in a long training, sometimes misses the
    # signal to end: the training then hung for up to a minute after its last epoch.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
