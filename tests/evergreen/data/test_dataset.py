"""Parts hold every item once and are the same bytes for the same items; the quarantine survives a kill."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evergreen.data import dataset
from evergreen.data.dataset import (
    SOURCE,
    Correction,
    PartWriter,
    Quarantine,
    Records,
    Withdrawal,
    batches,
    iter_images,
    iter_parts,
    known_ids,
    origin,
    parts,
    read_quarantine,
    records,
    stage_records,
    staged,
    table,
)
from evergreen.kinds.classify.items import Item, schema
from evergreen.media.images import Header, Inspection
from evergreen.names import tidy
from evergreen.workspace import Workspace
from tests.support.shipped import ROOT

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def item(image: bytes, label: str = "cat", **others: Any) -> Item:
    looks = Inspection(Header("PNG", 16, 24, 3), 0.5, 0.25, 100.0, 2**64 - 1)
    settings = {"group": None, "split": None, "source": f"{label}/{image.hex()[:20]}.png", "collected_at": WHEN}
    return Item(hashlib.sha256(image).hexdigest(), image, label, inspection=looks, **(settings | others))


def written(folder: Path, items: list[Item]) -> str:
    """The hash of the batch that is now in the folder."""
    folder.mkdir(parents=True)
    with PartWriter(folder, schema()) as writer:
        for one in items:
            writer.add_row(one.row())
    assert writer.items == len(items)
    return writer.hash


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
some_items = st.lists(
    st.builds(
        item, st.binary(max_size=200), words.map(tidy), group=st.none() | words, split=st.sampled_from([None, "train", "val", "test"]),
        source=words,
    ),
    max_size=30, unique_by=lambda one: one.id,
)  # fmt: skip


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few items fill a part, as millions do elsewhere."""
    monkeypatch.setattr(dataset, "ROW_GROUP_BYTES", 1000)
    monkeypatch.setattr(dataset, "PART_BYTES", 3000)


@pytest.mark.usefixtures("small_parts")
@given(some_items)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_items_give_the_same_bytes_and_every_item_is_found_once(items: list[Item]) -> None:
    with TemporaryDirectory() as name:
        workspace = Workspace(Path(name))
        one, two = workspace.data("pets") / "00000-one", workspace.root / "two"
        assert written(one, items) == written(two, items)
        assert contents(one) == contents(two)
        rows = [row for batch in iter_parts([one]) for row in batch.to_pylist()]
        assert [(row["id"], row["image"], row["label"], row["group"], row["split"], row["source"]) for row in rows] == [
            (one.id, one.image, one.label, one.group, one.split, one.source) for one in items
        ]
        assert known_ids(workspace, "pets") == {bytes.fromhex(one.id): one.label for one in items}
        assert dict(iter_images([one], [one.id for one in items])) == {one.id: one.image for one in items}


@pytest.mark.usefixtures("small_parts")
def test_many_items_make_several_parts_of_bounded_row_groups(tmp_path: Path) -> None:
    items = [item(os.urandom(300)) for _ in range(100)]
    written(tmp_path / "batch", items)
    files = parts([tmp_path / "batch"])
    assert len(files) > 3 and [path.name for path in files] == [f"part-{n:05d}.parquet" for n in range(len(files))]
    assert all(pq.ParquetFile(path).num_row_groups > 1 for path in files[:-1])
    assert table([tmp_path / "batch"])["id"].to_pylist() == [one.id for one in items]


def test_every_column_comes_back_as_it_was_given(tmp_path: Path) -> None:
    written(tmp_path / "batch", [item(b"image", "cat", group="litter", split="val", source="cat/1.png")])
    [row] = [row for batch in iter_parts([tmp_path / "batch"]) for row in batch.to_pylist()]
    assert row == {
        "id": hashlib.sha256(b"image").hexdigest(), "image": b"image", "label": "cat", "group": "litter", "split": "val",
        "source": "cat/1.png", "collected_at": WHEN, "width": 16, "height": 24, "channels": 3, "format": "PNG",
        "brightness": 0.5, "contrast": 0.25, "sharpness": 100.0, "perceptual_hash": 2**64 - 1,
    }  # fmt: skip


def test_every_part_has_the_columns_that_the_documentation_names(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "internals.md").read_text()
    assert [name for name in schema().names if f"`{name}`" not in page] == []
    written(tmp_path / "batch", [item(b"image")])
    [part] = parts([tmp_path / "batch"])
    assert pq.read_schema(part).remove_metadata() == schema()


def test_the_hash_knows_ids_and_labels_and_their_order(tmp_path: Path) -> None:
    one, two = item(b"1"), item(b"2")
    hashes = [
        written(tmp_path / str(number), items)
        for number, items in enumerate([[one, two], [two, one], [one, item(b"2", "dog")], [one]])
    ]
    assert len(set(hashes)) == 4 and all(len(hash) == 12 for hash in hashes)


def test_no_items_make_no_part(tmp_path: Path) -> None:
    written(tmp_path / "batch", [])
    assert contents(tmp_path / "batch") == {} and table([tmp_path / "batch"]).num_rows == 0


