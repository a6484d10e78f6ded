"""forget: what is taken out is in nothing that is left; real DVC with its remote, real MLflow with a registered champion."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest

from evergreen.data.dataset import Quarantine, batches, table
from evergreen.data.versions import add_data, data_unchanged, data_version, push_data
from evergreen.errors import EvergreenError, WrongUse
from evergreen.media.images import prepare
from evergreen.privacy.forgetting import Asked, journal
from evergreen.review.decisions import Decisions
from evergreen.workspace import Workspace
from flows import forget as flow
from flows.checkout import checkout_model
from flows.forget import asked, forget, reinstate
from tests.tasks.test_preprocess import add_batch, digit, rows
from tests.tiny import NAME, Tiny

GONE = (3, 5)  # digits of the data set: one of the train split, one of the test split


def id_of(number: int) -> str:
    return hashlib.sha256(digit(number)[0]).hexdigest()


@pytest.fixture
def everywhere(registered: Tiny) -> Tiny:
    """A checkout in which two digits are in every place where an item can be: the data set and an older version of it, DVC's
    cache and remote, splits and predictions, a registered champion with its run, quarantine, inbox and what was taken in."""
    workspace = registered.workspace
    registered.promote(force=True)
    (workspace.root / "data.dvc").unlink(missing_ok=True)
    add_data(workspace, NAME)
    push_data(workspace, NAME)
    add_batch(workspace, [(*digit(number), None, None) for number in range(500, 505)])
    add_data(workspace, NAME)
    push_data(workspace, NAME)
    from dvc.repo import Repo

    with Repo(str(workspace.root)) as repo:
        repo.push()  # splits and predictions too
    image, label = digit(GONE[0])
    with Quarantine(workspace, NAME) as quarantine:
        quarantine.add(
            "x.png", "label-conflict", "two", id=id_of(GONE[0]), data=image, label=label, size_bytes=1,
            collected_at=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        quarantine.add(
            "y.png", "label-conflict", "two", id=id_of(7), data=digit(7)[0], label="1", size_bytes=1,
            collected_at=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip
    taken = workspace.root / "inbox" / NAME / "taken"
    (taken / "3").mkdir(parents=True)
    (taken / "3/old.png").write_bytes(image)
    (taken / "3/other.png").write_bytes(digit(8)[0])
    (taken / "fixes.csv").write_text(f"id,label\n{id_of(GONE[1])},4\n")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("3/packed.png", image)
    (taken / "many.zip").write_bytes(packed.getvalue())
    for name in ("report.html", f"{NAME}/report.html", f"{NAME}/look.html"):
        (workspace.root / "outputs" / name).write_text(f"<img src=… {id_of(GONE[0])}>")
    decisions = Decisions(workspace, registered.scenario, "anna")
    for number in (GONE[0], 8):
        decisions.label("errors", id_of(number), "4", None)
        decisions.skip("unsure", id_of(number))
    (workspace.checkpoints(NAME)).mkdir(parents=True, exist_ok=True)
    (workspace.checkpoints(NAME) / "state").write_bytes(image)
    features = workspace.features(NAME)
    features.mkdir(parents=True)
    (features / "00000.npz").write_bytes(id_of(GONE[0]).encode())
    return registered


def traces(workspace: Workspace, numbers: tuple[int, ...] = GONE) -> set[str]:
    """The files in which any of these digits is: its bytes, its pixels as the network takes them, or its id; tables and
    archives are looked into."""
    ids = {id_of(number) for number in numbers}
    needles = [digit(number)[0] for number in numbers] + [id.encode() for id in ids]
    needles += [prepare(digit(number)[0], 8, 8, 1).tobytes() for number in numbers]
    found = set()
    for path in workspace.root.rglob("*"):
        if not path.is_file() or ".git" in path.parts or path.suffix == ".db":
            continue
        content = path.read_bytes()
        has = any(needle in content for needle in needles)
        if content.startswith(b"PAR1"):
            rows = pq.read_table(path)
            has = has or ("id" in rows.column_names and bool(ids & set(rows["id"].to_pylist())))
            if "image" in rows.column_names:
                has = has or any(image in needles for image in rows["image"].to_pylist())
        if content.startswith(b"PK\3\4") and path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                has = has or any(archive.read(name) in needles for name in archive.namelist())
        if has:
            found.add(str(path.relative_to(workspace.root)))
    return found


def forgotten(workspace: Workspace) -> Any:
    return forget(workspace, NAME, Asked(ids=tuple(id_of(number) for number in GONE)), lambda _: True)


def test_nothing_that_is_left_holds_what_was_forgotten_and_all_else_is_there(everywhere: Tiny) -> None:
    workspace = everywhere.workspace
    before = traces(workspace)
    places = (
        "data/",
        ".dvc/cache/",
        ".evergreen/dvc-remote/",
        "outputs/",
        "mlruns/",
        "quarantine/",
        "inbox/",
        ".evergreen/checkpoints/",
        ".evergreen/features/",
    )
    assert {place for place in places if any(path.startswith(place) for path in before)} == set(places)
    others, named = traces(workspace, (4, 502)), [folder.name for folder in batches(workspace, NAME)]
    shown: list[str] = []
    assert forget(workspace, NAME, Asked(ids=(id_of(3),)), lambda words: bool(shown.append(words))) is None
    assert traces(workspace) == before and "data held them: 1;" in shown[0] and "digits/" not in shown[0]

    done = forgotten(workspace)

    assert traces(workspace) == set()
    assert Decisions(workspace, everywhere.scenario, "anna").pending() == {id_of(8): "4"}  # other decisions are kept
    assert (done.items, done.quarantined, done.models, done.champion, done.left) == (2, 1, (1,), True, ())
    assert done.data_version == data_version(workspace, NAME) and data_unchanged(workspace, NAME)
    ids = table(batches(workspace, NAME), ["id"])["id"].to_pylist()
    assert len(ids) == 503 and [folder.name for folder in batches(workspace, NAME)] == named
    left = traces(workspace, (4, 502))
    assert {path for path in others if path.startswith(("data/", "quarantine/", "inbox/"))} <= left
    assert any(path.startswith(".evergreen/dvc-remote/") for path in left)
    [mark] = [json.loads(everywhere.client().get_model_version("evergreen-quickstart", "1").tags["forgotten_items"])]
    assert mark["items"] == 2
    with pytest.raises(EvergreenError, match="neither DVC's cache nor the remote has all of data/quickstart"):
        checkout_model(workspace, NAME, "1")
    assert data_unchanged(workspace, NAME) and not journal(workspace, NAME).exists()


@pytest.mark.parametrize("step", ["rewrite_data", "add_data", "delete_objects", "clean_files", "clean_models", "journal"])
def test_killed_anywhere_the_same_command_brings_it_to_its_end(
    everywhere: Tiny, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    workspace = everywhere.workspace

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, step, killed)
    with pytest.raises(KeyboardInterrupt):
        forgotten(workspace)
    monkeypatch.undo()
    monkeypatch.setenv("EVERGREEN_ROOT", str(workspace.root))
    done = forget(workspace, NAME, asked(workspace, NAME, None, None, None), lambda _: False)
    assert done is not None and done.items == 2 and traces(workspace) == set()
    with pytest.raises(WrongUse, match="no such item"):
        forgotten(workspace)


def test_what_is_forgotten_is_not_collected_again(everywhere: Tiny) -> None:
    from tasks.collect import collect

    workspace = everywhere.workspace
    forgotten(workspace)
    for number in (*GONE, 9):
        image, label = digit(number)
        (workspace.root.parent / "source" / label).mkdir(parents=True, exist_ok=True)
        (workspace.root.parent / "source" / label / f"{number}.png").write_bytes(image)
    section = everywhere.scenario.collect.model_copy(update={"builtin": None, "path": "../source"})
    collection = collect(everywhere.scenario.model_copy(update={"collect": section}), workspace)
    assert collection.forgotten == 2 and "Forgotten, and not taken again: 2." in str(collection)
    assert (collection.seen, collection.known, collection.added) == (1, 1, 0) and not traces(workspace)


def test_what_stays_keeps_its_split_also_when_more_comes(everywhere: Tiny) -> None:
    from tasks.preprocess import preprocess

    workspace = everywhere.workspace
    preprocess(everywhere.scenario, workspace)
    before = {row["id"]: (row["split"], row["left_out"]) for row in rows(workspace)}
    forget(workspace, NAME, Asked(ids=tuple(id_of(number) for number in range(0, 60, 2))), lambda _: True)
    add_batch(workspace, [(*digit(number), None, None) for number in range(600, 650)])
    preprocess(everywhere.scenario, workspace)
    after = {row["id"]: (row["split"], row["left_out"]) for row in rows(workspace)}
    assert len(after) == 505 - 30 + 50 and {id: after[id] for id in before.keys() & after.keys()} == {
        id: split for id, split in before.items() if id in after
    }
    assert {after[id_of(number)][0] for number in range(600, 650)} > {"train"}


def test_items_are_named_by_path_and_group_and_a_wrong_name_is_said(everywhere: Tiny) -> None:
    workspace = everywhere.workspace
    found = table(batches(workspace, NAME), ["id", "source"]).to_pylist()
    path = next(row["source"] for row in found if row["id"] == id_of(3))
    shown: list[str] = []
    forget(workspace, NAME, Asked(sources=(path,)), lambda words: bool(shown.append(words)))
    assert "1 item (" in shown[0] and path in shown[0]
    with pytest.raises(WrongUse, match="no such item"):
        forget(workspace, NAME, Asked(groups=("nobody",)), lambda _: True)
    for words in (["abc"], None):
        with pytest.raises(WrongUse):
            asked(workspace, NAME, words, None, None)


def test_another_scenarios_very_same_part_is_left_alone_and_named(everywhere: Tiny) -> None:
    import shutil

    workspace = everywhere.workspace
    shutil.copytree(workspace.data(NAME), workspace.data("second"))
    add_data(workspace, "second")
    done = forgotten(workspace)
    assert done.left == ("the same image in the data set of scenario second",)
    assert data_unchanged(workspace, "second") and id_of(3) in table(batches(workspace, "second"), ["id"])["id"].to_pylist()


def test_a_withdrawn_item_can_be_brought_back_by_a_person(everywhere: Tiny) -> None:
    from evergreen.data.dataset import SOURCE, Withdrawal, stage_records

    workspace = everywhere.workspace
    at = "2026-01-01T00:00:00+00:00"
    stage_records(workspace.data(NAME), 2, withdrawals=[Withdrawal(id_of(3), True, SOURCE, at, "x")])
    assert table(batches(workspace, NAME), ["id"]).num_rows == 504
    with pytest.raises(WrongUse, match="none of these items is withdrawn"):
        reinstate(workspace, NAME, Asked(ids=(id_of(4),)))
    assert reinstate(workspace, NAME, Asked(ids=(id_of(3), id_of(4)))).items == 1
    assert table(batches(workspace, NAME), ["id"]).num_rows == 505 and data_unchanged(workspace, NAME)
