"""A data set of Hugging Face's `datasets` on disk: images in the rows of Arrow or Parquet files, with their labels.

Read are what `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write (Arrow streams, a folder for each split) and what the
Hub has (Parquet files with the split in their names). `datasets` need not be installed, and no code of the data set is loaded.
The names of labels are in the files' metadata (https://huggingface.co/docs/datasets/about_dataset_features).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from evergreen.data.annotations.base import Annotation, Format, content, has_splits, refused, splits_in
from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.sources import safety
from evergreen.data.sources.base import Source, SourceEntry, Stated, too_large
from evergreen.errors import DataRefused, WrongUse

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".arrow", ".parquet")
BATCH_ROWS = 64  # of a Parquet file in memory at once


class HuggingFace(Format):
    """Images in the tables of a data set of Hugging Face's `datasets`."""

    format: Literal["hugging_face"]
    image: str = Field("image", description="the column with the images")
    label: str = Field("label", description="the column with the labels; rows without one are skipped")
    group: str | None = Field(None, description="the column with the group: images of one group always share a split")
    keep: tuple[str, ...] = Field((), description="further columns that are kept with each image")
    splits: bool = Field(False, description="take splits from the names of folders and files, such as train and test")

    def is_annotation(self, name: str) -> bool:
        """True for Arrow and Parquet files."""
        return name.lower().endswith(TABLES) and not is_hidden(name) and not is_leftover(name)

    def describe(self) -> str:
        """What it reads."""
        return "the tables of a data set of Hugging Face"

    def read(self, files: Sequence[SourceEntry], names: Collection[str], source: str) -> Iterator[Annotation]:
        """Nothing: the images are in the tables themselves."""
        yield from ()

    def source(self, files: Source, max_pixels: int) -> Source:
        """The rows of the tables in place of the files."""
        return HuggingFaceSource(files, self)


@dataclass(frozen=True)
class HuggingFaceSource(Source):
    """The images in the tables of a folder or archive; other files stay as they are.

    Tables in a folder are read in pieces, those in an archive are held in memory, at most `safety.MAX_ITEM_BYTES` each.

    Attributes:
        files: the folder or archive.
        settings: the columns.
    """

    files: Source
    settings: HuggingFace

    def stream(self) -> Iterator[SourceEntry]:
        """As `Source.stream`.

        Raises:
            DataRefused: also if a table is damaged.
            WrongUse: also if a table does not have the columns.
        """
        read_by_path = self.root is not None
        for entry in self.files.select(lambda name: not (read_by_path and self.settings.is_annotation(name))):
            if self.settings.is_annotation(entry.name) and entry.problem is None:
                yield from self._rows(entry)
            else:
                yield entry

    def names(self) -> Iterator[tuple[str, float | None]]:
        """The names of the rows with a label."""
        for entry in self.stream():
            if entry.stated is not None and entry.stated.label is not None:
                yield entry.name, None

    def fingerprint(self) -> str:
        return self.files.fingerprint()

    def describe(self) -> str:
        return self.files.describe()

    @property
    def root(self) -> Path | None:
        return self.files.root

    def _rows(self, file: SourceEntry) -> Iterator[SourceEntry]:
        import pyarrow as pa

        settings, place, number = self.settings, f"{file.name} in {self.describe()}", 0
        split = next(iter(splits_in(file.name)), None) if settings.splits else None
        try:
            batches, schema = opened(file, self.root)
            label_of = _labels(schema, settings, place)
            columns = [name for name in (settings.image, settings.label, settings.group, *settings.keep) if name]
            for batch in batches(list(dict.fromkeys(columns))):
                batch.validate(full=True)
                for row in batch.to_pylist():
                    stated = Stated(
                        label_of(row[settings.label]),
                        _text(row[settings.group]) if settings.group else None,
                        split,
                        columns={name: value for name in settings.keep if (value := _text(row[name])) is not None},
                    )
                    yield _entry(f"{file.name}/{number:06d}", row[settings.image], stated, file.name)
                    number += 1
        except (pa.ArrowException, OSError) as error:
            raise refused(place, f"it is damaged after {number:,} rows: {error}", "a whole Arrow or Parquet file") from None


