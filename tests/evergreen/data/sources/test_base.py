"""Every kind of source is read entry by entry, and nothing of it lands on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evergreen.data.sources import safety
from evergreen.data.sources.opening import open_source
from evergreen.names import readable_name
from tests.support.sources import FILES, MAKERS, folder_of, good, listing, problems, tar_of, zip_of


@pytest.mark.parametrize("name", MAKERS)
def test_every_kind_of_source_gives_its_files_byte_for_byte(tmp_path: Path, name: str) -> None:
    source = MAKERS[name](tmp_path / name)
    found = list(open_source(source).stream())
    assert {item.name: item.data for item in found} == FILES
    assert all(item.problem is None and item.size_bytes == len(item.data or b"") for item in found)
    assert all(item.fraction_read is None or 0 <= item.fraction_read <= 1 for item in found)
    assert [item.name for item in open_source(source).stream()] == [item.name for item in found]


@pytest.mark.parametrize("name", MAKERS)
def test_reading_writes_nothing(tmp_path: Path, name: str) -> None:
    source = MAKERS[name](tmp_path / name)
    before = listing(tmp_path)
    list(open_source(source).stream())
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("odd", ["cat/with spaces.png", "cat/two\nlines.png", "größe/日本.png", "cat/'\"$`;&|.png", "cat/-rf"])
def test_odd_names_come_through_unchanged(tmp_path: Path, name: str, odd: str) -> None:
    files = {odd: b"x"}
    if name == "folder":
        source = folder_of(tmp_path / name, files)
    else:
        source = zip_of(tmp_path / name, files) if name.endswith("zip") else tar_of(tmp_path / name, files)
    assert good(open_source(source).stream()) == files


def test_names_that_are_in_no_known_encoding_show_their_bytes(tmp_path: Path) -> None:
    raw = b"caf\xe9/\xff\xfe.png"
    folder = os.fsencode(tmp_path / "folder") + b"/caf\xe9"
    os.makedirs(folder)
    with open(folder + b"/\xff\xfe.png", "wb") as file:
        file.write(b"x")
    tar_of(tmp_path / "a.tar", {os.fsdecode(raw): b"x"}, "w")
    zip_of(tmp_path / "a.zip", {"caf_/__.png": b"x"})
    patched = (tmp_path / "a.zip").read_bytes().replace(b"caf_/__.png", raw)
    (tmp_path / "a.zip").write_bytes(patched)
    for source in ("folder", "a.tar", "a.zip"):
        assert good(open_source(tmp_path / source, encoding="ascii").stream()) == {"caf\\xe9/\\xff\\xfe.png": b"x"}
    assert readable_name(raw) == "caf\\xe9/\\xff\\xfe.png"


def test_an_empty_folder_and_empty_archives_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for source in (tmp_path / "folder", tar_of(tmp_path / "a.tar", {}), zip_of(tmp_path / "a.zip", {})):
        assert list(open_source(source).stream()) == []


@pytest.mark.parametrize("name", MAKERS)
def test_an_item_too_large_for_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(safety, "MAX_ITEM_BYTES", 4)
    source = MAKERS[name](tmp_path / name)
    found = list(open_source(source).stream())
    assert problems(iter(found)) == {"dog/old/3.png": "too-large"}
    assert next(item for item in found if item.problem).data is None


@pytest.mark.parametrize("name", MAKERS)
def test_a_changed_source_has_another_fingerprint(tmp_path: Path, name: str) -> None:
    source = MAKERS[name](tmp_path / name)
    first = open_source(source).fingerprint()
    assert open_source(source).fingerprint() == first
    changed = source / "cat" / "1.png" if source.is_dir() else source
    changed.write_bytes(changed.read_bytes() + b"more")
    assert open_source(source).fingerprint() != first


@pytest.mark.parametrize("name", MAKERS)
def test_names_for_an_estimate_are_those_of_the_entries(tmp_path: Path, name: str) -> None:
    source = open_source(MAKERS[name](tmp_path / name))
    assert [found for found, _ in source.names()] == [item.name for item in source.stream()]
    assert all(fraction is None or 0 <= fraction <= 1 for _, fraction in source.names())


def test_names_in_a_folder_are_had_without_reading_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(folder_of(tmp_path / "folder"))
    monkeypatch.setattr("evergreen.data.sources.folder.read_file", lambda *_: pytest.fail("a file is read"))
    assert {name for name, _ in source.names()} == set(FILES)


@pytest.mark.parametrize("name", MAKERS)
def test_a_source_describes_itself_by_its_path(tmp_path: Path, name: str) -> None:
    source = open_source(MAKERS[name](tmp_path / name))
    assert source.describe() == str(tmp_path / name) and source.published_at is None
