"""Folders and archives are read item by item, hostile ones too, and nothing of them lands on disk."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evergreen.data import sources
from evergreen.data.sources import Found, archive_kind, fingerprint, locate, stream
from evergreen.errors import DataRefused, EvergreenError, WrongUse
from evergreen.media.images import inspect
from evergreen.names import readable_name
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

FILES = {"cat/1.png": b"one", "cat/2.png": b"two", "dog/old/3.png": b"three", "dog/empty": b"", "top.txt": b"text"}


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


def good(found: Iterator[Found]) -> dict[str, bytes | None]:
    return {item.name: item.data for item in found if item.problem is None}


def problems(found: Iterator[Found]) -> dict[str, str]:
    return {item.name: item.problem for item in found if item.problem is not None}


@pytest.mark.parametrize("name", MAKERS)
def test_every_kind_of_source_gives_its_files_byte_for_byte(tmp_path: Path, name: str) -> None:
    source = MAKERS[name](tmp_path / name)
    found = list(stream(source))
    assert {item.name: item.data for item in found} == FILES
    assert all(item.problem is None and item.size_bytes == len(item.data or b"") for item in found)
    assert all(item.share is None or 0 <= item.share <= 1 for item in found)
    assert [item.name for item in stream(source)] == [item.name for item in found]


@pytest.mark.parametrize("name", MAKERS)
def test_reading_writes_nothing(tmp_path: Path, name: str) -> None:
    source = MAKERS[name](tmp_path / name)
    before = listing(tmp_path)
    list(stream(source))
    assert listing(tmp_path) == before


def listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def test_the_digits_are_the_same_bytes_everywhere() -> None:
    found = list(stream("digits"))
    assert len(found) == 1797 and found[0].name == "digits/0/0000.png" and found[-1].share == 1
    digest = hashlib.sha256(b"".join(item.data or b"" for item in found)).hexdigest()
    assert digest == "82be77aa2939271dc94b902b92ae6b4a97fb35c81a82d06c5b7da467be0b10b3"
    looks = inspect(found[0].data or b"").header
    assert (looks.width, looks.height, looks.channels) == (8, 8, 1)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("odd", ["cat/with spaces.png", "cat/two\nlines.png", "größe/日本.png", "cat/'\"$`;&|.png", "cat/-rf"])
def test_odd_names_come_through_unchanged(tmp_path: Path, name: str, odd: str) -> None:
    files = {odd: b"x"}
    if name == "folder":
        source = folder_of(tmp_path / name, files)
    else:
        source = zip_of(tmp_path / name, files) if name.endswith("zip") else tar_of(tmp_path / name, files)
    assert good(stream(source)) == files


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
        assert good(stream(tmp_path / source, encoding="ascii")) == {"caf\\xe9/\\xff\\xfe.png": b"x"}
    assert readable_name(raw) == "caf\\xe9/\\xff\\xfe.png"


def test_names_in_an_archive_of_the_current_folder_are_those_of_the_folder(tmp_path: Path) -> None:
    names = {"./cat/1.png": "cat/1.png", ".//cat/2.png": "cat/2.png", "././3.png": "3.png", "./.hidden": ".hidden"}
    source = tar_of(tmp_path / "a.tar", dict.fromkeys(names, b"x"))
    assert [found.name for found in stream(source)] == list(names.values())


def test_an_archive_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    for name, kind in {"images.tar": "tar", "images.tar.gz": "tar.gz", "images.zip": "zip"}.items():
        disguised = MAKERS[name](tmp_path / name).rename(tmp_path / f"{name}.jpg")
        assert archive_kind(disguised) == kind
        assert good(stream(disguised)) == FILES


@pytest.mark.parametrize("content", [b"", b"just text", b"Rar!\x1a\x07\x00", bytes(range(256)) * 4])
def test_what_is_no_archive_is_refused_with_what_would_be(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(content)
    with pytest.raises(WrongUse, match=r"folder of images, or a \.tar, \.tar\.gz or \.zip"):
        stream(path)


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="nowhere"):
        stream(tmp_path / "nowhere.tar")


def test_an_empty_folder_and_empty_archives_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for source in (tmp_path / "folder", tar_of(tmp_path / "a.tar", {}), zip_of(tmp_path / "a.zip", {})):
        assert list(stream(source)) == []


def test_links_in_a_folder_are_followed_inside_it_only(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder", {"cat/1.png": b"one"})
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "cat" / "inside").symlink_to("1.png")
    (folder / "cat" / "outside").symlink_to(tmp_path / "secret")
    (folder / "cat" / "dangling").symlink_to("gone")
    (folder / "cat" / "round").symlink_to("round")
    (folder / "loop").symlink_to(folder)
    assert good(stream(folder)) == {"cat/1.png": b"one", "cat/inside": b"one"}
    assert problems(stream(folder)) == dict.fromkeys(["cat/outside", "cat/dangling", "cat/round", "loop"], "link")


def test_a_neighbour_with_a_longer_name_is_outside(tmp_path: Path) -> None:
    folder_of(tmp_path / "images-private", {"1.png": b"secret"})
    folder = folder_of(tmp_path / "images", {"cat/1.png": b"one"})
    (folder / "cat" / "2.png").symlink_to(tmp_path / "images-private" / "1.png")
    assert problems(stream(folder)) == {"cat/2.png": "link"}


def test_a_folder_given_by_a_link_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder", {"cat/1.png": b"one"})
    (folder / "cat" / "2.png").symlink_to(folder / "cat" / "1.png")
    (tmp_path / "link").symlink_to(folder)
    assert good(stream(tmp_path / "link")) == {"cat/1.png": b"one", "cat/2.png": b"one"}


def test_pipes_and_sockets_are_named_and_never_waited_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder", {"cat/1.png": b"one"})
    os.mkfifo(folder / "cat" / "pipe")
    (folder / "cat" / "linked").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        assert problems(stream(folder)) == {"cat/pipe": "not-a-file", "cat/linked": "link", "s": "not-a-file"}


@pytest.mark.parametrize("name", MAKERS)
def test_an_item_too_large_for_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(sources, "MAX_ITEM_BYTES", 4)
    source = MAKERS[name](tmp_path / name)
    found = list(stream(source))
    assert problems(iter(found)) == {"dog/old/3.png": "too-large"}
    assert next(item for item in found if item.problem).data is None


# What attackers pack: (name, how it is put into a .tar). Each ends as a problem of this reason.
def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    if kind == tarfile.REGTYPE:
        member.size = 4
    return member


HOSTILE = {
    "outside": [
        "../evil",
        "../../../../tmp/evergreen-evil",
        "/evergreen-evil",
        "cat/../../evil",
        "cat/..",
        "..\\evil",
        "C:\\evil",
        "C:/evil",
        "\\evil",
    ],
    "link": ["link-up", "link-root", "hard"],
    "not-a-file": ["pipe", "disk", "terminal"],
}


def hostile_entry(generator: random.Random) -> tuple[tarfile.TarInfo, str]:
    """An entry and the problem that it must become."""
    problem = generator.choice(list(HOSTILE))
    name = generator.choice(HOSTILE[problem])
    if problem == "outside":
        return entry(name), problem
    types = {
        "link-up": entry(name, tarfile.SYMTYPE, "../" * generator.randint(1, 9) + "etc/passwd"),
        "link-root": entry(name, tarfile.SYMTYPE, "/etc/passwd"),
        "hard": entry(name, tarfile.LNKTYPE, generator.choice(["/etc/passwd", "cat/good.png", "../evil"])),
        "pipe": entry(name, tarfile.FIFOTYPE),
        "disk": entry(name, tarfile.BLKTYPE),
        "terminal": entry(name, tarfile.CHRTYPE),
    }
    return types[name], problem


@pytest.mark.parametrize("seed", range(50))
def test_a_hostile_archive_writes_nothing_and_names_each_trap(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    expected: list[tuple[str, str | None]] = []
    late: list[tuple[str, str | None]] = []
    path = tmp_path / "in" / "hostile.tar"
    path.parent.mkdir()
    with tarfile.open(path, generator.choice(["w", "w:gz"]), format=generator.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])) as archive:  # fmt: skip
        for number in range(generator.randint(2, 12)):
            if generator.random() < 0.3:
                member, problem = entry(f"cat/good-{number}.png"), None
            else:
                member, problem = hostile_entry(generator)
            archive.addfile(member, io.BytesIO(b"evil") if member.isreg() else None)
            expected.append((member.name, problem))
            if member.islnk() and member.linkname == "cat/good.png":  # which might have been there: these come last
                late.append(expected.pop())
    before = listing(tmp_path)
    assert [(item.name, item.problem) for item in stream(path)] == expected + late
    assert listing(tmp_path) == before and not Path("/evergreen-evil").exists() and not Path("/tmp/evergreen-evil").exists()


@pytest.mark.parametrize("name", HOSTILE["outside"])
def test_a_zip_entry_that_points_outside_is_kept_apart(tmp_path: Path, name: str) -> None:
    [found] = stream(zip_of(tmp_path / "a.zip", {name: b"evil"}))
    assert (found.problem, found.data) == ("outside", b"evil")


@pytest.mark.parametrize(("mode", "problem"), [(0o120777, "link"), (0o010644, "not-a-file"), (0o060644, "not-a-file")])
def test_links_and_devices_in_a_zip_are_problems(tmp_path: Path, mode: int, problem: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("cat/trap.png")
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, "/etc/passwd")
    assert problems(stream(tmp_path / "a.zip")) == {"cat/trap.png": problem}


def test_an_archive_in_an_archive_is_an_item_and_is_not_opened(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip").read_bytes()
    outer = tar_of(tmp_path / "outer.tar", {"cat/inner.zip": inner})
    assert good(stream(outer)) == {"cat/inner.zip": inner}


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz", "images.zip"])
def test_an_archive_of_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    source = MAKERS[name](tmp_path / name)
    monkeypatch.setattr(sources, "MAX_ENTRIES", 4)
    with pytest.raises(DataRefused, match="too many entries; expected at most 4"):
        list(stream(source))
    monkeypatch.setattr(sources, "MAX_ENTRIES", 5)
    assert len(list(stream(source))) == 5


def test_a_million_entries_are_refused_without_reading_them(tmp_path: Path) -> None:
    """A .zip of 46 MB whose list names more than a million entries."""
    one = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = sources.MAX_ENTRIES + 1
    (tmp_path / "a.zip").write_bytes(
        b"PK\3\4" + one * count + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, count * len(one), 4, 0)
    )
    with pytest.raises(DataRefused, match="too many entries"):
        list(stream(tmp_path / "a.zip"))


def test_a_bomb_is_refused_after_the_free_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FREE_EXPANSION_BYTES", 2**20)
    files = {f"cat/{number}.png": bytes(2**20) for number in range(8)}
    for source in (tar_of(tmp_path / "a.tar.gz", files, "w:gz"), zip_of(tmp_path / "a.zip", files)):
        with pytest.raises(DataRefused, match="expands beyond measure"):
            list(stream(source))


def test_a_tar_header_that_claims_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(DataRefused, match="damaged"):
        list(stream(tmp_path / "a.tar"))


def test_headers_nested_without_end_are_refused(tmp_path: Path) -> None:
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 4
    piece = long_name.tobuf(tarfile.GNU_FORMAT) + b"name" + bytes(508)
    (tmp_path / "a.tar").write_bytes(piece * 5000 + bytes(1024))
    with pytest.raises(DataRefused, match="damaged"):
        list(stream(tmp_path / "a.tar"))


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz", "images.zip"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_archive_is_refused_as_damaged(tmp_path: Path, name: str, share: float) -> None:
    files = {f"cat/{number}.png": random.Random(number).randbytes(3000) for number in range(30)}
    source = zip_of(tmp_path / name, files) if name.endswith("zip") else tar_of(tmp_path / name, files, "w:gz" if name.endswith("gz") else "w")  # fmt: skip
    os.truncate(source, int(source.stat().st_size * share))
    with pytest.raises(DataRefused, match="damaged"):
        list(stream(source))


@pytest.mark.parametrize("cut", [512, 1024, 1024 + 100, 5 * 512])
def test_a_tar_cut_off_between_two_entries_or_within_a_header_is_damaged(tmp_path: Path, cut: int) -> None:
    source = tar_of(tmp_path / "a.tar", {f"cat/{number}.png": b"x" for number in range(9)})
    os.truncate(source, cut)
    with pytest.raises(DataRefused, match="damaged"):
        list(stream(source))


def test_a_tar_with_a_damaged_header_in_the_middle_is_damaged(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar", {f"cat/{number}.png": b"x" for number in range(9)})
    content = bytearray(source.read_bytes())
    content[4 * 1024 + 10] ^= 0xFF
    source.write_bytes(content)
    with pytest.raises(DataRefused, match="damaged after 4 entries"):
        list(stream(source))


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
            for found in stream(tmp_path / name):
                assert (found.problem is None) <= (found.data is not None)
        except (DataRefused, WrongUse) as refusal:
            assert "\n" not in str(refusal)


def test_one_damaged_or_encrypted_entry_of_a_zip_does_not_spoil_the_others(tmp_path: Path) -> None:
    files = {"cat/1.png": b"first" * 9, "cat/2.png": b"second" * 9, "cat/3.png": b"third" * 9}
    source = zip_of(tmp_path / "a.zip", files, zipfile.ZIP_STORED)
    content = source.read_bytes().replace(b"secondsecond", b"secondSECOND")
    encrypted = content.rindex(b"PK\1\2")
    changed = bytearray(content)
    changed[encrypted + 8] |= 1
    source.write_bytes(changed)
    found = list(stream(source))
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
    found = list(stream(old_zip(tmp_path / "a.zip", files, lambda name: name.encode(encoding))))
    assert good(iter(found)) == files
    assert {one.encoding for one in found} - {None}  # it is said that it was assumed


def test_the_unicode_path_that_a_zip_carries_beside_the_old_name_is_used(tmp_path: Path) -> None:
    raw, name = b"\x81\x82.png", "größe.png"
    field = b"\1" + zlib.crc32(raw).to_bytes(4, "little") + name.encode()
    extra = (0x7075).to_bytes(2, "little") + len(field).to_bytes(2, "little") + field
    [found] = stream(old_zip(tmp_path / "a.zip", {"x.png": b"x"}, lambda _: raw, extra))
    assert (found.name, found.encoding) == (name, None)


def test_backslashes_of_a_zip_from_windows_are_folders(tmp_path: Path) -> None:
    source = old_zip(tmp_path / "a.zip", {"cat\\1.png": b"1", "dog\\2.png": b"2"}, str.encode)
    assert good(stream(source)) == {"cat/1.png": b"1", "dog/2.png": b"2"}


def test_a_zip_whose_backslashes_lead_out_is_still_hostile(tmp_path: Path) -> None:
    [found] = stream(old_zip(tmp_path / "a.zip", {"..\\evil.png": b"x"}, str.encode))
    assert found.problem == "outside"


@pytest.mark.parametrize(("local", "central", "value", "words"), [(6, 8, 1, "is encrypted"), (8, 10, 9, "Deflate64")])
def test_an_archive_of_which_nothing_can_be_read_says_why(
    tmp_path: Path, local: int, central: int, value: int, words: str
) -> None:
    data = bytearray(zip_of(tmp_path / "a.zip").read_bytes())
    for sign, at in ((b"PK\3\4", local), (b"PK\1\2", central)):
        place = -1
        while (place := data.find(sign, place + 1)) >= 0:
            data[place + at] = value
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataRefused, match=f"{words}.*7z x.*give the folder"):
        list(stream(tmp_path / "a.zip"))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_hard_link_to_an_earlier_file_of_the_tar_is_that_file(tmp_path: Path, mode: Any) -> None:
    with tarfile.open(tmp_path / "a.tar", mode) as archive:
        archive.addfile(entry("./cat/early.png", tarfile.LNKTYPE, "cat/1.png"))  # before what it leads to: nothing
        archive.addfile(entry("cat/1.png"), io.BytesIO(b"evil"))
        archive.addfile(entry("dog/same.png", tarfile.LNKTYPE, "./cat/1.png"))
    found = list(stream(tmp_path / "a.tar"))
    assert good(iter(found)) == {"cat/1.png": b"evil", "dog/same.png": b"evil"}
    assert problems(iter(found)) == {"cat/early.png": "link"}


def test_links_to_folders_are_followed_inside_the_source_and_named_where_they_leave_it(tmp_path: Path) -> None:
    folder_of(tmp_path / "pool", {"bird/1.png": b"1"})
    source = folder_of(tmp_path / "set", {"cat/1.png": b"2", "cat/old/2.png": b"3"})
    (source / "bird").symlink_to(tmp_path / "pool" / "bird")
    (source / "kitten").symlink_to("cat/old")
    (source / "cat" / "loop").symlink_to("..")
    found = list(stream(source))
    assert good(iter(found)) == {"cat/1.png": b"2", "cat/old/2.png": b"3", "kitten/2.png": b"3"}
    details = {one.name: one.detail for one in found if one.problem == "link"}
    assert details.keys() == {"bird", "cat/loop"} and f"to a folder: {tmp_path}/pool/bird" in details["bird"]
    assert good(stream(source, follow_links=True))["bird/1.png"] == b"1"
    assert fingerprint(source) != fingerprint(source, follow_links=True)


def public(url: str | None = "https://example.invalid/images.tar", sha256: str | None = None) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "pets",
            "kind": "classify",
            "seed": 1,
            "collect": {"file": "images.tar", "url": url, "sha256": sha256},
            "validate": {"labels": ["cat", "dog"]},
            "preprocess": {"height": 8, "width": 8, "channels": 1},
            "train": {},
        }
    )


def own(path: str) -> Scenario:
    return public().model_copy(update={"collect": public().collect.model_copy(update={"file": None, "path": path})})


@pytest.fixture
def samples_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    monkeypatch.setenv("EVERGREEN_SAMPLES", str(folder))
    return folder


def test_a_public_file_is_taken_from_the_samples_folder(workspace: Workspace, samples_folder: Path) -> None:
    path = tar_of(samples_folder / "images.tar")
    assert locate(public(), workspace) == path
    assert locate(public(sha256=hashlib.sha256(path.read_bytes()).hexdigest()), workspace) == path


def test_an_earlier_download_is_used_again(workspace: Workspace, samples_folder: Path) -> None:
    downloads = workspace.private / "downloads"
    downloads.mkdir(parents=True)
    path = tar_of(downloads / "images.tar")
    assert locate(public(), workspace) == path


def test_a_file_that_is_nowhere_says_what_to_fetch_and_where_to_put_it(workspace: Workspace, samples_folder: Path) -> None:
    for refused in (locate_error(public(), workspace), locate_error(public(), workspace, download=False)):
        assert "https://example.invalid/images.tar" in refused
        assert str(samples_folder / "images.tar") in refused and "EVERGREEN_SAMPLES" in refused
    assert not list((workspace.private / "downloads").iterdir())


def locate_error(scenario: Scenario, workspace: Workspace, **options: bool) -> str:
    with pytest.raises(EvergreenError) as refused:
        locate(scenario, workspace, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_without_an_address_says_where_to_put_it(workspace: Workspace, samples_folder: Path) -> None:
    assert str(samples_folder / "images.tar") in locate_error(public(url=None), workspace)


def test_a_file_with_the_wrong_checksum_is_not_used(workspace: Workspace, samples_folder: Path) -> None:
    path = tar_of(samples_folder / "images.tar")
    refused = locate_error(public(sha256="0" * 64), workspace)
    assert f"{path} had the wrong checksum" in refused and "https://example.invalid" in refused


def test_your_own_path_is_relative_to_the_checkout_or_absolute(workspace: Workspace) -> None:
    folder = folder_of(workspace.root / "mine")
    assert locate(own("mine"), workspace) == folder == locate(own(str(folder)), workspace)
    assert "collect.path" in locate_error(own("yours"), workspace)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback: its address and the folder that it serves."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "web"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_a_download_is_kept_once_its_checksum_is_right(
    workspace: Workspace, samples_folder: Path, web: tuple[str, Path]
) -> None:
    address, folder = web
    content = tar_of(folder / "images.tar").read_bytes()
    right = hashlib.sha256(content).hexdigest()
    refused = locate_error(public(f"{address}/images.tar", "0" * 64), workspace)
    assert "gave something else" in refused and right in refused
    assert "not found" in locate_error(public(f"{address}/gone.tar", right), workspace).lower()
    assert not list((workspace.private / "downloads").iterdir())
    path = locate(public(f"{address}/images.tar", right), workspace)
    assert isinstance(path, Path) and path.read_bytes() == content
    (folder / "images.tar").unlink()
    assert locate(public(f"{address}/images.tar", right), workspace) == path


@pytest.mark.parametrize("name", MAKERS)
def test_a_changed_source_has_another_fingerprint(tmp_path: Path, name: str) -> None:
    source = MAKERS[name](tmp_path / name)
    first = fingerprint(source)
    assert fingerprint(source) == first
    changed = source / "cat" / "1.png" if source.is_dir() else source
    changed.write_bytes(changed.read_bytes() + b"more")
    assert fingerprint(source) != first


def test_a_new_a_renamed_and_a_removed_file_change_a_folders_fingerprint(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder")
    seen = {fingerprint(folder)}
    (folder / "cat" / "9.png").write_bytes(b"nine")
    seen.add(fingerprint(folder))
    (folder / "cat" / "9.png").rename(folder / "cat" / "8.png")
    seen.add(fingerprint(folder))
    (folder / "cat" / "1.png").unlink()
    seen.add(fingerprint(folder))
    assert len(seen) == 4


def test_a_gzip_file_that_holds_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"just text" * 200))
    with pytest.raises(DataRefused, match="damaged"):
        list(stream(tmp_path / "a.tar.gz"))
