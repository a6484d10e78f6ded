"""Limits for archives, which are assumed to be hostile: what exceeds them is refused, and a name that points outside is not
followed."""

from __future__ import annotations

from pathlib import Path

from evergreen.errors import DataRefused

MAX_ITEM_BYTES = 256 * 2**20  # read into memory at most
MAX_ENTRIES = 1_000_000
MAX_HEADER_BYTES = 2**20  # of one entry of a .tar: its name and attributes
MAX_EXPANSION = 200  # an archive's content against its own size …
FREE_EXPANSION_BYTES = 2 * 2**30  # … beyond this many bytes. Photographs hardly compress; a bomb does by a thousand


def points_outside(raw: bytes) -> bool:
    """Whether an entry's name leads out of the folder that the archive would be unpacked into."""
    name = raw.decode("latin-1")
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:3] in (":/", ":\\")


def refuse_many(path: Path, entries: int) -> None:
    """
    Raises:
        DataRefused: the archive has more than `MAX_ENTRIES` entries.
    """
    if entries > MAX_ENTRIES:
        raise DataRefused(
            f"the archive {path} has too many entries", expected=f"at most {MAX_ENTRIES:,}", received=entries,
            fix="Unpack it yourself if you trust it, and give the folder.",
        )  # fmt: skip


def refuse_bomb(path: Path, archive_bytes: int, expanded_bytes: int) -> None:
    """
    Raises:
        DataRefused: the archive's content is far larger than the archive.
    """
    if expanded_bytes > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * archive_bytes):
        raise DataRefused(
            f"the archive {path} expands beyond measure", expected=f"at most {MAX_EXPANSION} times its own {archive_bytes:,} bytes",
            received=expanded_bytes, fix="Unpack it yourself if you trust it, and give the folder.",
        )  # fmt: skip


def damaged_archive(path: Path, entries: int, error: Exception) -> DataRefused:
    """The refusal of an archive in which reading failed after so many entries."""
    return DataRefused(
        f"the archive {path} is damaged after {entries:,} entries: {error or type(error).__name__}",
        fix="Fetch or pack it again; nothing of it was kept.",
    )
