"""A scenario's inbox, in which people and cameras put new items.

inbox/NAME/LABEL/…           images, one folder per label
inbox/NAME/*.zip .tar(.gz)   archives of such folders
inbox/NAME/*.csv             corrections: columns `id` (or `source`: a path or a file name), `label`, `by` (author, optional)
inbox/NAME/unlabelled/…      new items without a label: they stay there until somebody labels them (`evergreen review`)
inbox/NAME/taken/…           files that were taken in; nothing reads them, and they can be deleted at any time

A file is moved to `taken` only once its items are in the data set or in quarantine: after a kill in between, it is still in the
inbox, and its items are recognized. Files that may be incomplete (changed within the last seconds, hidden, or named `.part`,
`.tmp` or the like) are left for the next time, and so are those whose label the scenario doesn't know. Items with the label
`taken` or `unlabelled` can only come in an archive.
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

from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.sources.archive import ArchiveSource, archive_kind
from evergreen.data.sources.base import Source, SourceEntry
from evergreen.data.sources.folder import read_file, walk
from evergreen.errors import DataRefused, WrongUse
from evergreen.names import UNIX, WINDOWS, Decoder, guess_encoding, readable_name, tidy
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

PATTERN = r"(?:.*/)?(?P<label>[^/]+)/[^/]+"
TAKEN, UNLABELLED = "taken", "unlabelled"
SET_ASIDE = (TAKEN, UNLABELLED)  # folders that are no label's
ON_THEIR_WAY = (".part", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".partial", ".swp", "~")
ITEM_COLUMNS = ("id", "source", "path", "file", "filename")  # columns of a file of corrections that may identify the item
MAX_CSV_BYTES = 64 * 2**20


def unlabelled_files(folder: Path) -> Iterator[tuple[os.DirEntry[bytes], bytes]]:
    """The files without a label in an inbox, with their paths relative to its folder `unlabelled`.

    Raises:
        WrongUse: a folder cannot be listed.
    """
    if (folder / UNLABELLED).is_dir():
        for entry, raw in walk(folder / UNLABELLED):
            if _may_be_an_item(readable_name(raw)):
                yield entry, raw


def _may_be_an_item(name: str) -> bool:
    return not (is_leftover(name) or is_hidden(name) or name.lower().endswith(ON_THEIR_WAY))


def inbox_of(scenario: Scenario, workspace: Workspace) -> Path:
    """The folder of a scenario's inbox."""
    named = scenario.retraining.inbox
    return workspace.root / (Path(named).expanduser() if named else Path("inbox") / scenario.name)


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A file in the inbox.

    Attributes:
        path: its path.
        raw: its path relative to the inbox, with `/` between the parts.
        name: `raw` as text.
        fingerprint: its size in bytes, modification time in ns, inode and mode, when it was listed.
    """

    path: bytes
    raw: bytes
    name: str
    fingerprint: tuple[int, ...]

    def untouched(self) -> bool:
        """Whether the file is unchanged since it was listed."""
        try:
            return _file_fingerprint(os.lstat(self.path)) == self.fingerprint
        except OSError:
            return False


@dataclass
class Inbox(Source):
    """The content of an inbox at the time of listing. As a source, it yields its loose files and those in its archives.

    Attributes:
        folder: the inbox's path.
        encoding: the encoding of names that are not UTF-8; None to guess it.
        loose, archives, corrections: its files; loose files are those in folders, and those that are neither of the other two.
        left: why each file is left for the next time, by name; reading archives may add to it.
        unlabelled: the files without a label; they stay, and are no entries of the source.
        unknown: the number of items of each label that the scenario doesn't know ("" for no label); their files stay.
    """

    folder: Path
    encoding: str | None = None
    loose: list[InboxFile] = field(default_factory=list)
    archives: list[InboxFile] = field(default_factory=list)
    corrections: list[InboxFile] = field(default_factory=list)
    unlabelled: list[InboxFile] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    _staying: set[str] = field(default_factory=set)
    _current: InboxFile | None = None  # the file of the entry that `stream` yielded last

    @classmethod
    def look_into(cls, folder: Path, settle_seconds: float, encoding: str | None = None) -> Inbox:
        """List the inbox without reading any file. A folder that doesn't exist is an empty inbox.

        Args:
            settle_seconds: files that were changed (or moved here) within the last so many seconds are left.
            encoding: the encoding of names that are not UTF-8; None to guess it.

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
            # The change time (ctime), because copying programs may set the modification time to an earlier one.
            changed_seconds_ago = abs(now - status.st_ctime)
            if name.startswith(f"{UNLABELLED}/"):
                if _may_be_an_item(name):
                    inbox.unlabelled.append(file)
            elif base.startswith(".") or base.endswith(ON_THEIR_WAY):
                inbox.left[name] = "its name says that it is not complete"
            elif changed_seconds_ago < settle_seconds:
                inbox.left[name] = f"it changed within the last {settle_seconds:g} seconds"
            elif "/" not in name and base.endswith(".csv"):
                inbox.corrections.append(file)
            elif "/" not in name and _is_archive(entry.path):
                inbox.archives.append(file)
            else:
                inbox.loose.append(file)
        return inbox

    def __len__(self) -> int:
        return len(self._files)

    @property
    def _files(self) -> list[InboxFile]:
        return [*self.loose, *self.archives, *self.corrections]

    def stream(self) -> Iterator[SourceEntry]:
        """The loose files, and those in the archives. An archive that is damaged or malicious stays in the inbox; items that
        could be read from it are recognized the next time."""
        decode = Decoder(lambda: (file.raw for file in self.loose), self.encoding, UNIX)
        for file in self.loose:
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
        """Report that the scenario doesn't know the label of the entry that `stream` yielded last, so that the file containing
        it stays in the inbox."""
        assert self._current is not None
        self.unknown[label] += 1
        self._staying.add(self._current.name)

    def put_away(self) -> int:
        """Move the files that were taken in to `taken/`; returns how many. The folders stay, as they may be in use.

        A file that was changed in the meantime stays, and its new content is taken in the next time.
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
            while os.path.lexists(target):  # another file of that name was taken in earlier
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
        id: identifies the item: its sha256 (hex) or the first digits of it, its path, or its file name.
        label: the new label.
        by: the author of the correction; None if not given.
        problem: what is wrong with the line, or None.
    """

    line: int
    id: str
    label: str
    by: str | None
    problem: str | None


def read_corrections(content: bytes) -> list[Row] | str:
    """The lines of a CSV file of corrections, or the reason why it can't be read as one."""
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
    """Decode a text file as Excel and other programs write it, with or without a byte order mark; None if it isn't text."""
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
    """Comma, semicolon (used where the comma is the decimal separator) or tab: the most frequent one in the first line."""
    first = text.split("\n", 1)[0]
    return max(",;\t", key=first.count)


def said_at(file: InboxFile) -> str:
    """When a file of corrections was modified, ISO 8601 in UTC, whole seconds, so that every reading gives the same time."""
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
