"""collect: what annotations state of images is in the data set, and what cannot be used is in quarantine with its reason."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from evergreen.data.dataset import Correction, Records, batches, iter_parts, read_quarantine, stage_records, staged, table
from evergreen.errors import DataRefused, WrongUse
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.workspace import Workspace
from tasks.collect import Collection, collect
from tasks.trial import count_items
from tasks.validate import validate
from tests.evergreen.data.annotations.test_boxes import coco
from tests.support.annotated import picture, pictures
from tests.support.clips import clip
from tests.support.sources import folder_of

MANIFEST = {"format": "manifest", "file": "labels.csv", "group": "plant", "split": "subset", "keep": ["site", "time"]}
TABLE = "path,label,plant,subset,site,time\n" + "".join(
    f"images/{n}.png,{'cat' if n % 2 else 'dog'},p{n // 2},{'train' if n < 8 else 'test'},{'north' if n % 3 else ''},2026-01-{n + 1:02d}\n"
    for n in range(12)
)
IMAGES = pictures([f"images/{n}.png" for n in range(12)])


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    """A checkout without a version of the data set: these tests begin with none."""
    (workspace.root / "data.dvc").unlink(missing_ok=True)
    return workspace


def scenario(annotations: dict[str, Any] | None = MANIFEST, **settings: Any) -> ImageScenario:
    return ImageScenario.model_validate(
        {
            "name": "pets",
            "kind": "classify",
            "seed": 1,
            "collect": {"path": "pets", "max_bad": 1, "annotations": annotations} | settings,
            "validate": {"labels": ["cat", "dog"], "min_items_per_label": 1},
            "preprocess": {"height": 8, "width": 8, "channels": 1},
            "train": {},
        }
    )


def fill(workspace: Workspace, files: dict[str, bytes]) -> None:
    folder_of(workspace.root / "pets", files)


def follow(workspace: Workspace, chosen: ImageScenario | None = None) -> Collection:
    """Collect, and move what is staged into the data set, as version does."""
    found = collect(chosen or scenario(), workspace)
    workspace.data("pets").mkdir(parents=True, exist_ok=True)
    for folder in staged(workspace, "pets"):
        folder.rename(workspace.data("pets") / folder.name)
    return found


def refused(workspace: Workspace) -> dict[str, str]:
    return {record["source"]: record["reason"] for record in read_quarantine(workspace, "pets")}


def test_label_group_split_and_further_columns_are_in_the_data_set(workspace: Workspace) -> None:
    fill(workspace, {"labels.csv": TABLE.encode()} | IMAGES)
    assert count_items(scenario(), workspace)[0] == 12
    found = collect(scenario(), workspace)
    assert (found.seen, found.added, found.skipped) == (12, 12, {".csv files that are no images": 1})
    first, second, *_ = table(staged(workspace, "pets")).to_pylist()
    assert (first["label"], first["group"], first["split"], first["source"]) == ("dog", "p0", "train", "images/0.png")
    assert dict(first["columns"]) == {"time": "2026-01-01"} and first["boxes"] is None
    assert dict(second["columns"]) == {"site": "north", "time": "2026-01-02"}
    assert validate(scenario(), workspace, found).items == 12


def test_what_a_manifest_names_wrongly_is_in_quarantine_with_the_line(workspace: Workspace) -> None:
    wrong = (
        "images/99.png,cat,,train,,\n../secret.png,dog,,train,,\nimages/broken.png,dog,,train,,\nimages/1.png,dog,,train,,\n"
    )
    fill(workspace, {"labels.csv": (TABLE + wrong).encode(), "images/broken.png": picture(7)[:60]} | IMAGES)
    found = collect(scenario(), workspace)
    assert found.added == 11 and found.seen == found.added + sum(found.quarantined.values())
    assert refused(workspace) == {
        "images/99.png": "missing", "../secret.png": "outside", "images/broken.png": "truncated", "images/1.png": "label-conflict",
    }  # fmt: skip
    assert "labels.csv, line 14" in next(
        one["detail"] for one in read_quarantine(workspace, "pets") if one["reason"] == "missing"
    )


def test_the_same_line_twice_is_a_copy(workspace: Workspace) -> None:
    fill(workspace, {"labels.csv": (TABLE + TABLE.splitlines()[1] + "\n").encode()} | IMAGES)
    found = collect(scenario(), workspace)
    assert (found.added, found.duplicates, found.quarantined) == (12, 1, {})


def test_too_many_images_that_are_not_there_stop_the_run(workspace: Workspace) -> None:
    fill(workspace, {"labels.csv": TABLE.encode()} | dict(list(IMAGES.items())[:6]))
    with pytest.raises(DataRefused, match=r"6 missing.*collect.max_bad"):
        collect(scenario(max_bad=0.1), workspace)
    assert staged(workspace, "pets") == []


def test_a_split_that_does_not_exist_and_a_source_without_labels_are_refused(workspace: Workspace) -> None:
    fill(workspace, {"labels.csv": TABLE.replace(",train,", ",blue,").encode()} | IMAGES)
    with pytest.raises(WrongUse, match=r"collect.annotations of scenario pets gives a split that there is not.*got 'blue'"):
        collect(scenario(), workspace)
    fill(workspace, {"labels.csv": b"path,label,plant,subset,site,time\nimages/1.png,,,,,\n"})
    with pytest.raises(WrongUse, match="none has a label in the annotations"):
        collect(scenario(), workspace)


def test_images_that_no_line_names_are_counted_and_said(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    fill(workspace, {"labels.csv": TABLE.encode(), "images/new.png": picture(99)} | IMAGES)
    with caplog.at_level(logging.INFO, "evergreen"):
        found = collect(scenario(), workspace)
    assert found.skipped["images that the annotations do not name"] == 1
    assert any("1 images that the annotations do not name are skipped" in line for line in caplog.messages)


def test_another_label_in_the_manifest_is_a_change_of_the_source(workspace: Workspace) -> None:
    fill(workspace, {"labels.csv": TABLE.encode()} | IMAGES)
    follow(workspace)
    fill(
        workspace,
        {
            "labels.csv": TABLE.replace("images/1.png,cat", "images/1.png,dog")
            .replace("images/2.png,dog", "images/2.png,")
            .encode()
        },
    )
    found = follow(workspace, scenario(mirror=True))
    assert (found.known, found.relabelled, found.gone) == (11, 1, 1)
    labels = {row["source"]: row["label"] for row in table(batches(workspace, "pets"), ["source", "label"]).to_pylist()}
    assert labels["images/1.png"] == "dog" and "images/2.png" not in labels


def test_a_data_set_that_was_collected_without_annotations_goes_on_with_them(workspace: Workspace) -> None:
    fill(workspace, {"cat/a.png": picture(50), "dog/b.png": picture(51)})
    follow(workspace, scenario(None))
    fill(workspace, {"labels.csv": TABLE.encode()} | IMAGES)
    found = follow(workspace)
    folders = batches(workspace, "pets")
    assert table(folders, ["source", "columns"]).num_rows == table(folders[::-1], ["source", "boxes", "columns"]).num_rows == 14
    folder = stage_records(
        workspace.staging("pets"), 2, [Correction(table(folders)["id"][0].as_py(), "dog", "cat", "me", "now", "x")]
    )
    assert folder is not None
    known = Records({table(folders)["id"][0].as_py(): "dog"})
    assert sum(len(rows) for rows in iter_parts(folders, ["label", "columns"], known)) == 14
    assert validate(scenario(), workspace, found).items == 14


def test_crops_are_items_with_their_box_and_impossible_boxes_are_in_quarantine(workspace: Workspace) -> None:
    boxes = {str(number): [("cat", 1, 2, 9, 9), ("dog", 12, 3, 8, 9)] for number in range(4)}
    boxes["0"] += [("dog", 40, 3, 8, 9), ("dog", 4, 3, 0, 9)]
    fill(workspace, coco(boxes) | pictures([f"{name}.png" for name in boxes]))
    found = collect(scenario({"format": "coco", "files": ["annotations.json"]}), workspace)
    assert (found.seen, found.added) == (10, 8)
    assert refused(workspace) == {"0.png/00002.png": "box-outside", "0.png/00003.png": "box-without-area"}
    first = table(staged(workspace, "pets")).to_pylist()[0]
    assert (first["source"], first["label"], first["group"], first["width"]) == ("0.png/00000.png", "cat", "0.png", 9)
    assert first["boxes"] == [{"label": "cat", "x": 1.0, "y": 2.0, "width": 9.0, "height": 9.0}]


def test_frames_of_videos_are_items_of_their_folder_with_clip_and_time(workspace: Workspace) -> None:
    for label, start in (("cat", 10), ("dog", 120)):
        clip(workspace.root / f"pets/{label}/walk.avi", list(range(start, start + 30, 2)))
    fill(workspace, {"dog/broken.avi": b"no video"})
    found = collect(scenario(None, frames={"every_seconds": 0.5}), workspace)
    assert (found.seen, found.added) == (7, 6) and refused(workspace) == {"dog/broken.avi": "undecodable"}
    rows = table(staged(workspace, "pets")).to_pylist()
    assert [(row["label"], row["group"]) for row in rows[::3]] == [("cat", "cat/walk.avi"), ("dog", "dog/walk.avi")]
    assert [dict(row["columns"])["time"] for row in rows] == ["0.000", "0.500", "1.000"] * 2
