"""Tables as a source of rows: CSV, JSON Lines and Parquet, read in chunks as Arrow record batches.

A table is opened with a `TableFormat`: what the user has said of it, and for the rest what the file itself suggests. Text
formats have no types, and a type that is inferred from the first rows is wrong for a column that changes later. So all columns
of CSV and JSON Lines are text as it is written, and who reads a column decides what must be in it. Parquet and databases keep
their types. Another kind of table is one more class that extends `Table`.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from evergreen.errors import DataRefused, WrongUse

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 65_536
CHUNK_BYTES = 2**20  # of text that is parsed at a time
SAMPLE_BYTES = 2**16  # of text by which the separator and the decimal sign are found
SEPARATORS = (",", ";", "\t", "|")
ENDINGS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet"}
# Byte-order marks, the longer ones first: that of UTF-32 begins with that of UTF-16.
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
         (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
UNMARKED = ("utf-8", "cp1252")  # the encodings of text without a mark, in the order in which they are tried
_COMMA = re.compile(r"[+-]?\d+,\d+")
_POINT = re.compile(r"[+-]?\d+\.\d+")


@dataclass(frozen=True)
class TableFormat:
    """How a text table is written; None for what is found out by the file itself.

    Attributes:
        separator: between the columns of a CSV file, one character.
        decimal: the decimal sign of its numbers, "." or ",".
        encoding: of the text, such as cp1252; None: by the byte-order mark, else UTF-8 if the text is valid in it, else cp1252.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class RefusedRow:
    """A row that cannot be divided into columns.

    Attributes:
        number: of the row in the file, counted from 1 at the header; None if it is not known.
        text: as it is written.
        detail: what is wrong with it, as a clause.
    """

    number: int | None
    text: str
    detail: str


