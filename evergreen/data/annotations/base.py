"""What all formats of annotations have in common: their settings, and what a format states of an image.

A format is a module with one class: its settings, which also say which files of a source are annotations and what those state.
`evergreen.data.annotations.source` finds the images that are meant, and makes items of them.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from xml.etree import ElementTree

from pydantic import Field

from evergreen.data.folder_names import split_of
from evergreen.data.sources.base import Source, SourceEntry, Stated
from evergreen.errors import DataRefused, WrongUse
from evergreen.names import near
from evergreen.scenario.settings import Section

BoxRule = Literal["crop", "largest", "only", "keep"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a file of annotations states of one image.

    Attributes:
        path: of the image, as the file names it.
        where: the place of the statement, for people, such as `labels.csv, line 12`.
        stated: label, group and so on; with boxes in pixels, or in fractions of the image's width and height.
        below: the folder that the path is relative to, without a final slash; empty for the source itself.
        size: the image's width and height as the file states them, in pixels; None if it does not.
        fractions: whether boxes are in fractions of the image's width and height.
    """

    path: str
    where: str
    stated: Stated
    below: str = ""
    size: tuple[int, int] | None = None
    fractions: bool = False


class Format(Section, ABC):
    """The settings of one format of annotations, and how it is read.

    Attributes:
        format: its name in scenarios.
    """

    format: str

    @abstractmethod
    def is_annotation(self, name: str) -> bool:
        """True if an entry of the source with this name has to be read before the images."""

    @abstractmethod
    def read(self, files: Sequence[SourceEntry], names: Collection[str], source: str) -> Iterator[Annotation]:
        """What the files state, in a stable order.

        Args:
            files: the entries for which `is_annotation` holds, with their content.
            names: of all entries of the source.
            source: the source, for people.

        Raises:
            DataRefused: a file is missing, damaged, or not of this format.
            WrongUse: the settings do not suit the file, such as a column that it does not have.
        """

    def source(self, files: Source, max_pixels: int) -> Source:
        """A source with what is stated of the files.

        Args:
            max_pixels: larger images are not decoded for crops.
        """
        from evergreen.data.annotations.source import AnnotatedSource

        return AnnotatedSource(files, self, max_pixels)

    @abstractmethod
    def describe(self) -> str:
        """The files that it reads, for people, such as `the manifest labels.csv`."""

    def reasons(self) -> list[str]:
        """Sentences for `evergreen new` that say how the settings were chosen; by default none."""
        return []

    @property
    def image_rule(self) -> ImageRule | None:
        """How boxes become labels; None if the format has none."""
        return None


class ImageRule(Section):
    """How the boxes of an image become items with one label each."""

    boxes: BoxRule = Field(
        "crop",
        description="crop: each box is cut out and is an item with its label; largest: the image is an item with the label of its largest box; "
        "only: with the label that all its boxes have, and images with boxes of several labels are left out; keep: with the label of the image "
        "itself (tags, choices). Boxes of whole images are kept with them",
    )
    margin: Annotated[float, Field(ge=0, le=5)] = Field(
        0.0, description="crops: how much of its width and height is added to each side of a box, as a fraction"
    )
    without_boxes: str | None = Field(
        None, description="label of images that are annotated and have no box; null: they are left out"
    )


class BoxFormat(Format, ImageRule):
    """A format of annotations that has boxes."""

    splits: bool = Field(
        False, description="take splits from the names of folders and of files of annotations, such as train and valid"
    )

    @property
    def image_rule(self) -> ImageRule:
        """As the settings say."""
        return self

    def reasons(self) -> list[str]:
        """What becomes of the boxes."""
        return [
            "Each box is cut out and is an item, and the crops of one image share a split: collect.annotations.boxes says so (crop). largest and only "
            "label whole images instead."
        ] if self.boxes == "crop" else []  # fmt: skip

    def split(self, *paths: str) -> str | None:
        """The split that a part of one of these paths is a word for, if `splits` is set."""
        if not self.splits:
            return None
        return next((split for path in paths for split in splits_in(path)), None)


def has_splits(names: Iterable[str]) -> bool:
    """True if these files are in folders, or have names, for train and for test."""
    return {"train", "test"} <= {next(iter(splits_in(name)), "") for name in names}


def splits_in(path: str) -> list[str]:
    """The splits that the parts of a path are words for."""
    found = [split_of(os.path.splitext(part)[0]) for part in path.split("/")]
    return [split for split in found if split in ("train", "val", "test")]


def content(file: SourceEntry, source: str) -> bytes:
    """The bytes of a file of annotations.

    Raises:
        DataRefused: it could not be read.
    """
    if file.data is None or file.problem:
        raise DataRefused(
            f"the annotations {file.name} in {source} cannot be read: {file.detail or 'no content'}",
            fix="Put the file itself there, in parts if it is too large.",
        )
    return file.data


def text(file: SourceEntry, source: str, encoding: str | None = None) -> str:
    """The text of a file of annotations: UTF-8, or UTF-16 with a byte-order mark, or in a named encoding.

    Raises:
        DataRefused: it could not be read, or is in another encoding.
    """
    data = content(file, source)
    assumed = encoding or ("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    try:
        return data.decode(assumed)
    except (UnicodeError, LookupError) as error:
        raise DataRefused(
            f"the annotations {file.name} in {source} are not in {assumed.removesuffix('-sig')}: {error}",
            fix="Save the file as UTF-8"
            + (", or set collect.annotations.encoding, such as cp1252." if encoding is None else "."),
        ) from None


def parsed_json(file: SourceEntry, source: str) -> Any:
    """The content of a JSON file.

    Raises:
        DataRefused: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(text(file, source))
    except (ValueError, RecursionError) as error:
        raise refused(file.name, f"it is no JSON: {error}", "a whole JSON file") from None


class _WithoutDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a document type, which could define entities that expand beyond measure")


def parsed_xml(file: SourceEntry, source: str) -> ElementTree.Element:
    """The root of an XML file. Document types, and so entities, are refused.

    Raises:
        DataRefused: it cannot be read, or is no XML.
    """
    parser = ElementTree.XMLParser(target=_WithoutDoctype())  # noqa: S314 (without a document type no entity can be defined)
    try:
        parser.feed(content(file, source))
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise refused(file.name, f"it is no XML that is read: {error}", "a whole XML file without a document type") from None
    return root


def number(value: Any, what: str, where: str) -> float:
    """A number of a file of annotations.

    Raises:
        DataRefused: it is none.
    """
    try:
        if isinstance(value, bool | None):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise refused(where, f"{what} is {value!r}", "a number of pixels") from None


def missing_file(name: str, source: str, names: Collection[str], endings: tuple[str, ...]) -> WrongUse:
    """The error for a file of annotations that is named in the scenario and is not there."""
    meant = near(name, [one for one in names if one.lower().endswith(endings)])
    return WrongUse(
        f"the annotations {name} are not in {source}", expected=f"the path of a file inside the source ({', '.join(endings)})",
        fix=f"Correct collect.annotations{f'; did you mean {meant}?' if meant else '.'}",
    )  # fmt: skip


def refused(where: str, happened: str, expected: str, fix: str = "Correct the file, or export it again.") -> DataRefused:
    """The refusal of a file of annotations.

    Args:
        where: the file and the place in it.
        happened: what is wrong there, as a clause.
    """
    return DataRefused(f"{where}: {happened}", expected=expected, fix=f"{fix} Nothing of the source was kept.")
