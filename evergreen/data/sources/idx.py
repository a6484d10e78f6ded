"""Reads IDX files, the format of MNIST and Fashion-MNIST: all images of a split in one file, their labels in another.

An IDX file is a header and numbers. The header has two zero bytes, the type of the numbers, how many dimensions there are, and
their lengths as big-endian integers of 32 bits (Y. LeCun, "The MNIST database", http://yann.lecun.com/exdb/mnist). The file may
be compressed with gzip.

The two files of a split have names such as `train-images-idx3-ubyte.gz` and `train-labels-idx1-ubyte.gz`. They become one entry
for each image, `train/LABEL/NUMBER.png`, as if somebody had unpacked them into folders, so that all that is done with images in
folders works with them too. The labels are numbers; `t10k` means test.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.sources import safety
from evergreen.data.sources.base import Source, SourceEntry
from evergreen.data.sources.png import plain_png
from evergreen.data.sources.safety import refuse_bomb, refuse_many
from evergreen.errors import DataRefused, WrongUse

_FILE = r"(?P<base>[^/]*?)[-._]?(?P<content>images|labels)[-._]idx\d[-._]ubyte(?:\.gz)?"
_NAME = re.compile(rf"(?P<folder>(?:.*/)?){_FILE}", re.DOTALL)
# Some unpack each file into a folder of the file's own name.
_OWN_FOLDER = re.compile(rf"(?P<folder>(?:.*/)?){_FILE}/", re.DOTALL)
_TEST = re.compile(r"(?<![a-z0-9])t10k$", re.IGNORECASE)  # MNIST's name for its ten thousand test images
UNSIGNED_BYTE = 8
TYPES = {
    8: "unsigned bytes",
    9: "signed bytes",
    11: "16-bit integers",
    12: "32-bit integers",
    13: "32-bit floats",
    14: "64-bit floats",
}


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass
class _Pair:
    """The files of a split that have been read so far, and whether they were given as items."""

    files: dict[str, SourceEntry] = field(default_factory=dict)
    given: bool = False


@dataclass(frozen=True)
class _Split:
    """Both files of a split.

    Attributes:
        stem: what their names have in common.
        before, after: the fractions of the source that have been read without and with it; None if not known.
    """

    stem: str
    images: SourceEntry
    labels: SourceEntry
    before: float | None
    after: float | None

    def name(self, number: int, label: int) -> str:
        """Of the entry of one image."""
        return f"{self.stem}/{label}/{number:05d}.png"

    def fraction_read(self, number: int, count: int) -> float | None:
        """With the image of this number, of `count` images."""
        if self.before is None or self.after is None:
            return None
        return self.before + (self.after - self.before) * (number + 1) / count


@dataclass(frozen=True)
class IdxSource(Source):
    """A source in which pairs of IDX files are replaced by their images; all other entries stay as they are.

    The files of a pair are held in memory as they are stored, at most `safety.MAX_ITEM_BYTES` each; images are unpacked one by
    one. A second copy of a file, such as an unpacked one beside the compressed one, stays as it is.

    Attributes:
        files: the folder or archive.
    """

    files: Source

    def stream(self) -> Iterator[SourceEntry]:
        """As `Source.stream`.

        Raises:
            DataRefused: also for an IDX file that is damaged, a trap or without its partner.
        """
        return self._unpacked(self.files.stream())

    def _unpacked(self, entries: Iterator[SourceEntry]) -> Iterator[SourceEntry]:
        for found in self._paired(entries):
            if isinstance(found, _Split):
                yield from self._items(found)
            else:
                yield found

    def _paired(self, entries: Iterator[SourceEntry]) -> Iterator[SourceEntry | _Split]:
        """The entries, and each pair of IDX files in place of the second of them."""
        pairs: dict[str, _Pair] = {}
        before: float | None = 0.0
        for entry in entries:
            match = None if is_hidden(entry.name) or is_leftover(entry.name) else _NAME.fullmatch(entry.name)
            pair = pairs.setdefault(_stem(match), _Pair()) if match else _Pair(given=True)
            if match is None or pair.given or match["content"] in pair.files:
                yield entry
            else:
                pair.files[match["content"]] = self._readable(entry)
            if match and len(pair.files) == 2:
                yield _Split(_stem(match), pair.files["images"], pair.files["labels"], before, entry.fraction_read)
                pair.files, pair.given = {}, True  # their memory is released
            before = entry.fraction_read
        for pair in pairs.values():
            for entry in pair.files.values():
                raise self._without_partner(entry)

    def names(self) -> Iterator[tuple[str, float | None]]:
        packed = False
        for name, fraction_read in self.files.names():
            packed = packed or _NAME.fullmatch(name) is not None
            yield name, fraction_read
        for split in self._paired(self.files.stream()) if packed else ():
            if isinstance(split, _Split):
                numbers = self._numbers(split.labels)
                yield from (
                    (split.name(number, label), split.fraction_read(number, len(numbers)))
                    for number, label in enumerate(numbers)
                )

    def select(self, wanted: Callable[[str], bool]) -> Iterator[SourceEntry]:
        """As `Source.select`, of the files as they lie there: images are not unpacked."""
        return self.files.select(wanted)

    @property
    def root(self) -> Path | None:
        return self.files.root

    def fingerprint(self) -> str:
        return self.files.fingerprint()

    def describe(self) -> str:
        return self.files.describe()

    def _items(self, split: _Split) -> Iterator[SourceEntry]:
        import numpy as np

        images, numbers = split.images, self._numbers(split.labels)
        with self._opened(images) as file:
            count, height, width, *channels = self._lengths(images, file, (3, 4))
            if count != len(numbers):
                what = f"it has {count:,} images, and {split.labels.name} has {len(numbers):,} labels"
                raise self._damaged(images, what, "as many labels as images")
            shape = (height, width, 3) if channels == [3] else (height, width)
            for number, label in enumerate(numbers):
                pixels = np.frombuffer(self._read(images, file, height * width * (channels or [1])[0], count), np.uint8)
                data, done = plain_png(pixels.reshape(shape)), split.fraction_read(number, count)
                yield SourceEntry(
                    split.name(number, label),
                    data,
                    len(data),
                    fraction_read=done,
                    encoding=images.encoding,
                    packed_in=images.name,
                )
            self._ends(images, file, count)

    def _numbers(self, labels: SourceEntry) -> bytes:
        """The label of each image, a byte each."""
        with self._opened(labels) as file:
            [count] = self._lengths(labels, file, (1,))
            numbers = self._read(labels, file, count, count)
            self._ends(labels, file, count)
        return numbers

    @contextmanager
    def _opened(self, entry: SourceEntry) -> Iterator[_Stream]:
        """The content of a file, unpacked while it is read."""
        data = entry.data or b""
        try:
            stored = io.BytesIO(data)
            yield gzip.GzipFile(fileobj=stored) if data.startswith(b"\x1f\x8b") else stored
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._damaged(entry, f"it cannot be unpacked: {error}", "a whole file compressed with gzip") from None

    def _lengths(self, entry: SourceEntry, file: _Stream, dimensions: tuple[int, ...]) -> list[int]:
        """The lengths of a file's dimensions, from its header: the number of items first.

        Args:
            dimensions: how many there may be. The fourth of images are their channels.
        """
        start = file.read(4)
        expected = f"two zero bytes, {UNSIGNED_BYTE} for unsigned bytes, and {' or '.join(map(str, dimensions))} dimensions"
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES or start[3] not in dimensions:
            raise self._damaged(entry, f"it begins with {start!r}", expected)
        if start[2] != UNSIGNED_BYTE:
            raise self._damaged(entry, f"its numbers are {TYPES[start[2]]}", "unsigned bytes, 0 to 255")
        header = file.read(4 * start[3])
        if len(header) < 4 * start[3]:
            raise self._damaged(entry, "it ends inside its header", expected)
        count, *sides = struct.unpack(f">{start[3]}I", header)
        if len(sides) == 3 and sides[2] not in (1, 3):
            raise self._damaged(
                entry, f"its images are {' × '.join(map(str, sides))}", "height × width × channels, 1 or 3 channels"
            )
        item_bytes = 1
        for side in sides:
            item_bytes *= side
        if not 0 < item_bytes <= safety.MAX_ITEM_BYTES:
            raise self._damaged(entry, f"each image has {item_bytes:,} bytes", f"1 to {safety.MAX_ITEM_BYTES:,}")
        refuse_many(self._path(entry), count)
        refuse_bomb(self._path(entry), len(entry.data or b""), count * item_bytes)
        return [count, *sides]

    def _read(self, entry: SourceEntry, file: _Stream, size: int, count: int) -> bytes:
        data = file.read(size)
        if len(data) < size:
            raise self._damaged(entry, "it ends early", f"the {count:,} items that its header states")
        return data

    def _ends(self, entry: SourceEntry, file: _Stream, count: int) -> None:
        if file.read(1):
            raise self._damaged(entry, "it goes on after its last item", f"the {count:,} items that its header states")

    def _readable(self, entry: SourceEntry) -> SourceEntry:
        if entry.data is None or entry.problem:
            fix = "Compress it with gzip." if entry.problem == "too-large" else "Put the file itself there, or take it away."
            raise DataRefused(f"the IDX file {self._path(entry)} cannot be read: {entry.detail}", fix=fix)
        return entry

    def _without_partner(self, entry: SourceEntry) -> DataRefused:
        missing, there = ("images", "labels") if "labels" in Path(entry.name).name else ("labels", "images")
        return DataRefused(
            f"the IDX file {self._path(entry)} has {there} without {missing}",
            expected=f"a file of the same name with {missing} in place of {there}, in the same folder",
            fix="Put that file beside it, or take this one away.",
        )

    def _damaged(self, entry: SourceEntry, what: str, expected: str) -> DataRefused:
        return DataRefused(
            f"the IDX file {self._path(entry)} is damaged, or not of a form that is read: {what}", expected=expected,
            fix="Fetch or write it again; nothing of the source was kept.",
        )  # fmt: skip

    def _path(self, entry: SourceEntry) -> Path:
        return Path(self.describe()) / entry.name


def refuse_single_file(path: Path) -> None:
    """
    Raises:
        WrongUse: the path is one IDX file, which is no source without its partner.
    """
    if _NAME.fullmatch(path.name) and path.is_file():
        raise WrongUse(
            f"{path} is one IDX file, of images or of their labels", expected="the folder of both files",
            fix=f"Give the folder: {path.parent}",
        )  # fmt: skip


def _stem(match: re.Match[str]) -> str:
    """What the two files of a pair have in common: the folder, and the name of the split or `all`."""
    folder = match["folder"]
    if own := _OWN_FOLDER.fullmatch(folder):
        folder = own["folder"]
    return folder + (_TEST.sub("test", match["base"]) or "all")
