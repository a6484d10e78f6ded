"""COCO annotations: JSON files with images, boxes and categories.

Format: https://cocodataset.org/#format-data. A box is `[x, y, width, height]` in pixels, from the image's left and upper edge.
Boxes of crowds (`iscrowd`), which surround several objects, are left out.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from evergreen.data.annotations.base import Annotation, BoxFormat, has_splits, missing_file, number, parsed_json, refused
from evergreen.data.annotations.paths import Resolver
from evergreen.data.sources.base import Box, SourceEntry, Stated
from evergreen.errors import DataRefused

KEYS = ("images", "annotations", "categories")


class Coco(BoxFormat):
    """Boxes in JSON files of the COCO format."""

    format: Literal["coco"]
    files: tuple[str, ...] = Field(min_length=1, description="the JSON files, as paths inside the source")

    def is_annotation(self, name: str) -> bool:
        """True for the JSON files."""
        return name in self.files

    def describe(self) -> str:
        """Its files."""
        return f"the COCO annotations {', '.join(self.files)}"

    def read(self, files: Sequence[SourceEntry], names: Collection[str], source: str) -> Iterator[Annotation]:
        """As `Format.read`: an annotation for each image that a file lists."""
        found = {file.name: file for file in files}
        for name in self.files:
            if name not in found:
                raise missing_file(name, source, names, (".json",))
            yield from self._of_file(found[name], source)

    def _of_file(self, file: SourceEntry, source: str) -> Iterator[Annotation]:
        images, annotations, categories = _tables(file, source)
        labels = {row.get("id"): str(row.get("name") or "") for row in categories}
        boxes: defaultdict[Any, list[Box]] = defaultdict(list)
        known = {row.get("id") for row in images}
        for place, row in enumerate(annotations, 1):
            where = f"{file.name}, annotation {row.get('id', place)}"
            if row.get("iscrowd"):
                continue
            if not labels.get(row.get("category_id")):
                raise refused(where, f"its category is {row.get('category_id')!r}", "the id of one of the file's categories")
            if row.get("image_id") not in known:
                raise refused(where, f"its image is {row.get('image_id')!r}", "the id of one of the file's images")
            sides = row.get("bbox")
            if not isinstance(sides, list) or len(sides) != 4:
                raise refused(where, f"its bbox is {sides!r}", "x, y, width and height in pixels")
            boxes[row["image_id"]].append(
                Box(labels[row["category_id"]], *(number(side, "a side of its bbox", where) for side in sides))
            )
        for place, row in enumerate(images, 1):
            name, where = str(row.get("file_name") or ""), f"{file.name}, image {row.get('id', place)}"
            stated = Stated(None, split=self.split(name, file.name), boxes=tuple(boxes[row.get("id")]))
            yield Annotation(name, where, stated, os.path.dirname(file.name), _size(row))


def _tables(file: SourceEntry, source: str) -> list[list[dict[str, Any]]]:
    content = parsed_json(file, source)
    tables = [content.get(key) if isinstance(content, dict) else None for key in KEYS]
    for key, table in zip(KEYS, tables, strict=True):
        if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            raise refused(file.name, f"it has no list of {key}", "COCO's images, annotations and categories")
    return tables  # type: ignore[return-value]


def _size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = row.get("width"), row.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None


def detect(files: Mapping[str, SourceEntry], resolve: Resolver) -> Coco | None:
    """The settings for the JSON files that are COCO's and have boxes; None if there is none."""
    found = []
    for file in files.values():
        if not file.name.lower().endswith(".json"):
            continue
        try:
            _, annotations, _ = _tables(file, "")
        except DataRefused:
            continue
        if any(row.get("bbox") for row in annotations):
            found.append(file.name)
    return Coco.model_validate({"format": "coco", "files": found, "splits": has_splits(found)}) if found else None
