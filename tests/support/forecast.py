"""A series with a day's course that depends on itself, as an example of the kind `forecast`."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from tests.support.kinds import Example

FIRST, STEP = datetime(2026, 1, 5), timedelta(hours=1)
DAYS = 40


def values(first: int, count: int, *, level: float = 50.0) -> np.ndarray:
    """Numbers that go down from a high one and up from a low one, which no linear model can know, around a day's course.

    Args:
        first: the hour of the first one, from 0.
        level: their mean, about.
    """
    random = np.random.default_rng(first)
    state, found = 0.0, np.empty(count)
    for place in range(count):
        state = 6 - 1.5 * abs(state) + random.normal(0, 1.5)
        found[place] = level + 10 * np.sin(2 * np.pi * (first + place) / 24) + state
    return found


def lines(first: int, count: int, *, level: float = 50.0) -> str:
    """Lines of a CSV file, without the header."""
    return "".join(
        f"{FIRST + (first + place) * STEP:%Y-%m-%dT%H:%M},{value:.3f}\n"
        for place, value in enumerate(values(first, count, level=level))
    )


def write(folder: Path) -> None:
    """A CSV file."""
    folder.mkdir()
    (folder / "series.csv").write_text("time,load\n" + lines(0, 24 * DAYS))


EXAMPLE = Example(
    {
        "name": "load",
        "kind": "forecast",
        "seed": 3,
        "collect": {"path": "source", "time": "time", "values": ["load"]},
        "preprocess": {"history": 4, "horizons": [1, 3], "val_share": 0.15},
        "train": {"model": "gru", "units": 24, "epochs": 10, "batch_size": 64, "learning_rate": 0.03},
    },
    write,
)
