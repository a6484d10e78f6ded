"""Reads `.zip` archives."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from evergreen.data.sources import safety
from evergreen.data.sources.base import SourceEntry, too_large
from evergreen.data.sources.safety import damaged_archive, points_outside, refuse_bomb, refuse_many
from evergreen.errors import DataRefused
from evergreen.names import WINDOWS, Decoder, readable_name

FROM_WINDOWS = (0, 10, 14)  # the systems on which a .zip's entry was made: FAT, NTFS, VFAT
READABLE_COMPRESSIONS = (0, 8, 12, 14)  # stored, Deflate, bzip2, LZMA
COMPRESSIONS = {9: "Deflate64", 93: "Zstandard", 95: "xz", 96: "JPEG", 97: "WavPack", 98: "PPMd", 99: "AES encryption"}


def stream_zip(path: Path, encoding: str | None) -> Iterator[SourceEntry]:
    """The entries of a `.zip`.

    Args:
        encoding: as of `evergreen.data.sources.archive.ArchiveSource`.

    Raises:
        DataRefused: the archive is damaged or a trap, or none of its entries can be read.
    """
    import zipfile

    archive_bytes = path.stat().st_size
    index = 0
    with open(path, "rb") as file:
        refuse_many(path, _count_zip_entries(file, archive_bytes))
        try:
            with zipfile.ZipFile(file) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                names = [_zip_name(entry) for entry in entries]
                decode = Decoder(lambda: (name for name in names if isinstance(name, bytes)), encoding, WINDOWS)
                _refuse_unreadable(path, entries)
                has_slash = any("/" in entry.filename for entry in entries)
                expanded = 0
                for index, (entry, name) in enumerate(zip(entries, names, strict=True)):
                    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
                    text = decode(name) if isinstance(name, bytes) else name
                    if "\\" in entry.filename and (entry.create_system in FROM_WINDOWS or not has_slash):
                        text = text.replace("\\", "/")  # against the format's rules, as .NET and PowerShell 5 pack
                        if text.endswith("/"):
                            continue  # a folder
                    expanded += entry.file_size if entry.file_size <= safety.MAX_ITEM_BYTES else 0
                    refuse_bomb(path, archive_bytes, expanded)
                    read = _read_zip_entry(archive, entry, raw, text, (index + 1) / len(entries))
                    yield replace(read, encoding=decode.assumed if isinstance(name, bytes) else None)
        except (zipfile.BadZipFile, EOFError, ValueError, OSError, NotImplementedError, struct.error) as error:
            raise damaged_archive(path, index, error) from None


def _count_zip_entries(raw: IO[bytes], archive_bytes: int) -> int:
    """An upper bound from the entries' signatures, in pieces: the reader would take the whole list into memory at once, and
    the count that the archive states may lie."""
    count, overlap = 0, b""
    raw.seek(max(0, archive_bytes - 2**29))  # the list stands at the end
    while piece := raw.read(2**20):
        piece = overlap + piece
        count += piece.count(b"PK\1\2")
        overlap = piece[-3:]
    raw.seek(0)
    return count


def _zip_name(entry: Any) -> str | bytes:
    """Text where the archive says what it is; else bytes of no known encoding."""
    if entry.flag_bits & 0x800:
        return readable_name(entry.filename)
    try:
        raw: bytes = entry.filename.encode("cp437")  # as zipfile has read it
    except UnicodeEncodeError:
        return readable_name(entry.filename)
    extra = entry.extra
    while len(extra) >= 4:  # Info-ZIP's Unicode path: version 1, the checksum of the other name, the name in UTF-8
        kind, length = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 0x7075 and field[:1] == b"\1" and len(field) > 5 and struct.unpack("<L", field[1:5])[0] == zlib.crc32(raw):
            return readable_name(field[5:])
    return raw


def _zip_problem(entry: Any) -> str | None:
    """Why an entry of a .zip can't be read, as a clause, with what to do about it."""
    if entry.flag_bits & 0x1:
        return "encrypted: unpack it with its password (7z x), and give the folder"
    if entry.compress_type not in READABLE_COMPRESSIONS:
        method = COMPRESSIONS.get(entry.compress_type, f"method {entry.compress_type}")
        return f"compressed with {method}, which Python does not read: unpack it (7z x), and give the folder"
    return None


def _refuse_unreadable(path: Path, entries: list[Any]) -> None:
    """An archive of which nothing can be read says why at once."""
    problems = {_zip_problem(entry) for entry in entries}
    if len(problems) == 1 and (problem := problems.pop()) is not None:
        what, fix = problem.split(": ", 1)
        raise DataRefused(
            f"the archive {path} is {what}", fix=f"{fix[:1].upper()}{fix[1:].replace(' it ', ' the archive ', 1)}."
        )


def _read_zip_entry(archive: Any, entry: Any, raw: bytes, name: str, fraction_read: float) -> SourceEntry:
    import zipfile

    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        return SourceEntry(name, None, entry.file_size, "link", "a link", fraction_read)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return SourceEntry(name, None, entry.file_size, "not-a-file", "a pipe, a device or something unknown", fraction_read)
    if entry.file_size > safety.MAX_ITEM_BYTES:
        return too_large(name, entry.file_size)
    if problem := _zip_problem(entry):
        return SourceEntry(name, None, entry.file_size, "unreadable", problem, fraction_read)
    try:
        with archive.open(entry) as file:
            data = file.read(entry.file_size + 1)
    except (RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        return SourceEntry(name, None, entry.file_size, "unreadable", str(error) or type(error).__name__, fraction_read)
    if points_outside(raw):
        return SourceEntry(name, data, len(data), "outside", "its name points outside the archive", fraction_read)
    return SourceEntry(name, data, len(data), fraction_read=fraction_read)
