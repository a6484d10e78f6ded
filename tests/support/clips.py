"""Small video files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def clip(path: Path, greys: Sequence[int], rate: float = 10, size: tuple[int, int] = (64, 48)) -> bytes:
    """A video with a frame for each grey value, 0 to 255, and some noise; its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, rate, size)
    random = np.random.default_rng(sum(greys))
    for grey in greys:
        noise = random.integers(-3, 4, (size[1], size[0], 3))
        writer.write(np.clip(grey + noise, 0, 255).astype(np.uint8))
    writer.release()
    return path.read_bytes()
