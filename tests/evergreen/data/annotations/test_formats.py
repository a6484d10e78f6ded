"""Each format: what is particular to it, and what is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evergreen.data.annotations.cvat import around
from evergreen.data.sources.base import Box
from evergreen.errors import DataRefused, WrongUse
from tests.evergreen.data.annotations.test_boxes import BOXES, FORMATS, IMAGES, coco, cvat, label_studio, voc, yolo
from tests.support.annotated import entries, labels, pictures

CAT = {"a": [("cat", 2.0, 3.0, 5.0, 4.0)]}
XML = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>'


def changed(files: dict[str, bytes], *replaced: str) -> dict[str, bytes]:
    """The files with each first text replaced by the one that follows it."""
    pairs = list(zip(replaced[::2], replaced[1::2], strict=True))
    for old, new in pairs:
        assert any(old.encode() in data for data in files.values()), old
        files = {name: data.replace(old.encode(), new.encode()) for name, data in files.items()}
    return files


REFUSED = {
    "coco is no JSON": ("coco", {"annotations.json": b"{"}, "annotations.json: it is no JSON"),
    "coco has no list": ("coco", {"annotations.json": b'{"images": [], "annotations": {}}'}, "it has no list of annotations"),
    "coco names no category": ("coco", changed(coco(CAT), '"category_id": 0', '"category_id": 7'), "annotation 0: its category is 7"),
    "coco names no image": ("coco", changed(coco(CAT), '"image_id": 0', '"image_id": 9'), "annotation 0: its image is 9"),
    "coco has three sides": ("coco", changed(coco(CAT), "[2.0, 3.0, 5.0, 4.0]", "[2, 3, 5]"), r"its bbox is \[2, 3, 5\]"),
    "coco has a word": ("coco", changed(coco(CAT), "[2.0,", '["wide",'), "a side of its bbox is 'wide'"),
    "yolo has four numbers": ("yolo", changed(yolo(CAT), "0 0.1", "0.1"), "labels/a.txt, line 1: it has 4 numbers"),
    "yolo has an unknown class": ("yolo", changed(yolo(CAT), "0 0.1", "5 0.1"), "its class is 5; expected a number from 0 to 1, as there are 2 names"),
    "yolo has a word": ("yolo", changed(yolo(CAT), "0 0.1", "0 wide0.1"), "line 1: a fraction is 'wide0"),
    "yolo has no names": ("yolo", yolo(CAT) | {"data.yaml": b"nc: 2\n"}, "data.yaml: it has no names of classes"),
    "yolo has no YAML": ("yolo", yolo(CAT) | {"data.yaml": b"names: [cat\n"}, "data.yaml: it is no YAML"),
    "voc is no XML": ("voc", {"a.xml": b"<annotation>"}, "a.xml: it is no XML"),
    "voc expands": ("voc", {"a.xml": XML}, "it has a document type"),
    "voc has no box": ("voc", changed(voc(CAT), "bndbox", "box"), "Annotations/a.xml, object 1: it has no bndbox"),
    "voc has a word": ("voc", changed(voc(CAT), "<xmin>3.0", "<xmin>left"), "object 1: xmin is 'left'"),
    "voc is something else": ("voc", {"a.xml": b"<svg/>"}, "there are no Pascal VOC annotations"),
    "cvat is something else": ("cvat", {"annotations.xml": b"<svg/>"}, "its root is svg"),
    "cvat is of a video": ("cvat", {"annotations.xml": b"<annotations><track/></annotations>"}, "it has tracks of a video"),
    "cvat has a word": ("cvat", changed(cvat(CAT), 'xtl="2.0"', 'xtl="left"'), "image 0: xtl is 'left'"),
    "label studio is small": ("label_studio", {"export.json": b'[{"id": 3, "image": "a.png", "choice": "cat"}]'}, "task 3: .*not JSON_MIN"),
    "label studio is no list": ("label_studio", {"export.json": b"{}"}, "it is no list of tasks"),
    "label studio has two labels": ("label_studio", changed(label_studio(CAT), '["cat"]', '["cat", "dog"]'), "a rectangle has the labels"),
    "label studio has no size": ("label_studio", changed(label_studio(CAT), "original_width", "width_of"), "original_width is None"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_damaged_file_is_refused_with_the_place(tmp_path: Path, case: str) -> None:
    format, files, message = REFUSED[case]
    with pytest.raises(DataRefused, match=message):
        entries(tmp_path / "s", files | IMAGES, format, **FORMATS[format][1])


@pytest.mark.parametrize("format", ["coco", "yolo", "cvat", "label_studio"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, format: str) -> None:
    with pytest.raises(WrongUse, match="the annotations .* are not in .*Correct collect.annotations"):
        entries(tmp_path / "s", IMAGES, format, **FORMATS[format][1])


def test_yolo_needs_exactly_one_list_of_names(tmp_path: Path) -> None:
    for number, more in enumerate(({}, {"classes": "data.yaml", "names": ["cat", "dog"]})):
        with pytest.raises(WrongUse, match="exactly one of classes"):
            entries(tmp_path / str(number), yolo(CAT) | IMAGES, "yolo", **more)
    assert set(labels(entries(tmp_path / "s", yolo(CAT) | IMAGES, "yolo", names=["wolf", "dog"])).values()) == {"wolf"}


def test_crowds_of_coco_are_left_out(tmp_path: Path) -> None:
    files = changed(coco(BOXES), '"id": 0, "image_id": 0', '"iscrowd": 1, "id": 0, "image_id": 0')
    assert len(labels(entries(tmp_path / "s", files | IMAGES, "coco", files=["annotations.json"]))) == 3


def test_splits_come_from_the_names_of_folders(tmp_path: Path) -> None:
    files = {f"train/{name}": data for name, data in coco(CAT).items()} | {
        f"valid/{name}": data for name, data in coco(CAT).items()
    }
    images = pictures(["train/a.png", "valid/a.png"])
    found = entries(tmp_path / "s", files | images, "coco", files=list(files), splits=True)
    assert [(one.name.split("/")[0], one.stated.split) for one in found if one.stated] == [("train", "train"), ("valid", "val")]
    texts = {"train/labels/a.txt": b"0 .5 .5 .5 .5\n", "test/labels/a.txt": b"1 .5 .5 .5 .5\n"}
    images = pictures(["train/images/a.png", "test/images/a.png"])
    found = entries(tmp_path / "y", texts | images, "yolo", names=["cat", "dog"], splits=True)
    assert sorted((one.stated.label, one.stated.split) for one in found if one.stated and one.stated.label) == [
        ("cat", "train"),
        ("dog", "test"),
    ]


def test_polygons_of_yolo_and_cvat_become_the_box_around_them(tmp_path: Path) -> None:
    found = entries(
        tmp_path / "y",
        {"a.txt": b"0 .25 .25 .75 .5 .5 .75\n", "notes.txt": b"hello\n"} | pictures(["a.png"]),
        "yolo",
        names=["cat"],
    )
    [box] = [one.stated.boxes[0] for one in found if one.stated]
    assert (box.x, box.y, box.width, box.height) == (6, 4, 12, 8)
    shape = b'<annotations><image id="0" name="a.png"><polygon label="cat" points="6,4;18,8;12,12"/></image></annotations>'
    found = entries(tmp_path / "c", {"a.xml": shape} | pictures(["a.png"]), "cvat", file="a.xml")
    assert [one.stated.boxes[0] for one in found if one.stated] == [box]


def test_a_rotated_box_becomes_the_box_around_it() -> None:
    upright = around(Box("cat", 10, 10, 4, 2), 90, centre=True)
    assert (round(upright.x, 6), round(upright.y, 6), round(upright.width, 6), round(upright.height, 6)) == (11, 9, 2, 4)
    corner = around(Box("cat", 10, 10, 4, 2), 90, centre=False)
    assert (round(corner.x, 6), round(corner.y, 6), round(corner.width, 6), round(corner.height, 6)) == (8, 10, 2, 4)


def test_tags_of_cvat_and_choices_of_label_studio_label_whole_images(tmp_path: Path) -> None:
    tags = {"a": ["cat"], "b": ["dog"], "c": ["cat", "dog"]}
    images = "".join(
        f'<image id="{name}" name="images/{name}.png">{"".join(f"<tag label={one!r}/>" for one in tags[name])}</image>'
        for name in tags
    )
    found = entries(
        tmp_path / "c", {"a.xml": f"<annotations>{images}</annotations>".encode()} | IMAGES, "cvat", file="a.xml", boxes="keep"
    )
    assert labels(found) == {"images/a.png": "cat", "images/b.png": "dog"}

    def task(name: str, *choices: tuple[str, dict[str, Any]]) -> dict[str, Any]:
        annotations = [
            {"result": [{"type": "choices", "value": {"choices": choice.split("+")}}]} | more for choice, more in choices
        ]
        return {
            "id": name,
            "data": {"image": f"/data/local-files/?d=images/{name}.png", "site": "north"},
            "annotations": annotations,
        }

    tasks = [
        task("a", ("dog", {"updated_at": "2026-01-01"}), ("cat", {"updated_at": "2026-02-01"}), ("dog", {"updated_at": "2026-03-01", "was_cancelled": True})),
        task("b", ("dog", {"ground_truth": True}), ("cat", {"updated_at": "2026-02-01"})),
        task("c", ("cat+dog", {})),
    ]  # fmt: skip
    exported = {"export.json": json.dumps(tasks).encode()}
    found = entries(tmp_path / "l", exported | IMAGES, "label_studio", file="export.json", boxes="keep", keep=["site"])
    assert labels(found) == {"images/a.png": "cat", "images/b.png": "dog"}
    assert {one.stated.columns["site"] for one in found if one.stated} == {"north"}
    with pytest.raises(WrongUse, match="task a has no picture in its data; expected one of image, site"):
        entries(tmp_path / "m", exported | IMAGES, "label_studio", file="export.json", image="picture")
