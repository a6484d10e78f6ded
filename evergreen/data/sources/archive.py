"""An archive as a source; what it is, is known by its first bytes, not by its name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evergreen.data.sources.base import Source, SourceEntry
from evergreen.data.sources.tar import stream_tar
from evergreen.data.sources.zip import stream_zip
from evergreen.errors import WrongUse


@dataclass(frozen=True)
class ArchiveSource(Source):
    """The files in a `.tar`, `.tar.gz` or `.zip`.

    Attributes:
        path: the archive.
        encoding: of names that the archive doesn't state to be UTF-8; None: the encoding that all names together suggest.
    """

    path: Path
    encoding: str | None = None

    def stream(self) -> Iterator[SourceEntry]:
        kind = archive_kind(self.path)
        if kind == "zip":
            return stream_zip(self.path, self.encoding)
        return stream_tar(self.path, self.encoding, compressed=kind == "tar.gz")

    def fingerprint(self) -> str:
        status = self.path.stat()
        content = b"%s\0%d %d\n" % (os.fsencode(self.path.name), status.st_size, status.st_mtime_ns)
        return hashlib.sha256(content).hexdigest()

    def describe(self) -> str:
        return str(self.path)


def archive_kind(path: Path) -> Literal["tar", "tar.gz", "zip"]:
    """From the file's first bytes, whatever it is called.

    Raises:
        WrongUse: missing, unreadable, or none of these.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise WrongUse(
            f"the source {path} cannot be read: {error.strerror}",
            expected="a folder of images, or a .tar, .tar.gz or .zip of one",
            fix="Check the path and its permissions.",
        ) from None
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if start[257:262] == b"ustar" or (path.suffix == ".tar" and len(start) == 512):
        return "tar"
    raise WrongUse(
        f"the source {path} is neither a folder nor an archive that Evergreen reads",
        expected="a folder of images, or a .tar, .tar.gz or .zip of one",
        received=start[:8],
        fix="Pack the folder that holds the class folders again, or give the folder itself.",
    )
