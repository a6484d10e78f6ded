"""Archives of every format, damaged and hostile ones too."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from evergreen.data.sources import safety
from evergreen.data.sources.archive import archive_kind
from evergreen.data.sources.opening import open_source
from evergreen.errors import DataRefused, WrongUse
from tests.support.sources import FILES, MAKERS, good, tar_of, zip_of


def test_an_archive_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    for name, kind in {"images.tar": "tar", "images.tar.gz": "tar.gz", "images.zip": "zip"}.items():
        disguised = MAKERS[name](tmp_path / name).rename(tmp_path / f"{name}.jpg")
        assert archive_kind(disguised) == kind
        assert good(open_source(disguised).stream()) == FILES


@pytest.mark.parametrize("content", [b"", b"just text", b"Rar!\x1a\x07\x00", bytes(range(256)) * 4])
def test_what_is_no_archive_is_refused_with_what_would_be(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(content)
    with pytest.raises(WrongUse, match=r"folder of images, or a \.tar, \.tar\.gz or \.zip"):
        open_source(path).stream()


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="nowhere"):
        open_source(tmp_path / "nowhere.tar").stream()


def test_an_archive_in_an_archive_is_an_item_and_is_not_opened(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip").read_bytes()
    outer = tar_of(tmp_path / "outer.tar", {"cat/inner.zip": inner})
    assert good(open_source(outer).stream()) == {"cat/inner.zip": inner}


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz", "images.zip"])
def test_an_archive_of_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    source = MAKERS[name](tmp_path / name)
    monkeypatch.setattr(safety, "MAX_ENTRIES", 4)
    with pytest.raises(DataRefused, match="too many entries; expected at most 4"):
        list(open_source(source).stream())
    monkeypatch.setattr(safety, "MAX_ENTRIES", 5)
    assert len(list(open_source(source).stream())) == 5


def test_a_bomb_is_refused_after_the_free_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "FREE_EXPANSION_BYTES", 2**20)
    files = {f"cat/{number}.png": bytes(2**20) for number in range(8)}
    for source in (tar_of(tmp_path / "a.tar.gz", files, "w:gz"), zip_of(tmp_path / "a.zip", files)):
        with pytest.raises(DataRefused, match="expands beyond measure"):
            list(open_source(source).stream())


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz", "images.zip"])
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_archive_is_refused_as_damaged(tmp_path: Path, name: str, fraction: float) -> None:
    files = {f"cat/{number}.png": random.Random(number).randbytes(3000) for number in range(30)}
    source = zip_of(tmp_path / name, files) if name.endswith("zip") else tar_of(tmp_path / name, files, "w:gz" if name.endswith("gz") else "w")  # fmt: skip
    os.truncate(source, int(source.stat().st_size * fraction))
    with pytest.raises(DataRefused, match="damaged"):
        list(open_source(source).stream())


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz", "images.zip"])
def test_an_archive_with_changed_bytes_gives_items_or_a_clear_refusal(tmp_path: Path, name: str) -> None:
    content = MAKERS[name](tmp_path / name).read_bytes()
    generator = random.Random(name)
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(generator.randint(1, 8)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        (tmp_path / name).write_bytes(changed)
        try:
            for found in open_source(tmp_path / name).stream():
                assert (found.problem is None) <= (found.data is not None)
        except (DataRefused, WrongUse) as refusal:
            assert "\n" not in str(refusal)
