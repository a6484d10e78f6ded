"""Decodes the images of a data set, once for all later stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from evergreen.media.images import PixelRange
    from evergreen.media.resizing import Resize


def pixels_of(
    images: Sequence[bytes],
    shape: tuple[int, int, int],
    ids: Sequence[str],
    pixel_range: PixelRange | None = None,
    mode: Resize = "stretch",
) -> np.ndarray:
    """Decode images to the form that the network takes.

    Args:
        shape: height, width and channels (1 or 3).
        ids: of the items, for the error message.
        pixel_range, mode: as in `evergreen.media.images.prepare`.

    Returns:
        uint8 `(images, height, width, channels)`, RGB order.

    Raises:
        EvergreenError: an image cannot be decoded.
    """
    import sys

    import cv2
    import numpy as np

    from evergreen.errors import EvergreenError
    from evergreen.media.images import BadImage, prepare

    height, width, channels = shape
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the images are already spread over the cores
    try:
        pixels = np.empty((len(images), height, width, channels), np.uint8)
        for index, image in enumerate(images):
            # Collected items have passed the scenario's own limit.
            pixels[index] = prepare(image, height, width, channels, sys.maxsize, pixel_range, mode)  # type: ignore[arg-type]
    except BadImage as bad:
        raise EvergreenError(
            f"item {ids[index]} of the data set cannot be decoded ({bad})",
            fix="The data set has been damaged since it was collected: bring it back with: dvc checkout data/SCENARIO",
        ) from None
    finally:
        cv2.setNumThreads(threads)
    return pixels
