"""Decodes the images of a data set once, in child processes on all cores, each of which writes to its part of one file.

Threads would contend for the GIL: OpenCV decodes a small image in less time than the Python code around it takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen.data.dataset import parts
from evergreen.errors import EvergreenError
from evergreen.media.images import PixelRange
from evergreen.processes import Crashed, ProcessPool

if TYPE_CHECKING:
    import numpy as np

CHUNK_BYTES = 16 * 2**20  # pixels that are decoded at a time
DESCRIPTOR_CHUNK_ITEMS = 512
ALONE_BYTES = 8 * 2**20  # encoded images; with fewer, starting processes takes longer than it saves

Shape = tuple[int, int, int]
# Maps encoded images, the shape of each, their ids and the range of deep ones to pixels uint8 `(images, *shape)`.
Decoder = Callable[[Sequence[bytes], Shape, Sequence[str], PixelRange | None], "np.ndarray"]


@dataclass(frozen=True)
class _RowGroup:
    """A row group of a part; `first` is the index of its first item in the data set."""

    part: Path
    number: int
    first: int


def decode_all(
    decode: Decoder,
    folders: Sequence[Path],
    shape: Shape,
    pixels: Path,
    descriptors: Path | None,
    processes: int | None = None,
    pixel_range: PixelRange | None = None,
) -> None:
    """Decode the items of these batch folders, in the order of their arrival.

    Args:
        decode: a module-level function, so that child processes can import it. It raises `EvergreenError` for images that it
            can't decode.
        shape: height, width and channels.
        pixels: the file to which uint8 `(items, *shape)` is written, without a header.
        descriptors: the file to which int8 `(items, DESCRIPTOR_LENGTH)` is written
            (`evergreen.preparation.splits.descriptors_of`); None to compute none.
        processes: by default one for each core that this process may use.
        pixel_range: as in `evergreen.media.images.prepare`.

    Raises:
        EvergreenError: an image of the data set cannot be decoded, although it could when it was collected.
    """
    paths = parts(folders)
    for path in (pixels, descriptors):
        if path is not None:
            path.touch()
    work = partial(_decode_group, decode, shape, pixels, descriptors, pixel_range)
    count = processes or len(os.sched_getaffinity(0))
    if count == 1 or sum(path.stat().st_size for path in paths) < ALONE_BYTES:
        for group in _row_groups(paths):
            work(group)
        return
    with ProcessPool(count) as pool:
        try:
            for done in [pool.submit(work, group) for group in _row_groups(paths)]:
                done.result()
        except Crashed as crash:
            raise EvergreenError(f"decoding the data set failed: {crash.happened}") from None


def _row_groups(paths: Sequence[Path]) -> Iterator[_RowGroup]:
    import pyarrow.parquet as pq

    first = 0
    for path in paths:
        metadata = pq.read_metadata(path)
        for number in range(metadata.num_row_groups):
            yield _RowGroup(path, number, first)
            first += metadata.row_group(number).num_rows


def _decode_group(
    decode: Decoder, shape: Shape, pixels: Path, descriptors: Path | None, pixel_range: PixelRange | None, group: _RowGroup
) -> None:
    """Decode a row group, and write to its part of the files."""
    import pyarrow.parquet as pq

    from evergreen.preparation.splits import DESCRIPTOR_LENGTH, descriptors_of

    item_bytes = shape[0] * shape[1] * shape[2]
    at_once = max(1, CHUNK_BYTES // item_bytes)
    with pq.ParquetFile(group.part) as part:
        table = part.read_row_group(group.number, columns=["id", "image"])
    for start in range(0, table.num_rows, at_once):
        chunk = table.slice(start, at_once)
        images = decode(chunk["image"].to_pylist(), shape, chunk["id"].to_pylist(), pixel_range)
        _write_at(pixels, (group.first + start) * item_bytes, images)
        if descriptors is None:
            continue
        for at in range(0, len(images), DESCRIPTOR_CHUNK_ITEMS):
            described = descriptors_of(images[at : at + DESCRIPTOR_CHUNK_ITEMS])
            _write_at(descriptors, (group.first + start + at) * DESCRIPTOR_LENGTH, described)


def _write_at(path: Path, offset: int, array: np.ndarray) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(array.reshape(-1).view("uint8").data)
