"""Labelled images in the data set: their columns, and the range with which images with more than 8 bits per value are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.data.dataset import Records, iter_parts
from evergreen.data.sources.base import Stated
from evergreen.media.images import Inspection, PixelRange, read_header

if TYPE_CHECKING:
    import pyarrow as pa

RANGE = "range.json"


@dataclass(frozen=True, slots=True)
class Item:
    """A labelled image that is added to the data set; docs/internals.md explains the columns."""

    id: str
    image: bytes
    label: str
    group: str | None
    split: str | None
    source: str
    collected_at: datetime
    inspection: Inspection

    def row(self) -> tuple[Any, ...]:
        """The values in the order of the columns of `schema()`."""
        found, header = self.inspection, self.inspection.header
        return (
            self.id, self.image, self.label, self.group, self.split, self.source, self.collected_at,
            header.width, header.height, header.channels, header.format,
            found.brightness, found.contrast, found.sharpness, found.perceptual_hash,
        )  # fmt: skip

    def annotated_row(self, stated: Stated | None) -> tuple[Any, ...]:
        """The values in the order of the columns of `annotated_schema()`."""
        boxes = [asdict(box) for box in stated.boxes] if stated and stated.boxes else None
        columns = sorted(stated.columns.items()) if stated and stated.columns else None
        return (*self.row(), boxes, columns)


@cache
def schema() -> pa.Schema:
    """The columns of each part of the data set."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("image", pa.binary(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("group", pa.string()),
            pa.field("split", pa.string()),
            pa.field("source", pa.string(), nullable=False),
            pa.field("collected_at", pa.timestamp("ms", tz="UTC"), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("channels", pa.int8(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("brightness", pa.float32(), nullable=False),
            pa.field("contrast", pa.float32(), nullable=False),
            pa.field("sharpness", pa.float32(), nullable=False),
            pa.field("perceptual_hash", pa.uint64(), nullable=False),
        ]
    )


@cache
def annotated_schema() -> pa.Schema:
    """The columns of each part of a data set with annotations: those of `schema()`, the boxes and the further columns."""
    import pyarrow as pa

    sides = [pa.field(name, pa.float64(), nullable=False) for name in ("x", "y", "width", "height")]
    box = pa.struct([pa.field("label", pa.string(), nullable=False), *sides])
    return schema().append(pa.field("boxes", pa.list_(box))).append(pa.field("columns", pa.map_(pa.string(), pa.string())))


def recorded_range(folders: Iterable[Path]) -> PixelRange | None:
    """The range with which the deep images of a data set were inspected; None if there are no such images, or if the data set
    is older than ranges."""
    for folder in folders:
        if (folder / RANGE).is_file():
            return PixelRange(**json.loads((folder / RANGE).read_text(encoding="utf-8")))
    return None


def record_range(folder: Path, pixel_range: PixelRange) -> None:
    """Write the range into a batch folder that is not yet visible to readers."""
    (folder / RANGE).write_text(json.dumps(pixel_range._asdict()) + "\n", encoding="utf-8")


def iter_deep(folders: Iterable[Path]) -> Iterator[bytes]:
    """Yield the encoded images in these batch folders that have more than 8 bits per value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    formats = pa.array(["PNG", "TIFF"], pa.string())  # of the supported formats, those that can have more than 8 bits
    for rows in iter_parts(folders, ["format", "image"], Records()):
        for image in rows.filter(pc.is_in(rows["format"], formats))["image"].to_pylist():
            if read_header(image).deep:
                yield image
