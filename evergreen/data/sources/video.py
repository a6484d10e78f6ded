"""Video files of a source, as frames: the clip is their group, and the time within it a column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.sources.base import Source, SourceEntry, Stated
from evergreen.media.images import BadImage
from evergreen.media.video import FrameReader, Rule, is_video
from evergreen.scenario.settings import Section


class Frames(Section):
    """Which frames of video files are items."""

    at: Literal["interval", "scene_changes"] = Field(
        "interval", description="interval: one every so many seconds; scene_changes: the first one of each scene"
    )
    every_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(1.0, description="the interval")
    difference: Annotated[float, Field(gt=0, lt=255)] = Field(
        27.0,
        description="scene_changes: the mean difference of hue, saturation and value (0 to 255) from the frame before, from which a frame begins a "
        "scene; lower finds more",
    )

    @property
    def rule(self) -> Rule:
        """For `evergreen.media.video`."""
        return Rule(self.every_seconds if self.at == "interval" else None, self.difference)


@dataclass(frozen=True)
class VideoSource(Source):
    """A source in which each video file is replaced by frames of it; all other entries stay as they are.

    A frame lies in its clip's folder, `walking/clip.mp4` becomes `walking/clip.mp4-000012.500.jpg`, as if somebody had taken it
    out. A video that cannot be decoded is an entry with a problem; one that breaks off is that beside its frames.

    Attributes:
        files: the folder or archive. Videos in a folder are read by their path, those in an archive from memory.
        frames: which ones are taken.
        max_pixels: videos with larger frames are refused.
    """

    files: Source
    frames: Frames
    max_pixels: int

    def stream(self) -> Iterator[SourceEntry]:
        root = self.root
        with FrameReader(self.max_pixels) as reader:
            for entry in self.files.select(lambda name: root is None or not _is_clip(name)):
                if not _is_clip(entry.name) or entry.problem:
                    yield entry
                    continue
                clip = entry.data or b"" if root is None else root / entry.name
                yield from self._of_clip(entry, clip, reader)

    def select(self, wanted: Callable[[str], bool]) -> Iterator[SourceEntry]:
        """As `Source.select`, of the files as they lie there: videos are not decoded."""
        return self.files.select(wanted)

    def names(self) -> Iterator[tuple[str, float | None]]:
        """The names of files; the number of frames in a video is known only once it was decoded."""
        return self.files.names()

    @property
    def root(self) -> Path | None:
        return self.files.root

    def fingerprint(self) -> str:
        return self.files.fingerprint()

    def describe(self) -> str:
        return self.files.describe()

    def _of_clip(self, entry: SourceEntry, clip: Path | bytes, reader: FrameReader) -> Iterator[SourceEntry]:
        try:
            for frame in reader.frames(clip, self.frames.rule):
                yield replace(
                    entry,
                    name=f"{entry.name}-{frame.seconds:010.3f}.jpg",
                    data=frame.jpeg,
                    size_bytes=len(frame.jpeg),
                    packed_in=entry.name,
                    stated=Stated(None, group=entry.name, columns={"time": f"{frame.seconds:.3f}"}),
                )
        except BadImage as bad:
            yield replace(entry, data=None, problem=bad.reason, detail=bad.detail)


def _is_clip(name: str) -> bool:
    return is_video(name) and not is_hidden(name) and not is_leftover(name)
