"""A source of images whose labels are in files of annotations, not in the names of folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from evergreen.data.annotations.base import Annotation, Format
from evergreen.data.annotations.boxes import items_of_boxes
from evergreen.data.annotations.paths import Resolver, Unresolved
from evergreen.data.sources.base import Source, SourceEntry, Stated
from evergreen.errors import DataRefused


@dataclass
class Plan:
    """What is to be made of a source: the annotations by the name of their entry, and those without one."""

    of: defaultdict[str, list[Annotation]] = field(default_factory=lambda: defaultdict(list))
    unresolved: list[Unresolved] = field(default_factory=list)


@dataclass(frozen=True)
class AnnotatedSource(Source):
    """The files of a source, with what its annotations state of the images among them.

    The annotations are read first and kept in memory; then the source is streamed. An image of which nothing is stated stays as
    it is. One of which something is stated becomes one entry for each annotation, or one for each box. An annotation of an
    image that is not there, or of an impossible box, becomes an entry with a problem.

    Attributes:
        files: the folder or archive.
        settings: which annotations it has.
        max_pixels: larger images are not decoded for crops.
    """

    files: Source
    settings: Format
    max_pixels: int

    def stream(self) -> Iterator[SourceEntry]:
        """As `Source.stream`.

        Raises:
            DataRefused: also if the annotations are damaged, or none of the images that they name is there.
            WrongUse: also if the settings of the annotations do not suit them.
        """
        plan = self._plan()
        for one in plan.unresolved:
            yield SourceEntry(
                one.annotation.path or one.annotation.where, None, 0, one.reason, one.detail, stated=one.annotation.stated
            )
        rule = self.settings.image_rule
        if rule is not None:
            yield from items_of_boxes(self.files.stream(), plan.of, rule, self.max_pixels)
            return
        for entry in self.files.stream():
            found = plan.of.get(entry.name) or plan.of.get(entry.packed_in or "", [])
            yield from [replace(entry, stated=_beside(one.stated, entry.stated)) for one in found] or [
                replace(entry, stated=None)
            ]

    def names(self) -> Iterator[tuple[str, float | None]]:
        """The names of annotated images; once for each annotation, or for each box if boxes are cut out."""
        rule = self.settings.image_rule
        for name, found in self._plan().of.items():
            for one in found:
                count = len(one.stated.boxes) if rule is not None and rule.boxes == "crop" else 1
                yield from ((name, None) for _ in range(count))

    def fingerprint(self) -> str:
        return self.files.fingerprint()

    def describe(self) -> str:
        return self.files.describe()

    @property
    def root(self) -> Path | None:
        return self.files.root

    def _plan(self) -> Plan:
        names, annotations = [], []
        for entry in self.files.select(self.settings.is_annotation):
            names.append(entry.name)
            if self.settings.is_annotation(entry.name):
                annotations.append(entry)
        resolve = Resolver(names, self.files.root)
        plan = Plan()
        for one in self.settings.read(annotations, names, self.describe()):
            found = resolve(one)
            if isinstance(found, Unresolved):
                plan.unresolved.append(found)
            else:
                plan.of[found].append(one)
        if plan.unresolved and not plan.of:
            first = plan.unresolved[0]
            raise DataRefused(
                f"none of the {len(plan.unresolved):,} images that the annotations name can be read from {self.describe()}: "
                f"{first.annotation.where} names {first.annotation.path!r}, {first.detail}",
                expected="paths relative to the file of annotations, or to the source",
                fix="Put the images there, or correct collect.annotations.",
            )
        return plan


def _beside(stated: Stated, known: Stated | None) -> Stated:
    """What annotations state of an entry, with what was known of it before: the clip and the time of a frame."""
    if known is None:
        return stated
    return replace(stated, group=stated.group or known.group, columns={**known.columns, **stated.columns})
