"""The fraction of faces that `collect.blur_faces` misses, with its interval, also of small, turned and badly lit ones.

Two photographs in the public domain show a face: Grace Hopper (US Navy; matplotlib carries it) and Eileen Collins (NASA;
scikit-image carries it, and is used if it is installed). Each face is put into other photographs (scikit-learn's) at random
places, mirrored at random, at one size, angle or light for each row. A face is missed if less than 90 % of its box is hidden.
Beside it the same network that looks at the upright image only. Two faces say nothing about differences between people.

Run: python -m bench.faces [--json]
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFilter

from bench.report import Row, report
from evergreen import figures
from evergreen.evaluation.proportions import interval
from evergreen.media.faces import Face, find_faces

PLACEMENTS = 24  # for each row
WIDTH = 48  # pixels of a face, unless a row says otherwise; the photographs have 640×427
HIDDEN = 0.9
HOPPER, COLLINS = (173, 127, 359, 335), (182, 58, 270, 178)  # the faces' boxes
Change = Callable[[Image.Image], Image.Image]


def portraits() -> list[tuple[Image.Image, tuple[int, int, int, int]]]:
    import matplotlib

    paths = [(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg", HOPPER)]
    found = find_spec("skimage")
    if found and found.submodule_search_locations:
        paths.append((Path(found.submodule_search_locations[0]) / "data" / "astronaut.png", COLLINS))
    return [(Image.open(path).convert("RGB"), box) for path, box in paths if path.is_file()]


def squeezed(share: float) -> Change:
    return lambda image: image.resize((max(1, round(image.width * share)), image.height))


def darker(share: float) -> Change:
    return lambda image: image.point(lambda value: int(value * share))


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=25)
    return Image.open(file).convert("RGB")


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(WIDTH / 14))


def masked(image: Image.Image) -> Image.Image:
    """The lower part of the face is covered, as by a surgical mask."""
    covered = np.array(image)
    height, width = covered.shape[:2]
    covered[round(0.56 * height) : round(0.78 * height), round(0.2 * width) : round(0.8 * width)] = (180, 205, 220)
    return Image.fromarray(covered)


CONDITIONS: dict[str, tuple[int, float, Change | None, Change | None]] = {
    # what: width of the face, angle, change of the face, change of the whole photograph
    **{f"{width} pixels wide": (width, 0, None, None) for width in (10, 14, 20, 32, WIDTH, 120)},
    **{f"turned by {angle}° in the image": (WIDTH, angle, None, None) for angle in (30, 60, 90, 135, 180)},
    "squeezed to 70 % of its width, as a head that looks aside": (WIDTH, 0, squeezed(0.7), None),
    "squeezed to 45 %": (WIDTH, 0, squeezed(0.45), None),
    "behind a mask": (WIDTH, 0, masked, None),
    "in a photograph with a quarter of the light": (WIDTH, 0, None, darker(0.25)),
    "out of focus": (WIDTH, 0, None, blurred),
    "in a JPEG of quality 25": (WIDTH, 0, None, compressed),
}


def placed(
    random: np.random.Generator, face: tuple[Image.Image, tuple[int, int, int, int]], background: Image.Image, what: str
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """A photograph with one face, uint8 `(height, width, 3)`, and the face's box in it (left, top, right, bottom)."""
    width, angle, on_face, on_all = CONDITIONS[what]
    portrait, (left, top, right, bottom) = face
    margin = 0.45 * (right - left)
    box = (
        max(0, left - margin),
        max(0, top - margin),
        min(portrait.width, right + margin),
        min(portrait.height, bottom + margin),
    )
    scale = width / (right - left)
    head = portrait.crop(tuple(map(int, box))).resize([max(2, round((box[i + 2] - box[i]) * scale)) for i in (0, 1)])  # type: ignore[arg-type]
    corners = [(left - box[0], top - box[1]), (right - box[0], bottom - box[1])]
    height_before, width_before = head.height, head.width
    head = head if on_face is None else on_face(head)
    stretch = head.width / width_before
    (x0, y0), (x1, y1) = [(x * scale * stretch, y * scale) for x, y in corners]
    if random.random() < 0.5:
        head, x0, x1 = head.transpose(Image.Transpose.FLIP_LEFT_RIGHT), head.width - x1, head.width - x0
    rows, columns = np.ogrid[: head.height, : head.width]
    inside = ((rows / head.height - 0.5) / 0.5) ** 2 + ((columns / head.width - 0.5) / 0.5) ** 2
    mask = Image.fromarray((255 * np.clip((1.0 - inside) * 4, 0, 1)).astype(np.uint8))
    middle = np.array([(x0 + x1) / 2 - head.width / 2, (y0 + y1) / 2 - height_before / 2])
    turned, mask = (image.rotate(angle, Image.Resampling.BICUBIC, expand=True) for image in (head, mask))
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    at = [
        int(random.integers(0, max(1, room))) for room in (background.width - turned.width, background.height - turned.height)
    ]
    photograph = background.copy()
    photograph.paste(turned, tuple(at), mask)  # type: ignore[arg-type]
    photograph = photograph if on_all is None else on_all(photograph)
    x, y = turn @ middle + np.array([turned.width, turned.height]) / 2 + np.array(at)
    wide, tall = np.abs(turn) @ np.array([(x1 - x0), (y1 - y0)]) * (1.0 if angle % 90 == 0 else 0.8)  # a face is no rectangle
    return np.asarray(photograph), (x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)


def is_hidden(box: tuple[float, float, float, float], faces: list[Face], shape: tuple[int, ...]) -> bool:
    covered = np.zeros(shape[:2], bool)
    for face in faces:
        covered[face.top : face.bottom, face.left : face.right] = True
    left, top, right, bottom = (max(0, round(value)) for value in box)
    return bool(covered[top:bottom, left:right].mean() >= HIDDEN)


def of(missed: int, items: int) -> str:
    return figures.percent(missed / items, *interval(missed, items))


def measure() -> list[Row]:
    from sklearn.datasets import load_sample_images

    cv2.setNumThreads(1)
    backgrounds = [Image.fromarray(image) for image in load_sample_images().images]
    faces, rows = portraits(), []
    for what in CONDITIONS:
        random, missed, upright_missed = np.random.default_rng(0), 0, 0
        for number in range(PLACEMENTS):
            background = backgrounds[number % len(backgrounds)]
            photograph, box = placed(random, faces[number // 2 % len(faces)], background, what)
            missed += not is_hidden(box, find_faces(photograph), photograph.shape)
            upright_missed += not is_hidden(box, find_faces(photograph, turns=1), photograph.shape)
        upright = f"{of(upright_missed, PLACEMENTS)} where only the upright image is searched"
        rows.append(
            Row(f"faces missed, {what}", of(missed, PLACEMENTS), upright, f"{PLACEMENTS} places, {len(faces)} faces", "")
        )
    boxes = sum(len(find_faces(np.asarray(image))) for image in backgrounds)
    rows.append(Row("boxes hidden where there is no face", str(boxes), "", f"{len(backgrounds)} photographs", ""))
    return rows


if __name__ == "__main__":
    report(measure, __doc__ or "")
