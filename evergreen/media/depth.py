"""Chooses the range of deep images (more than 8 bits per value): which value is black and which is white, for a whole data set.

There is one range for all images, chosen once and recorded: a range per image would make faint objects as bright as strong
ones, and a range that moved as the data grow would change old items. It extends from the 1st percentile of the images' darkest
values to the 99th of their brightest (each image's 0.1th and 99.9th percentile), so that hot pixels and a few unusual images
are ignored, and what is bright in one image in twenty is not clipped.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from evergreen.errors import DataRefused
from evergreen.media.images import MAX_PIXELS, BadImage, PixelRange, deep_values

if TYPE_CHECKING:
    import numpy as np

    from evergreen.scenario.settings import Scenario

SAMPLED_IMAGES = 512
SAMPLED_VALUES = 2**18  # per image
MIN_LEVELS = 32  # that the data must reach, of 256; 12 bits read as 16 bits reach 17


def extremes(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[float, float] | None:
    """The 0.1th and 99.9th percentile of a deep image's values; None for any other image.

    Raises:
        BadImage: the image can't be decoded, or none of its values is a finite number.
    """
    import numpy as np

    values = deep_values(data, max_pixels)
    if values is None:
        return None
    flat = values.reshape(-1)
    if len(flat) > SAMPLED_VALUES:
        flat = flat[np.random.default_rng(0).integers(0, len(flat), SAMPLED_VALUES)]
    if flat.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
    if not len(flat):
        raise BadImage("undecodable", "none of its pixels is a number")
    return float(np.percentile(flat, 0.1, method="lower")), float(np.percentile(flat, 99.9, method="higher"))


class Sample:
    """A random sample of a source's deep images: those with the smallest hashes of their content, independent of their
    order."""

    def __init__(self) -> None:
        self._chosen: list[tuple[int, float, float]] = []  # a heap, the largest hash first: (-hash, darkest, brightest)
        self._hashes: set[int] = set()

    def __len__(self) -> int:
        return len(self._chosen)

    def has_room_for(self, data: bytes) -> bool:
        """True if an image with this content would belong to the sample."""
        key = _key(data)
        return key not in self._hashes and (len(self._chosen) < SAMPLED_IMAGES or key < -self._chosen[0][0])

    def add(self, data: bytes, found: tuple[float, float]) -> None:
        """Add an image with its `extremes`."""
        key = _key(data)
        self._hashes.add(key)
        heapq.heappush(self._chosen, (-key, *found))
        if len(self._chosen) > SAMPLED_IMAGES:
            self._hashes.discard(-heapq.heappop(self._chosen)[0])

    def range(self) -> PixelRange | None:
        """The range that suits the sample; None if it is empty."""
        import numpy as np

        if not self._chosen:
            return None
        _, darkest, brightest = zip(*self._chosen, strict=True)
        low = float(np.percentile(darkest, 1, method="lower"))
        high = float(np.percentile(brightest, 99, method="higher"))
        return PixelRange(low, high if high > low else low + 1)


def _key(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def levels(pixel_range: PixelRange, data: PixelRange) -> int:
    """The number of the 256 levels that images with values in the range `data` reach if they are read with `pixel_range`."""
    import numpy as np

    low, high = pixel_range.apply(np.array(data, np.float64)).tolist()
    return int(high - low) + 1


def no_contrast(scenario: Scenario, read_with: PixelRange | None, reached: int, suits: PixelRange) -> DataRefused:
    """The error for deep images that reach too few levels.

    Args:
        read_with: the range with which they were read; None for the upper 8 of 16 bits.
        suits: the range that suits the data.
    """
    how = f"with preprocess.range {read_with}" if read_with else "by the upper 8 of their 16 bits"
    return DataRefused(
        f"the images of {scenario.name} have more than 8 bits a value, and read {how} they reach {reached} of 256 levels",
        expected=f"at least {MIN_LEVELS}", fix=f"Set preprocess.range: {suits} in scenarios/{scenario.name}.yaml, as suits these images.",
    )  # fmt: skip


def sampled_range(images: Iterable[bytes]) -> PixelRange | None:
    """The range that suits these encoded images; None if none of them is deep. Images that can't be decoded are skipped."""
    sample = Sample()
    for data in images:
        if sample.has_room_for(data):
            try:
                found = extremes(data)
            except BadImage:
                continue
            if found:
                sample.add(data, found)
    return sample.range()


def may_be_deep(data: bytes) -> bool:
    """Check the first bytes of an image: False if it certainly has no more than 8 bits per value."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data[24:25] == b"\x10"
    return data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def reached_levels(pixels: np.ndarray | Sequence[np.ndarray]) -> int:
    """The number of the 256 levels that these prepared images reach, ignoring the darkest and brightest thousandth of the
    pixels.

    Args:
        pixels: uint8, of any shape.
    """
    import numpy as np

    low, high = np.percentile(pixels, (0.1, 99.9))
    return int(high - low) + 1
