"""What stands in an inbox, what of it is ready, and how it leaves."""

from __future__ import annotations

import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evergreen.errors import WrongUse
from evergreen.inbox import Inbox, clear, entries, folder, look_into
from evergreen.scenario import Scenario
from evergreen.workspace import Workspace

WHEN = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With two images, an archive, and what is none of these."""
    monkeypatch.setattr("evergreen.inbox.SETTLED_SECONDS", -1)
    root = tmp_path / "inbox"
    for name in ("3/a.png", "7/camera 1/b.png", "loose.png", "notes.txt", ".hidden/c.png", "7/d.png.part"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    with zipfile.ZipFile(root / "monday.zip", "w") as archive:
        archive.writestr("3/e.png", b"e")
        archive.writestr("f.png", b"f")
    return root


@pytest.fixture
def quickstart(workspace: Workspace) -> Scenario:
    return Scenario.load(workspace.scenarios, "quickstart")


def ready(inbox: Path) -> list[str]:
    return [file.path for file in look_into(inbox).ready]


def test_images_in_labels_folders_and_archives_are_ready_and_the_rest_stays(inbox: Path) -> None:
    found = look_into(inbox)
    assert [file.path for file in found.ready] == ["3/a.png", "7/camera 1/b.png", "monday.zip"]
    assert found.passed_over == ("loose.png", "notes.txt")
    assert found.unfinished == 1


def test_an_inbox_that_nobody_has_made_is_empty(tmp_path: Path) -> None:
    assert look_into(tmp_path / "none") == Inbox((), 0, ())


def test_an_inbox_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_text("")
    with pytest.raises(WrongUse, match="cannot be listed"):
        look_into(tmp_path / "inbox")


def test_a_file_that_was_written_to_just_now_is_left_for_the_next_time(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evergreen.inbox.SETTLED_SECONDS", 3600)
    os.utime(inbox / "3" / "a.png", (0, 0))  # as a copy that keeps times would do
    assert look_into(inbox).unfinished == 6 and not ready(inbox)


def test_each_item_has_its_labels_folder_in_its_name(inbox: Path, quickstart: Scenario) -> None:
    found = {entry.name: entry for entry in entries(inbox, look_into(inbox).ready, quickstart)}
    assert sorted(found) == ["3/a.png", "7/camera 1/b.png", "monday.zip/3/e.png", "monday.zip/f.png"]
    assert found["3/a.png"].data == b"3/a.png" and found["monday.zip/3/e.png"].data == b"e"


def test_a_label_that_the_scenario_does_not_know_is_a_problem_of_the_item_alone(inbox: Path, quickstart: Scenario) -> None:
    problems = {entry.name: entry.problem for entry in entries(inbox, look_into(inbox).ready, quickstart)}
    assert problems == {
        "3/a.png": None,
        "7/camera 1/b.png": "unknown-label",  # the nearest folder names the label
        "monday.zip/3/e.png": None,
        "monday.zip/f.png": "unknown-label",
    }


def test_a_damaged_archive_is_one_unreadable_item(inbox: Path, quickstart: Scenario) -> None:
    (inbox / "monday.zip").write_bytes(b"PK\3\4 and no more")
    (last,) = list(entries(inbox, look_into(inbox).ready, quickstart))[2:]
    assert (last.name, last.problem) == ("monday.zip/the archive", "unreadable")


def test_what_was_taken_leaves_the_inbox_as_it_was_put_there(inbox: Path) -> None:
    taken = look_into(inbox).ready
    assert clear(inbox, taken, WHEN) == 3
    assert ready(inbox) == [] and (inbox / ".taken/20261125T120000Z/7/camera 1/b.png").read_bytes() == b"7/camera 1/b.png"
    assert (inbox / "loose.png").exists()
    assert clear(inbox, taken, WHEN) == 0  # again, as after a kill


def test_a_file_that_has_changed_meanwhile_stays(inbox: Path) -> None:
    taken = look_into(inbox).ready
    (inbox / "3" / "a.png").write_bytes(b"another image of this name")
    assert clear(inbox, taken, WHEN) == 2
    assert ready(inbox) == ["3/a.png"]


def test_a_link_is_no_way_out_of_the_inbox(inbox: Path, quickstart: Scenario, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (inbox / "3" / "link.png").symlink_to(tmp_path / "secret.png")
    found = {entry.name: entry for entry in entries(inbox, look_into(inbox).ready, quickstart)}
    assert found["3/link.png"].data is None and found["3/link.png"].problem == "not-a-file"


def test_the_scenario_may_name_another_folder(workspace: Workspace, quickstart: Scenario) -> None:
    assert folder(quickstart, workspace) == workspace.root / "inbox" / "quickstart"
    elsewhere = quickstart.model_copy(update={"retraining": quickstart.retraining.model_copy(update={"inbox": "in"})})
    assert folder(elsewhere, workspace) == workspace.root / "in"
