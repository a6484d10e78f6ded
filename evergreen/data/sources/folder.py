"""A folder as a source. Links are followed inside it, and out of it only if that is requested."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from evergreen.data.sources import safety
from evergreen.data.sources.base import Source, SourceEntry, too_large
from evergreen.errors import WrongUse
from evergreen.names import UNIX, Decoder, readable_name


@dataclass(frozen=True)
class FolderSource(Source):
    """The files below a folder.

    Attributes:
        path: the folder.
        encoding: of names that are not UTF-8; None: the encoding that all names together suggest.
        follow_links: whether links that lead out of the folder are followed too. Those inside it always are.
    """

    path: Path
    encoding: str | None = None
    follow_links: bool = False

    def stream(self) -> Iterator[SourceEntry]:
        return self.select(lambda name: True)

    def select(self, wanted: Callable[[str], bool]) -> Iterator[SourceEntry]:
        """As `Source.select`; other files are not read."""
        root = os.path.realpath(os.fsencode(self.path))
        decode = Decoder(lambda: (name for _, name in self._walk()), self.encoding, UNIX)
        for entry, raw_name in self._walk():
            name, path = decode(raw_name), entry.path
            if entry.is_symlink():
                path = os.path.realpath(path)
                if problem := _link_problem(path, root, self.follow_links):
                    yield SourceEntry(name, None, 0, "link", problem, encoding=decode.assumed)
                    continue
            yield replace(read_file(name, path) if wanted(name) else _unread(name, path), encoding=decode.assumed)

    @property
    def root(self) -> Path | None:
        return self.path

    def names(self) -> Iterator[tuple[str, float | None]]:
        for _, name in self._walk():
            yield readable_name(name), None

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for entry, name in self._walk():
            status = entry.stat(follow_symlinks=entry.is_symlink() and entry.is_file())  # a link to a file: what it leads to
            digest.update(b"%s\0%d %d %o\n" % (name, status.st_size, status.st_mtime_ns, status.st_mode))
        return digest.hexdigest()

    def describe(self) -> str:
        return str(self.path)

    def _walk(self) -> Iterator[tuple[os.DirEntry[bytes], bytes]]:
        return walk(self.path, "all" if self.follow_links else "inside")


def walk(folder: Path, links: Literal["none", "inside", "all"] = "none") -> Iterator[tuple[os.DirEntry[bytes], bytes]]:
    """Everything below a folder but the folders themselves, sorted by name within each.

    Args:
        links: which links to folders are entered: none, those that stay inside the folder, or all. A link to a folder that it
            lies in is never entered. Those that aren't entered are given as entries.

    Raises:
        WrongUse: a folder below cannot be listed: what it holds could not be accounted for.
    """
    root = os.path.realpath(os.fsencode(folder))
    waiting: list[tuple[bytes, bytes, tuple[bytes, ...]]] = [(os.fsencode(folder), b"", (root,))]
    while waiting:
        path, prefix, above = waiting.pop()
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise WrongUse(
                f"the folder {readable_name(path)} cannot be listed: {error.strerror}", fix="Make it readable, or move it away."
            ) from None
        folders = []
        for entry in entries:
            real = above[-1] + b"/" + entry.name
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                entered = (
                    links != "none" and _is_folder(entry) and (links == "all" or _inside(real, root)) and real not in above
                )
            else:
                entered = entry.is_dir(follow_symlinks=False)
            if entered:
                folders.append((entry.path, prefix + entry.name + b"/", (*above, real)))
            else:
                yield entry, prefix + entry.name
        waiting.extend(reversed(folders))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _inside(real: bytes, root: bytes) -> bool:
    return real.startswith(root.rstrip(b"/") + b"/")


def _link_problem(target: bytes, root: bytes, follow_links: bool) -> str | None:
    """Why a link isn't followed. Links to folders that are followed were entered before."""
    shown = readable_name(target)
    if os.path.isdir(target) and (follow_links or _inside(target, root) or target == root):
        return f"a link to a folder that it lies in: {shown}"
    if not follow_links and not _inside(target, root):
        kind = "a folder" if os.path.isdir(target) else "a file" if os.path.isfile(target) else "nothing"
        return f"a link that leads out of the source, to {kind}: {shown}"
    return None if os.path.isfile(target) else "a link to no file"


def _unread(name: str, path: bytes) -> SourceEntry:
    """A file as an entry without its content; whoever opens it by its path can rely on it to be a file."""
    try:
        status = os.lstat(path)
    except OSError as error:
        return SourceEntry(name, None, 0, "unreadable", error.strerror or str(error))
    if not stat.S_ISREG(status.st_mode):
        return SourceEntry(name, None, 0, "not-a-file", "a pipe, a socket or a device")
    return SourceEntry(name, None, status.st_size)


def read_file(name: str, path: bytes) -> SourceEntry:
    """A file as an entry of this name. Never waits: a pipe is opened without blocking, and not read."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return SourceEntry(name, None, 0, "not-a-file", "a pipe, a socket or a device")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > safety.MAX_ITEM_BYTES:
                return too_large(name, size)
            data = file.read(safety.MAX_ITEM_BYTES + 1)
    except OSError as error:
        return SourceEntry(name, None, 0, "unreadable", error.strerror or str(error))
    return SourceEntry(name, data, len(data)) if len(data) <= safety.MAX_ITEM_BYTES else too_large(name, len(data))
