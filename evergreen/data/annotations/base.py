"""What all formats of annotations have in common: their settings, and what a format states of an image.

A format is a module with one class: its settings, which also say which files of a source are annotations and what those state.
`evergreen.data.annotations.source` finds the images that are meant, and makes items of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from evergreen.data.sources.base import SourceEntry, Stated
from evergreen.errors import DataRefused
from evergreen.scenario.settings import Section

BoxRule = Literal["crop", "largest", "only"]


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
        "only: with the label that all its boxes have, and images with boxes of several labels are left out",
    )
    margin: Annotated[float, Field(ge=0, le=5)] = Field(
        0.0, description="crops: how much of its width and height is added to each side of a box, as a fraction"
    )
    without_boxes: str | None = Field(
        None, description="label of images that are annotated and have no box; null: they are left out"
    )


class BoxFormat(Format, ImageRule):
    """A format of annotations that has boxes."""

    newer: ClassVar[tuple[str, ...]] = ()

    @property
    def image_rule(self) -> ImageRule:
        """As the settings say."""
        return self


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


def refused(where: str, happened: str, expected: str, fix: str = "Correct the file, or export it again.") -> DataRefused:
    """The refusal of a file of annotations.

    Args:
        where: the file and the place in it.
        happened: what is wrong there, as a clause.
    """
    return DataRefused(f"{where}: {happened}", expected=expected, fix=f"{fix} Nothing of the source was kept.")
