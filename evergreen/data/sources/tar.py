"""Reads `.tar` and `.tar.gz` archives. A hard link to a file of the same archive is that file; other links are problems."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from evergreen.data.sources import safety
from evergreen.data.sources.base import SourceEntry, too_large
from evergreen.data.sources.safety import damaged_archive, points_outside, refuse_bomb, refuse_many
from evergreen.names import UNIX, Decoder, readable_name


class _Bounded:
    """A file that refuses to read too much at once: a .tar's header may claim a name of gigabytes."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.limit_bytes = safety.MAX_HEADER_BYTES
        self.ended = False  # whether the last piece was a block of zeros, which ends a .tar
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.limit_bytes:
            raise ValueError(f"an entry's header claims {size:,} bytes")
        data = bytes(self.file.read(size))
        self.ended = data == bytes(512)
        return data


class _Tar:
    """The entries of a .tar one after the other; the size of each header is bounded."""

    def __init__(self, path: Path, *, compressed: bool) -> None:
        self.path, self.compressed = path, compressed
        self.archive_bytes = path.stat().st_size
        self.entries = 0
        self.fraction_read = 0.0

    def __iter__(self) -> Iterator[tuple[bytes, bool, Any, Callable[[], bytes]]]:
        """Of each entry but folders: its name, whether that is surely UTF-8, the entry, and what reads its content."""
        import gzip
        import tarfile

        self.entries = 0
        with open(self.path, "rb") as file, gzip.open(file) if self.compressed else file as plain:
            bounded = _Bounded(plain)

            def read(member: Any) -> bytes:
                bounded.limit_bytes = safety.MAX_ITEM_BYTES
                with self._named_damage():
                    data = bytes(archive.extractfile(member).read())
                bounded.limit_bytes = safety.MAX_HEADER_BYTES
                return data

            with (
                self._named_damage(),
                tarfile.open(fileobj=bounded, mode="r:", errors="surrogateescape") as archive,  # type: ignore[call-overload]
            ):
                while (member := archive.next()) is not None:
                    archive.members = []  # else it keeps them all
                    self.entries += 1
                    self.fraction_read = min(1.0, file.tell() / self.archive_bytes)
                    refuse_many(self.path, self.entries)
                    refuse_bomb(self.path, self.archive_bytes, member.offset_data + member.size)
                    if not member.isdir():
                        yield _raw(member.name), "path" in member.pax_headers, member, partial(read, member)
                # tarfile takes a damaged or missing header for the end: the rest would be lost in silence
                if not bounded.ended:
                    raise ValueError("it has no end; some of it may be missing")

    @contextmanager
    def _named_damage(self) -> Iterator[None]:
        import tarfile

        try:
            yield
        except (tarfile.TarError, EOFError, zlib.error, ValueError, OSError, RecursionError, OverflowError) as error:
            raise damaged_archive(self.path, self.entries, error) from None


def _raw(name: str) -> bytes:
    """A name of a .tar as its bytes, without the "./" that packing "." puts before it."""
    return re.sub(rb"^(\./+)+(?=.)", b"", name.encode("utf-8", "surrogateescape"), flags=re.DOTALL)


def stream_tar(path: Path, encoding: str | None, *, compressed: bool) -> Iterator[SourceEntry]:
    """The entries of a `.tar`. Hard links come last: what they lead to is read in a second pass over the archive.

    Args:
        encoding: as of `evergreen.data.sources.archive.ArchiveSource`.
        compressed: whether it is a `.tar.gz`.

    Raises:
        DataRefused: the archive is damaged or a trap.
    """
    decode = Decoder(lambda: (raw for raw, known, *_ in _Tar(path, compressed=compressed) if not known), encoding, UNIX)
    links: dict[bytes, list[tuple[int, str]]] = {}  # by what they lead to: their number and name
    tar = _Tar(path, compressed=compressed)
    for raw, known, member, read in tar:
        name = readable_name(raw) if known else decode(raw)
        assumed = None if known else decode.assumed
        target = _raw(member.linkname) if member.islnk() else b"/"
        if not points_outside(target) and not points_outside(raw):
            links.setdefault(target, []).append((tar.entries, name))
        elif problem := _tar_problem(member):
            yield SourceEntry(name, None, member.size, *problem, tar.fraction_read, assumed)
        elif member.size > safety.MAX_ITEM_BYTES:
            yield too_large(name, member.size)
        elif points_outside(raw):
            yield SourceEntry(
                name, read(), member.size, "outside", "its name points outside the archive", tar.fraction_read, assumed
            )
        else:
            yield SourceEntry(name, read(), member.size, fraction_read=tar.fraction_read, encoding=assumed)
    yield from _hard_links(path, links, compressed=compressed) if links else ()


def _hard_links(path: Path, links: dict[bytes, list[tuple[int, str]]], *, compressed: bool) -> Iterator[SourceEntry]:
    tar = _Tar(path, compressed=compressed)
    expanded = 0
    for raw, _, member, read in tar:
        if raw not in links or not member.isreg() or member.size > safety.MAX_ITEM_BYTES:
            continue
        data = read()
        for number, name in (waiting := links.pop(raw)):
            if number > tar.entries:  # only what came before it can be meant
                expanded += len(data)
                refuse_bomb(path, tar.archive_bytes, expanded)
                yield SourceEntry(name, data, len(data), fraction_read=1.0)
        if later := [link for link in waiting if link[0] < tar.entries]:
            links[raw] = later
    for target, waiting in links.items():
        for _, name in waiting:
            yield SourceEntry(
                name, None, 0, "link", f"a link to {readable_name(target)[:200]!r}, which is no file that came before it", 1.0
            )


def _tar_problem(member: Any) -> tuple[str, str] | None:
    if member.issym() or member.islnk():
        return "link", f"a link to {member.linkname[:200]!r}"
    if not member.isreg():
        return "not-a-file", "a pipe, a device or something unknown"
    return None
