"""Inspects images in child processes, on all cores, so that a decoder that crashes or hangs costs one image, not the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, partial
from types import TracebackType
from typing import TypeVar

from evergreen.media.damage import StandardError, refuse_damaged
from evergreen.media.depth import extremes
from evergreen.media.faces import without_faces
from evergreen.media.images import BadImage, Inspection, PixelRange, inspect, quiet_cv2
from evergreen.media.metadata import as_png, without_metadata
from evergreen.processes import Crashed, Hung, ProcessPool

PATIENCE_SECONDS = 120.0  # per chunk, which normally takes well under one second


@dataclass(frozen=True, slots=True)
class Privacy:
    """What is done to images before they are stored.

    Attributes:
        keep_metadata: keep position, camera, times and whatever else is not part of the picture.
        blur_faces: make faces unrecognizable. Of refused images nothing is stored then, since no faces can be looked for.
    """

    keep_metadata: bool
    blur_faces: bool = False


AS_THEY_ARE = Privacy(keep_metadata=True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of an image.

    Attributes:
        found: its inspection, or why it is refused.
        content: the encoded image as it may be stored, if that differs from the original; empty if it may not be stored.
        hides_faces: whether faces were made unrecognizable in it.
    """

    found: Inspection | BadImage
    content: bytes | None = None
    hides_faces: bool = False


Extremes = tuple[float, float] | BadImage | None
T = TypeVar("T")


class Inspectors:
    """A pool of inspecting processes, which start when they are first needed. Use as a context manager."""

    def __init__(
        self,
        max_pixels: int,
        processes: int | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        privacy: Privacy = AS_THEY_ARE,
    ) -> None:
        """
        Args:
            max_pixels: images with more pixels are `too-large`.
            privacy: what is done to them before they are stored.
            processes: by default one for each core that this process may use.
        """
        self.pool = ProcessPool(processes, initializer=_standard_error, patience_seconds=patience_seconds)
        self.processes = self.pool.processes
        self._max_pixels, self._privacy = max_pixels, privacy
        self._patience_seconds = patience_seconds

    def __enter__(self) -> Inspectors:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pool.__exit__(kind, error, trace)

    def submit(self, images: Sequence[bytes], pixel_range: PixelRange | None = None) -> Future[list[Verdict]]:
        """Inspect a chunk of encoded images; the verdicts are in the same order. An image that crashes or hangs its decoder is
        refused as `crashes-decoder` or `hangs-decoder`.

        Args:
            pixel_range: as in `evergreen.media.images.inspect`.
        """
        question = partial(_verdicts, max_pixels=self._max_pixels, pixel_range=pixel_range, privacy=self._privacy)
        stored = None if self._privacy == AS_THEY_ARE else b""

        def answers() -> list[Verdict]:
            found = self._answers(question, images)
            return [Verdict(one, stored) if isinstance(one, BadImage) else one for one in found]

        return self.pool.threads.submit(answers)

    def extremes(self, images: Sequence[bytes]) -> Future[list[Extremes]]:
        """Compute `evergreen.media.depth.extremes` of each image."""
        return self.pool.threads.submit(self._answers, partial(_extremes, max_pixels=self._max_pixels), images)

    def _answers(self, question: Callable[[list[bytes]], list[T | BadImage]], images: Sequence[bytes]) -> list[T | BadImage]:
        if not images:
            return []
        try:
            return self.pool.call(question, list(images))
        except Hung:
            trouble = BadImage("hangs-decoder", f"decoding took more than {self._patience_seconds:.0f} seconds")
        except Crashed:
            trouble = BadImage("crashes-decoder", "decoding ended the process that did it")
        if len(images) == 1:
            return [trouble]
        return [found for image in images for found in self._answers(question, [image])]  # find the image that caused it


@cache
def _standard_error() -> StandardError:
    """The standard error of an inspecting process, to which its decoders write."""
    cv2, errors = quiet_cv2(), StandardError()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)  # written to standard error, and read there
    cv2.setNumThreads(1)
    return errors


def _verdicts(
    images: list[bytes], *, max_pixels: int, pixel_range: PixelRange | None, privacy: Privacy
) -> list[Verdict | BadImage]:
    def undamaged(image: bytes) -> Inspection:
        found = inspect(image, max_pixels, pixel_range)
        refuse_damaged(image, found.header.format, _standard_error())
        return found

    def verdict(image: bytes) -> Verdict:
        found, content = _judged(undamaged, image), image
        if isinstance(found, BadImage):
            if privacy == AS_THEY_ARE:
                return Verdict(found)
            left = b"" if privacy.blur_faces else without_metadata(image) or b""
            return Verdict(found, None if left is image else left)
        if privacy.blur_faces:
            content = without_faces(image, found.header, pixel_range)
        if content is not image:  # its pixels are others, and it was encoded without metadata
            return Verdict(inspect(content, max_pixels, pixel_range), content, hides_faces=True)
        cleaned = image if privacy.keep_metadata else without_metadata(image)
        if cleaned is image:
            return Verdict(found)
        # Formats have more variants than tests: for each image it is checked that the picture is still the same.
        if cleaned is None or _judged(lambda left: inspect(left, max_pixels, pixel_range), cleaned) != found:
            cleaned = as_png(image, found.header)
            found = inspect(cleaned, max_pixels, pixel_range)
        return Verdict(found, cleaned)

    return [_judged(verdict, image) for image in images]


def _extremes(images: list[bytes], *, max_pixels: int) -> list[Extremes]:
    return [_judged(lambda image: extremes(image, max_pixels), image) for image in images]


def _judged(judge: Callable[[bytes], T], image: bytes) -> T | BadImage:
    _standard_error().read()  # discard what was written before this image
    try:
        return judge(image)
    except BadImage as bad:
        return bad
    except Exception as error:
        return BadImage("undecodable", f"{type(error).__name__}: {error}"[:500])
