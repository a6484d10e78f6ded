from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.data.inbox import Inbox, Row, read_corrections

A, B = "a" * 64, "b" * 64


def put(folder: Path, name: str, content: bytes = b"x") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_an_inbox_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert len(Inbox.look_into(tmp_path / "nowhere", 0)) == 0


@pytest.mark.parametrize("name", ["cat/a.png.part", "cat/a.tmp", "cat/.a.png", "pictures.zip.crdownload", "cat/a.png~"])
def test_a_file_whose_name_says_that_it_is_on_its_way_is_left(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    inbox = Inbox.look_into(tmp_path, 0)
    assert len(inbox) == 0 and list(inbox.left) == [name]


def test_a_file_that_changed_just_now_is_left_whatever_time_its_copier_gave_it(tmp_path: Path) -> None:
    os.utime(put(tmp_path, "cat/a.png"), (1, 1))
    assert list(Inbox.look_into(tmp_path, 3600).left) == ["cat/a.png"]
    assert [entry.name for entry in Inbox.look_into(tmp_path, 0).loose] == ["cat/a.png"]


def test_images_archives_and_corrections_are_distinguished(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png")
    put(tmp_path, "cat/b.csv")
    put(tmp_path, "fixes.csv", b"id,label\n")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("dog/c.png", b"y")
    inbox = Inbox.look_into(tmp_path, 0)
    assert [found.name for found in inbox.stream()] == ["cat/a.png", "cat/b.csv", "dog/c.png"]
    assert [entry.name for entry in inbox.corrections] == ["fixes.csv"]


def test_an_inbox_is_a_source(tmp_path: Path) -> None:
    path = put(tmp_path, "cat/a.png")
    inbox = Inbox.look_into(tmp_path, 0)
    assert [name for name, _ in inbox.names()] == ["cat/a.png"]
    assert (inbox.describe(), inbox.published_at) == (str(tmp_path), None)
    assert Inbox.look_into(tmp_path, 0).fingerprint() == inbox.fingerprint()
    path.write_bytes(b"longer")
    assert Inbox.look_into(tmp_path, 0).fingerprint() != inbox.fingerprint()


def test_what_was_taken_is_moved_and_not_seen_again(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        put(tmp_path, "cat/a.png", content)
        assert Inbox.look_into(tmp_path, 0).put_away() == 1
    assert len(Inbox.look_into(tmp_path, 0)) == 0
    assert {path.read_bytes() for path in (tmp_path / "taken/cat").iterdir()} == {b"one", b"two"}


def test_a_file_that_changed_while_it_was_read_stays(tmp_path: Path) -> None:
    path = put(tmp_path, "cat/a.png")
    inbox = Inbox.look_into(tmp_path, 0)
    path.write_bytes(b"longer")
    assert inbox.put_away() == 0
    assert path.read_bytes() == b"longer" and "changed" in inbox.left["cat/a.png"]


def test_a_damaged_archive_stays_with_its_reason(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("dog/c.png", b"y" * 1000)
    path = tmp_path / "more.zip"
    path.write_bytes(path.read_bytes()[:-30])
    inbox = Inbox.look_into(tmp_path, 0)
    list(inbox.stream())
    assert "damaged" in inbox.left["more.zip"]
    assert inbox.put_away() == 0 and path.exists()


def test_corrections_are_read_with_who_says_so() -> None:
    assert read_corrections(f"\ufeffId, Label,by\n{A.upper()},cat,Ada\n{B},dog,\n".encode()) == [
        Row(2, A, "cat", "Ada", None),
        Row(3, B, "dog", None, None),
    ]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"name,label\n", b'id,label\n"a', b"\x00\x01\x02"])
def test_an_unreadable_file_of_corrections_gives_a_reason(content: bytes) -> None:
    assert isinstance(read_corrections(content), str)


def test_two_labels_for_one_item_in_one_file_are_no_correction() -> None:
    rows = read_corrections(f"id,label\n{A},cat\n{A},dog\n{B},dog\nshort,cat\n".encode())
    assert isinstance(rows, list)
    assert ["several labels" in (row.problem or "") for row in rows] == [True, True, False, False]
    assert rows[3].id == "short" and rows[3].problem is None  # a path, perhaps


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_corrections_are_read_as_spreadsheets_write_them(encoding: str, delimiter: str) -> None:
    lines = [["Source", "Label", "by"], ["Äpfel/größe 1.png", "Birnen ", "Jörg"], [A, "Äpfel", ""]]
    content = "\r\n".join(delimiter.join(line) for line in lines).encode(encoding)
    assert read_corrections(content) == [Row(2, "Äpfel/größe 1.png", "Birnen", "Jörg", None), Row(3, A, "Äpfel", None, None)]


def test_the_id_of_a_line_is_before_its_path() -> None:
    assert read_corrections(f"source,id,label\ncat/1.png,{A},dog\ncat/2.png,,dog\n,,dog\n".encode()) == [
        Row(2, A, "dog", None, None), Row(3, "cat/2.png", "dog", None, None),
        Row(4, "", "dog", None, "it names no item, by its id (sha256) or its path"),
    ]  # fmt: skip


def test_files_whose_label_is_not_known_stay_and_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "Cat/a.png")
    put(tmp_path, "cat/b.png")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("wolf/c.png", b"y")
        archive.writestr("wolf/d.png", b"z")
    inbox = Inbox.look_into(tmp_path, 0)
    for found in inbox.stream():
        if (label := found.name.split("/")[0]) != "cat":
            inbox.leave(label)
    assert inbox.unknown == {"Cat": 1, "wolf": 2} and inbox.put_away() == 1
    again = Inbox.look_into(tmp_path, 0)
    assert [entry.name for entry in again.loose + again.archives] == ["Cat/a.png", "more.zip"]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_corrections(content: bytes) -> None:
    read_corrections(b"id,label\n" + content)
