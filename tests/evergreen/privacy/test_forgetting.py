"""Forgetting: an item is removed with all that belongs to it or stays with all of it, and the others keep their splits."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.data.dataset import ALLOCATED, FORMER_SPLITS, Quarantine, batches, forgotten, id_digest, read_quarantine, table
from evergreen.errors import EvergreenError
from evergreen.privacy.forgetting import Asked, Plan, dealt_file, journal, matches, remove_aged, rewrite_data
from evergreen.workspace import Workspace
from tests.tasks import test_preprocess
from tests.tasks.test_preprocess import add_batch, digit, digits
from tests.tiny import NAME

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LIMIT = NOW - timedelta(days=30)
OLD = LIMIT - timedelta(days=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def id_of(number: int) -> str:
    return hashlib.sha256(digit(number)[0]).hexdigest()


def collected(workspace: Workspace, number: int, at: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_preprocess, "WHEN", at)
    add_batch(workspace, digits(number, number + 1))


def refused(workspace: Workspace, number: int, at: datetime, source: str) -> None:
    with Quarantine(workspace, NAME) as quarantine:
        quarantine.add(
            source, "label-conflict", "", id=id_of(number), data=digit(number)[0], label="3", size_bytes=1, collected_at=at
        )


def kept_bytes(workspace: Workspace, number: int) -> bool:
    return (workspace.quarantine(NAME) / "items" / id_of(number)[:2] / id_of(number)).exists()


def plan_of(*numbers: int, batches: tuple[str, ...]) -> Plan:
    return Plan(NAME, tuple(map(id_of, numbers)), {}, 0, (), batches, (), (), ())


def test_an_item_that_was_refused_long_ago_and_accepted_since_is_not_too_old(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        refused(workspace, number, OLD, f"{number}.png")
    collected(workspace, 1, NOW, monkeypatch)
    assert {one.id for one in matches(workspace, NAME, Asked(collected_before=LIMIT))} == {id_of(2)}
    remove_aged(workspace, NAME, workspace.root / "inbox", LIMIT)
    assert read_quarantine(workspace, NAME) == [] and not kept_bytes(workspace, 1)


def test_one_that_waits_to_be_added_to_the_data_set_is_not_too_old_either(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(workspace, 1, OLD, "1.png")
    collected(workspace, 1, NOW, monkeypatch)
    workspace.staging(NAME).parent.mkdir(parents=True)
    workspace.data(NAME).rename(workspace.staging(NAME))
    assert matches(workspace, NAME, Asked(collected_before=LIMIT)) == []


def test_an_item_that_is_too_old_goes_with_its_new_records_in_quarantine(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected(workspace, 1, OLD, monkeypatch)
    refused(workspace, 1, NOW, "again.png")
    found = matches(workspace, NAME, Asked(collected_before=LIMIT))
    assert [(one.id, one.batch) for one in found] == [(id_of(1), "00000-abc"), (id_of(1), None)]


def test_a_record_that_is_not_too_old_keeps_the_bytes(workspace: Workspace) -> None:
    refused(workspace, 1, OLD, "old.png")
    refused(workspace, 1, NOW, "new.png")
    remove_aged(workspace, NAME, workspace.root / "inbox", LIMIT)
    assert [record["source"] for record in read_quarantine(workspace, NAME)] == ["new.png"] and kept_bytes(workspace, 1)


def test_an_item_named_by_its_record_in_quarantine_is_found_in_the_data_set_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected(workspace, 1, NOW, monkeypatch)
    refused(workspace, 1, OLD, "elsewhere/x.png")
    found = matches(workspace, NAME, Asked(sources=("elsewhere/*",)))
    assert [one.batch for one in found] == ["00000-abc", None]


def test_a_path_of_64_characters_is_not_taken_for_an_id(workspace: Workspace) -> None:
    path = "/" + "x" * 63
    with Quarantine(workspace, NAME) as quarantine:  # as earlier versions recorded it
        quarantine.add("fixes.csv", "correction-unknown-id", "", id=path, data=None, label="3", size_bytes=0, collected_at=OLD)
    assert matches(workspace, NAME, Asked(collected_before=LIMIT)) == []
    Plan(NAME, (path, id_of(1)), {}, 0, (), (), (), (), ()).save(workspace)
    plan = Plan.load(workspace, NAME)
    assert plan is not None and plan.ids == (id_of(1),)
    rewrite_data(workspace, plan)
    remove_aged(workspace, NAME, workspace.root / "inbox", LIMIT)
    assert read_quarantine(workspace, NAME) == []


def test_a_plan_that_would_remove_an_item_only_in_part_changes_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        collected(workspace, number, NOW, monkeypatch)
    before = {path: path.read_bytes() for path in workspace.data(NAME).rglob("*.*") if path.is_file()}
    plan = plan_of(1, 2, batches=("00000-abc",))
    with pytest.raises(EvergreenError, match=f"only in part(.|\n)*{id_of(2)} in 00001-abc(.|\n)*{journal(workspace, NAME)}"):
        rewrite_data(workspace, plan)
    assert {path: path.read_bytes() for path in workspace.data(NAME).rglob("*.*") if path.is_file()} == before


def splits_of(file: Path, *numbers: int) -> Path:
    """A file of splits of former deletions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(map(id_of, numbers)), ALLOCATED: ["test"] * len(numbers)}), file)
    return file


def split_ids(file: Path) -> list[str]:
    return list(pq.read_table(file)["id"].to_pylist())


@pytest.fixture
def three(workspace: Workspace) -> list[Path]:
    """The batches of a data set of six digits, of which the first four have splits from a former deletion."""
    for first in (0, 2, 4):
        add_batch(workspace, digits(first, first + 2))
    folders = batches(workspace, NAME)
    splits_of(folders[1] / FORMER_SPLITS, 0, 1, 2, 3)
    return folders


def test_removing_what_is_only_in_quarantine_keeps_the_splits_of_former_deletions(
    workspace: Workspace, three: list[Path]
) -> None:
    rewrite_data(workspace, plan_of(9, batches=()))
    assert split_ids(three[1] / FORMER_SPLITS) == list(map(id_of, range(4)))
    assert forgotten(three) == {id_digest(bytes.fromhex(id_of(9)))}


def test_without_new_splits_those_of_former_deletions_stay_without_the_forgotten_items(
    workspace: Workspace, three: list[Path]
) -> None:
    splits_of(three[0] / FORMER_SPLITS, 0, 1)
    rewrite_data(workspace, plan_of(1, 4, batches=("00000-abc", "00002-abc")))
    assert split_ids(three[1] / FORMER_SPLITS) == [id_of(0), id_of(2), id_of(3)]
    assert [folder.name for folder in three if (folder / FORMER_SPLITS).exists()] == ["00001-abc"]
    assert table(three, ["id"])["id"].to_pylist() == [id_of(number) for number in (0, 2, 3, 5)]


def test_new_splits_replace_the_former_ones_also_if_more_items_have_come_since(workspace: Workspace, three: list[Path]) -> None:
    splits_of(dealt_file(workspace, NAME), 0, 2, 3, 4, 5)
    add_batch(workspace, digits(6, 8))
    for _ in range(2):  # as after a kill
        rewrite_data(workspace, plan_of(1, batches=("00000-abc",)))
    assert split_ids(three[2] / FORMER_SPLITS) == [id_of(number) for number in (0, 2, 3, 4, 5)]
    assert [folder.name for folder in batches(workspace, NAME) if (folder / FORMER_SPLITS).exists()] == ["00002-abc"]
