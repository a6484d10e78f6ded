"""Frames of video files, decoded by OpenCV in a process of its own, as a damaged or hostile file may crash its decoder.

Scene changes are found as PySceneDetect's content detector finds them (https://www.scenedetect.com/docs/latest/api/detectors.html):
by the mean absolute difference of hue, saturation and value between successive frames.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from evergreen.media.images import BadImage, quiet_cv2
from evergreen.processes import Crashed, Hung, ProcessPool

ENDINGS = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
PATIENCE_SECONDS = 300.0  # until the next frames
CHUNK_FRAMES = 16  # that are in memory at once
JPEG_QUALITY = 95  # of 100; videos have lost more before
COMPARED_SIDE = 128  # pixels: frames are compared at this width
SHORTEST_SCENE_SECONDS = 0.5
WHOLE = 0.95  # a file of which fewer of the stated frames can be read is truncated


class Rule(NamedTuple):
    """Which frames are taken: one every so many seconds, or the first one of each scene.

    Attributes:
        every_seconds: None for scenes.
        difference: from which a frame begins a scene: the mean absolute difference of hue, saturation and value from the frame
            before, 0 to 255. Ignored with `every_seconds`.
    """

    every_seconds: float | None
    difference: float


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame.

    Attributes:
        seconds: since the beginning of the video.
        jpeg: the encoded picture.
    """

    seconds: float
    jpeg: bytes


class FrameReader:
    """Reads frames in one child process, which starts when it is first needed. Use as a context manager."""

    def __init__(self, max_pixels: int) -> None:
        """
        Args:
            max_pixels: videos with larger frames are refused.
        """
        self._pool = ProcessPool(1, initializer=_prepare_process, patience_seconds=PATIENCE_SECONDS)
        self._max_pixels = max_pixels

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.__exit__(kind, error, trace)

    def frames(self, video: Path | bytes, rule: Rule) -> Iterator[Frame]:
        """The frames of a video that a rule takes, in their order.

        Args:
            video: its path, or its content, which is written to a temporary file.

        Raises:
            BadImage: it cannot be decoded, or not to its end (`truncated`); earlier frames were given.
        """
        if isinstance(video, bytes):
            with tempfile.NamedTemporaryFile(prefix="evergreen-video-") as file:
                file.write(video)
                file.flush()
                yield from self._chunks(file.name, rule)
        else:
            yield from self._chunks(str(video), rule)

    def _chunks(self, path: str, rule: Rule) -> Iterator[Frame]:
        after: int | None = -1
        while after is not None:
            try:
                found, after = self._pool.submit(partial(_next_frames, path, rule, after, self._max_pixels)).result()
            except Hung:
                raise BadImage("hangs-decoder", f"decoding took more than {PATIENCE_SECONDS:.0f} seconds") from None
            except Crashed:
                raise BadImage("crashes-decoder", "decoding ended the process that did it") from None
            yield from found


def _prepare_process() -> None:
    quiet_cv2()


class _Open:
    """The video that the child process is reading."""

    path = ""
    at = -1
    selected: Iterator[Frame] = iter(())


def _next_frames(path: str, rule: Rule, after: int, max_pixels: int) -> tuple[list[Frame], int | None]:
    """The next frames of a video, and the number of the chunk; None after the last one."""
    if after < 0:
        _Open.path, _Open.at, _Open.selected = path, after, _selected(path, rule, max_pixels)
    assert (_Open.path, _Open.at) == (path, after)
    found = []
    for frame in _Open.selected:
        found.append(frame)
        if len(found) == CHUNK_FRAMES:
            _Open.at += 1
            return found, _Open.at
    return found, None


def _selected(path: str, rule: Rule, max_pixels: int) -> Iterator[Frame]:
    cv2 = quiet_cv2()
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            raise BadImage("undecodable", "it is no video that OpenCV's FFmpeg reads")
        width, height = (int(video.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > max_pixels:
            raise BadImage("too-large", f"{width}×{height} pixels; at most {max_pixels:,} are allowed")
        rate, stated, number = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0
        choose = _Interval(rule.every_seconds) if rule.every_seconds is not None else _Scenes(rule.difference)
        while video.grab():
            seconds = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if seconds <= 0 and number and rate > 0:  # the file states no times
                seconds = number / rate
            if (pixels := choose(seconds, video)) is not None:
                done, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                if not done:
                    raise BadImage("undecodable", "a frame cannot be encoded")
                yield Frame(seconds, jpeg.tobytes())
            number += 1
        if not number:
            raise BadImage("undecodable", "no frame of it can be decoded")
        if number < WHOLE * stated:
            raise BadImage("truncated", f"only {number:,} of its {stated:,} frames can be decoded")
    finally:
        video.release()


class _Interval:
    """Takes the first frame at or after each multiple of an interval."""

    def __init__(self, every_seconds: float) -> None:
        self._every, self._next = every_seconds, 0.0

    def __call__(self, seconds: float, video: Any) -> Any:
        if seconds + 1e-6 < self._next:
            return None
        self._next = (int((seconds + 1e-6) / self._every) + 1) * self._every
        return _retrieved(video)


class _Scenes:
    """Takes the first frame of each scene."""

    def __init__(self, difference: float) -> None:
        self._difference = difference
        self._before: Any = None
        self._began = -SHORTEST_SCENE_SECONDS

    def __call__(self, seconds: float, video: Any) -> Any:
        cv2, pixels = quiet_cv2(), _retrieved(video)
        if pixels is None:
            return None
        height = max(1, round(pixels.shape[0] * COMPARED_SIDE / pixels.shape[1]))
        small = cv2.cvtColor(cv2.resize(pixels, (COMPARED_SIDE, height), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2HSV)
        before, self._before = self._before, small
        is_new = before is None or cv2.absdiff(small, before).mean() >= self._difference
        if not is_new or seconds - self._began < SHORTEST_SCENE_SECONDS:
            return None
        self._began = seconds
        return pixels


def _retrieved(video: Any) -> Any:
    done, pixels = video.retrieve()
    return pixels if done else None


def is_video(name: str) -> bool:
    """True if a file's name has the ending of a video."""
    return os.path.splitext(name)[1].lower() in ENDINGS
