"""Small images of two labels, as an example of the kind `classify`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.support.kinds import Example

ITEMS = 120  # of each label


def write(folder: Path) -> None:
    """Bright and dark noise, 12 pixels a side, as PNG in a folder for each label."""
    random = np.random.default_rng(0)
    for label, brightness in (("dark", 70), ("light", 180)):
        (folder / label).mkdir(parents=True)
        for number in range(ITEMS):
            pixels = np.clip(random.normal(brightness, 40, (12, 12)), 0, 255).astype(np.uint8)
            (folder / label / f"{number:03}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


EXAMPLE = Example(
    {
        "name": "brightness",
        "kind": "classify",
        "seed": 3,
        "collect": {"path": "source"},
        "validate": {"labels": ["dark", "light"]},
        "preprocess": {"height": 12, "width": 12, "channels": 1, "look_alikes": False},
        "train": {"epochs": 4, "batch_size": 32, "learning_rate": 0.05, "filters": 4},
    },
    write,
)
