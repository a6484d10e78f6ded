"""Images as people who label them see them, and on which of their parts an answer rests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evergreen.data.inbox import SET_ASIDE
from evergreen.errors import EvergreenError
from evergreen.kinds.base.codec import Codec, Network
from evergreen.kinds.base.explorer import LabelError
from evergreen.kinds.base.labelling import Answer, Labelling, Picture
from evergreen.kinds.classify.answers import REASONS, answered
from evergreen.kinds.classify.codec import ImageCodec
from evergreen.kinds.classify.heat_maps import heat_map
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.kinds.classify.thumbnails import own_range, shown
from evergreen.media.faces import without_faces
from evergreen.media.images import checked_header
from evergreen.media.resizing import Resize
from evergreen.workspace import Workspace

LEAST_SIDE = 512  # pixels of a picture with a heat map
MAP_SIDE = 256  # pixels of a heat map's longer side
SMALL_SIDE = 512  # pixels: up to here pictures are PNG, whose pixels are those of the image
FOR, AGAINST = np.array([214, 39, 40], np.uint8), np.array([31, 119, 180], np.uint8)  # RGB
OPACITY = 0.65  # of the strongest part
STRONG = 0.15  # weaker parts, as a fraction of the strongest, stay clear


class ImageLabelling(Labelling[ImageScenario]):
    """Labelled images."""

    column = "image"

    def as_collected(self, scenario: ImageScenario, content: bytes) -> bytes:
        """Checked by its header and the scenario's `collect.max_pixels`; with faces hidden if `collect.blur_faces` says so. Its
        metadata stay, which no page shows."""
        header = checked_header(content, scenario.collect.max_pixels)
        if not scenario.collect.blur_faces:
            return content
        return without_faces(content, header, own_range(content, scenario.collect.max_pixels))

    def picture(self, content: bytes, side: int) -> Picture:
        """The image, decoded and encoded again: large ones as JPEG, small ones as PNG."""
        pixels = shown(content, side)
        return _encoded(pixels, "png" if max(pixels.shape[:2]) <= SMALL_SIDE else "jpeg")

    def probabilities(self, codec: Codec, output: np.ndarray) -> dict[str, float]:
        """See `Labelling.probabilities`; `output` is float32 `(labels,)`."""
        return dict(zip(codec.categories, output.tolist(), strict=True))

    def answer(self, codec: Codec, outputs: Mapping[str, np.ndarray]) -> Answer:
        """By the model's rules (`evergreen.kinds.classify.answers`); `unknown` is `unsure`, `unlike` or empty."""
        label, unknown = answered(codec.decided(outputs))
        return Answer(codec.categories[int(label[0])], REASONS[int(unknown[0])])

    def heat_map(self, model: Network, content: bytes, label: str) -> Picture:
        """See `evergreen.kinds.classify.heat_maps`."""
        codec = model.codec
        assert isinstance(codec, ImageCodec)
        image = codec.encode([content])["images"][0]
        heat = heat_map(model, image, codec.labels.index(label))
        large = _on_picture(heat, codec.shape[:2], codec.mode, shown(content, MAP_SIDE).shape[:2])
        strength = np.abs(large) / max(float(np.abs(heat).max()), 1e-9)
        colours = np.where((large > 0)[:, :, None], FOR, AGAINST)
        opacity = np.clip((strength - STRONG) / (1 - STRONG), 0, 1) * OPACITY * 255
        return _encoded(np.dstack([colours, opacity.round().astype(np.uint8)]), "png")

    def overlaid(self, content: bytes, heat_map: Picture, side: int) -> Picture:
        """See `Labelling.overlaid`."""
        import cv2

        below = shown(content, side)
        factor = LEAST_SIDE // max(below.shape[:2])  # so that a small image can be looked at
        if factor > 1:
            below = below.repeat(factor, axis=0).repeat(factor, axis=1)
        over: Any = cv2.imdecode(np.frombuffer(heat_map.content, np.uint8), cv2.IMREAD_UNCHANGED)
        over = cv2.resize(over, below.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        opacity = over[:, :, 3:] / 255.0
        return _encoded((below * (1 - opacity) + over[:, :, 2::-1] * opacity).round().astype(np.uint8), "png")

    def label_errors(self, scenario: ImageScenario, workspace: Workspace) -> Sequence[LabelError]:
        """See `evergreen.kinds.classify.label_errors`."""
        from evergreen.kinds.classify.label_errors import find_label_errors

        return find_label_errors(scenario, workspace)

    def inbox_folder(self, scenario: ImageScenario, label: str) -> str | None:
        """The label itself, or a name that `collect.rename` turns into it."""
        rename = scenario.collect.rename
        names = [label, *(name for name, meant in rename.items() if meant == label)]
        fitting = (name for name in names if rename.get(name, name) == label and _can_be_a_folder(name))
        return next(fitting, None)


def _on_picture(heat: np.ndarray, of: tuple[int, int], mode: Resize, picture: tuple[int, ...]) -> np.ndarray:
    """A heat map as large as a picture, with each value where the network saw that part of it; 0 where it saw nothing.

    Args:
        of: height and width of the network's input, which the heat map covers.
        mode: how the picture was brought to that size.
        picture: height and width of the picture.
    """
    import cv2

    whole = cv2.resize(heat, of[::-1], interpolation=cv2.INTER_LINEAR)
    scales = [inside / outside for inside, outside in zip(of, picture, strict=True)]
    if mode != "stretch":
        scales = [min(scales) if mode == "fit" else max(scales)] * 2
    # The middle of the picture is in the middle of the input; positions are those of the pixels' middles.
    offsets = [
        (inside - outside * scale) / 2 + (scale - 1) / 2 for inside, outside, scale in zip(of, picture, scales, strict=True)
    ]
    to_input = np.array([[scales[1], 0, offsets[1]], [0, scales[0], offsets[0]]], np.float64)
    border = cv2.BORDER_CONSTANT if mode == "crop" else cv2.BORDER_REPLICATE
    found: np.ndarray = cv2.warpAffine(
        whole, to_input, (picture[1], picture[0]), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border
    )
    return found


def _can_be_a_folder(name: str) -> bool:
    return name not in SET_ASIDE and not name.startswith(".") and not re.search(r"[/\0]", name) and len(name.encode()) <= 255


def _encoded(pixels: np.ndarray, kind: str) -> Picture:
    """An image of these pixels, uint8 `(height, width, 3 or 4)`, RGB or RGBA."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    order = (2, 1, 0, 3)[: pixels.shape[2]]
    done, encoded = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels[:, :, order]), options)
    if not done:
        raise EvergreenError(f"a picture of {pixels.shape[1]}×{pixels.shape[0]} pixels could not be encoded")
    return Picture(f"image/{kind}", encoded.tobytes())
