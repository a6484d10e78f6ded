"""Brings decoded images to the size of a network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Resize = Literal["stretch", "fit", "crop"]


def resize(pixels: np.ndarray, height: int, width: int, mode: Resize) -> np.ndarray:
    """Scale an image. Areas are averaged where it shrinks, pixels interpolated where it grows.

    Args:
        pixels: uint8 (rows, columns) or (rows, columns, 3).
        mode: `stretch` takes the whole image and changes its aspect ratio. `fit` takes the whole image, keeps its aspect ratio
            and pads it at two sides with the mean colour of its border, so that there is hardly an edge where the picture ends.
            `crop` keeps the aspect ratio too, and takes the largest part in the middle that has the one of the input.

    Returns:
        uint8 (height, width) or (height, width, 3); an image that has this size already is returned as it is.
    """
    rows, columns = pixels.shape[:2]
    if (rows, columns) == (height, width):
        return pixels
    if mode == "crop":
        kept_rows = max(1, min(rows, round(columns * height / width)))
        kept_columns = max(1, min(columns, round(rows * width / height)))
        top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
        return _stretch(pixels[top : top + kept_rows, left : left + kept_columns], height, width)
    if mode == "fit":
        scale = min(height / rows, width / columns)
        inner_height, inner_width = (max(1, min(height, round(rows * scale))), max(1, min(width, round(columns * scale))))
        return _pad(_stretch(pixels, inner_height, inner_width), height, width)
    return _stretch(pixels, height, width)


def _stretch(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    import cv2

    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    found: np.ndarray = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return found


def _pad(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image in the middle of a larger one of the mean colour of its outermost pixels."""
    import numpy as np

    rows, columns = pixels.shape[:2]
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(np.int64)
    colour = (border.sum(axis=0) * 2 + len(border)) // (2 * len(border))  # rounded, in integers: the same on every processor
    padded = np.empty((height, width, *pixels.shape[2:]), np.uint8)
    padded[:] = colour
    top, left = (height - rows) // 2, (width - columns) // 2
    padded[top : top + rows, left : left + columns] = pixels
    return padded
