"""Two years of made-up temperatures, as an example of the kind."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np

from tests.support.kinds import Example

FIRST_DAY = date(2023, 1, 1)
DAYS = 730


def series(first: int, days: int, *, warmer: float = 0.0) -> str:
    """Lines of a CSV file: the season and noise, so that the mean of some readings predicts the next one better than the last
    of them does.

    Args:
        first: the number of the first day, from 0.
        warmer: °C that are added.
    """
    random = np.random.default_rng(first)
    numbers = np.arange(first, first + days)
    temperatures = 10 - 8 * np.cos(2 * np.pi * numbers / 365) + random.normal(warmer, 1.5, days)
    return "".join(
        f"{FIRST_DAY + timedelta(int(number))},{temperature:.2f}\n"
        for number, temperature in zip(numbers, temperatures, strict=True)
    )


def write(folder: Path) -> None:
    """Two CSV files, one a year."""
    folder.mkdir()
    for year in range(DAYS // 365):
        (folder / f"{FIRST_DAY.year + year}.csv").write_text(series(365 * year, 365))


EXAMPLE = Example(
    {
        "name": "weather",
        "kind": "readings",
        "seed": 3,
        "collect": {"path": "source"},
        "preprocess": {"val_share": 0.15},
        "train": {"epochs": 25, "batch_size": 32, "learning_rate": 0.02},
    },
    write,
)