def test_a_part_is_never_written_over(tmp_path: Path) -> None:
    written(tmp_path / "batch", [item(b"1")])
    with pytest.raises(FileExistsError), PartWriter(tmp_path / "batch", schema()) as writer:
        writer.add_row(item(b"2").row())
    assert table([tmp_path / "batch"])["id"].to_pylist() == [item(b"1").id]


def test_an_interrupted_batch_has_no_half_part(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), PartWriter(tmp_path, schema()) as writer:
        writer.add_row(item(b"1").row())
        raise KeyboardInterrupt
    assert contents(tmp_path) == {}


def test_batches_come_in_the_order_of_their_arrival(workspace: Workspace) -> None:
    assert batches(workspace, "pets") == [] == staged(workspace, "pets") and known_ids(workspace, "pets") == {}
    data = workspace.data("pets")
    written(data / "00001-aaaaaaaaaaaa", [item(b"later")])
    written(data / "00000-ffffffffffff", [item(b"first")])
    written(workspace.staging("pets") / "00002-bbbbbbbbbbbb", [item(b"staged")])
    (workspace.staging("pets") / ".writing").mkdir()
    assert [folder.name for folder in batches(workspace, "pets")] == ["00000-ffffffffffff", "00001-aaaaaaaaaaaa"]
    assert [folder.name for folder in staged(workspace, "pets")] == ["00002-bbbbbbbbbbbb"]
    assert table(batches(workspace, "pets"))["id"].to_pylist() == [item(b"first").id, item(b"later").id]
    assert set(known_ids(workspace, "pets")) == {bytes.fromhex(item(image).id) for image in (b"first", b"later")}


def test_some_images_are_found_among_many(tmp_path: Path) -> None:
    items = [item(bytes([number])) for number in range(50)]
    written(tmp_path / "batch", items)
    requested = [items[40].id, items[3].id, "0" * 64]
    assert list(iter_images([tmp_path / "batch"], requested)) == [(items[3].id, b"\x03"), (items[40].id, b"\x28")]


def put(quarantine: Quarantine, source: str, reason: str = "empty", data: bytes | None = b"", **others: Any) -> None:
    given = {
        "id": hashlib.sha256(data).hexdigest() if data is not None else None,
        "label": "cat",
        "size_bytes": len(data or b""),
    }
    quarantine.add(source, reason, f"why {source}", data=data, collected_at=WHEN, **(given | others))


def test_a_quarantined_item_keeps_its_reason_and_its_bytes(workspace: Workspace) -> None:
    with Quarantine(workspace, "pets") as quarantine:
        put(quarantine, "cat/1.png", "truncated", b"half")
        put(quarantine, "cat/link", "link", None)
    half = hashlib.sha256(b"half").hexdigest()
    assert read_quarantine(workspace, "pets") == [
        {
            "source": "cat/1.png", "reason": "truncated", "detail": "why cat/1.png", "id": half, "label": "cat", "bytes": 4,
            "collected_at": "2026-01-02T03:04:05+00:00",
        },
        {
            "source": "cat/link", "reason": "link", "detail": "why cat/link", "id": None, "label": "cat", "bytes": 0,
            "collected_at": "2026-01-02T03:04:05+00:00",
        },
    ]  # fmt: skip
    items = workspace.quarantine("pets") / "items"
    assert {str(path.relative_to(items)): path.read_bytes() for path in items.rglob("*") if path.is_file()} == {
        f"{half[:2]}/{half}": b"half"
    }


def test_an_item_is_put_away_once_for_each_reason(workspace: Workspace) -> None:
    for _ in range(2):
        with Quarantine(workspace, "pets") as quarantine:
            for _ in range(2):
                put(quarantine, "cat/1.png", "truncated", b"half")
                put(quarantine, "cat/1.png", "undecodable", b"half")
                put(quarantine, "cat/2.png", "truncated", b"half")
                put(quarantine, "cat/link", "link", None)
    assert quarantine.added == 0 and len(read_quarantine(workspace, "pets")) == 4


def test_without_bad_items_there_is_no_quarantine(workspace: Workspace) -> None:
    with Quarantine(workspace, "pets"):
        pass
    assert not workspace.quarantine("pets").exists() and read_quarantine(workspace, "pets") == []


def test_of_a_huge_item_only_the_record_is_kept(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "KEPT_BYTES", 10)
    with Quarantine(workspace, "pets") as quarantine:
        put(quarantine, "cat/huge.png", "undecodable", bytes(11))
    assert len(read_quarantine(workspace, "pets")) == 1 and not (workspace.quarantine("pets") / "items").exists()


