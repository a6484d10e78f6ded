"""Cuts rectangles out of images, in processes of their own, as a damaged or hostile image may crash its decoder."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from evergreen.data.sources.png import plain_png
from evergreen.media.images import BadImage, checked_header, decode, deep_values, quiet_cv2
from evergreen.processes import Crashed, Hung, ProcessPool

if TYPE_CHECKING:
    import numpy as np

PATIENCE_SECONDS = 120.0  # for one image


class Rectangle(NamedTuple):
    """Whole pixels of an image: from `left` to before `right`, and from `top` to before `bottom`."""

    left: int
    top: int
    right: int
    bottom: int


class Cropper:
    """A pool of processes that decode and cut; they start when they are first needed. Use as a context manager.

    Attributes:
        max_pending: images of which the answer is not fetched yet, beyond which more would only take memory.
    """

    def __init__(self, max_pixels: int) -> None:
        """
        Args:
            max_pixels: larger images are not decoded.
        """
        self._pool = ProcessPool(initializer=_one_thread, patience_seconds=PATIENCE_SECONDS)
        self._max_pixels = max_pixels
        self.max_pending = 4 * self._pool.processes

    def __enter__(self) -> Cropper:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.__exit__(kind, error, trace)

    def submit(self, image: bytes, rectangles: Sequence[Rectangle]) -> Future[list[bytes] | BadImage]:
        """Each rectangle as a PNG, or why the image cannot be decoded."""

        def answer() -> list[bytes] | BadImage:
            try:
                return self._pool.call(_cut, image, list(rectangles), self._max_pixels)
            except BadImage as bad:
                return bad
            except Hung:
                return BadImage("hangs-decoder", f"decoding took more than {PATIENCE_SECONDS:.0f} seconds")
            except Crashed:
                return BadImage("crashes-decoder", "decoding ended the process that did it")

        return self._pool.threads.submit(answer)


def _one_thread() -> None:
    quiet_cv2().setNumThreads(1)


def _cut(image: bytes, rectangles: Sequence[Rectangle], max_pixels: int) -> list[bytes]:
    pixels = _pixels(image, max_pixels)
    return [plain_png(pixels[one.top : one.bottom, one.left : one.right]) for one in rectangles]


def _pixels(image: bytes, max_pixels: int) -> np.ndarray:
    """uint8 or uint16 (height, width) or (height, width, 3) RGB, after EXIF rotation.

    Raises:
        BadImage: it cannot be decoded, or has values that a PNG cannot hold.
    """
    header = checked_header(image, max_pixels)
    if header.deep:
        values = deep_values(image, max_pixels)
        assert values is not None
        if values.dtype != "uint16":
            raise BadImage("undecodable", f"a crop cannot hold its values of type {values.dtype}: save it with 16 bits a value")
        return values
    pixels = decode(image, 1 if header.channels == 1 else 3, max_pixels)
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