def opened(file: SourceEntry, root: Path | None) -> tuple[Callable[[list[str]], Iterator[pa.RecordBatch]], pa.Schema]:
    """What gives the rows of some columns of a table, and its schema.

    Args:
        root: the folder that the file is in; None if its content is in memory.

    Raises:
        DataRefused: the file cannot be read.
        pyarrow.ArrowException, OSError: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.problem:
        content(file, str(root or ""))
    where: Any = pa.BufferReader(content(file, "")) if root is None else str(root / file.name)
    if file.name.lower().endswith(".parquet"):
        table = pq.ParquetFile(where, memory_map=root is not None)
        return lambda columns: table.iter_batches(BATCH_ROWS, columns=columns), table.schema_arrow
    stream = where if root is None else pa.memory_map(where)
    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    if is_file:
        reader = pa.ipc.open_file(stream)
        return lambda columns: (reader.get_batch(at).select(columns) for at in range(reader.num_record_batches)), reader.schema
    rows = pa.ipc.open_stream(stream)
    return lambda columns: (batch.select(columns) for batch in rows), rows.schema


def _labels(schema: pa.Schema, settings: HuggingFace, place: str) -> Callable[[Any], str | None]:
    """What turns a value of the label's column into its name.

    Raises:
        WrongUse: the table does not have the columns, or they do not hold images and one label each.
    """
    import pyarrow as pa

    for setting, column in (
        ("image", settings.image),
        ("label", settings.label),
        ("group", settings.group),
        *(("keep", one) for one in settings.keep),
    ):
        if column is not None and column not in schema.names:
            raise WrongUse(
                f"{place} has no column {column}", expected=f"one of {', '.join(schema.names)}",
                fix=f"Set collect.annotations.{setting} to the name of one of these.",
            )  # fmt: skip
    if not _holds_images(schema.field(settings.image).type):
        raise WrongUse(
            f"the column {settings.image} of {place} holds no images", expected="encoded images, as bytes or with their path",
            received=str(schema.field(settings.image).type), fix="Set collect.annotations.image to another column.",
        )  # fmt: skip
    if pa.types.is_nested(schema.field(settings.label).type) or pa.types.is_floating(schema.field(settings.label).type):
        raise WrongUse(
            f"the column {settings.label} of {place} holds no labels", expected="one label for each image, as text or a number",
            received=str(schema.field(settings.label).type), fix="Set collect.annotations.label to another column.",
        )  # fmt: skip
    names = features(schema).get(settings.label, {}).get("names")

    def label(value: Any) -> str | None:
        if not isinstance(names, list):
            return _text(value)
        return str(names[value]) if isinstance(value, int) and 0 <= value < len(names) else None

    return label


def features(schema: pa.Schema) -> dict[str, Any]:
    """The features that `datasets` has recorded of the columns; empty if it has not."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: one for name, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}


def _holds_images(type: pa.DataType) -> bool:
    import pyarrow as pa

    def is_bytes(one: pa.DataType) -> bool:
        return bool(pa.types.is_binary(one) or pa.types.is_large_binary(one))

    return is_bytes(type) or (pa.types.is_struct(type) and any(one.name == "bytes" and is_bytes(one.type) for one in type))


def _entry(name: str, image: Any, stated: Stated, packed_in: str) -> SourceEntry:
    data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
    full = name + os.path.splitext(path or "")[1].lower()
    if data is None:
        # A path could lead anywhere on this machine.
        detail = "the image is not in the table" + (f", only its path {path!r}" if path else "")
        return SourceEntry(full, None, 0, "missing", detail, packed_in=packed_in, stated=stated)
    if len(data) > safety.MAX_ITEM_BYTES:
        return replace(too_large(full, len(data)), packed_in=packed_in, stated=stated)
    return SourceEntry(full, data, len(data), packed_in=packed_in, stated=stated)


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def detect(source: Source, names: Sequence[str]) -> HuggingFace | None:
    """The settings if the source has tables with images and labels; None if it has not."""
    import pyarrow as pa

    tables = [name for name in names if name.lower().endswith(TABLES) and not is_hidden(name)]
    for name in tables[:1]:
        file = next((one for one in source.select(lambda other, name=name: other == name) if one.name == name), None)  # type: ignore[misc]
        try:
            if file is None or (schema := opened(file, source.root)[1]) is None:
                return None
        except (DataRefused, pa.ArrowException, OSError):
            return None
        images = [field.name for field in schema if _holds_images(field.type)]
        named = features(schema)
        labels = [column for column in schema.names if named.get(column, {}).get("_type") == "ClassLabel"]
        labels += [column for column in schema.names if column.lower() in ("label", "labels", "class", "category")]
        if images and labels:
            chosen = {"format": "hugging_face", "image": images[0], "label": labels[0], "splits": has_splits(tables)}
            return HuggingFace.model_validate(chosen)
    return None