class Table(ABC):
    """Rows that are read in chunks.

    Attributes:
        columns: the names of the columns, in their order.
        decimal: the decimal sign of numbers that are text.
        refused: the rows that could not be divided into columns, of the part that has been read.
    """

    columns: tuple[str, ...]
    decimal: str = "."

    def __init__(self) -> None:
        self.refused: list[RefusedRow] = []

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in their order, in chunks of some ten thousand.

        Args:
            columns: of `Table.columns`; each batch has exactly these, in this order.

        Raises:
            DataRefused: the table is damaged.
        """


def is_table(name: str) -> bool:
    """Whether a file is a table, by the ending of its name."""
    return PurePosixPath(name.lower()).suffix in ENDINGS


def open_table(name: str, content: bytes, form: TableFormat) -> Table:
    """Open a file as a table, by the ending of its name; only its beginning is read, or its footer.

    Args:
        name: for the ending, and for messages.
        content: the file's bytes.
        form: what the user has said of text tables.

    Raises:
        WrongUse: the name has none of the `ENDINGS`.
        DataRefused: it has no rows, is damaged, or its text does not have the encoding.
    """
    ending = PurePosixPath(name.lower()).suffix
    made = {"csv": CsvTable, "json": JsonLinesTable}.get(ENDINGS.get(ending, ""))
    if made is not None:
        return made(name, content, form)
    if ending in ENDINGS:
        return ParquetTable(name, content)
    raise WrongUse(f"{name} is no table", expected=f"a name that ends in {', '.join(ENDINGS)}", received=ending)


def require(table: Table, name: str, columns: Sequence[str], where: str) -> None:
    """
    Args:
        name: of the table.
        columns: that it must have.
        where: the settings that name the columns.

    Raises:
        WrongUse: one is missing.
    """
    missing = [column for column in columns if column not in table.columns]
    if not missing:
        return
    only = len(table.columns) == 1
    fix = f"Correct {where}{'; or name the separator, since there seems to be only one column' if only else ''}."
    raise WrongUse(
        f"the table {name} has no column {', '.join(map(repr, missing))}", expected=f"the columns {', '.join(map(repr, columns))}",
        received=list(table.columns), fix=fix,
    )  # fmt: skip


class CsvTable(Table):
    """A CSV file with a header; all columns are text, an empty one is an empty text."""

    def __init__(self, name: str, content: bytes, form: TableFormat) -> None:
        super().__init__()
        self._name, self._content = name, content
        self._encoding = encoding_of(name, content, form.encoding)
        text = _beginning(content, self._encoding)
        self.separator = form.separator or separator_of(text)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=self.separator) if row]
        if len(rows) < 2:
            raise DataRefused(
                f"the table {name} has no rows", expected="a line with the names of the columns, and a line for each row",
                fix="Correct the file, or take it away.",
            )  # fmt: skip
        self.columns = _distinct(name, [column.strip() for column in rows[0]])
        self.decimal = form.decimal or decimal_of(rows[1:])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.csv as arrow_csv

        def refuse(row: Any) -> str:
            detail = f"it has {row.actual_columns} columns, and the header {row.expected_columns}"
            self.refused.append(RefusedRow(row.number, row.text, detail))
            return "skip"

        read = arrow_csv.ReadOptions(
            use_threads=False, block_size=CHUNK_BYTES, encoding=self._encoding, column_names=list(self.columns), skip_rows=1
        )  # one thread: only then are rows numbered. The header is read here, where its names are without spaces around them
        parse = arrow_csv.ParseOptions(delimiter=self.separator, newlines_in_values=True, invalid_row_handler=refuse)
        convert = arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(self.columns, pa.string()), include_columns=list(columns), strings_can_be_null=False
        )
        try:
            yield from arrow_csv.open_csv(pa.BufferReader(self._content), read, parse, convert)
        except (pa.ArrowException, UnicodeError) as error:
            raise _damaged(self._name, error) from None


class JsonLinesTable(Table):
    """A JSON object per line; all columns are text, null or absent values are null. Numbers keep the digits that they are
    written with; what is neither text nor number is JSON."""

    def __init__(self, name: str, content: bytes, form: TableFormat) -> None:
        super().__init__()
        self._name, self._content = name, content
        self._encoding = encoding_of(name, content, form.encoding)
        found: dict[str, None] = {}
        for number, (_, line) in enumerate(self._lines()):
            if number == 100:
                break
            found.update(dict.fromkeys(self._object(line) or {}))
        if not found:
            raise DataRefused(
                f"the table {name} has no rows",
                expected="an object of JSON in each line",
                fix="Correct the file, or take it away.",
            )
        self.columns = tuple(found)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        rows: list[dict[str, Any]] = []
        schema = pa.schema([pa.field(column, pa.string()) for column in columns])
        for number, line in self._lines():
            row = self._object(line)
            if row is None:
                self.refused.append(RefusedRow(number, line, "it is no object of JSON"))
                continue
            rows.append({column: _text(row.get(column)) for column in columns})
            if len(rows) == CHUNK_ROWS:
                yield pa.RecordBatch.from_pylist(rows, schema)
                rows = []
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schema)

    def _lines(self) -> Iterator[tuple[int, str]]:
        with io.TextIOWrapper(io.BytesIO(self._content), encoding=_unmarked(self._encoding), newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.strip()

    def _object(self, line: str) -> dict[str, Any] | None:
        try:
            found = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


class ParquetTable(Table):
    """A Parquet file; columns have the types that it states."""

    def __init__(self, name: str, content: bytes) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__()
        self._name = name
        try:
            self._file = pq.ParquetFile(pa.BufferReader(content))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(name, error) from None
        self.columns = _distinct(name, self._file.schema_arrow.names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        try:
            for batch in self._file.iter_batches(CHUNK_ROWS, columns=list(columns), use_threads=False):
                yield batch.select(list(columns))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self._name, error) from None


def encoding_of(name: str, content: bytes, named: str | None) -> str:
    """The encoding of a text file: that of its byte-order mark, else the one that is named, else the first of `UNMARKED` in
    which the text is valid.

    Raises:
        DataRefused: the text is not valid in it.
    """
    marked = next((encoding for mark, encoding in MARKS if content.startswith(mark)), None)
    tried = (marked,) if marked else (named,) if named else UNMARKED
    for encoding in tried:
        if _valid(content, encoding):
            return encoding
    raise DataRefused(
        f"the text of {name} is not valid in {' or '.join(tried)}", expected="text in the encoding of the file",
        received=named, fix="Name the encoding of the file in the scenario, such as cp1252 or shift_jis.",
    )  # fmt: skip


def separator_of(text: str) -> str:
    """The separator with which most lines have as many columns as the first one, and of several the one with most columns. A
    comma if there is only one column."""

    def regular(separator: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
        if not widths or widths[0] == 1:
            return 0.0, 0
        return round(widths.count(widths[0]) / len(widths), 1), widths[0]

    return max(SEPARATORS, key=regular)


def decimal_of(rows: Sequence[Sequence[str]]) -> str:
    """The decimal sign of the numbers in these rows: a comma if more of them have one than a point, else a point."""
    cells = [cell.strip() for row in rows for cell in row]
    commas, points = (sum(form.fullmatch(cell) is not None for cell in cells) for form in (_COMMA, _POINT))
    return "," if commas > points else "."


def _beginning(content: bytes, encoding: str) -> str:
    """The first lines, without the byte-order mark."""
    decoder = codecs.getincrementaldecoder(_unmarked(encoding))()
    text = decoder.decode(content[:SAMPLE_BYTES])
    return text if len(content) <= SAMPLE_BYTES else text[: text.rfind("\n") + 1] or text


def _valid(content: bytes, encoding: str) -> bool:
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
        for start in range(0, len(content), CHUNK_BYTES):
            decoder.decode(content[start : start + CHUNK_BYTES])
        decoder.decode(b"", final=True)
    except (UnicodeError, LookupError):
        return False
    return True


def _unmarked(encoding: str) -> str:
    """The encoding that leaves out a byte-order mark."""
    return "utf-8-sig" if encoding == "utf-8" else encoding


def _distinct(name: str, columns: Sequence[str]) -> tuple[str, ...]:
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise DataRefused(
            f"the table {name} has several columns with one name", expected="a name of its own for each column", received=twice[:5],
            fix="Rename or remove all but one of them.",
        )  # fmt: skip
    return tuple(columns)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _damaged(name: str, error: Exception) -> DataRefused:
    return DataRefused(f"the table {name} is damaged: {' '.join(str(error).split())[:300]}", fix="Fetch or write it again.")
