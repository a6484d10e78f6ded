"""CVAT's export "CVAT for images 1.1": an XML file with the images, their tags, boxes and polygons.

Format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat. Of a polygon the box around it is taken; rotated boxes
become the box around them. A tag is a label of the whole image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal
from xml.etree.ElementTree import Element

from pydantic import Field

from evergreen.data.annotations.base import Annotation, BoxFormat, missing_file, number, parsed_xml, refused
from evergreen.data.annotations.paths import Resolver
from evergreen.data.folder_names import split_of
from evergreen.data.sources.base import Box, SourceEntry, Stated
from evergreen.errors import DataRefused

SEVERAL = "images with several tags"
SHAPES = ("polygon", "polyline", "points")


class Cvat(BoxFormat):
    """Tags and boxes of a CVAT export. With `splits`, an image's subset is its split."""

    format: Literal["cvat"]
    file: str = Field(description="the XML file, as a path inside the source")

    def is_annotation(self, name: str) -> bool:
        """True for the XML file."""
        return name == self.file

    def describe(self) -> str:
        """Its file."""
        return f"the CVAT export {self.file}"

    def read(self, files: Sequence[SourceEntry], names: Collection[str], source: str) -> Iterator[Annotation]:
        """As `Format.read`: an annotation for each image of the export."""
        if not files:
            raise missing_file(self.file, source, names, (".xml",))
        root = parsed_xml(files[0], source)
        if root.tag != "annotations":
            raise refused(self.file, f"its root is {root.tag}", "annotations, as in the export CVAT for images 1.1")
        if root.find("track") is not None:
            raise refused(self.file, "it has tracks of a video", "images", "Export it again as CVAT for images 1.1.")
        for image in root.iter("image"):
            yield self._of_image(image)

    def _of_image(self, image: Element) -> Annotation:
        name = image.get("name") or ""
        where = f"{self.file}, image {image.get('id', name)}"
        tags = sorted({tag.get("label") or "" for tag in image.iter("tag")})
        boxes = tuple(_box(one, where) for one in image if one.tag == "box" or one.tag in SHAPES)
        subset = image.get("subset")
        split = (subset if self.splits and split_of(subset or "") else None) or self.split(name)
        size = tuple(int(number(image.get(side) or 0, side, where)) for side in ("width", "height"))
        stated = Stated(tags[0] if len(tags) == 1 else None, split=split, boxes=boxes)
        if len(tags) > 1:
            stated = Stated(None, split=split, boxes=boxes, unlabelled=SEVERAL)
        return Annotation(name, where, stated, os.path.dirname(self.file), (size[0], size[1]) if all(size) else None)


def _box(shape: Element, where: str) -> Box:
    label = shape.get("label") or ""
    if not label:
        raise refused(where, f"a {shape.tag} has no label", "a label for each")
    if shape.tag != "box":
        points = [
            [number(side, "a point", where) for side in point.split(",")] for point in (shape.get("points") or "").split(";")
        ]
        if any(len(point) != 2 for point in points):
            raise refused(where, f"a {shape.tag} has the points {shape.get('points')!r}", "x,y;x,y;…")
        left, top = min(x for x, _ in points), min(y for _, y in points)
        return Box(label, left, top, max(x for x, _ in points) - left, max(y for _, y in points) - top)
    left, top, right, bottom = (number(shape.get(side), side, where) for side in ("xtl", "ytl", "xbr", "ybr"))
    return around(
        Box(label, left, top, right - left, bottom - top), number(shape.get("rotation") or 0, "rotation", where), centre=True
    )


def around(box: Box, degrees: float, *, centre: bool) -> Box:
    """The upright box around a rotated one.

    Args:
        degrees: clockwise.
        centre: whether it is rotated about its centre; otherwise about its left upper corner.
    """
    if not degrees:
        return box
    turned = math.radians(degrees)
    sine, cosine = math.sin(turned), math.cos(turned)
    about = (box.x + box.width / 2, box.y + box.height / 2) if centre else (box.x, box.y)
    corners = [
        (box.x + across * box.width - about[0], box.y + down * box.height - about[1]) for across in (0, 1) for down in (0, 1)
    ]
    columns = [about[0] + x * cosine - y * sine for x, y in corners]
    rows = [about[1] + x * sine + y * cosine for x, y in corners]
    return Box(box.label, min(columns), min(rows), max(columns) - min(columns), max(rows) - min(rows))


def detect(files: Mapping[str, SourceEntry], resolve: Resolver) -> Cvat | None:
    """The settings for the first CVAT export with labels; crops if it has boxes, else the images' tags."""
    for file in files.values():
        if not file.name.lower().endswith(".xml"):
            continue
        found = Cvat.model_validate({"format": "cvat", "file": file.name})
        try:
            stated = list(found.read([file], [], ""))
        except DataRefused:
            continue
        if any(one.stated.boxes or one.stated.label for one in stated):
            boxes = "crop" if any(one.stated.boxes for one in stated) else "keep"
            return found.model_copy(update={"boxes": boxes})
    return None
