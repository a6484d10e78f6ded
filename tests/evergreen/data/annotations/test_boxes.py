"""Boxes: the same pictures and boxes in each format become the same crops, or images with a label by a rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evergreen.data.annotations.crops import Cropper, Rectangle
from evergreen.data.annotations.formats import find_annotations
from evergreen.data.annotations.source import AnnotatedSource
from evergreen.data.sources.base import SourceEntry
from evergreen.data.sources.opening import open_source
from evergreen.media.images import BadImage
from tests.support.annotated import HEIGHT, WIDTH, entries, labels, picture, pictures, pixels_of, problems, settings
from tests.support.sources import folder_of, zip_of

IMAGES = pictures(["images/a.png", "images/b.png", "images/c.png"])
Boxes = list[tuple[str, float, float, float, float]]  # label, x, y, width and height in pixels
BOXES: dict[str, Boxes] = {
    "a": [("cat", 2, 3, 5, 4), ("dog", 10, 0, 14, 16)],
    "b": [("cat", 0, 0, 4, 4), ("cat", 8, 8, 2, 2)],
    "c": [],
}
LABELS = ["cat", "dog"]


def coco(boxes: dict[str, Boxes], size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, bytes]:
    ids = {name: number for number, name in enumerate(boxes)}
    listed = [(ids[name], *box) for name in boxes for box in boxes[name]]
    content = {
        "images": [{"id": ids[name], "file_name": f"{name}.png", "width": size[0], "height": size[1]} for name in boxes],
        "annotations": [{"id": place, "image_id": image, "category_id": LABELS.index(label), "bbox": box} for place, (image, label, *box) in enumerate(listed)],
        "categories": [{"id": number, "name": label} for number, label in enumerate(LABELS)],
    }  # fmt: skip
    return {"annotations.json": json.dumps(content).encode()}


def yolo(boxes: dict[str, Boxes], size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, bytes]:
    lines = {
        name: "".join(
            f"{LABELS.index(label)} {(x + w / 2) / size[0]:.17g} {(y + h / 2) / size[1]:.17g} {w / size[0]:.17g} {h / size[1]:.17g}\n"
            for label, x, y, w, h in boxes[name]
        )
        for name in boxes
    }
    return {"data.yaml": b"names: [cat, dog]\n"} | {f"labels/{name}.txt": text.encode() for name, text in lines.items()}


def voc(boxes: dict[str, Boxes], size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, bytes]:
    def xml(name: str) -> bytes:
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for label, x, y, w, h in boxes[name]
        )
        sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
        return f"<annotation><filename>{name}.png</filename>{sides}{objects}</annotation>".encode()

    return {f"Annotations/{name}.xml": xml(name) for name in boxes}


def cvat(boxes: dict[str, Boxes], size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, bytes]:
    def image(name: str) -> str:
        shapes = "".join(
            f'<box label="{label}" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}"/>' for label, x, y, w, h in boxes[name]
        )
        return f'<image id="0" name="{name}.png" width="{size[0]}" height="{size[1]}">{shapes}</image>'

    return {"annotations.xml": f"<annotations>{''.join(map(image, boxes))}</annotations>".encode()}


def label_studio(boxes: dict[str, Boxes], size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, bytes]:
    def result(label: str, x: float, y: float, w: float, h: float) -> dict[str, Any]:
        value = {"x": 100 * x / size[0], "y": 100 * y / size[1], "width": 100 * w / size[0], "height": 100 * h / size[1]}
        return {
            "type": "rectanglelabels",
            "original_width": size[0],
            "original_height": size[1],
            "value": value | {"rectanglelabels": [label]},
        }

    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/upload/1/0a1b2c3d-{name}.png"},
            "annotations": [{"result": [result(*box) for box in boxes[name]]}],
        }
        for number, name in enumerate(boxes)
    ]
    return {"export.json": json.dumps(tasks).encode()}


FORMATS: dict[str, tuple[Any, dict[str, Any]]] = {
    "coco": (coco, {"files": ["annotations.json"]}),
    "yolo": (yolo, {"classes": "data.yaml"}),
    "voc": (voc, {}),
    "cvat": (cvat, {"file": "annotations.xml"}),
    "label_studio": (label_studio, {"file": "export.json"}),
}


def found(
    folder: Path, format: str, boxes: dict[str, Boxes] = BOXES, images: dict[str, bytes] = IMAGES, **more: Any
) -> list[SourceEntry]:
    write, fixed = FORMATS[format]
    return entries(folder, write(boxes) | images, format, **fixed, **more)


@pytest.mark.parametrize("format", FORMATS)
def test_each_box_is_cut_out_as_an_item_in_the_group_of_its_image(tmp_path: Path, format: str) -> None:
    crops = {one.name: one for one in found(tmp_path / "s", format) if one.stated and one.stated.label}
    assert labels(list(crops.values())) == {
        "images/a.png/00000.png": "cat", "images/a.png/00001.png": "dog", "images/b.png/00000.png": "cat", "images/b.png/00001.png": "cat",
    }  # fmt: skip
    first = crops["images/a.png/00000.png"]
    assert first.stated and first.stated.group == "images/a.png" and len(first.stated.boxes) == 1
    pixels = pixels_of(first)
    assert pixels.shape == (4, 5, 3)
    assert pixels[0, :, 2].tolist() == [2, 3, 4, 5, 6] and pixels[:, 0, 1].tolist() == [3, 4, 5, 6]
    assert pixels_of(crops["images/a.png/00001.png"]).shape == (16, 14, 3)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("container", [folder_of, zip_of])
def test_the_format_of_a_source_is_found(tmp_path: Path, format: str, container: Any) -> None:
    write, fixed = FORMATS[format]
    files = open_source(container(tmp_path / "s", write(BOXES) | IMAGES))
    settings_found = find_annotations(files)
    assert settings_found == settings(format, **fixed) and len(settings_found.reasons()) == 1
    assert len(labels(list(AnnotatedSource(files, settings_found, 10**6).stream()))) == 4


@pytest.mark.parametrize("format", FORMATS)
def test_whole_images_get_the_label_of_the_largest_or_only_box(tmp_path: Path, format: str) -> None:
    write, fixed = FORMATS[format]
    files = write(BOXES) | IMAGES
    by_largest = entries(tmp_path / "l", files, format, **fixed, boxes="largest")
    assert labels(by_largest) == {"images/a.png": "dog", "images/b.png": "cat"}
    assert [len(one.stated.boxes) for one in by_largest if one.stated] == [2, 2, 0]
    by_only = entries(tmp_path / "o", files, format, **fixed, boxes="only", without_boxes="empty")
    assert labels(by_only) == {"images/b.png": "cat", "images/c.png": "empty"}
    assert [one.stated.unlabelled for one in by_only if one.name == "images/a.png" and one.stated] == [
        "images with boxes of several labels"
    ]


BAD: dict[str, tuple[tuple[float, float, float, float], str]] = {
    "no width": ((3, 3, 0, 4), "box-without-area"),
    "no height": ((3, 3, 4, 0), "box-without-area"),
    "negative": ((9, 9, -4, -4), "box-without-area"),
    "right of the image": ((30, 2, 5, 5), "box-outside"),
    "above the image": ((3, -9, 5, 5), "box-outside"),
    "mostly outside": ((20, 2, 10, 5), "box-outside"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "cvat", "label_studio"])
def test_a_box_outside_the_image_or_without_area_has_a_problem_and_the_others_are_used(
    tmp_path: Path, format: str, case: str
) -> None:
    box, problem = BAD[case]
    crops = found(tmp_path / "s", format, {"a": [("cat", *box), ("dog", 1, 1, 4, 4)]})
    assert problems(crops) == {"images/a.png/00000.png": problem} and labels(crops) == {"images/a.png/00001.png": "dog"}
    [bad] = [one for one in crops if one.problem]
    assert "box 1 (cat)" in bad.detail and f"in an image of {WIDTH}×{HEIGHT}" in bad.detail and bad.data is None


def test_a_whole_image_with_an_impossible_box_has_its_problem(tmp_path: Path) -> None:
    write, fixed = FORMATS["coco"]
    files = write({"a": [("cat", 30, 2, 5, 5)], "b": [("dog", 1, 1, 4, 4)]}) | IMAGES
    whole = entries(tmp_path / "s", files, "coco", **fixed, boxes="largest")
    assert problems(whole) == {"images/a.png": "box-outside"} and labels(whole) == {"images/b.png": "dog"}


def test_a_box_over_the_edge_is_cut_at_it_and_a_margin_is_added(tmp_path: Path) -> None:
    write, fixed = FORMATS["coco"]
    files = write({"a": [("cat", -1, -1, 6, 6), ("dog", 10, 4, 4, 4)]}) | IMAGES
    crops = [one for one in entries(tmp_path / "s", files, "coco", **fixed, margin=0.5) if one.stated]
    assert [pixels_of(one).shape[:2] for one in crops] == [(8, 8), (8, 8)]
    assert pixels_of(crops[1])[0, 0, 1:].tolist() == [2, 8]  # row and column of its first pixel


@pytest.mark.parametrize("format", ["coco", "voc", "cvat", "label_studio"])
def test_annotations_of_an_image_of_another_size_are_refused(tmp_path: Path, format: str) -> None:
    write, fixed = FORMATS[format]
    crops = entries(tmp_path / "s", write(BOXES, (480, 320)) | IMAGES, format, **fixed)
    assert problems(crops)["images/a.png"] == "other-size"
    assert "of an image of 480×320 pixels, and this one has 24×16" in next(one.detail for one in crops if one.problem)


def test_a_damaged_image_is_refused_once_and_one_that_is_not_there_too(tmp_path: Path) -> None:
    for number, broken in enumerate((picture(0)[:60], b"text")):
        crops = found(tmp_path / str(number), "coco", images=IMAGES | {"images/a.png": broken})
        reasons = set(problems(crops).values())
        assert len(reasons) == 1 and reasons <= {"truncated", "undecodable", "not-an-image"} and len(labels(crops)) == 2
    images = {name: data for name, data in IMAGES.items() if name != "images/b.png"}
    assert problems(found(tmp_path / "gone", "coco", images=images)) == {"b.png": "missing"}


def test_deep_grey_and_turned_images_are_cut_without_loss() -> None:
    grey = np.arange(24 * 16, dtype=np.uint8).reshape(16, 24)
    deep = np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 100
    with Cropper(10**6) as cropper:
        for pixels in (grey, deep):
            [crop] = cropper.submit(cv2.imencode(".png", pixels)[1].tobytes(), [Rectangle(2, 3, 8, 9)]).result()  # type: ignore[misc]
            back = cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_UNCHANGED)
            assert back.dtype == pixels.dtype and (back == pixels[3:9, 2:8]).all()
        large = cropper.submit(picture(0, (1200, 1000)), [Rectangle(0, 0, 1, 1)]).result()
        assert isinstance(large, BadImage) and large.reason == "too-large"
