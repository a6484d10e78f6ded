"""YOLO annotations: a text file for each image, with a line for each box.

A line has the number of the class and the box's centre, width and height, in fractions of the image's width and height; or the
number and the corners of a polygon, of which the box is taken (https://docs.ultralytics.com/datasets/detect). The text file of
`images/a.jpg` is `labels/a.txt`, or `a.txt` beside it. An empty file is an image without a box.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from evergreen.data.annotations.base import Annotation, BoxFormat, has_splits, missing_file, number, refused, text
from evergreen.data.annotations.paths import Resolver
from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.skipped import READ
from evergreen.data.sources.base import Box, SourceEntry, Stated
from evergreen.errors import DataRefused, WrongUse

CLASSES = ("classes.txt", "obj.names", "predefined_classes.txt")


class Yolo(BoxFormat):
    """Boxes in text files of the YOLO format, all of the source. Exactly one of `classes` and `names` is given."""

    format: Literal["yolo"]
    classes: str | None = Field(
        None, description="the file with the names of the classes, as a path inside the source: data.yaml, or a line for each"
    )
    names: tuple[str, ...] = Field((), description="the names of the classes, in the order of their numbers")

    def is_annotation(self, name: str) -> bool:
        """True for text files and for the file of the names."""
        is_text = name.lower().endswith(".txt") and not is_hidden(name) and not is_leftover(name)
        return name == self.classes or is_text

    def describe(self) -> str:
        """What it reads."""
        return f"the YOLO annotations (text files, classes of {self.classes or 'collect.annotations.names'})"

    def read(self, files: Sequence[SourceEntry], names: Collection[str], source: str) -> Iterator[Annotation]:
        """As `Format.read`: an annotation for each text file that belongs to an image or lies in a folder `labels`."""
        if (self.classes is None) == (not self.names):
            raise WrongUse(
                "collect.annotations of the format yolo needs the names of the classes",
                expected="exactly one of classes (a file) and names (a list)", fix="Give one of them.",
            )  # fmt: skip
        labels = self.names or self._classes(files, names, source)
        images = {os.path.splitext(name)[0] for name in names if os.path.splitext(name)[1].lower() in READ}
        for file in files:
            if file.name == self.classes:
                continue
            stem = os.path.splitext(file.name)[0]
            beside = re.sub(r"(^|.*/)labels/", r"\1images/", stem, count=1, flags=re.DOTALL)
            if stem not in images and beside not in images and beside == stem:
                continue  # a note, or a list of files
            path = beside if beside in images or stem not in images else stem
            boxes = tuple(_boxes(text(file, source), labels, file.name))
            yield Annotation(path, file.name, Stated(None, split=self.split(file.name), boxes=boxes), fractions=True)

    def _classes(self, files: Sequence[SourceEntry], names: Collection[str], source: str) -> tuple[str, ...]:
        for file in files:
            if file.name == self.classes:
                return names_of_classes(file, source)
        raise missing_file(self.classes or "", source, names, (".yaml", ".yml", ".txt", ".names"))


def names_of_classes(file: SourceEntry, source: str) -> tuple[str, ...]:
    """The names of the classes in the order of their numbers: the key `names` of a YAML file, or the lines of another.

    Raises:
        DataRefused: the file has no such names.
    """
    content = text(file, source)
    if not file.name.lower().endswith((".yaml", ".yml")):
        found: Any = [line.strip() for line in content.splitlines() if line.strip()]
    else:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            document = YAML(typ="safe", pure=True).load(content)
        except (YAMLError, RecursionError) as error:
            raise refused(file.name, f"it is no YAML: {' '.join(str(error).split())[:200]}", "the key names") from None
        found = document.get("names") if isinstance(document, dict) else None
        if isinstance(found, dict) and sorted(found) == list(range(len(found))):
            found = [found[place] for place in range(len(found))]
    if not isinstance(found, list) or not found or not all(isinstance(name, str | int) for name in found):
        raise refused(file.name, "it has no names of classes", "names: a list, or numbers from 0 with their names")
    return tuple(str(name) for name in found)


def _boxes(lines: str, labels: Sequence[str], name: str) -> Iterator[Box]:
    for place, line in enumerate(lines.splitlines(), 1):
        if not (words := line.split()):
            continue
        where = f"{name}, line {place}"
        if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
            raise refused(
                where, f"it has {len(words)} numbers", "a class with centre, width and height, or with the corners of a polygon"
            )
        if not words[0].isdecimal() or int(words[0]) >= len(labels):
            raise refused(
                where, f"its class is {words[0]}", f"a number from 0 to {len(labels) - 1}, as there are {len(labels)} names"
            )
        label, sides = labels[int(words[0])], [number(word, "a fraction", where) for word in words[1:]]
        if len(sides) == 4:
            across, down, width, height = sides
            yield Box(label, across - width / 2, down - height / 2, width, height)
        else:
            left, top = min(sides[::2]), min(sides[1::2])
            yield Box(label, left, top, max(sides[::2]) - left, max(sides[1::2]) - top)


def detect(files: Mapping[str, SourceEntry], resolve: Resolver) -> Yolo | None:
    """The settings if the source has the names of the classes and text files of boxes."""
    for file in files.values():
        last = os.path.basename(file.name).lower()
        if last not in CLASSES and not last.endswith((".yaml", ".yml")):
            continue
        found = Yolo.model_validate({"format": "yolo", "classes": file.name})
        texts = [one for one in files.values() if one.name.lower().endswith(".txt") and one.name != file.name]
        try:
            stated = list(found.read([file, *texts], list(resolve.names), ""))
        except (DataRefused, WrongUse):
            continue
        if any(one.stated.boxes for one in stated):
            return found.model_copy(update={"splits": has_splits(one.where for one in stated)})
    return None
