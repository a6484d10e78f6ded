"""Decodes a data set's images once, in processes of their own on all cores, each straight into its place in one file.

Threads would fight over the interpreter's lock: OpenCV decodes a small image in less time than Python takes around it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen.data.dataset import parts
from evergreen.errors import EvergreenError
from evergreen.media.images import PixelRange

if TYPE_CHECKING:
    import numpy as np

CHUNK_BYTES = 16 * 2**20  # of pixels at a time
LOOKS_CHUNK_ITEMS = 512
ALONE_BYTES = 8 * 2**20  # encoded: with fewer, starting processes takes longer than it saves


@dataclass(frozen=True)
class _Job:
    """What one process does: the row groups `first`, `first + step`, … of all parts."""

    kind: str
    parts: list[str]
    shape: tuple[int, int, int]
    pixels: str
    looks: str | None
    range: tuple[float, float] | None
    parent: int
    first: int = 0
    step: int = 1


def decode_all(
    kind: str,
    folders: Sequence[Path],
    shape: tuple[int, int, int],
    pixels: Path,
    looks: Path | None,
    processes: int | None = None,
    pixel_range: PixelRange | None = None,
) -> None:
    """Decode the items of these batch folders, in the order of their arrival.

    Args:
        kind: the scenario's; its `arrays` makes pixels of encoded images.
        shape: height, width and channels.
        pixels: this file gets uint8 `(items, *shape)`, with no header.
        looks: this file gets int8 `(items, LOOKS)` (`evergreen.preparation.splits.looks_of`), where it is asked for.
        processes: default, one for each core that this process may use.
        pixel_range: as `evergreen.media.images.prepare`.

    Raises:
        EvergreenError: an image of the data set cannot be decoded; it could be when it was collected.
    """
    paths = parts(folders)
    for path in (pixels, looks):
        if path is not None:
            path.touch()
    job = _Job(kind, [str(path) for path in paths], shape, str(pixels), str(looks) if looks else None, pixel_range, os.getpid())
    count = processes or len(os.sched_getaffinity(0))
    if count == 1 or sum(path.stat().st_size for path in paths) < ALONE_BYTES:
        _work(job)
        return
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    workers = []
    try:
        for first in range(count):
            mine = json.dumps(asdict(job) | {"first": first, "step": count})
            command = [sys.executable, "-P", "-m", "evergreen.preparation.decoding"]
            worker = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            workers.append(worker)
            assert worker.stdin is not None
            worker.stdin.write(mine)
            worker.stdin.close()
            worker.stdin = None
        for worker in workers:
            _, told = worker.communicate()
            if worker.returncode:
                lines = told.strip().splitlines() or [f"its process ended with status {worker.returncode}"]
                raise EvergreenError(f"decoding the data set failed: {lines[-1]}")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _work(job: _Job) -> None:
    import contextlib
    import importlib

    import pyarrow.parquet as pq

    from evergreen.preparation.splits import LOOKS, looks_of

    pixel_range = PixelRange(*job.range) if job.range else None
    kind = importlib.import_module(f"evergreen.kinds.{job.kind}")
    item_bytes = job.shape[0] * job.shape[1] * job.shape[2]
    at_once = max(1, CHUNK_BYTES // item_bytes)
    with contextlib.ExitStack() as files:
        pixels = files.enter_context(open(job.pixels, "r+b"))
        looks = files.enter_context(open(job.looks, "r+b")) if job.looks else None
        row, group_number = 0, 0
        for path in job.parts:
            part = files.enter_context(pq.ParquetFile(path))
            for group in range(part.num_row_groups):
                rows = part.metadata.row_group(group).num_rows
                if group_number % job.step == job.first:
                    if job.step > 1 and os.getppid() != job.parent:
                        return  # nobody waits for it any more
                    table = part.read_row_group(group, columns=["id", "image"])
                    for start in range(0, rows, at_once):
                        chunk = table.slice(start, at_once)
                        images = kind.arrays(chunk["image"].to_pylist(), job.shape, chunk["id"].to_pylist(), pixel_range)
                        _write_at(pixels.fileno(), (row + start) * item_bytes, images)
                        for at in range(0, len(images) if looks else 0, LOOKS_CHUNK_ITEMS):
                            assert looks is not None
                            found = looks_of(images[at : at + LOOKS_CHUNK_ITEMS])
                            _write_at(looks.fileno(), (row + start + at) * LOOKS, found)
                row += rows
                group_number += 1
            part.close()


def _write_at(file: int, place: int, array: np.ndarray) -> None:
    left = array.reshape(-1).view("uint8").data
    while left:
        written = os.pwrite(file, left, place)
        left, place = left[written:], place + written


if __name__ == "__main__":
    try:
        told = json.loads(sys.stdin.read())
        _work(_Job(**told | {"shape": tuple(told["shape"])}))
    except EvergreenError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
