"""Pascal VOC annotations: an XML file for each image, as LabelImg and others write them too.

Format: M. Everingham and J. Winn, "The PASCAL Visual Object Classes Challenge 2012 Development Kit", section 3. Pixels are
counted from 1, and `xmax` and `ymax` are the last pixels inside a box.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal
from xml.etree.ElementTree import Element

from evergreen.data.annotations.base import Annotation, BoxFormat, has_splits, number, parsed_xml, refused
from evergreen.data.annotations.paths import Resolver
from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.sources.base import Box, SourceEntry, Stated
from evergreen.errors import DataRefused

SIDES = ("xmin", "ymin", "xmax", "ymax")


class Voc(BoxFormat):
    """Boxes in XML files of the Pascal VOC format, all of the source."""

    format: Literal["voc"]

    def is_annotation(self, name: str) -> bool:
        """True for XML files."""
        return name.lower().endswith(".xml") and not is_hidden(name) and not is_leftover(name)

    def describe(self) -> str:
        """What it reads."""
        return "the Pascal VOC annotations (XML files)"

    def read(self, files: Sequence[SourceEntry], names: Collection[str], source: str) -> Iterator[Annotation]:
        """As `Format.read`: an annotation for each XML file whose root is `annotation`."""
        count = 0
        for file in files:
            root = parsed_xml(file, source)
            if root.tag == "annotation":
                count += 1
                yield self._of_image(root, file.name)
        if not count:
            raise DataRefused(
                f"there are no Pascal VOC annotations in {source}", expected="an XML file with the root annotation for each image",
                fix="Put them there, or correct collect.annotations.",
            )  # fmt: skip

    def _of_image(self, root: Element, name: str) -> Annotation:
        boxes = tuple(_box(one, f"{name}, object {place}") for place, one in enumerate(root.iter("object"), 1))
        path = (root.findtext("filename") or "").strip() or os.path.splitext(os.path.basename(name))[0]
        size = tuple(int(number(root.findtext(f"size/{side}") or 0, side, name)) for side in ("width", "height"))
        stated = Stated(None, split=self.split(name, path), boxes=boxes)
        return Annotation(path, name, stated, os.path.dirname(name), (size[0], size[1]) if all(size) else None)


def _box(element: Element, where: str) -> Box:
    label, bounds = (element.findtext("name") or "").strip(), element.find("bndbox")
    if not label or bounds is None:
        raise refused(where, f"it has no {'bndbox' if label else 'name'}", "an object with its name and its bndbox")
    left, top, right, bottom = (number(bounds.findtext(side), side, where) for side in SIDES)
    return Box(label, left - 1, top - 1, right - left + 1, bottom - top + 1)


def detect(files: Mapping[str, SourceEntry], resolve: Resolver) -> Voc | None:
    """The settings if XML files of the source are Pascal VOC's."""
    found = []
    for file in files.values():
        if not file.name.lower().endswith(".xml"):
            continue
        try:
            root = parsed_xml(file, "")
        except DataRefused:
            continue
        if root.tag == "annotation" and root.find("object/bndbox") is not None:
            found.append(file.name)
    return Voc.model_validate({"format": "voc", "splits": has_splits(found)}) if found else None
