"""Video files become frames: at an interval or at changes of scene, with the clip as group and the time as column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evergreen.data.sources.base import SourceEntry
from evergreen.data.sources.opening import open_source
from evergreen.data.sources.video import Frames, VideoSource
from evergreen.processes import Crashed, ProcessPool
from tests.support.annotated import settings
from tests.support.clips import clip
from tests.support.sources import folder_of, zip_of

SCENES = [20] * 8 + [200] * 9 + [90] * 8


def frames(path: Path, max_pixels: int = 10**6, **chosen: Any) -> list[SourceEntry]:
    return list(VideoSource(open_source(path), Frames.model_validate(chosen), max_pixels).stream())


def grey(entry: SourceEntry) -> float:
    assert entry.data is not None
    return float(cv2.imdecode(np.frombuffer(entry.data, np.uint8), cv2.IMREAD_GRAYSCALE).mean())


@pytest.mark.parametrize("name", ["walk/a.avi", "walk/a.mp4"])
@pytest.mark.parametrize("container", [folder_of, zip_of])
def test_a_frame_is_taken_at_each_interval_with_its_clip_and_time(tmp_path: Path, name: str, container: Any) -> None:
    content = clip(tmp_path / "made" / name, SCENES)
    found = frames(container(tmp_path / "s", {name: content, "walk/notes.txt": b"x"}), every_seconds=1)
    assert [one.name for one in found if one.stated] == [f"{name}-{second:06d}.000.jpg" for second in range(3)]
    assert [(one.stated.group, one.stated.columns["time"]) for one in found if one.stated] == [
        (name, f"{second}.000") for second in range(3)
    ]
    assert [round(grey(one) / 10) for one in found if one.stated] == [2, 20, 9]
    assert [one.name for one in found if not one.stated] == ["walk/notes.txt"]


def test_more_frames_than_are_in_memory_at_once_come_in_their_order(tmp_path: Path) -> None:
    clip(tmp_path / "s/a.avi", list(range(0, 250, 6)))
    found = frames(tmp_path / "s", every_seconds=0.1)
    assert [float(one.stated.columns["time"]) for one in found if one.stated] == [
        pytest.approx(number / 10) for number in range(42)
    ]
    assert sorted(map(grey, found)) == list(map(grey, found))


def test_the_first_frame_of_each_scene_is_taken(tmp_path: Path) -> None:
    clip(tmp_path / "s/a.avi", SCENES)
    found = frames(tmp_path / "s", at="scene_changes")
    assert [one.stated.columns["time"] for one in found if one.stated] == ["0.000", "0.800", "1.700"]
    assert [round(grey(one) / 10) for one in found] == [2, 20, 9]


def test_a_file_that_cannot_be_decoded_or_breaks_off_or_is_too_large_has_a_problem(tmp_path: Path) -> None:
    whole = clip(tmp_path / "made/a.avi", SCENES)
    folder = folder_of(tmp_path / "s", {"a.mp4": b"no video", "b.avi": whole[: len(whole) // 2], "c.avi": whole})
    found = frames(folder, every_seconds=1)
    bad = {one.name: one for one in found if one.problem}
    assert bad["a.mp4"].problem == "undecodable" and "c.avi" not in bad
    assert sum(one.name.startswith("c.avi-") for one in found) == 3
    assert "b.avi" not in bad or bad["b.avi"].problem in ("truncated", "undecodable")
    assert [one.problem for one in frames(folder_of(tmp_path / "l", {"c.avi": whole}), 1000)] == ["too-large"]


def test_a_decoder_that_crashes_costs_one_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path / "s/a.avi", SCENES)
    clip(tmp_path / "s/b.avi", SCENES)
    call, crashes = ProcessPool.call, [True, False]

    def sometimes(self: ProcessPool, *arguments: Any, **keywords: Any) -> Any:
        if crashes and crashes.pop(0):
            raise Crashed("the call ended its process")
        return call(self, *arguments, **keywords)

    monkeypatch.setattr(ProcessPool, "call", sometimes)
    found = frames(tmp_path / "s", every_seconds=1)
    assert {one.name: one.problem for one in found if one.problem} == {"a.avi": "crashes-decoder"} and len(found) == 4


def test_a_manifest_may_label_whole_clips(tmp_path: Path) -> None:
    clip(tmp_path / "s/a.avi", SCENES)
    (tmp_path / "s/labels.csv").write_text("path,label,site\na.avi,walking,north\n")
    files = VideoSource(open_source(tmp_path / "s"), Frames.model_validate({}), 10**6)
    found = [one for one in settings("manifest", file="labels.csv", keep=["site"]).source(files, 10**6).stream() if one.stated]
    assert [(one.stated.label, one.stated.group) for one in found if one.stated] == [("walking", "a.avi")] * 3
    assert [dict(one.stated.columns) for one in found if one.stated][1] == {"time": "1.000", "site": "north"}
