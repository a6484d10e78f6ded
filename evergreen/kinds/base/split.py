"""Splits of the items, and the assignment of items to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
NONE = -1

# Why an item is in no split: the first six by the split that its cluster belongs to, where the source gives it another one.
# Withdrawn items are allocated like all others, so that no other item's split changes, and taken out afterwards. Of a series:
# between two splits that are cut by time, without what comes before it, at a time that the series does not have, and of a
# period that is not long enough yet to be divided.
REASONS = ("looks-like-train", "looks-like-val", "looks-like-test", "group-in-train", "group-in-val", "group-in-test",
           "links-two-splits", "withdrawn", "time-gap", "without-history", "off-grid", "too-recent")  # fmt: skip
GROUP_IN, BETWEEN, WITHDRAWN, TIME_GAP, WITHOUT_HISTORY, OFF_GRID, TOO_RECENT = 3, 6, 7, 8, 9, 10, 11

BLOCK_BYTES = 16 * 2**20  # of an array's file that are read at a time


@dataclass(frozen=True)
class ArrayFile:
    """An array in a file without a header. It is read in blocks, since the pages of a memory map would count as this process'
    memory."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, in blocks."""
        row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        at_once = max(1, BLOCK_BYTES // row_bytes)
        with open(self.path, "rb") as file:
            for start in range(0, self.shape[0], at_once):
                rows = min(at_once, self.shape[0] - start)
                yield np.frombuffer(file.read(rows * row_bytes), self.dtype).reshape(rows, *self.shape[1:])


@dataclass(frozen=True)
class Assignment:
    """The split of each item.

    Attributes:
        split: int8 `(items,)`: the index in `SPLITS`; -1 where the item is left out.
        cluster: int32 `(items,)`: the index of the first item of its cluster.
        left_out: int8 `(items,)`: the index in `REASONS`; -1 where the item has a split.
        similar: for each batch, the cosine similarity from which items counted as look-alikes; None if there was no such
            search.
    """

    split: np.ndarray
    cluster: np.ndarray
    left_out: np.ndarray
    similar: list[float | None]


@dataclass(frozen=True)
class Split:
    """The items of one split.

    Attributes:
        name: `train`, `val` or `test`.
        arrays: by name, `(items, …)` each, memory-mapped; the kind's contract defines their contents.
        facts: values that hold for all splits, written by the kind's contract, such as the names of the labels.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def rows(self, rows: np.ndarray) -> Split:
        """A copy of some of the items.

        Args:
            rows: int `(rows,)`, their indices in the arrays.
        """
        return Split(self.name, {array: values.take(rows, axis=0) for array, values in self.arrays.items()}, self.facts)

    def followed_by(self, other: Split) -> Split:
        """A copy of the items of this split, and then of the other, with the arrays that both have."""
        shared = [array for array in self.arrays if array in other.arrays]
        arrays = {array: np.concatenate([self[array], other[array]]) for array in shared}
        return Split(self.name, arrays, self.facts)
