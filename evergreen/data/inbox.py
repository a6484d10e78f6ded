"""A scenario's inbox: where people and cameras put what came since.

inbox/NAME/LABEL/…           images, a folder a label
inbox/NAME/*.zip .tar(.gz)   archives of such folders
inbox/NAME/*.csv             corrections: columns `id` (or `source`: a path or a file name) and `label`, and `by` (who says so) if you like
inbox/NAME/taken/…           what was taken in; nothing reads it, and it can be emptied at any time

A file is moved to `taken` when its items are in the data set or in quarantine, and not before: after a kill in between it is
in the inbox again, and its items are known. Files that may still be on their way (changed within the last seconds, hidden, or
called `.part`, `.tmp` or the like) are left for the next time, and so are those whose label the scenario doesn't know. The label `taken` can only come in an archive.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from evergreen.data.sources.archive import ArchiveSource, archive_kind
from evergreen.data.sources.base import Source, SourceEntry
from evergreen.data.sources.folder import read_file, walk
from evergreen.errors import DataRefused, WrongUse
from evergreen.names import UNIX, WINDOWS, Decoder, guess_encoding, readable_name, tidy
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

PATTERN = r"(?:.*/)?(?P<label>[^/]+)/[^/]+"
TAKEN = "taken"
ON_THEIR_WAY = (".part", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".partial", ".swp", "~")
ITEM_COLUMNS = ("id", "source", "path", "file", "filename")  # of a file of corrections, that may name the item
MAX_CSV_BYTES = 64 * 2**20


def inbox_of(scenario: Scenario, workspace: Workspace) -> Path:
    """The scenario's inbox."""
    named = scenario.retraining.inbox
    return workspace.root / (Path(named).expanduser() if named else Path("inbox") / scenario.name)


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A file of the inbox.

    Attributes:
        path: where it lies.
        raw: its path inside the inbox, `/` between the parts.
        name: the same as text.
        fingerprint: size in bytes, time of modification in ns, inode and mode, when it was listed.
    """

    path: bytes
    raw: bytes
    name: str
    fingerprint: tuple[int, ...]

    def untouched(self) -> bool:
        """Whether it is still what it was."""
        try:
            return _file_fingerprint(os.lstat(self.path)) == self.fingerprint
        except OSError:
            return False


@dataclass
class Inbox(Source):
    """The content of an inbox when it was listed. As a source: its images, and those inside its archives.

    Attributes:
        folder: its path.
        encoding: of names that are not UTF-8; None: the encoding that they suggest.
        images, archives, corrections: its files.
        left: the files that are left for the next time, and why, by name; reading archives may add to it.
        unknown: items of each label that the scenario doesn't know ("" where there is none); their files stay.
    """

    folder: Path
    encoding: str | None = None
    images: list[InboxFile] = field(default_factory=list)
    archives: list[InboxFile] = field(default_factory=list)
    corrections: list[InboxFile] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    _staying: set[str] = field(default_factory=set)
    _current: InboxFile | None = None  # the file of the entry that `stream` yielded last

    @classmethod
    def look_into(cls, folder: Path, settle_seconds: float, encoding: str | None = None) -> Inbox:
        """List what is there; nothing is read. A folder that doesn't exist is an empty inbox.

        Args:
            settle_seconds: a file that was changed (or moved here) within so many seconds is left.
            encoding: of names that are not UTF-8; None: the encoding that they suggest.

        Raises:
            WrongUse: a folder cannot be listed.
        """
        inbox, now = cls(folder, encoding), time.time()
        if not folder.is_dir():
            return inbox
        for entry, raw_name in walk(folder):
            name = readable_name(raw_name)
            if name.startswith(f"{TAKEN}/"):
                continue
            try:
                status = os.lstat(entry.path)
            except FileNotFoundError:
                continue  # renamed by the program that is copying it
            file = InboxFile(entry.path, raw_name, name, _file_fingerprint(status))
            base = name.rsplit("/", 1)[-1].lower()
            # Unlike the time of modification, no copying program sets the time of change back.
            changed_seconds_ago = abs(now - status.st_ctime)
            if base.startswith(".") or base.endswith(ON_THEIR_WAY):
                inbox.left[name] = "its name says that it is not complete"
            elif changed_seconds_ago < settle_seconds:
                inbox.left[name] = f"it changed within the last {settle_seconds:g} seconds"
            elif "/" not in name and base.endswith(".csv"):
                inbox.corrections.append(file)
            elif "/" not in name and _is_archive(entry.path):
                inbox.archives.append(file)
            else:
                inbox.images.append(file)
        return inbox

    def __len__(self) -> int:
        return len(self._files)

    @property
    def _files(self) -> list[InboxFile]:
        return [*self.images, *self.archives, *self.corrections]

    def stream(self) -> Iterator[SourceEntry]:
        """The images, and those inside the archives. An archive that is damaged or a trap stays in the inbox; what could be read of it
        is known when it comes again."""
        decode = Decoder(lambda: (file.raw for file in self.images), self.encoding, UNIX)
        for file in self.images:
            self._current = file
            yield replace(read_file(decode(file.raw), file.path), encoding=decode.assumed)
        for file in self.archives:
            self._current = file
            try:
                yield from ArchiveSource(Path(os.fsdecode(file.path)), self.encoding).stream()
            except (DataRefused, WrongUse) as error:
                self.left[file.name] = str(error)

    def fingerprint(self) -> str:
        names = [(file.name, file.fingerprint) for file in self._files]
        return hashlib.sha256(repr(names).encode()).hexdigest()

    def describe(self) -> str:
        return str(self.folder)

    def leave(self, label: str) -> None:
        """The scenario doesn't know the label of the entry that `stream` yielded last: the file that it came in stays in the inbox."""
        assert self._current is not None
        self.unknown[label] += 1
        self._staying.add(self._current.name)

    def put_away(self) -> int:
        """Move what was taken in to `taken/`; returns how many files. The folders stay: someone may be about to use them.

        A file that was changed meanwhile stays, and its new content is taken the next time.
        """
        moved = 0
        for file in self._files:
            if file.name in self.left or file.name in self._staying:
                continue
            if not file.untouched():
                self.left[file.name] = "it was changed while it was being read"
                continue
            relative = os.path.relpath(file.path, os.fsencode(self.folder))
            target = os.path.join(os.fsencode(self.folder), TAKEN.encode(), relative)
            stem, ending = os.path.splitext(target)
            number = 1
            while os.path.lexists(target):  # another file of that name was taken before
                target, number = b"%s-%d%s" % (stem, number, ending), number + 1
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(file.path, target)
            moved += 1
        return moved


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file of corrections.

    Attributes:
        line: its number.
        id: what it says of the item: its sha256 (hex) or the first digits of that, its path or its file name.
        label: what it is to be.
        by: who says so.
        problem: None, or what is wrong with the line.
    """

    line: int
    id: str
    label: str
    by: str | None
    problem: str | None


def read_corrections(content: bytes) -> list[Row] | str:
    """The lines of a CSV file of corrections, or why it is none."""
    if len(content) > MAX_CSV_BYTES:
        return f"{len(content):,} bytes; at most {MAX_CSV_BYTES:,} are read"
    text = _text(content)
    if text is None:
        return "it is not a text file in UTF-8, in UTF-16 or in an encoding that can be guessed"
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text))
        names = [(name or "").strip().lower() for name in reader.fieldnames or []]
        items = [name for name in ITEM_COLUMNS if name in names]
        if not items or "label" not in names:
            return f"no columns id (or source) and label in its first line ({', '.join(names)[:200] or 'nothing'})"
        reader.fieldnames = names
        rows = []
        for line in reader:
            item = next((value for name in items if (value := (line[name] or "").strip())), "")
            item = item.lower() if re.fullmatch(r"[0-9a-fA-F]{8,64}", item) else item
            rows.append(Row(reader.line_num, item, tidy(line["label"] or ""), (line.get("by") or "").strip() or None, None))
    except csv.Error as error:
        return f"it is not CSV: {error}"
    said: dict[str, set[str]] = {}
    for row in rows:
        said.setdefault(row.id, set()).add(row.label)
    return [_judged(row, said[row.id]) for row in rows]


def _text(content: bytes) -> str | None:
    """A text file as Excel and others write it, with or without a byte order mark."""
    byte_order_marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encoding = next((encoding for start, encoding in byte_order_marks.items() if content.startswith(start)), None)
    if encoding is None:
        encoding = guess_encoding(content.splitlines(), WINDOWS[::-1])
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _delimiter(text: str) -> str:
    """Comma, semicolon (where a comma divides decimals) or tab: the one that is most frequent in the first line."""
    first = text.split("\n", 1)[0]
    return max(",;\t", key=first.count)


def said_at(file: InboxFile) -> str:
    """When a file of corrections was written, ISO 8601 in UTC, whole seconds: the same however often it is read."""
    return datetime.fromtimestamp(file.fingerprint[1] // 10**9, UTC).isoformat(timespec="seconds")


def _judged(row: Row, labels: set[str]) -> Row:
    problem = None
    if not row.id:
        problem = "it names no item, by its id (sha256) or its path"
    elif len(labels) > 1:
        problem = f"the same file gives it several labels: {', '.join(sorted(labels))}"
    return Row(row.line, row.id, row.label, row.by, problem)


def _file_fingerprint(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_mode)


def _is_archive(path: bytes) -> bool:
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    try:
        archive_kind(Path(os.fsdecode(path)))
    except WrongUse:
        return False
    return True
