"""Thumbnails of images, for HTML pages."""

from __future__ import annotations

import base64

from evergreen.media.depth import extremes
from evergreen.media.images import BadImage, PixelRange, decode

SIDE = 64  # pixels, of the longer side
MAX_PIXELS = 16_000_000  # larger images get no thumbnail


def thumbnail(data: bytes) -> str | None:
    """A small version of the image as a `data:` URL; None if the image can't be read."""
    import cv2
    import numpy as np

    try:
        limits = extremes(data, MAX_PIXELS)  # images with more than 8 bits are shown with their own contrast
        shown = PixelRange(limits[0], max(limits[1], limits[0] + 1)) if limits else None
        pixels = decode(data, 3, MAX_PIXELS, shown)
    except BadImage:
        return None
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    kind, options = ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 80]) if scale < 1 else ("png", [])
    done, encoded = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels[:, :, ::-1]), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}" if done else None
