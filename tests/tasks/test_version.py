"""version: what was staged becomes part of the data set, whatever happened before and whatever the remote does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from evergreen.data.versions import data_unchanged, data_version, fetch_data
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tasks.version import DataVersion, page, stage, unchanged, version
from tests.evergreen.data.test_versions import clone, put, repository

COLLECTION: Any = None  # version looks at what is staged, not at what collect says


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return repository(tmp_path / "checkout")


def scenario(name: str = "quickstart") -> Scenario:
    return load_scenario(Path(__file__).resolve().parents[2] / "scenarios", name)


def stage_batch(workspace: Workspace, batch: str = "00000-aaa", content: str = "one", name: str = "quickstart") -> None:
    folder = workspace.staging(name) / batch
    folder.mkdir(parents=True)
    (folder / "part-00000.parquet").write_text(content)


def made(workspace: Workspace, name: str = "quickstart") -> DataVersion:
    result: DataVersion = version(scenario(name), workspace, COLLECTION)
    return result


def still(workspace: Workspace, last: DataVersion) -> bool:
    return unchanged(scenario(last.name), workspace, COLLECTION, last)


def test_a_staged_batch_moves_into_the_data_set_and_to_the_remote(workspace: Workspace) -> None:
    stage_batch(workspace)
    done = made(workspace)
    assert (done.batches, done.pushed, done.data_version) == (("00000-aaa",), True, data_version(workspace, "quickstart"))
    assert (workspace.data("quickstart") / "00000-aaa/part-00000.parquet").read_text() == "one"
    assert not list(workspace.staging("quickstart").iterdir()) and data_unchanged(workspace, "quickstart")
    assert any(path.is_file() for path in (workspace.private / "dvc-remote").rglob("*"))
    assert str(done) == f"data version {done.data_version}, 1 batch."


def test_what_was_versioned_is_unchanged_until_more_is_staged_or_the_data_change(workspace: Workspace) -> None:
    stage_batch(workspace)
    first = made(workspace)
    assert still(workspace, first) and made(workspace) == first
    stage_batch(workspace, "00001-bbb", "two")
    assert not still(workspace, first)
    second = made(workspace)
    assert second.batches == ("00000-aaa", "00001-bbb") and second.data_version != first.data_version
    assert still(workspace, second) and not still(workspace, first)
    part = workspace.data("quickstart") / "00001-bbb/part-00000.parquet"
    part.unlink()
    part.write_text("three")
    assert not still(workspace, second)


def test_the_same_bytes_are_the_same_version_in_any_checkout(workspace: Workspace, tmp_path: Path) -> None:
    other = repository(tmp_path / "other")
    for checkout in (workspace, other):
        stage_batch(checkout)
    assert made(workspace) == made(other)


def test_a_remote_that_is_away_is_a_warning_and_the_next_run_tries_again(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    away = workspace.private / "dvc-remote"
    away.parent.mkdir()
    away.write_text("a file where a folder should be")
    stage_batch(workspace)
    with caplog.at_level(logging.WARNING, "evergreen"):
        first = made(workspace)
    assert not first.pushed and data_unchanged(workspace, "quickstart") and "not copied to the remote yet" in str(first)
    assert "It is safe here; the next run tries again" in caplog.text
    assert not still(workspace, first)
    away.unlink()
    second = made(workspace)
    assert second.pushed and second.data_version == first.data_version and still(workspace, second)


def test_a_batch_that_was_moved_before_a_kill_is_taken_in_by_the_next_run(workspace: Workspace) -> None:
    stage_batch(workspace)
    first = made(workspace)
    put(workspace, "quickstart", "two", batch="00001-bbb")  # moved, and not added
    assert not still(workspace, first)
    second = made(workspace)
    assert second.batches == ("00000-aaa", "00001-bbb") and data_unchanged(workspace, "quickstart") and still(workspace, second)
    clean = repository(workspace.root.parent / "clean")
    for batch, content in (("00000-aaa", "one"), ("00001-bbb", "two")):
        put(clean, "quickstart", content, batch=batch)
    assert made(clean).data_version == second.data_version


def test_another_scenarios_data_that_are_not_here_stay_in_data_dvc(workspace: Workspace, tmp_path: Path) -> None:
    stage_batch(workspace)
    first = made(workspace)
    other = clone(workspace, tmp_path / "other")
    stage_batch(other, content="two", name="cifar10")
    made(other, "cifar10")
    assert not other.data("quickstart").exists() and data_version(other, "quickstart") == first.data_version
    # and so in a third clone, which knows only what the second wrote
    third = clone(other, tmp_path / "third")
    (third.root / ".dvc/config.local").write_text((other.root / ".dvc/config.local").read_text())
    stage_batch(third, content="three", name="inspection")
    made(third, "inspection")
    assert fetch_data(third, "quickstart") and fetch_data(third, "cifar10")
    assert sorted(path.name for path in (third.root / "data").iterdir()) == ["cifar10", "inspection", "quickstart"]


def test_adding_to_one_scenario_leaves_the_others_unchanged(workspace: Workspace) -> None:
    stage_batch(workspace)
    first = made(workspace)
    stage_batch(workspace, content="two", name="cifar10")
    made(workspace, "cifar10")
    assert still(workspace, first)


def test_the_stage_is_remembered_and_shown(workspace: Workspace) -> None:
    stage_batch(workspace)
    first, again = (stage.perform(scenario(), workspace, COLLECTION) for _ in range(2))
    assert (first.state, again.state) == ("ran", "unchanged") and first.result == again.result
    shown = page(scenario(), workspace, first.result)
    assert shown.tables == {"Batches, the newest first": [{"batch": "00000-aaa"}]}
