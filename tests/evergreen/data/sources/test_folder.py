"""Folders, with the links in them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from evergreen.data.sources.opening import open_source
from tests.support.sources import folder_of, good, problems


def test_links_in_a_folder_are_followed_inside_it_only(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder", {"cat/1.png": b"one"})
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "cat" / "inside").symlink_to("1.png")
    (folder / "cat" / "outside").symlink_to(tmp_path / "secret")
    (folder / "cat" / "dangling").symlink_to("gone")
    (folder / "cat" / "round").symlink_to("round")
    (folder / "loop").symlink_to(folder)
    assert good(open_source(folder).stream()) == {"cat/1.png": b"one", "cat/inside": b"one"}
    assert problems(open_source(folder).stream()) == dict.fromkeys(["cat/outside", "cat/dangling", "cat/round", "loop"], "link")


def test_a_neighbour_with_a_longer_name_is_outside(tmp_path: Path) -> None:
    folder_of(tmp_path / "images-private", {"1.png": b"secret"})
    folder = folder_of(tmp_path / "images", {"cat/1.png": b"one"})
    (folder / "cat" / "2.png").symlink_to(tmp_path / "images-private" / "1.png")
    assert problems(open_source(folder).stream()) == {"cat/2.png": "link"}


def test_a_folder_given_by_a_link_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder", {"cat/1.png": b"one"})
    (folder / "cat" / "2.png").symlink_to(folder / "cat" / "1.png")
    (tmp_path / "link").symlink_to(folder)
    assert good(open_source(tmp_path / "link").stream()) == {"cat/1.png": b"one", "cat/2.png": b"one"}


def test_pipes_and_sockets_are_named_and_never_waited_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder", {"cat/1.png": b"one"})
    os.mkfifo(folder / "cat" / "pipe")
    (folder / "cat" / "linked").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        assert problems(open_source(folder).stream()) == {"cat/pipe": "not-a-file", "cat/linked": "link", "s": "not-a-file"}


def test_links_to_folders_are_followed_inside_the_source_and_named_where_they_leave_it(tmp_path: Path) -> None:
    folder_of(tmp_path / "pool", {"bird/1.png": b"1"})
    source = folder_of(tmp_path / "set", {"cat/1.png": b"2", "cat/old/2.png": b"3"})
    (source / "bird").symlink_to(tmp_path / "pool" / "bird")
    (source / "kitten").symlink_to("cat/old")
    (source / "cat" / "loop").symlink_to("..")
    found = list(open_source(source).stream())
    assert good(iter(found)) == {"cat/1.png": b"2", "cat/old/2.png": b"3", "kitten/2.png": b"3"}
    details = {one.name: one.detail for one in found if one.problem == "link"}
    assert details.keys() == {"bird", "cat/loop"} and f"to a folder: {tmp_path}/pool/bird" in details["bird"]
    assert good(open_source(source, follow_links=True).stream())["bird/1.png"] == b"1"
    assert open_source(source).fingerprint() != open_source(source, follow_links=True).fingerprint()


def test_a_new_a_renamed_and_a_removed_file_change_a_folders_fingerprint(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder")
    seen = {open_source(folder).fingerprint()}
    (folder / "cat" / "9.png").write_bytes(b"nine")
    seen.add(open_source(folder).fingerprint())
    (folder / "cat" / "9.png").rename(folder / "cat" / "8.png")
    seen.add(open_source(folder).fingerprint())
    (folder / "cat" / "1.png").unlink()
    seen.add(open_source(folder).fingerprint())
    assert len(seen) == 4


def test_what_is_not_wanted_is_not_read_and_a_pipe_is_known_even_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder", {"a.png": b"one", "b.csv": b"two"})
    os.mkfifo(folder / "c.mp4")
    found = {one.name: one for one in open_source(folder).select(lambda name: name.endswith(".csv"))}
    assert (found["a.png"].data, found["a.png"].size_bytes, found["b.csv"].data) == (None, 3, b"two")
    assert found["c.mp4"].problem == "not-a-file"
