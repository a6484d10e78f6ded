"""Which entries of a source are items, and what their paths say of them."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest

from evergreen.data.inbox import Inbox
from evergreen.data.sources.base import SourceEntry
from evergreen.data.sources.folder import FolderSource
from evergreen.errors import WrongUse
from evergreen.kinds.classify.recognition import InboxFiles, LabelledFiles, SourceFiles
from evergreen.kinds.classify.settings import ImageScenario

PATTERN = r"(?P<split>[^/]+)/(?P<label>[^/]+)/(?P<group>[^-]+)-[^/]+"


def scenario(**settings: Any) -> ImageScenario:
    return ImageScenario.model_validate(
        {
            "name": "pets",
            "kind": "classify",
            "seed": 1,
            "collect": {"path": "pets", "pattern": PATTERN} | settings,
            "validate": {"labels": ["cat", "dog"]},
            "preprocess": {"height": 8, "width": 8, "channels": 1},
            "train": {},
        }
    )


def source_files(**settings: Any) -> SourceFiles:
    return SourceFiles(scenario(**settings), FolderSource(Path("pets")))


def entry(name: str, **more: Any) -> SourceEntry:
    return SourceEntry(name, b"x", 1, **more)


def recognised(files: LabelledFiles, name: str) -> list[tuple[str, str | None, str | None]]:
    return [(one.label, one.group, one.split) for one in files.recognise(entry(name))]


def test_an_item_has_its_label_group_and_split_by_its_path() -> None:
    [item] = source_files(rename={"felis": "cat"}).recognise(entry("Testing/felis/p7-1.png"))
    assert (item.label, item.group, item.split) == ("cat", "p7", "test")
    assert item.id == hashlib.sha256(b"x").digest()


def test_what_the_pattern_does_not_take_and_leftovers_are_counted() -> None:
    files = source_files()
    names = ["notes.txt", "train/cat/.DS_Store", "train/@eaDir/p7-1.png", "train/cat/p7-1.png"]
    assert [bool(recognised(files, name)) for name in names] == [False, False, False, True]
    assert files.skipped.counts.total() == 3


def test_a_split_that_does_not_exist_is_refused() -> None:
    with pytest.raises(WrongUse, match="a split that there is not.*got 'blue'"):
        recognised(source_files(), "blue/cat/p7-1.png")


def test_a_source_without_items_is_refused_with_an_example() -> None:
    files = source_files()
    recognised(files, "notes.txt")
    with pytest.raises(WrongUse, match="no item in the source.*1 entries.*notes.txt"):
        files.finish(0)


def test_an_assumed_encoding_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    files = source_files()
    with caplog.at_level(logging.WARNING, "evergreen"):
        for number in range(3):
            list(files.recognise(entry(f"train/cat/p7-{number}.png", encoding="gbk")))
    assert sum("gbk was assumed" in line for line in caplog.messages) == 1


def test_an_inbox_keeps_what_has_an_unknown_label_and_may_be_empty(tmp_path: Path) -> None:
    for name in ("cat/a.png", "wolf/b.png", "top.png", "felis/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    inbox = Inbox.look_into(tmp_path, 0)
    files = InboxFiles(scenario(rename={"felis": "cat"}), inbox)
    items = [(item.entry.name, item.label) for found in inbox.stream() for item in files.recognise(found)]
    assert items == [("cat/a.png", "cat"), ("felis/c.png", "cat")]
    assert inbox.unknown == {"wolf": 1, "": 1} and not files.skipped.counts
    files.finish(0)
