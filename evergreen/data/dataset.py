"""The data set on disk: Parquet parts, one row an item, and the quarantine beside it. docs/architecture.md lists the columns.

`data/NAME/00000-HASH/part-00000.parquet`: one folder, a batch, a collection; never changed once it is there (but for `evergreen forget`). A
batch may hold `corrections.jsonl` and `withdrawals.jsonl` in place of parts: other labels for items that came before, and items that are
taken out of use or brought back. They are applied whenever rows are read. The first batch with
images of more than 8 bits has `range.json`: the values that are read as black and white in all of the data set.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.names import tidy
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES = 32 * 2**20  # of encoded images in one part, about
ROW_GROUP_BYTES = 4 * 2**20  # and in one row group: what a reader holds at a time
CORRECTIONS, WITHDRAWALS = "corrections.jsonl", "withdrawals.jsonl"
FORGOTTEN = "forgotten.jsonl"  # digests of the ids of items that were here and are gone for good
SOURCE = "collect.mirror"  # says so, in place of a person: `by` of a record
ORIGIN = (
    b"evergreen.origin"  # in a part's metadata: where its items came from, "source" or "inbox"; absent in parts made before
)
DEALT = "splits.parquet"  # which split the items up to this batch had when some were forgotten: id, dealt, left_out, cluster
REPEATED = ("label", "group", "split", "format", "collected_at")  # columns with few different values
SEARCHED = ("id", "label", "width", "height")  # columns whose least and greatest value each row group has
KEPT_BYTES = 64 * 2**20  # of a quarantined item; of larger ones only the record is kept


@dataclass(frozen=True, slots=True)
class Correction:
    """Another label for an item of the data set. Parts never change, so that the label it had stays on record there and here.

    Attributes:
        id: the item's.
        label: from now on.
        old_label: until then.
        by: who said so; None where that isn't told.
        at: when, ISO 8601 in UTC, whole seconds.
        source: the file that said so.
    """

    id: str
    label: str
    old_label: str
    by: str | None
    at: str
    source: str


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """An item that is taken out of use, or brought back. The part that holds it stays as it is.

    Attributes:
        id: the item's.
        withdrawn: whether it is out of use from now on.
        by: who said so: `SOURCE`, or a person; None where that isn't told.
        at: when, ISO 8601 in UTC, whole seconds.
        source: the item's path in its source, or the file that said so.
    """

    id: str
    withdrawn: bool
    by: str | None
    at: str
    source: str


@dataclass(frozen=True)
class Records:
    """What was said of items after they were collected. Without any: the rows as collected.

    Attributes:
        labels: by id, of the items that have another label than they were collected with.
        withdrawn: ids of the items that are out of use.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    withdrawn: Collection[str] = frozenset()


def batches(workspace: Workspace, name: str) -> list[Path]:
    """The data set's batch folders, oldest first; empty where nothing was collected yet."""
    return _batches(workspace.data(name))


def staged(workspace: Workspace, name: str) -> list[Path]:
    """The batch folders that were collected but are not in the data set yet: items, corrections, both or none."""
    return _batches(workspace.staging(name))