@given(st.lists(st.tuples(words, words), max_size=10, unique=True))
@settings(max_examples=30, deadline=None)
def test_names_of_any_kind_are_one_line_each(named: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as name:
        workspace = Workspace(Path(name))
        for _ in range(2):
            with Quarantine(workspace, "pets") as quarantine:
                for source, reason in named:
                    put(quarantine, source, reason)
        records = read_quarantine(workspace, "pets")
        assert [(record["source"], record["reason"]) for record in records] == named


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_half_line_is_removed_and_the_item_is_put_away_again(workspace: Workspace, kept: int) -> None:
    with Quarantine(workspace, "pets") as quarantine:
        put(quarantine, "cat/1.png")
        put(quarantine, "cat/2.png")
    path = workspace.quarantine("pets") / "records.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:kept])
    assert [record["source"] for record in read_quarantine(workspace, "pets")] == ["cat/1.png"]
    with Quarantine(workspace, "pets") as quarantine:
        put(quarantine, "cat/1.png")
        put(quarantine, "cat/2.png")
    assert path.read_bytes() == first + second


def test_a_killed_writer_leaves_whole_lines_and_whole_items(workspace: Workspace) -> None:
    code = """if True:
        import hashlib, os, sys
        from datetime import UTC, datetime
        from pathlib import Path
        from evergreen.data.dataset import Quarantine
        from evergreen.workspace import Workspace
        with Quarantine(Workspace(Path(sys.argv[1])), "pets") as quarantine:
            for number in range(10**9):
                data = str(number).encode() * 1000
                quarantine.add(f"cat/{number}.png", "truncated", "half", id=hashlib.sha256(data).hexdigest(), data=data,
                               label="cat", size_bytes=len(data), collected_at=datetime.now(UTC))
                if number == 20:
                    print("going", flush=True)
    """
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", code, str(workspace.root)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"going\n"
            process.send_signal(signal.SIGKILL)
        with Quarantine(workspace, "pets"):
            records = read_quarantine(workspace, "pets")
        lines = (workspace.quarantine("pets") / "records.jsonl").read_bytes()
        assert lines.endswith(b"\n") and len(records) > 20
        assert [json.loads(line)["source"] for line in lines.splitlines()] == [f"cat/{n}.png" for n in range(len(records))]
        for record in records:
            kept = workspace.quarantine("pets") / "items" / record["id"][:2] / record["id"]
            assert hashlib.sha256(kept.read_bytes()).hexdigest() == record["id"]


def said(folder: Path, number: int, label: str | None, withdrawn: bool | None, by: str | None) -> None:
    """Records of the item `a`."""
    id, at = item(b"a").id, "2026-01-01T00:00:00+00:00"
    labels = [Correction(id, label, "cat", by, at, "x")] if label else []
    stage_records(folder, number, labels, [] if withdrawn is None else [Withdrawal(id, withdrawn, by, at, "x")])


def seen(workspace: Workspace) -> dict[str, str]:
    rows = table(batches(workspace, "pets"), ["id", "label"]).to_pylist()
    return {row["id"]: row["label"] for row in rows}


def test_records_are_applied_whenever_rows_are_read_and_can_be_undone(workspace: Workspace) -> None:
    folder, a, b = workspace.data("pets"), item(b"a"), item(b"b")
    written(folder / "00000-aaa", [a, b])
    said(folder, 1, "dog", True, SOURCE)
    assert seen(workspace) == {b.id: "cat"}
    assert table(batches(workspace, "pets"), ["label"])["label"].to_pylist() == ["cat"]
    assert dict(iter_images(batches(workspace, "pets"), {a.id, b.id})) == {b.id: b"b"}
    assert [row["label"] for row in table(batches(workspace, "pets"), ["label"], Records()).to_pylist()] == ["cat", "cat"]
    assert known_ids(workspace, "pets") == {bytes.fromhex(a.id): "dog", bytes.fromhex(b.id): "cat"}  # it has not gone away
    said(folder, 2, None, False, SOURCE)
    assert seen(workspace) == {a.id: "dog", b.id: "cat"}


def test_a_person_has_the_last_word_before_the_source(workspace: Workspace) -> None:
    folder = workspace.data("pets")
    written(folder / "00000-aaa", [item(b"a")])
    said(folder, 1, "dog", False, "Ada")
    said(folder, 2, "cow", True, SOURCE)
    assert seen(workspace) == {item(b"a").id: "dog"}
    said(folder, 3, "cat", True, None)
    assert seen(workspace) == {} and records(batches(workspace, "pets")).labels == {item(b"a").id: "cat"}


def test_a_part_says_where_its_items_came_from(tmp_path: Path) -> None:
    for number, reported in enumerate(("source", "inbox", None)):
        folder = tmp_path / f"0000{number}-aaa"
        folder.mkdir()
        with PartWriter(folder, schema(), reported) as writer:
            writer.add_row(item(b"a").row())
        assert origin(parts([folder])[0]) == reported and table([folder]).num_rows == 1


def test_labels_of_parts_from_before_read_as_the_scenario_writes_them(tmp_path: Path) -> None:
    written(tmp_path / "batch", [item(b"1", "cafe\u0301"), item(b"2", "dog "), item(b"3", "caf\u00e9")])
    assert dataset.table([tmp_path / "batch"], ["label"])["label"].to_pylist() == ["caf\u00e9", "dog", "caf\u00e9"]
