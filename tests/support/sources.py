"""Folders and archives to read as sources, and what was read of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evergreen.data.sources.base import SourceEntry

FILES = {"cat/1.png": b"one", "cat/2.png": b"two", "dog/old/3.png": b"three", "dog/empty": b"", "top.txt": b"text"}

OUTSIDE_NAMES = [  # of entries that lead out of an archive
    "../evil",
    "../../../../tmp/evergreen-evil",
    "/evergreen-evil",
    "cat/../../evil",
    "cat/..",
    "..\\evil",
    "C:\\evil",
    "C:/evil",
    "\\evil",
]


def folder_of(path: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return path


def tar_of(path: Path, files: dict[str, bytes] = FILES, mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def zip_of(path: Path, files: dict[str, bytes] = FILES, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda path: folder_of(path),
    "images.tar": lambda path: tar_of(path),
    "images.tar.gz": lambda path: tar_of(path, mode="w:gz"),
    "images.zip": lambda path: zip_of(path),
    "stored.zip": lambda path: zip_of(path, compression=zipfile.ZIP_STORED),
}


def good(found: Iterator[SourceEntry]) -> dict[str, bytes | None]:
    return {item.name: item.data for item in found if item.problem is None}


def problems(found: Iterator[SourceEntry]) -> dict[str, str]:
    return {item.name: item.problem for item in found if item.problem is not None}


def listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*"))
