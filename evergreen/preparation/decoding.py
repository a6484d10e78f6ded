"""Decodes a data set's images once, in child processes on all cores, each straight into its place in one file.

Threads would fight over the interpreter's lock: OpenCV decodes a small image in less time than Python takes around it.
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

CHUNK_BYTES = 16 * 2**20  # of pixels at a time
DESCRIPTOR_CHUNK_ITEMS = 512
ALONE_BYTES = 8 * 2**20  # encoded: with fewer, starting processes takes longer than it saves

Shape = tuple[int, int, int]
# Encoded images, the shape of each, their ids and the range of deep ones, to pixels uint8 `(images, *shape)`.
Decoder = Callable[[Sequence[bytes], Shape, Sequence[str], PixelRange | None], "np.ndarray"]


@dataclass(frozen=True)
class _RowGroup:
    """Of a part; `first` is the number of its first item in the data set."""

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
        decode: a function of a module, so that child processes can import it. It raises `EvergreenError` for an image that it can't
            decode.
        shape: height, width and channels.
        pixels: this file gets uint8 `(items, *shape)`, with no header.
        descriptors: this file gets int8 `(items, LOOKS)` (`evergreen.preparation.splits.looks_of`), where they are asked for.
        processes: default, one for each core that this process may use.
        pixel_range: as `evergreen.media.images.prepare`.

    Raises:
        EvergreenError: an image of the data set cannot be decoded; it could be when it was collected.
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
    """Decode a row group into its place in the files."""
    import pyarrow.parquet as pq

    from evergreen.preparation.splits import LOOKS, looks_of

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
            described = looks_of(images[at : at + DESCRIPTOR_CHUNK_ITEMS])
            _write_at(descriptors, (group.first + start + at) * LOOKS, described)


def _write_at(path: Path, offset: int, array: np.ndarray) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(array.reshape(-1).view("uint8").data)
