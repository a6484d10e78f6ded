"""The data set on disk: Parquet parts with one row per item, and the quarantine. docs/internals.md lists the columns.

`data/NAME/00000-HASH/part-00000.parquet`: each collection adds one folder, a batch, which never changes afterwards (except by
`evergreen forget`). A batch may contain `corrections.jsonl` and `withdrawals.jsonl` instead of parts: new labels for earlier
items, and items that are taken out of use or put back. They are applied whenever rows are read. The first batch with images of
more than 8 bits has `range.json`: the pixel values that are read as black and white in the whole data set.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.names import tidy
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES = 32 * 2**20  # approximate size of the encoded images in one part
ROW_GROUP_BYTES = 4 * 2**20  # and in one row group, of which a reader has one in memory at a time
CORRECTIONS, WITHDRAWALS = "corrections.jsonl", "withdrawals.jsonl"
FORGOTTEN = "forgotten.jsonl"  # digests of the ids of items that were deleted for good
SOURCE = "collect.mirror"  # the value of `by` in records that come from the source, not from a person
# Key in a part's metadata: where its items came from, "source" or "inbox"; absent in parts of earlier versions.
ORIGIN = b"evergreen.origin"
# The column with the split that an item was allocated to. Its name stands in stored data sets and splits: with another one,
# every split would count as changed.
ALLOCATED = "dealt"
# The splits of the items up to this batch at the time when some were forgotten: id, `ALLOCATED`, left_out, cluster.
FORMER_SPLITS = "splits.parquet"
REPEATED = ("label", "group", "split", "format", "collected_at")  # columns with few distinct values
SEARCHED = ("id", "label", "width", "height")  # columns with minimum and maximum statistics for each row group
KEPT_BYTES = 64 * 2**20  # largest quarantined item whose bytes are kept; of larger ones only the record is


@dataclass(frozen=True, slots=True)
class Correction:
    """A new label for an item of the data set. Parts never change, so the old label remains recorded there, and here too.

    Attributes:
        id: the item's id.
        label: the new label.
        old_label: the label until then.
        by: who made the correction; None if unknown.
        at: when, ISO 8601 in UTC, whole seconds.
        source: the file that the correction came from.
    """

    id: str
    label: str
    old_label: str
    by: str | None
    at: str
    source: str


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Takes an item out of use, or puts it back. The part that contains it does not change.

    Attributes:
        id: the item's id.
        withdrawn: whether it is out of use from now on.
        by: who decided it: `SOURCE`, or a person; None if unknown.
        at: when, ISO 8601 in UTC, whole seconds.
        source: the item's path in its source, or the file that the withdrawal came from.
    """

    id: str
    withdrawn: bool
    by: str | None
    at: str
    source: str


@dataclass(frozen=True)
class Records:
    """The corrections and withdrawals in force. Without any, rows are as they were collected.

    Attributes:
        labels: current labels by id, of the items whose label was corrected.
        withdrawn: ids of the items that are out of use.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    withdrawn: Collection[str] = frozenset()


def batches(workspace: Workspace, name: str) -> list[Path]:
    """The data set's batch folders, oldest first; empty if nothing has been collected yet."""
    return _batches(workspace.data(name))


def staged(workspace: Workspace, name: str) -> list[Path]:
    """The batch folders that were collected but are not in the data set yet, with items, corrections, both or none."""
    return _batches(workspace.staging(name))


