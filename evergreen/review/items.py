"""Single items of a data set, and of the inbox: what they are and where their bytes are."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evergreen.data.dataset import parts, records, table
from evergreen.data.inbox import UNLABELLED, unlabelled_files
from evergreen.data.sources.folder import read_file
from evergreen.errors import BadItem, WrongUse

if TYPE_CHECKING:
    import pyarrow as pa

Identity = tuple[int, ...]  # of a file, see `identity_of`
GROUPS_IN_MEMORY = 12  # row groups, of about 4 MB each


class DataSetItems:
    """The items of a data set that are in use.

    Attributes:
        folders: the batch folders.
        ids: in the order of arrival.
        labels, sources: by id, with corrections applied.
        withdrawn: how many items were left out because they are withdrawn.
    """

    def __init__(self, folders: Sequence[Path], column: str) -> None:
        """
        Args:
            column: with the encoded item.
        """
        self.folders, self._column, known = folders, column, records(folders)
        rows = table(folders, ["id", "label", "source"], known)
        self.ids: list[str] = rows["id"].to_pylist()
        self.labels: dict[str, str] = dict(zip(self.ids, map(str, rows["label"].to_pylist()), strict=True))
        self.sources: dict[str, str] = dict(zip(self.ids, rows["source"].to_pylist(), strict=True))
        self.withdrawn = len(known.withdrawn)
        self._groups, self._keys, self._group_of = _index(folders)
        self._read: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, id: str) -> bytes:
        """The encoded item.

        Raises:
            WrongUse: the data set has no such item.
        """
        import pyarrow.compute as pc

        if id in self.labels:
            start = int(np.searchsorted(self._keys, _key(id)))
            while start < len(self._keys) and self._keys[start] == _key(id):
                rows = self._group(int(self._group_of[start]))
                row = pc.index(rows["id"], id).as_py()
                if row >= 0:
                    content: bytes = rows[self._column][row].as_py()
                    return content
                start += 1
        raise WrongUse("the data set has no such item", received=id)

    def _group(self, number: int) -> pa.Table:
        import pyarrow.parquet as pq

        with self._lock:
            if number not in self._read:
                path, group = self._groups[number]
                with pq.ParquetFile(path) as file:
                    self._read[number] = file.read_row_group(group, columns=["id", self._column])
            self._read.move_to_end(number)
            while len(self._read) > GROUPS_IN_MEMORY:
                self._read.popitem(last=False)
            return self._read[number]


def _index(folders: Sequence[Path]) -> tuple[list[tuple[Path, int]], np.ndarray, np.ndarray]:
    """Where each item is: all row groups, and the items' keys, uint64 and sorted, with the number of their row group."""
    import pyarrow.parquet as pq

    groups: list[tuple[Path, int]] = []
    keys, numbers = [], []
    for part in parts(folders):
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["id"])["id"].to_pylist()
                keys.append(np.array([_key(id) for id in ids], np.uint64))
                numbers.append(np.full(len(ids), len(groups), np.int32))
                groups.append((part, group))
    if not groups:
        return [], np.empty(0, np.uint64), np.empty(0, np.int32)
    of_items, of_groups = np.concatenate(keys), np.concatenate(numbers)
    order = np.argsort(of_items, kind="stable")
    return groups, of_items[order], of_groups[order]


def _key(id: str) -> np.uint64:
    return np.uint64(int(id[:16], 16))


def unlabelled(inbox: Path) -> list[str]:
    """The paths of the inbox's files without a label, relative to it, in alphabetical order; pipes, broken links and links that
    lead out are left out, since they cannot get a label."""
    found = []
    for entry, raw in unlabelled_files(inbox):
        item = f"{UNLABELLED}/{os.fsdecode(raw)}"
        # `is_unlabelled` resolves the path, which takes long for thousands of files; no link to a folder was entered here.
        if entry.is_file(follow_symlinks=False) or is_unlabelled(inbox, item):
            found.append(item)
    return sorted(found)


def is_unlabelled(inbox: Path, item: str) -> bool:
    """Whether this is the path of a file without a label, relative to the inbox."""
    path = inbox / item
    inside = item.startswith(f"{UNLABELLED}/") and ".." not in Path(item).parts and "\0" not in item
    return inside and path.is_file() and path.resolve().is_relative_to((inbox / UNLABELLED).resolve())


def identity_of(path: Path) -> Identity:
    """What tells a file from another one that has the same path later: its size in bytes, modification time in ns, and inode,
    which it keeps when it is moved; empty if there is no file."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):  # ValueError: a path with a null character
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ino


def read_file_of(inbox: Path, path: str) -> bytes:
    """The content of a file of the inbox.

    Args:
        path: relative to the inbox; it leads to no other place.

    Raises:
        BadItem: it can't be read, or there is no such file.
    """
    entry = read_file(path, os.fsencode(inbox / path))
    if entry.data is None:
        raise BadItem(entry.problem or "unreadable", entry.detail)
    return entry.data
