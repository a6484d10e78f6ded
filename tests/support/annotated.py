"""Sources with annotations, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import TypeAdapter

from evergreen.data.annotations.base import Format
from evergreen.data.annotations.formats import Annotations
from evergreen.data.annotations.source import AnnotatedSource
from evergreen.data.sources.base import SourceEntry
from evergreen.data.sources.opening import open_source
from tests.support.sources import folder_of

WIDTH, HEIGHT = 24, 16  # of the pictures, in pixels


def picture(seed: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """A PNG in colour that differs for each seed; the red of each pixel is its column, the green its row."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    pixels[..., 0] = np.random.default_rng(seed).integers(0, 256, (height, width))
    return cv2.imencode(".png", pixels)[1].tobytes()


def pictures(names: Sequence[str]) -> dict[str, bytes]:
    """A picture for each name."""
    return {name: picture(number) for number, name in enumerate(names)}


def settings(format: str, /, **more: Any) -> Format:
    """The section `collect.annotations`, as a scenario has it."""
    found: Format = TypeAdapter(Annotations).validate_python({"format": format} | more)
    return found


def entries(folder: Path, files: dict[str, bytes], format: str, /, **more: Any) -> list[SourceEntry]:
    """What a source with these files gives."""
    return list(AnnotatedSource(open_source(folder_of(folder, files)), settings(format, **more), 10**6).stream())


def labels(found: Sequence[SourceEntry]) -> dict[str, str]:
    """The label of each item by its name."""
    return {one.name: one.stated.label for one in found if one.stated and one.stated.label and not one.problem}


def problems(found: Sequence[SourceEntry]) -> dict[str, str]:
    """The problem of each item that cannot be used by its name."""
    return {one.name: one.problem for one in found if one.problem}


def pixels_of(entry: SourceEntry) -> np.ndarray:
    """uint8 (height, width, 3), blue, green, red: the row is the green, the column the red."""
    assert entry.data is not None
    return cv2.imdecode(np.frombuffer(entry.data, np.uint8), cv2.IMREAD_COLOR)
