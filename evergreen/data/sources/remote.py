"""Files in an object store or on another server, read by fsspec, such as `s3://bucket/folder`.

Credentials are those that the libraries find: environment variables such as AWS_ACCESS_KEY_ID, or the machine's role. They are
in no scenario, and are taken out of every message.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.data.sources import safety
from evergreen.data.sources.base import Source, SourceEntry, too_large
from evergreen.data.sources.safety import points_outside, refuse_many
from evergreen.errors import EvergreenError, Unreachable, WrongUse
from evergreen.scenario.settings import REMOTE_SCHEMES
from evergreen.secrets import shown, without_secrets

BATCH_FILES = 64  # that are fetched at once, and in memory …
BATCH_BYTES = 64 * 2**20  # … with at most so many bytes, or one file
STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime", "updated", "created")


@dataclass(frozen=True)
class RemoteSource(Source):
    """The files below a folder of a store.

    Attributes:
        url: of the folder, without credentials.
    """

    url: str

    def stream(self) -> Iterator[SourceEntry]:
        """As `Source.stream`.

        Raises:
            Unreachable: the store does not answer, or is gone before its end.
            EvergreenError: the library for it is not installed.
        """
        return self.select(lambda name: True)

    def select(self, wanted: Callable[[str], bool]) -> Iterator[SourceEntry]:
        """As `Source.select`; other files are not fetched."""
        store, files = self._listed()
        done, total = 0, sum(int(info.get("size") or 0) for _, info in files.values())
        for batch in _batches(files):
            fetch = [path for name, (path, info) in batch if wanted(name) and _is_fetched(name, info)]
            found = self._fetched(store, fetch)
            for name, (path, info) in batch:
                size = int(info.get("size") or 0)
                done += size
                yield _entry(name, size, found.get(path), done / total if total else None)

    def names(self) -> Iterator[tuple[str, float | None]]:
        """The names of the files, which are not fetched."""
        for name in self._listed()[1]:
            yield name, None

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, (_, info) in self._listed()[1].items():
            stamp = next((str(info[key]) for key in STAMPS if info.get(key)), "")
            digest.update(f"{name}\0{info.get('size')} {stamp}\n".encode())
        return digest.hexdigest()

    def describe(self) -> str:
        return shown(self.url)

    def _listed(self) -> tuple[Any, dict[str, tuple[str, Mapping[str, Any]]]]:
        """The store, and the path in it and what it says of each file by the file's name, sorted."""
        import fsspec

        try:
            store, root = fsspec.url_to_fs(self.url)
            store.invalidate_cache()
            found = store.find(root, detail=True)
        except ImportError as error:
            raise EvergreenError(
                f"{self.describe()} cannot be read: {error}", expected="the library for this kind of store",
                fix="Install it, for example: pip install '.[s3]'",
            ) from None  # fmt: skip
        except Exception as error:  # noqa: BLE001 (each store's library has exceptions of its own)
            raise self._unreachable(error) from None
        if not found:
            raise WrongUse(
                f"there is nothing in {self.describe()}", fix="Correct collect.remote, or see what the credentials may list."
            )
        refuse_many(Path(self.describe()), len(found))
        start = root.rstrip("/") + "/"
        names = {
            path.removeprefix(start).lstrip("/"): (path, info)
            for path, info in found.items()
            if info.get("type") != "directory"
        }
        return store, dict(sorted(names.items()))

    def _fetched(self, store: Any, paths: Sequence[str]) -> dict[str, bytes | Exception]:
        try:
            found = store.cat(list(paths), on_error="return") if paths else {}
        except Exception as error:  # noqa: BLE001
            raise self._unreachable(error) from None
        for content in found.values():
            if isinstance(content, Exception) and not isinstance(content, (FileNotFoundError, PermissionError)):
                raise self._unreachable(content)
        return dict(found)

    def _unreachable(self, error: Exception) -> Unreachable:
        reason = without_secrets(" ".join(str(error).split()))[:300] or type(error).__name__
        return Unreachable(
            f"{self.describe()} cannot be read: {reason}",
            fix="Check the address, the network and the credentials in the environment. Nothing of it was kept.",
        )


def remote_address(path: Path) -> str | None:
    """The address that was given as a path, such as `s3:/bucket/folder` of `s3://bucket/folder`; None for a path."""
    match = re.match(r"([a-z0-9]+):/+(.+)", str(path), re.DOTALL)
    return (
        f"{match[1]}://{match[2]}" if match and match[1] in (*REMOTE_SCHEMES, "http", "https") and not path.exists() else None
    )


def _batches(
    files: Mapping[str, tuple[str, Mapping[str, Any]]],
) -> Iterator[list[tuple[str, tuple[str, Mapping[str, Any]]]]]:
    batch: list[tuple[str, tuple[str, Mapping[str, Any]]]] = []
    size = 0
    for name, found in files.items():
        batch.append((name, found))
        size += int(found[1].get("size") or 0) if _is_fetched(name, found[1]) else 0
        if len(batch) == BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _is_fetched(name: str, info: Mapping[str, Any]) -> bool:
    return int(info.get("size") or 0) <= safety.MAX_ITEM_BYTES and not points_outside(name.encode())


def _entry(name: str, size: int, content: bytes | Exception | None, fraction_read: float | None) -> SourceEntry:
    if size > safety.MAX_ITEM_BYTES:
        return too_large(name, size)
    if points_outside(name.encode()):
        return SourceEntry(name, None, size, "outside", "its name points outside the store's folder", fraction_read)
    if isinstance(content, Exception):
        return SourceEntry(
            name, None, size, "unreadable", without_secrets(str(content))[:300] or type(content).__name__, fraction_read
        )
    return SourceEntry(name, content, size if content is None else len(content), fraction_read=fraction_read)
