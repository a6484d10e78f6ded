"""Images as pages show them: upright, with 8 bits, no larger than needed."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from evergreen.media.depth import extremes
from evergreen.media.images import BadImage, PixelRange, decode, read_header

if TYPE_CHECKING:
    import numpy as np

SIDE = 64  # pixels, of a thumbnail's longer side
MAX_PIXELS = 16_000_000  # larger images get no thumbnail


def shown(data: bytes, side: int, max_pixels: int = 10 * MAX_PIXELS) -> np.ndarray:
    """The pixels of an image, uint8 `(height, width, 3)` in RGB order, with a longer side of at most `side` pixels.

    Raises:
        BadImage: the image can't be read, or has more than `max_pixels`.
    """
    import cv2

    pixels = decode(data, 3, max_pixels, own_range(data, max_pixels))
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return pixels


def own_range(data: bytes, max_pixels: int) -> PixelRange | None:
    """The range of an image's own values, with which one of more than 8 bits is shown; None for all others.

    Raises:
        BadImage: as in `shown`.
    """
    limits = extremes(data, max_pixels)
    return PixelRange(limits[0], max(limits[1], limits[0] + 1)) if limits else None


def thumbnail(data: bytes) -> str | None:
    """A small version of the image as a `data:` URL; None if the image can't be read."""
    import cv2
    import numpy as np

    try:
        pixels = shown(data, SIDE, MAX_PIXELS)
    except BadImage:
        return None
    # A small image stays exact.
    header = read_header(data)
    is_small = max(header.width, header.height) <= SIDE
    kind, options = ("png", []) if is_small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 80])
    done, encoded = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels[:, :, ::-1]), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}" if done else None
