"""Finds the image that an annotation means."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from evergreen.data.annotations.base import Annotation
from evergreen.data.skipped import READ
from evergreen.data.sources.safety import points_outside


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An annotation for which there is no image."""

    annotation: Annotation
    reason: str
    detail: str


class Resolver:
    """Finds the entry of a source that an annotation means.

    A path is relative to the folder of the annotations or to the source. If nothing is there, the one entry counts whose path
    ends with it: annotations often have file names alone. An absolute path counts if it lies in the source's folder.

    Attributes:
        names: of all entries of the source.
    """

    def __init__(self, names: Collection[str], folder: Path | None) -> None:
        self.names = frozenset(names)
        self._names = {_normal(name): name for name in names}
        self._root = None if folder is None else _normal(os.path.abspath(folder)).rstrip("/") + "/"
        self._ends: defaultdict[str, list[str]] = defaultdict(list)  # normal names by their last part, with and without ending
        for name in self._names:
            last = posixpath.basename(name)
            stem, ending = posixpath.splitext(last)
            self._ends[last].append(name)
            if ending.lower() in READ:
                self._ends[stem].append(name)

    def __call__(self, annotation: Annotation) -> str | Unresolved:
        """The name of the entry, or why there is none."""
        path = _normal(annotation.path)
        if path not in self._names and "\\" in path:
            path = path.replace("\\", "/")
        if self._root and path.startswith(self._root):
            path = path.removeprefix(self._root)
        if not path:
            return Unresolved(annotation, "missing", f"{annotation.where} names no image")
        beside = posixpath.normpath(posixpath.join(_normal(annotation.below), path))
        if points_outside(beside.encode()):
            return Unresolved(annotation, "outside", f"{annotation.where}: its path leads out of the source")
        direct = posixpath.normpath(path)
        for name in (beside, direct):
            if name in self._names:
                return self._names[name]
        last = posixpath.basename(direct)
        found = [name for name in self._ends.get(last, []) if _ends_with(name, direct)]
        if len(found) == 1:
            return self._names[found[0]]
        if found:
            shown = " and ".join(found[:2])
            return Unresolved(annotation, "ambiguous", f"{annotation.where}: it could be {shown}; give more of the path")
        return Unresolved(annotation, "missing", f"{annotation.where} names it, and it is not there")


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def _ends_with(name: str, path: str) -> bool:
    """True if a name ends with a path, whose last part may lack the ending."""
    return f"/{name}".endswith(f"/{path}") or f"/{posixpath.splitext(name)[0]}".endswith(f"/{path}")
