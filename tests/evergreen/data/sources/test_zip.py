"""`.zip` archives: their names, links and encryption."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from evergreen.data.sources import safety
from evergreen.data.sources.opening import open_source
from evergreen.errors import DataRefused
from tests.support.sources import OUTSIDE_NAMES, good, problems, zip_of


@pytest.mark.parametrize("name", OUTSIDE_NAMES)
def test_a_zip_entry_that_points_outside_is_kept_apart(tmp_path: Path, name: str) -> None:
    [found] = open_source(zip_of(tmp_path / "a.zip", {name: b"evil"})).stream()
    assert (found.problem, found.data) == ("outside", b"evil")


@pytest.mark.parametrize(("mode", "problem"), [(0o120777, "link"), (0o010644, "not-a-file"), (0o060644, "not-a-file")])
def test_links_and_devices_in_a_zip_are_problems(tmp_path: Path, mode: int, problem: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("cat/trap.png")
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, "/etc/passwd")
    assert problems(open_source(tmp_path / "a.zip").stream()) == {"cat/trap.png": problem}


def test_a_million_entries_are_refused_without_reading_them(tmp_path: Path) -> None:
    """A .zip of 46 MB whose list names more than a million entries."""
    one = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = safety.MAX_ENTRIES + 1
    (tmp_path / "a.zip").write_bytes(
        b"PK\3\4" + one * count + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, count * len(one), 4, 0)
    )
    with pytest.raises(DataRefused, match="too many entries"):
        list(open_source(tmp_path / "a.zip").stream())


def test_one_damaged_or_encrypted_entry_of_a_zip_does_not_spoil_the_others(tmp_path: Path) -> None:
    files = {"cat/1.png": b"first" * 9, "cat/2.png": b"second" * 9, "cat/3.png": b"third" * 9}
    source = zip_of(tmp_path / "a.zip", files, zipfile.ZIP_STORED)
    content = source.read_bytes().replace(b"secondsecond", b"secondSECOND")
    encrypted = content.rindex(b"PK\1\2")
    changed = bytearray(content)
    changed[encrypted + 8] |= 1
    source.write_bytes(changed)
    found = list(open_source(source).stream())
    assert good(iter(found)) == {"cat/1.png": files["cat/1.png"]}
    assert problems(iter(found)) == {"cat/2.png": "unreadable", "cat/3.png": "unreadable"}


class OldZipInfo(zipfile.ZipInfo):
    """An entry as old Windows programs write it: its name in bytes of a code page, without the flag for UTF-8."""

    __slots__ = ("raw",)

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw, 0


def old_zip(path: Path, names: dict[str, bytes], raw: Callable[[str], bytes], extra: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in names.items():
            info = OldZipInfo("x")
            info.filename, info.raw, info.extra = name, raw(name), extra
            archive.writestr(info, data)
    return path


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "big5", "cp850"])
def test_a_zip_of_another_code_page_gives_the_labels_that_were_meant(tmp_path: Path, encoding: str) -> None:
    labels = {"gbk": "猫狗马", "shift_jis": "猫犬馬", "big5": "貓狗馬", "cp850": ["gut", "Riß", "Übermaß"]}[encoding]
    files = {f"{label}/{number}.png": b"x" for label in labels for number in range(5)}
    found = list(open_source(old_zip(tmp_path / "a.zip", files, lambda name: name.encode(encoding))).stream())
    assert good(iter(found)) == files
    assert {one.encoding for one in found} - {None}  # it is said that it was assumed


def test_the_unicode_path_that_a_zip_carries_beside_the_old_name_is_used(tmp_path: Path) -> None:
    raw, name = b"\x81\x82.png", "größe.png"
    field = b"\1" + zlib.crc32(raw).to_bytes(4, "little") + name.encode()
    extra = (0x7075).to_bytes(2, "little") + len(field).to_bytes(2, "little") + field
    [found] = open_source(old_zip(tmp_path / "a.zip", {"x.png": b"x"}, lambda _: raw, extra)).stream()
    assert (found.name, found.encoding) == (name, None)


def test_backslashes_of_a_zip_from_windows_are_folders(tmp_path: Path) -> None:
    source = old_zip(tmp_path / "a.zip", {"cat\\1.png": b"1", "dog\\2.png": b"2"}, str.encode)
    assert good(open_source(source).stream()) == {"cat/1.png": b"1", "dog/2.png": b"2"}


def test_a_zip_whose_backslashes_lead_out_is_still_hostile(tmp_path: Path) -> None:
    [found] = open_source(old_zip(tmp_path / "a.zip", {"..\\evil.png": b"x"}, str.encode)).stream()
    assert found.problem == "outside"


@pytest.mark.parametrize(("local", "central", "value", "words"), [(6, 8, 1, "is encrypted"), (8, 10, 9, "Deflate64")])
def test_an_archive_of_which_nothing_can_be_read_says_why(
    tmp_path: Path, local: int, central: int, value: int, words: str
) -> None:
    data = bytearray(zip_of(tmp_path / "a.zip").read_bytes())
    for sign, at in ((b"PK\3\4", local), (b"PK\1\2", central)):
        index = -1
        while (index := data.find(sign, index + 1)) >= 0:
            data[index + at] = value
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataRefused, match=f"{words}.*7z x.*give the folder"):
        list(open_source(tmp_path / "a.zip").stream())
