"""Label Studio's export "JSON": tasks with their annotations.

Format: https://labelstud.io/guide/export and https://labelstud.io/guide/task_format. Boxes are in percent of the image's sides.
Of several annotations of a task the ground truth counts, or else the one that was changed last; cancelled ones do not count.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import Field

from evergreen.data.annotations.base import Annotation, BoxFormat, missing_file, number, parsed_json, refused
from evergreen.data.annotations.cvat import around
from evergreen.data.annotations.paths import Resolver
from evergreen.data.sources.base import Box, SourceEntry, Stated
from evergreen.errors import DataRefused, WrongUse

SEVERAL = "images with several choices"


class LabelStudio(BoxFormat):
    """Choices and rectangles of a Label Studio export."""

    format: Literal["label_studio"]
    file: str = Field(description="the JSON file, as a path inside the source")
    image: str = Field("image", description="the key of a task's data with the image")
    keep: tuple[str, ...] = Field((), description="further keys of a task's data that are kept with each image")

    def is_annotation(self, name: str) -> bool:
        """True for the JSON file."""
        return name == self.file

    def describe(self) -> str:
        """Its file."""
        return f"the Label Studio export {self.file}"

    def read(self, files: Sequence[SourceEntry], names: Collection[str], source: str) -> Iterator[Annotation]:
        """As `Format.read`: an annotation for each task that was annotated."""
        if not files:
            raise missing_file(self.file, source, names, (".json",))
        tasks = parsed_json(files[0], source)
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise refused(self.file, "it is no list of tasks", "Label Studio's export JSON")
        lasts = {posixpath.basename(name) for name in names}
        for place, task in enumerate(tasks, 1):
            where = f"{self.file}, task {task.get('id', place)}"
            data, annotations = task.get("data"), task.get("annotations")
            if not isinstance(data, dict) or not isinstance(annotations, list):
                raise refused(
                    where,
                    "it has no data and annotations",
                    "Label Studio's export JSON, not JSON_MIN",
                    "Export it again as JSON.",
                )
            if not data.get(self.image):
                raise WrongUse(
                    f"{where} has no {self.image} in its data", expected=f"one of {', '.join(map(str, data))}",
                    fix="Set collect.annotations.image to the key with the image.",
                )  # fmt: skip
            columns = {key: str(data[key]) for key in self.keep if data.get(key) is not None}
            path = _path(str(data[self.image]), lasts)
            if (chosen := _chosen(annotations)) is not None:
                yield self._of_image(path, chosen, columns, where)

    def _of_image(self, path: str, annotation: dict[str, Any], columns: dict[str, str], where: str) -> Annotation:
        choices: set[str] = set()
        boxes: list[Box] = []
        size: tuple[int, int] | None = None
        for result in annotation.get("result") or []:
            value = result.get("value") if isinstance(result, dict) else None
            if not isinstance(value, dict):
                raise refused(where, f"a result is {result!r}", "an object with a value")
            choices |= {str(choice) for choice in value.get("choices") or []}
            if "rectanglelabels" in value:
                size = _size(result, where)
                boxes.append(_box(value, size, where))
        label = choices.pop() if len(choices) == 1 else None
        stated = Stated(label, split=self.split(path), boxes=tuple(boxes), columns=columns)
        if choices:
            stated = Stated(None, split=stated.split, boxes=stated.boxes, columns=columns, unlabelled=SEVERAL)
        return Annotation(path, where, stated, os.path.dirname(self.file), size)


def _path(address: str, lasts: Collection[str]) -> str:
    """The path of the image that an address means: of local storage, of an upload, of a bucket or of the web."""
    parts = urlsplit(address)
    if local := parse_qs(parts.query).get("d"):
        return local[0]
    if not parts.scheme and not parts.path.startswith("/data/"):
        return address
    last = posixpath.basename(unquote(parts.path))
    without = re.sub(r"^[0-9a-f]{8}-", "", last)  # uploads get a prefix
    return without if last not in lasts and without in lasts else last


def _chosen(annotations: Sequence[Any]) -> dict[str, Any] | None:
    """The annotation that counts."""
    valid = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    return max(valid, key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at") or "")), default=None)


def _size(result: Mapping[str, Any], where: str) -> tuple[int, int]:
    width, height = (int(number(result.get(f"original_{side}"), f"original_{side}", where)) for side in ("width", "height"))
    return width, height


def _box(value: Mapping[str, Any], size: tuple[int, int], where: str) -> Box:
    labels = value["rectanglelabels"]
    if not isinstance(labels, list) or len(labels) != 1:
        raise refused(where, f"a rectangle has the labels {labels!r}", "one label for each")
    x, y, width, height = (number(value.get(side), side, where) / 100 for side in ("x", "y", "width", "height"))
    box = Box(str(labels[0]), x * size[0], y * size[1], width * size[0], height * size[1])
    return around(box, number(value.get("rotation") or 0, "rotation", where), centre=False)


def detect(files: Mapping[str, SourceEntry], resolve: Resolver) -> LabelStudio | None:
    """The settings for the first Label Studio export with labels; crops if it has rectangles, else the images' choices."""
    for file in files.values():
        if not file.name.lower().endswith(".json"):
            continue
        for image in _keys(file):
            found = LabelStudio.model_validate({"format": "label_studio", "file": file.name, "image": image})
            try:
                stated = list(found.read([file], resolve.names, ""))
            except (DataRefused, WrongUse):
                continue
            if any(one.stated.label or one.stated.boxes for one in stated) and isinstance(resolve(stated[0]), str):
                boxes = "crop" if any(one.stated.boxes for one in stated) else "keep"
                return found.model_copy(update={"boxes": boxes})
    return None


def _keys(file: SourceEntry) -> list[str]:
    """The keys of the first task's data."""
    try:
        tasks = parsed_json(file, "")
    except DataRefused:
        return []
    first = tasks[0] if isinstance(tasks, list) and tasks else None
    data = first.get("data") if isinstance(first, dict) and isinstance(first.get("annotations"), list) else None
    return [str(key) for key in data] if isinstance(data, dict) else []
