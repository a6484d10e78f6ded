"""`.tar` and `.tar.gz` archives, hostile ones too."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

from evergreen.data.sources.opening import open_source
from evergreen.errors import DataRefused
from tests.support.sources import OUTSIDE_NAMES, good, listing, problems, tar_of


def test_names_in_an_archive_of_the_current_folder_are_those_of_the_folder(tmp_path: Path) -> None:
    names = {"./cat/1.png": "cat/1.png", ".//cat/2.png": "cat/2.png", "././3.png": "3.png", "./.hidden": ".hidden"}
    source = tar_of(tmp_path / "a.tar", dict.fromkeys(names, b"x"))
    assert [found.name for found in open_source(source).stream()] == list(names.values())


# What attackers pack: (name, how it is put into a .tar). Each ends as a problem of this reason.
def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    if kind == tarfile.REGTYPE:
        member.size = 4
    return member


HOSTILE = {
    "outside": OUTSIDE_NAMES,
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
    assert [(item.name, item.problem) for item in open_source(path).stream()] == expected + late
    assert listing(tmp_path) == before and not Path("/evergreen-evil").exists() and not Path("/tmp/evergreen-evil").exists()


def test_a_tar_header_that_claims_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(DataRefused, match="damaged"):
        list(open_source(tmp_path / "a.tar").stream())


def test_headers_nested_without_end_are_refused(tmp_path: Path) -> None:
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 4
    piece = long_name.tobuf(tarfile.GNU_FORMAT) + b"name" + bytes(508)
    (tmp_path / "a.tar").write_bytes(piece * 5000 + bytes(1024))
    with pytest.raises(DataRefused, match="damaged"):
        list(open_source(tmp_path / "a.tar").stream())


@pytest.mark.parametrize("cut", [512, 1024, 1024 + 100, 5 * 512])
def test_a_tar_cut_off_between_two_entries_or_within_a_header_is_damaged(tmp_path: Path, cut: int) -> None:
    source = tar_of(tmp_path / "a.tar", {f"cat/{number}.png": b"x" for number in range(9)})
    os.truncate(source, cut)
    with pytest.raises(DataRefused, match="damaged"):
        list(open_source(source).stream())


def test_a_tar_with_a_damaged_header_in_the_middle_is_damaged(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar", {f"cat/{number}.png": b"x" for number in range(9)})
    content = bytearray(source.read_bytes())
    content[4 * 1024 + 10] ^= 0xFF
    source.write_bytes(content)
    with pytest.raises(DataRefused, match="damaged after 4 entries"):
        list(open_source(source).stream())


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_hard_link_to_an_earlier_file_of_the_tar_is_that_file(tmp_path: Path, mode: Any) -> None:
    with tarfile.open(tmp_path / "a.tar", mode) as archive:
        archive.addfile(entry("./cat/early.png", tarfile.LNKTYPE, "cat/1.png"))  # before what it leads to: nothing
        archive.addfile(entry("cat/1.png"), io.BytesIO(b"evil"))
        archive.addfile(entry("dog/same.png", tarfile.LNKTYPE, "./cat/1.png"))
    found = list(open_source(tmp_path / "a.tar").stream())
    assert good(iter(found)) == {"cat/1.png": b"evil", "dog/same.png": b"evil"}
    assert problems(iter(found)) == {"cat/early.png": "link"}


def test_a_gzip_file_that_holds_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"just text" * 200))
    with pytest.raises(DataRefused, match="damaged"):
        list(open_source(tmp_path / "a.tar.gz").stream())
