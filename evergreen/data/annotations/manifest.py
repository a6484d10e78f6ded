"""A manifest: a table with a row for each labelled image, in CSV, JSON Lines or Parquet.

The first line of a CSV file names its columns; the cells are separated by commas, semicolons, tabs or vertical bars. Each line
of a JSON Lines file is an object. All values are text, as the file has it.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from evergreen.data.annotations.base import Annotation, Format, content, missing_file, refused, text
from evergreen.data.annotations.paths import Resolver
from evergreen.data.folder_names import split_of
from evergreen.data.sources.base import SourceEntry, Stated
from evergreen.errors import DataRefused, WrongUse
from evergreen.names import near

SEPARATORS = ",;\t|"
ENDINGS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet")
MAX_CELL = 2**20  # characters
# Usual names of columns, in lower case and without spaces, hyphens and underscores.
LABELS = (
    "label",
    "class",
    "category",
    "target",
    "species",
    "diagnosis",
    "labelname",
    "classname",
    "categoryname",
    "tag",
    "type",
    "breed",
    "y",
)
GROUPS = (
    "group",
    "patient",
    "patientid",
    "subject",
    "subjectid",
    "session",
    "sequence",
    "individual",
    "lot",
    "batch",
    "clip",
    "video",
)
SPLITS = ("split", "subset", "set", "partition", "fold", "dataset", "phase")
SAMPLED_ROWS = 1000
FOUND = 0.9  # of the sampled rows, those that must name an image for a column to be taken for that of the paths
MOST_LABELS = 1000
LONGEST_KEPT = 100  # characters of a cell, on average

Row = Mapping[str, str | None]


class Manifest(Format):
    """Labels in a table beside the images."""

    newer: ClassVar[tuple[str, ...]] = ("encoding",)

    format: Literal["manifest"]
    file: str = Field(description="the table, as a path inside the source: CSV, JSON Lines (.jsonl) or Parquet, by its ending")
    path: str = Field(
        "path",
        description="the column with the image's path, relative to the table's folder or to the source; its end is enough where only one image "
        "has it, such as the file's name",
    )
    label: str = Field("label", description="the column with the label; rows without one are skipped")
    group: str | None = Field(None, description="the column with the group: images of one group always share a split")
    split: str | None = Field(None, description="the column with the split (train, val or test, or words for them)")
    keep: tuple[str, ...] = Field((), description="further columns that are kept with each image, such as the time or the site")
    encoding: str | None = Field(None, description="of a CSV or JSON Lines file; null: UTF-8, or UTF-16 with a byte-order mark")

    @field_validator("file")
    @classmethod
    def _is_a_table(cls, value: str) -> str:
        if not value.lower().endswith(ENDINGS):
            raise ValueError(f"must end in one of {', '.join(ENDINGS)}")
        return value

    def is_annotation(self, name: str) -> bool:
        """True for the table."""
        return name == self.file

    def read(self, files: Sequence[SourceEntry], names: Collection[str], source: str) -> Iterator[Annotation]:
        """As `Format.read`: an annotation for each row with a label."""
        if not files:
            raise missing_file(self.file, source, names, ENDINGS)
        below, rows = os.path.dirname(self.file), 0
        for where, row in rows_of(files[0], source, self.encoding):
            if not rows:
                self._has_columns(row, where)
            rows += 1
            found = Stated(
                label=row[self.label],
                group=row[self.group] if self.group else None,
                split=row[self.split] if self.split else None,
                columns={name: value for name in self.keep if (value := row[name]) is not None},
            )
            yield Annotation(row[self.path] or "", where, found, below)
        if not rows:
            raise refused(self.file, "the manifest has no row", "a row for each image", "Fill it.")

    def describe(self) -> str:
        """Its file."""
        return f"the manifest {self.file}"

    def reasons(self) -> list[str]:
        """What each column was taken for."""
        taken = {"path": self.path, "label": self.label, "group": self.group, "split": self.split}
        listed = ", ".join(f"{what} from {column}" for what, column in taken.items() if column)
        kept = f"; kept with each image: {', '.join(self.keep)}" if self.keep else ""
        return [
            f"Of the columns of {self.file}: {listed}{kept}. Change collect.annotations if that is wrong; --labels-at takes folders instead."
        ]

    def _has_columns(self, row: Row, where: str) -> None:
        wanted = {"path": self.path, "label": self.label, "group": self.group, "split": self.split}
        for setting, column in [*wanted.items(), *(("keep", name) for name in self.keep)]:
            if column is not None and column not in row:
                meant = near(column, list(row))
                raise WrongUse(
                    f"{where.rpartition(', ')[0] or where} has no column {column}", expected=f"one of {', '.join(row)}",
                    fix=f"Set collect.annotations.{setting}{f'; did you mean {meant}?' if meant else ' to the name of one of these.'}",
                )  # fmt: skip


def rows_of(file: SourceEntry, source: str, encoding: str | None = None) -> Iterator[tuple[str, Row]]:
    """The rows of a table with the place of each, for people. Empty cells are None; all rows have the same columns.

    Raises:
        DataRefused: the table cannot be read, or its rows do not fit its columns.
    """
    ending = os.path.splitext(file.name)[1].lower()
    if ending == ".parquet":
        return _of_parquet(file, source)
    if ending in (".jsonl", ".ndjson"):
        return _of_json_lines(file, text(file, source, encoding))
    return _of_csv(file, text(file, source, encoding))


def _of_csv(file: SourceEntry, text: str) -> Iterator[tuple[str, Row]]:
    first = text.split("\n", 1)[0]
    separator = max(SEPARATORS, key=first.count)
    limit = csv.field_size_limit(MAX_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        header = [name.strip() for name in next(reader, [])]
        _distinct(header, file.name)
        for cells in reader:
            where = f"{file.name}, line {reader.line_num}"
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise refused(
                    where,
                    f"it has {len(cells)} cells",
                    f"{len(header)}, as the first line has",
                    "Put cells with a separator inside in quotes.",
                )
            yield where, {name: cell.strip() or None for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise refused(
            f"{file.name}, line {reader.line_num}", f"it is no line of a CSV file: {error}", "cells, in quotes where needed"
        ) from None
    finally:
        csv.field_size_limit(limit)


def _of_json_lines(file: SourceEntry, text: str) -> Iterator[tuple[str, Row]]:
    columns: dict[str, None] = {}
    objects: list[tuple[str, dict[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file.name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise refused(where, f"it is no JSON: {error}", "an object in each line") from None
        if not isinstance(row, dict):
            raise refused(where, f"it is {type(row).__name__}, no object", "an object in each line")
        columns |= dict.fromkeys(row)
        objects.append((where, row))
    for where, row in objects:
        yield where, {name: _as_text(row.get(name)) for name in columns}


def _of_parquet(file: SourceEntry, source: str) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(pa.BufferReader(content(file, source))) as table:
            _distinct(table.schema_arrow.names, file.name)
            plain = [
                one.name for one in table.schema_arrow if not pa.types.is_nested(one.type) and not pa.types.is_binary(one.type)
            ]
            for rows in table.iter_batches(columns=plain):
                for row in rows.to_pylist():
                    number += 1
                    yield f"{file.name}, row {number}", {name: _as_text(value) for name, value in row.items()}
    except (pa.ArrowException, OSError) as error:
        raise refused(file.name, f"it is no Parquet file that can be read: {error}", "a whole Parquet file") from None


def _distinct(header: Sequence[str], name: str) -> None:
    twice = [column for column, count in Counter(header).items() if count > 1]
    if twice:
        raise refused(name, f"it has the column {twice[0] or '(without a name)'} twice", "a name of its own for each column")
    if not header:
        raise DataRefused(f"{name} is empty", expected="names of columns in the first line", fix="Fill it.")


def _as_text(value: Any) -> str | None:
    """None for what is missing; whole numbers without a fraction."""
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value).strip() or None


def detect(files: Mapping[str, SourceEntry], resolve: Resolver) -> Manifest | None:
    """The settings for the table that names most images and has labels for them; None if there is none."""
    found = [
        one for file in files.values() if file.name.lower().endswith(ENDINGS) and (one := _of_table(file, resolve)) is not None
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def _of_table(file: SourceEntry, resolve: Resolver) -> tuple[int, Manifest] | None:
    """How many images a table names, and the settings for it; None if it names none or has no labels."""
    try:
        rows = [row for _, row in rows_of(file, file.name)]
    except DataRefused:
        return None
    if len(rows) < 2:
        return None
    path = max(rows[0], key=lambda column: _images(rows, column, resolve, file))
    images = _images(rows, path, resolve, file)
    label = _label(rows, path)
    if images < FOUND or label is None:
        return None
    split = _named(rows, SPLITS, {path, label})
    if split is not None and not all(split_of(row[split] or "") in ("train", "val", "test") for row in rows):
        split = None
    group = _named(rows, GROUPS, {path, label, split})
    others = [name for name in rows[0] if name not in (path, label, split, group)]
    kept = [name for name in others if name and 0 < sum(len(row[name] or "") for row in rows) <= LONGEST_KEPT * len(rows)]
    chosen = {
        "format": "manifest",
        "file": file.name,
        "path": path,
        "label": label,
        "group": group,
        "split": split,
        "keep": kept,
    }
    return round(images * len(rows)), Manifest.model_validate(chosen)


def _images(rows: Sequence[Row], column: str, resolve: Resolver, file: SourceEntry) -> float:
    """The fraction of a column's cells that name an image of the source."""
    below, sample = os.path.dirname(file.name), list(islice(rows, 0, None, -(-len(rows) // SAMPLED_ROWS)))
    named = [isinstance(resolve(Annotation(row[column] or "", "", Stated(None), below)), str) for row in sample]
    return sum(named) / len(named)


def _label(rows: Sequence[Row], path: str) -> str | None:
    """The column of the labels: by its name, or the only one that could be."""

    def is_possible(column: str) -> bool:
        values = {row[column] for row in rows if row[column] is not None}
        return 2 <= len(values) <= min(MOST_LABELS, len(rows) // 2)

    possible = [column for column in rows[0] if column != path and is_possible(column)]
    named = _named(rows, LABELS, {path})
    if named is not None and any(row[named] for row in rows):
        return named
    possible = [column for column in possible if _plain(column) not in (*GROUPS, *SPLITS)]
    return possible[0] if len(possible) == 1 else None


def _named(rows: Sequence[Row], usual: Sequence[str], taken: Collection[str | None]) -> str | None:
    """The first column with a usual name."""
    plain = {
        column.lower().replace(" ", "").replace("_", "").replace("-", ""): column for column in rows[0] if column not in taken
    }
    return next((plain[name] for name in usual if name in plain), None)


def _plain(column: str) -> str:
    return column.lower().replace(" ", "").replace("_", "").replace("-", "")
