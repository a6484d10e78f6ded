"""Object stores: their files are entries as those of a folder are, and credentials are in no message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from evergreen.data.sources import safety
from evergreen.data.sources.opening import open_source
from evergreen.data.sources.remote import RemoteSource, remote_address
from evergreen.errors import EvergreenError, Unreachable, WrongUse
from evergreen.scenario.settings import Collect
from tests.support.sources import good, problems
from tests.support.store import Store, served_store

FILES = {"cat/1.png": b"one", "cat/2.png": b"two", "dog/ü 3.png": b"three", "labels.csv": b"path,label\n"}
SECRET = "planted/secret+key"


class Memory(MemoryFileSystem):  # type: ignore[misc]
    """A store in memory under the scheme s3."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("s3://").strip("/")

    @classmethod
    def registered(cls, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> Memory:
        """The store with these files in the folder `pets/raw`, for as long as a test lasts."""
        monkeypatch.setitem(_registry, "s3", cls)
        cls.store.clear()
        found = cls()
        for name, data in files.items():
            found.pipe(f"/pets/raw/{name}", data)
        return found


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    return Memory.registered(monkeypatch, FILES)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    pytest.importorskip("s3fs")
    with served_store() as found:
        found.objects = {f"raw/{name}": data for name, data in FILES.items()} | {"other/x.png": b"x"}
        for name, value in {
            "AWS_ENDPOINT_URL": found.address, "AWS_ACCESS_KEY_ID": "planted-id", "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        from s3fs import S3FileSystem

        S3FileSystem.clear_instance_cache()
        yield found
        S3FileSystem.clear_instance_cache()


def test_files_of_a_store_are_entries(memory: Memory) -> None:
    source = RemoteSource("s3://pets/raw")
    assert good(source.stream()) == FILES
    assert [name for name, _ in source.names()] == list(FILES) and source.describe() == "s3://pets/raw"
    assert list(source.stream())[-1].fraction_read == 1.0
    chosen = {one.name: one.data for one in source.select(lambda name: name.endswith(".csv"))}
    assert chosen == dict.fromkeys(FILES) | {"labels.csv": FILES["labels.csv"]}


def test_its_fingerprint_changes_with_its_files(memory: Memory) -> None:
    source = RemoteSource("s3://pets/raw/")
    first = source.fingerprint()
    assert source.fingerprint() == first
    memory.pipe("/pets/raw/cat/9.png", b"new")
    assert source.fingerprint() != first


def test_a_file_that_is_too_large_or_gone_has_a_problem(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "MAX_ITEM_BYTES", 4)
    assert problems(RemoteSource("s3://pets/raw").stream()) == {"dog/ü 3.png": "too-large", "labels.csv": "too-large"}
    monkeypatch.setattr(safety, "MAX_ITEM_BYTES", 100)
    cat = Memory.cat_file

    def without_one(self: Memory, path: str, *arguments: Any, **more: Any) -> Any:
        if path.endswith("1.png"):
            raise FileNotFoundError(path)
        return cat(self, path, *arguments, **more)

    monkeypatch.setattr(Memory, "cat_file", without_one)
    assert problems(RemoteSource("s3://pets/raw").stream()) == {"cat/1.png": "unreadable"}


def test_an_empty_folder_and_a_store_that_goes_away_are_errors_without_credentials(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WrongUse, match="there is nothing in s3://pets/nowhere"):
        list(RemoteSource("s3://pets/nowhere").stream())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    def gone(*_: Any, **__: Any) -> Any:
        raise OSError(f"connection with {SECRET} lost")

    monkeypatch.setattr(Memory, "cat_file", gone)
    with pytest.raises(Unreachable, match=r"s3://pets/raw cannot be read: connection with \*\*\* lost") as lost:
        list(RemoteSource("s3://pets/raw").stream())
    assert SECRET not in str(lost.value)


def test_s3_is_read_with_the_credentials_of_the_environment(store: Store) -> None:
    assert good(RemoteSource("s3://pets/raw").stream()) == FILES
    assert all("planted-id" in one for one in store.authorizations) and not any(SECRET in one for one in store.authorizations)


def test_s3_that_goes_away_while_being_read_is_an_error(store: Store) -> None:
    store.gone_after = 2
    with pytest.raises(Unreachable, match=r"s3://pets/raw cannot be read.*Nothing of it was kept"):
        list(RemoteSource("s3://pets/raw").stream())


def test_a_store_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(EvergreenError, match=r"Install s3fs to access S3.*pip install"):
        list(RemoteSource("s3://pets/raw").stream())


def test_an_address_given_as_a_path_is_known(tmp_path: Path) -> None:
    assert remote_address(Path("s3://pets/raw")) == "s3://pets/raw"
    assert remote_address(Path("https://example.org/a.zip")) == "https://example.org/a.zip"
    assert remote_address(tmp_path) is remote_address(Path("C:/pets")) is remote_address(Path("file:///etc")) is None
    assert open_source(Path("s3://pets/raw")).describe() == "s3://pets/raw"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("file:///etc", "is no address of a store"),
        ("simplecache::s3://pets", "is no address of a store"),
        ("s3://pets/a::file:///etc/passwd", "is no address of a store"),
        ("s3://", "is no address of a store"),
        ("s3://key:secret@pets/raw", "holds credentials"),
    ],
)
def test_an_address_in_a_scenario_is_of_a_store_and_without_credentials(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Collect.model_validate({"remote": address})
    with pytest.raises(ValueError, match="exactly one of builtin, path, remote, sql and file"):
        Collect.model_validate({"remote": "s3://pets/raw", "path": "pets"})