def _batches(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*-*") if path.is_dir()) if folder.is_dir() else []


def parts(folders: Iterable[Path]) -> list[Path]:
    """The part files of these batch folders, in order."""
    return [part for folder in folders for part in sorted(folder.glob("part-*.parquet"))]


def corrections(folders: Iterable[Path]) -> list[Correction]:
    """The corrections in these batch folders, in order of arrival; of several for one item the last one counts."""
    files = [folder / CORRECTIONS for folder in folders]
    return [Correction(**json.loads(line)) for file in files if file.is_file() for line in file.read_bytes().splitlines()]


def withdrawals(folders: Iterable[Path]) -> list[Withdrawal]:
    """The withdrawals in these batch folders, in order of arrival."""
    files = [folder / WITHDRAWALS for folder in folders]
    return [Withdrawal(**json.loads(line)) for file in files if file.is_file() for line in file.read_bytes().splitlines()]


def records(folders: Iterable[Path]) -> Records:
    """The corrections and withdrawals of these batch folders, combined: the last one counts, and a person's overrides the
    source's."""
    folders = list(folders)
    labels: dict[str, str] = {}
    withdrawn: set[str] = set()
    by_people: set[tuple[str, str]] = set()

    def holds(kind: str, one: Correction | Withdrawal) -> bool:
        if one.by != SOURCE:
            by_people.add((kind, one.id))
        return one.by != SOURCE or (kind, one.id) not in by_people

    for correction in corrections(folders):
        if holds("label", correction):
            labels[correction.id] = correction.label
    for withdrawal in withdrawals(folders):
        if holds("withdrawn", withdrawal):
            (withdrawn.add if withdrawal.withdrawn else withdrawn.discard)(withdrawal.id)
    return Records(labels, withdrawn)


def stage_records(
    staging: Path, number: int, corrections: Sequence[Correction] = (), withdrawals: Sequence[Withdrawal] = ()
) -> str | None:
    """Write a batch folder of records into a staging area, atomically; the same records give the same bytes.

    Args:
        number: the batch's number.

    Returns:
        The folder's name; None if there are no records.
    """
    digest = hashlib.sha256()
    writing = staging / ".records"
    for name, lines in ((CORRECTIONS, corrections), (WITHDRAWALS, withdrawals)):
        content = b"".join(json.dumps(asdict(one), ensure_ascii=False).encode() + b"\n" for one in lines)
        if content:
            digest.update(content)
            writing.mkdir(parents=True, exist_ok=True)
            with open(writing / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    if not writing.exists():
        return None
    target = staging / f"{number:05d}-{digest.hexdigest()[:12]}"
    writing.rename(target)
    return target.name


def forgotten(folders: Iterable[Path]) -> set[bytes]:
    """Digests of the ids (as 32 bytes) of items that `evergreen forget` removed, so that they are not collected again. An id is
    the hash of an image; its digest reveals nothing about either."""
    files = [folder / FORGOTTEN for folder in folders]
    return {
        bytes.fromhex(json.loads(line)["digest"]) for file in files if file.is_file() for line in file.read_bytes().splitlines()
    }


def is_id(text: str | None) -> bool:
    """Whether this is an item's id: a sha256, as 64 lower-case hex digits."""
    return text is not None and re.fullmatch(r"[0-9a-f]{64}", text) is not None


def id_digest(id: bytes) -> bytes:
    """The digest of an id (as 32 bytes), in the form that `forgotten` returns."""
    return hashlib.sha256(id).digest()


def without(part: Path, ids: Collection[str]) -> bytes | None:
    """The content of a part without these items; None if no item is left."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    gone, sink, left = pa.array(ids, pa.string()), pa.BufferOutputStream(), 0
    with pq.ParquetFile(part) as file, _part_writer(sink, file.schema_arrow) as writer:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group)
            rows = rows.filter(pc.invert(pc.is_in(rows["id"], gone)))
            if rows.num_rows:
                writer.write_table(rows)
            left += rows.num_rows
    return sink.getvalue().to_pybytes() if left else None


def _part_writer(sink: Any, schema: pa.Schema) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=[name for name in REPEATED if name in schema.names],
        write_statistics=[name for name in SEARCHED if name in schema.names],
    )


def origin(part: Path) -> str | None:
    """Where a part's items came from: `source` or `inbox`; None in parts of earlier versions, which did not record it."""
    import pyarrow.parquet as pq

    origin = (pq.read_schema(part).metadata or {}).get(ORIGIN)
    return None if origin is None else origin.decode()


def iter_parts(
    folders: Iterable[Path], columns: list[str] | None = None, known: Records | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream the rows of these batch folders, a few MB of encoded images at a time, in order of arrival.

    Args:
        columns: the columns to read; all by default. A part need not have each of them.
        known: the records to apply: labels are replaced, and withdrawn items left out. By default those of these folders;
            `Records()` gives the rows as collected.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folders = list(folders)
    known = records(folders) if known is None else known
    labels = known.labels if columns is None or "label" in columns else {}
    withdrawn = pa.array(known.withdrawn, pa.string()) if known.withdrawn else None
    applies = bool(labels) or withdrawn is not None
    read = ["id", *columns] if applies and columns is not None and "id" not in columns else columns
    for part in parts(folders):
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                for rows in file.read_row_group(group, columns=read).to_batches():
                    rows = rows.replace_schema_metadata(None)
                    if withdrawn is not None:
                        rows = rows.filter(pc.invert(pc.is_in(rows["id"], withdrawn)))
                    if columns is None or "label" in columns:
                        rows = _tidied(rows)
                    if labels:
                        rows = _relabelled(rows, labels)
                    if applies and columns is not None:
                        rows = rows.select([name for name in columns if name in rows.schema.names])
                    yield rows


def _tidied(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with text labels normalized by `evergreen.names.tidy`: earlier versions did not normalize them when
    collecting."""
    import pyarrow as pa

    if not pa.types.is_string(rows.schema.field("label").type):
        return rows
    labels = rows["label"].dictionary_encode()
    names = labels.dictionary.to_pylist()
    tidied = [tidy(name) for name in names]
    if tidied == names:
        return rows
    index = rows.schema.get_field_index("label")
    return rows.set_column(index, rows.schema.field(index), pa.array(tidied, pa.string()).take(labels.indices))


def _relabelled(rows: pa.RecordBatch, labels: Mapping[str, str]) -> pa.RecordBatch:
    """The rows with their labels replaced by these, by id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    index = rows.schema.get_field_index("label")
    known = pa.array(labels.values(), pa.string()).cast(rows.schema.field(index).type)
    others = known.take(pc.index_in(rows["id"], pa.array(labels, pa.string())))
    return rows.set_column(index, rows.schema.field(index), pc.coalesce(others, rows["label"]))


def table(folders: Iterable[Path], columns: list[str] | None = None, known: Records | None = None) -> pa.Table:
    """The rows of these batch folders in memory, by default with every column except the encoded items (about 200 bytes per
    item). `known` is as in `iter_parts`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folders = list(folders)
    stored: dict[str, pa.Field] = {}
    for part in parts(folders):  # usually the first has all: only what was collected with other annotations has other columns
        fields = {field.name: field for field in pq.read_schema(part)}
        columns = columns or [name for name, field in fields.items() if not pa.types.is_binary(field.type)]
        stored = fields | stored
        if stored.keys() >= set(columns):
            break
    schema = pa.schema([stored.get(name, pa.field(name, pa.string())) for name in columns or ()])

    def whole(rows: pa.RecordBatch) -> pa.RecordBatch:
        """With null for the columns that the part does not have: it was collected with other annotations."""
        values = [rows[one.name] if one.name in rows.schema.names else pa.nulls(len(rows), one.type) for one in schema]
        return pa.RecordBatch.from_arrays(values, schema=schema)

    return pa.Table.from_batches([whole(rows) for rows in iter_parts(folders, columns, known)], schema=schema)


def known_ids(workspace: Workspace, name: str) -> dict[bytes, str]:
    """The label of every item of the data set, including withdrawn ones, by its id as 32 bytes (which take half the memory of
    the text)."""
    labels: dict[str, str] = {}
    known: dict[bytes, str] = {}
    folders = batches(workspace, name)
    for batch in iter_parts(folders, ["id", "label"], Records(records(folders).labels)):
        for id, label in zip(batch["id"].to_pylist(), batch["label"].to_pylist(), strict=True):
            text = str(label)
            known[bytes.fromhex(id)] = labels.setdefault(text, text)
    return known


def iter_images(folders: Iterable[Path], ids: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The ids and encoded images (column `image`) of these items, in order of arrival."""
    left = set(ids)
    for batch in iter_parts(folders, ["id", "image"]):
        if not left:
            return
        for row, id in enumerate(batch["id"].to_pylist()):
            if id in left:
                left.discard(id)
                yield id, batch["image"][row].as_py()


class PartWriter:
    """Writes items into the parts of one batch folder; the same items in the same order give the same bytes.

    At most one part is in memory. Use as a context manager; after an exception the caller removes the folder.
    """

    def __init__(self, folder: Path, schema: pa.Schema, origin: str | None = None) -> None:
        """
        Args:
            folder: an existing, empty folder.
            schema: the columns, including `id`, `label` and `source`.
            origin: where the items come from; see the function `origin`.
        """
        self.folder = folder
        self.schema = schema.with_metadata({ORIGIN: origin}) if origin else schema
        self._id, self._label = schema.get_field_index("id"), schema.get_field_index("label")
        self.items = 0
        self._number = 0
        self._rows: list[tuple[Any, ...]] = []
        self._group_bytes = 0
        self._part: Any = None
        self._digest = hashlib.sha256()

    def add_row(self, row: tuple[Any, ...]) -> None:
        """Add a row, with the schema's columns in their order."""
        self._digest.update(f"{row[self._id]} {row[self._label]}\n".encode())
        self._rows.append(row)
        self._group_bytes += 256 + sum(len(value) for value in row if isinstance(value, bytes))  # 256: the other columns
        self.items += 1
        if self._group_bytes >= ROW_GROUP_BYTES:
            self._end_group()

    @property
    def hash(self) -> str:
        """The hash of the ids and labels so far, in order: 12 hex digits."""
        return self._digest.hexdigest()[:12]

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._end_group()
            self._end_part()

    def _end_group(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        columns = [
            pa.array(values, field.type) for values, field in zip(zip(*self._rows, strict=True), self.schema, strict=True)
        ]
        self._rows, self._group_bytes = [], 0
        if self._part is None:
            # Into memory first: when we write the file ourselves, a full disk raises the system's own error.
            sink = pa.BufferOutputStream()
            writer = _part_writer(sink, self.schema)
            self._part = (sink, writer)
        sink, writer = self._part
        writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))
        if sink.tell() >= PART_BYTES:
            self._end_part()

    def _end_part(self) -> None:
        if self._part is None:
            return
        sink, writer = self._part
        self._part = None
        writer.close()
        with open(self.folder / f"part-{self._number:05d}.parquet", "xb") as file:
            file.write(sink.getvalue())
            file.flush()
            os.fsync(file.fileno())
        self._number += 1


class Quarantine:
    """Stores refused items: a line in `records.jsonl` for each item and reason, and the bytes once per content.

    Use as a context manager. A kill may leave an incomplete last line, which is removed when the file is next opened.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.folder = workspace.quarantine(name)
        self.added = 0
        self._seen: set[bytes] = set()
        self._file: int | None = None

    def __enter__(self) -> Quarantine:
        path = self.folder / "records.jsonl"
        if path.exists():
            self._seen = {_record_key(record["source"], record["id"], record["reason"]) for record in self._read_and_mend(path)}
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            os.sync()  # one call for the record file and all items

    def add(
        self, source: str, reason: str, detail: str, *, id: str | None, data: bytes | None, label: str | None, size_bytes: int,
        collected_at: datetime,
    ) -> None:  # fmt: skip
        """Store one item, unless it is already stored for the same reason."""
        key = _record_key(source, id, reason)
        if key in self._seen:
            return
        if id is not None and data is not None and len(data) <= KEPT_BYTES:
            self._keep(id, data)
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.folder / "records.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        record = {
            "source": source, "reason": reason, "detail": detail[:500], "id": id, "label": label, "bytes": size_bytes,
            "collected_at": collected_at.astimezone(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        line = json.dumps(record).encode() + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError(errno.ENOSPC, "No space left on device", str(self.folder))
        self._seen.add(key)
        self.added += 1

    def _keep(self, id: str, data: bytes) -> None:
        target = self.folder / "items" / id[:2] / id
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{id}.{os.getpid()}.tmp")
        try:
            beside.write_bytes(data)
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)

    @staticmethod
    def _read_and_mend(path: Path) -> Iterator[dict[str, Any]]:
        whole = 0
        with open(path, "r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                yield json.loads(line)
            file.truncate(whole)


def read_quarantine(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """The records of the quarantine, oldest first; docs/internals.md lists the keys."""
    path = workspace.quarantine(name) / "records.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _record_key(source: str, id: str | None, reason: str) -> bytes:
    return hashlib.blake2b(json.dumps([source, id, reason]).encode(), digest_size=16).digest()
