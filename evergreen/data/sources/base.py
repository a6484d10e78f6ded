"""What every source of items has in common.

A source is streamed one entry at a time and never unpacked to disk. Archives are assumed to be hostile: an entry whose name
points outside, a link (except a hard link to a file of the same archive), a device or an entry of absurd size is yielded as a
problem and never followed; an archive that is itself a trap (a bomb, millions of entries, damaged) is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from evergreen.data.sources import safety


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of an image, and what is in it.

    Attributes:
        label: as the annotations name it.
        x, y: its left and upper edge, in pixels from the image's left and upper edge, after EXIF rotation.
        width, height: pixels.
    """

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Stated:
    """What a source itself states of an item, in a manifest, in annotations or beside its content.

    Attributes:
        label: None if the entry is no item.
        group, split: None if not stated.
        boxes: those of the image; of a crop, its own.
        columns: whatever else there is to keep, by name, as text.
        unlabelled: what an entry without a label is counted as, in the plural.
    """

    label: str | None
    group: str | None = None
    split: str | None = None
    boxes: tuple[Box, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    unlabelled: str = "images without a label"


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One entry of a source.

    Attributes:
        name: its path inside the source, `/` between the parts; undecodable bytes as `\\xNN`.
        data: its bytes, or None where there is a problem.
        size_bytes: as its source states it.
        problem: None, or a reason for quarantine: `link`, `not-a-file`, `outside`, `too-large`, `unreadable`; of an annotated
            item also `missing`, `ambiguous`, `other-size`, `box-outside` and `box-without-area`.
        detail: one clause about the problem.
        fraction_read: how much of the source has been read with it, 0 to 1; None if that is not known.
        encoding: the one that was assumed for its name; None if the source states it or the name is UTF-8.
        packed_in: the name of the file of many items that it was read from, such as an IDX file; None for a file of its own.
        stated: what the source states of the item; None if only its name says what it is.
    """

    name: str
    data: bytes | None
    size_bytes: int
    problem: str | None = None
    detail: str = ""
    fraction_read: float | None = None
    encoding: str | None = None
    packed_in: str | None = None
    stated: Stated | None = None


class Source(ABC):
    """Where items come from.

    Attributes:
        published_at: the publication date of a data set that never changes, recorded as the collection date of its items; None
            for others, whose items are dated by the collection.
    """

    published_at: ClassVar[datetime | None] = None

    @abstractmethod
    def stream(self) -> Iterator[SourceEntry]:
        """Every entry except folders, in a stable order.

        Raises:
            WrongUse: the source is missing, cannot be listed, or is neither a folder nor an archive that is read.
            DataRefused: an archive is damaged or a trap.
        """

    def names(self) -> Iterator[tuple[str, float | None]]:
        """The name of each entry and the fraction of the source that has been read with it (None if not known), for an
        estimate: entries are not read where names can be had without.

        Raises: as `stream`.
        """
        for entry in self.stream():
            yield entry.name, entry.fraction_read

    def select(self, wanted: Callable[[str], bool]) -> Iterator[SourceEntry]:
        """The entries as in `stream`, of which only those with a `wanted` name need to have their content.

        Raises: as `stream`.
        """
        yield from self.stream()

    @property
    def root(self) -> Path | None:
        """The folder on this machine that it reads; None for an archive or a built-in data set."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 (hex) that changes if the source may have changed: cheap, of the names, sizes and times of files, which are
        not read."""

    @abstractmethod
    def describe(self) -> str:
        """For people: its path, or its name."""


def too_large(name: str, size_bytes: int) -> SourceEntry:
    """An entry that is not read because of its size."""
    return SourceEntry(name, None, size_bytes, "too-large", f"{size_bytes:,} bytes; at most {safety.MAX_ITEM_BYTES:,} are read")
