"""All formats of annotations: their settings as one union, and finding out which one a source has."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import Field

from evergreen.data.annotations import coco, cvat, hugging_face, label_studio, manifest, voc, yolo
from evergreen.data.annotations.base import Format
from evergreen.data.annotations.coco import Coco
from evergreen.data.annotations.cvat import Cvat
from evergreen.data.annotations.hugging_face import HuggingFace
from evergreen.data.annotations.label_studio import LabelStudio
from evergreen.data.annotations.manifest import Manifest
from evergreen.data.annotations.paths import Resolver
from evergreen.data.annotations.voc import Voc
from evergreen.data.annotations.yolo import Yolo
from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.sources.base import Source, SourceEntry

Annotations = Annotated[Manifest | Coco | Yolo | Voc | LabelStudio | Cvat | HuggingFace, Field(discriminator="format")]

# The least likely to be taken for another comes first.
DETECTORS: tuple[Callable[[Mapping[str, SourceEntry], Resolver], Format | None], ...] = (
    coco.detect,
    label_studio.detect,
    cvat.detect,
    voc.detect,
    yolo.detect,
    manifest.detect,
)
LOOKED_AT = {".xml": 50, ".txt": 50}  # files of formats with one file for each image
MOST_FILES = 20  # of other endings
ENDINGS = (*manifest.ENDINGS, ".json", ".xml", ".yaml", ".yml", ".names")


def find_annotations(source: Source) -> Format | None:
    """The settings with which the annotations of a source are read; None if it has none of a known format."""
    opened: Counter[str] = Counter()

    def is_wanted(name: str) -> bool:
        ending = os.path.splitext(name)[1].lower()
        if ending not in ENDINGS or is_hidden(name) or is_leftover(name):
            return False
        opened[ending] += 1
        return opened[ending] <= LOOKED_AT.get(ending, MOST_FILES)

    names: list[str] = []
    files: dict[str, SourceEntry] = {}
    for entry in source.select(is_wanted):
        names.append(entry.name)
        if entry.data is not None and not entry.problem and os.path.splitext(entry.name)[1].lower() in ENDINGS:
            files[entry.name] = entry
    if any(name.lower().endswith(hugging_face.TABLES) for name in names) and (found := hugging_face.detect(source, names)):
        return found
    return detected(files, Resolver(names, source.root))


def detected(files: Mapping[str, SourceEntry], resolve: Resolver) -> Format | None:
    """The settings for the first format that fits some of these files."""
    for detect in DETECTORS:
        if files and (found := detect(files, resolve)) is not None:
            return found
    return None