def _batches(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*-*") if path.is_dir()) if folder.is_dir() else []


def parts(folders: Iterable[Path]) -> list[Path]:
    """The part files of these batch folders, in order."""
    return [part for folder in folders for part in sorted(folder.glob("part-*.parquet"))]


def corrections(folders: Iterable[Path]) -> list[Correction]:
    """The corrections of these batch folders, in the order of their arrival: of several for one item the last one holds."""
    files = [folder / CORRECTIONS for folder in folders]
    return [Correction(**json.loads(line)) for file in files if file.is_file() for line in file.read_bytes().splitlines()]


def withdrawals(folders: Iterable[Path]) -> list[Withdrawal]:
    """The withdrawals of these batch folders, in the order of their arrival."""
    files = [folder / WITHDRAWALS for folder in folders]
    return [Withdrawal(**json.loads(line)) for file in files if file.is_file() for line in file.read_bytes().splitlines()]


def records(folders: Iterable[Path]) -> Records:
    """What these batch folders say of items: the last word holds, and a person's before the source's."""
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
    """Write a batch folder of records into a staging area; it appears whole or not at all, and the same records give the same bytes.

    Args:
        number: of the batch.

    Returns:
        Its name; None where there are no records.
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
    """Digests of the ids (as 32 bytes) of items that `evergreen forget` took out: they are not collected again. An id is the hash of an
    image, and its digest tells nothing of either."""
    files = [folder / FORGOTTEN for folder in folders]
    return {
        bytes.fromhex(json.loads(line)["digest"]) for file in files if file.is_file() for line in file.read_bytes().splitlines()
    }


def id_digest(id: bytes) -> bytes:
    """As `forgotten` has it."""
    return hashlib.sha256(id).digest()


def without(part: Path, ids: Collection[str]) -> bytes | None:
    """A part's bytes without these items; None where none is left."""
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
    """Where a part's items came from: `source`, `inbox`, or None in parts that were made before this was written down."""
    import pyarrow.parquet as pq

    told = (pq.read_schema(part).metadata or {}).get(ORIGIN)
    return None if told is None else told.decode()


def iter_parts(
    folders: Iterable[Path], columns: list[str] | None = None, known: Records | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream the rows of these batch folders, a few MB of encoded images at a time, in the order of their arrival.

    Args:
        columns: only these; default all.
        known: what is applied: labels are replaced, and withdrawn items left out. By default what these folders themselves say;
            `Records()`: the rows as collected.
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
                    yield rows.select(columns) if applies and columns is not None else rows


def _tidied(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with labels that are text as `evergreen.names.tidy` has them: a data set may have been collected before that was done on the way in."""
    import pyarrow as pa

    if not pa.types.is_string(rows.schema.field("label").type):
        return rows
    labels = rows["label"].dictionary_encode()
    names = labels.dictionary.to_pylist()
    tidied = [tidy(name) for name in names]
    if tidied == names:
        return rows
    place = rows.schema.get_field_index("label")
    return rows.set_column(place, rows.schema.field(place), pa.array(tidied, pa.string()).take(labels.indices))


def _relabelled(rows: pa.RecordBatch, labels: Mapping[str, str]) -> pa.RecordBatch:
    """The rows with these labels, by id, in place of theirs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    place = rows.schema.get_field_index("label")
    known = pa.array(labels.values(), pa.string()).cast(rows.schema.field(place).type)
    others = known.take(pc.index_in(rows["id"], pa.array(labels, pa.string())))
    return rows.set_column(place, rows.schema.field(place), pc.coalesce(others, rows["label"]))


def table(folders: Iterable[Path], columns: list[str] | None = None, known: Records | None = None) -> pa.Table:
    """The rows of these batch folders in memory, by default with every column but the encoded items (some 200 bytes an item).
    `known` as in `iter_parts`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folders = list(folders)
    first = next(iter(parts(folders)), None)
    stored = pa.schema([]) if first is None else pq.read_schema(first)
    columns = columns or [field.name for field in stored if not pa.types.is_binary(field.type)]
    schema = pa.schema([stored.field(name) if name in stored.names else pa.field(name, pa.string()) for name in columns])
    return pa.Table.from_batches(list(iter_parts(folders, columns, known)), schema=schema)


def known_ids(workspace: Workspace, name: str) -> dict[bytes, str]:
    """Label of every item of the data set, withdrawn ones among them, by its id as 32 bytes (half of what the text takes in memory)."""
    labels: dict[str, str] = {}
    known: dict[bytes, str] = {}
    folders = batches(workspace, name)
    for batch in iter_parts(folders, ["id", "label"], Records(records(folders).labels)):
        for id, label in zip(batch["id"].to_pylist(), batch["label"].to_pylist(), strict=True):
            text = str(label)
            known[bytes.fromhex(id)] = labels.setdefault(text, text)
    return known


def iter_images(folders: Iterable[Path], wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The ids and encoded images of some items, from the column `image`, in the order of their arrival."""
    left = set(wanted)
    for batch in iter_parts(folders, ["id", "image"]):
        if not left:
            return
        for place, id in enumerate(batch["id"].to_pylist()):
            if id in left:
                left.discard(id)
                yield id, batch["image"][place].as_py()


class PartWriter:
    """Writes items into the parts of one batch folder; the same items in the same order give the same bytes.

    Memory holds one part at most. Use as a context manager; an exception leaves the folder to its owner to remove.
    """

    def __init__(self, folder: Path, schema: pa.Schema, origin: str | None = None) -> None:
        """
        Args:
            folder: exists and is empty.
            schema: the columns, of which `id`, `label` and `source` are among.
            origin: where the items come from, see `origin`.
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
        """A row with the columns of the schema, in their order."""
        self._digest.update(f"{row[self._id]} {row[self._label]}\n".encode())
        self._rows.append(row)
        self._group_bytes += 256 + sum(len(value) for value in row if isinstance(value, bytes))  # 256: the other columns
        self.items += 1
        if self._group_bytes >= ROW_GROUP_BYTES:
            self._end_group()

    @property
    def hash(self) -> str:
        """Of the ids and labels so far, in order: 12 hex digits."""
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
            # Into memory first: writing the file ourselves, we get the system's own error when the disk is full.
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
    """Keeps what was refused: a line in `records.jsonl` for each item and reason, and the bytes once per content.

    Use as a context manager. A kill leaves whole lines, or a last half line that the next opening removes.
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
            os.sync()  # the items too; one call for all of them

    def add(
        self, source: str, reason: str, detail: str, *, id: str | None, data: bytes | None, label: str | None, size_bytes: int,
        collected_at: datetime,
    ) -> None:  # fmt: skip
        """Put one item away, unless the same item was put away for the same reason before."""
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
    """The records of the quarantine, oldest first (keys: see docs/architecture.md)."""
    path = workspace.quarantine(name) / "records.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _record_key(source: str, id: str | None, reason: str) -> bytes:
    return hashlib.blake2b(json.dumps([source, id, reason]).encode(), digest_size=16).digest()
