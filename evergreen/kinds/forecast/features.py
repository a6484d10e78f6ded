"""The inputs of a forecast as arrays: what is computed from a time and from the statistics of the training items. It travels
with
the registered model, and needs numpy alone.

Times are local, as a clock on the wall shows them: `datetime64[s]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DAY = 86_400  # seconds
HARMONICS = 3  # of the day
CALENDAR = 2 * HARMONICS + 7


def seconds_of_day(local: np.ndarray) -> np.ndarray:
    """int64, of the same shape: seconds since midnight."""
    found: np.ndarray = local.astype("datetime64[s]").astype(np.int64) % DAY
    return found


def slots_of_day(step_seconds: int) -> int:
    """The number of times of day that are told apart."""
    return max(1, -(-DAY // step_seconds))


def slot(local: np.ndarray, step_seconds: int) -> np.ndarray:
    """int64, of the same shape: the time of day in steps, from 0."""
    found: np.ndarray = np.minimum(seconds_of_day(local) // step_seconds, slots_of_day(step_seconds) - 1)
    return found


def calendar(local: np.ndarray) -> np.ndarray:
    """float32 `(items, CALENDAR)`: sines and cosines of the time of day, and the weekday as 0 or 1 for each of seven.

    Args:
        local: `(items,)`.
    """
    angle = 2 * np.pi * seconds_of_day(local) / DAY
    waves = [wave(harmonic * angle) for harmonic in range(1, HARMONICS + 1) for wave in (np.sin, np.cos)]
    weekday = (local.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday, and Monday is 0
    return np.column_stack([*waves, np.eye(7)[weekday]]).astype(np.float32)


def steps_around(history: int, horizons: Sequence[int]) -> np.ndarray:
    """int64 `(history + horizons,)`: the steps from an item's time to those of its history, the oldest first, and of its
    targets. An item's own time is that of its first target."""
    first = horizons[0]
    return np.array([*range(-history - first + 1, -first + 1), *(horizon - first for horizon in horizons)], np.int64)


def profile(local: np.ndarray, series: np.ndarray, shape: Mapping[str, Any], statistics: Mapping[str, Any]) -> np.ndarray:
    """float32 `(items, history + horizons)`: the mean of the time of day at the times of the history and of the targets.

    Args:
        local: of the first target, `(items,)`.
        series: its index, `(items,)`.
        shape: the fact `forecast`.
        statistics: the fact `statistics`.
    """
    step = int(shape["step_seconds"])
    around = steps_around(shape["history"], shape["horizons"]) * np.timedelta64(step, "s")
    means = np.array(statistics["profile"], np.float32)
    found: np.ndarray = means[series[:, None], slot(local[:, None] + around[None], step)]
    return found


def inputs(
    history: np.ndarray, known: np.ndarray, local: np.ndarray, series: np.ndarray, facts: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The network's inputs.

    Args:
        history: float32 `(items, history)`, the oldest first.
        known: float32 `(items, horizons * known columns)`: of each target, the columns that are known in advance; NaN where
            they are not.
        local: of the first target, `(items,)`.
        series: its index, `(items,)`.
        facts: `forecast` and `statistics`.

    Returns:
        `history` as given; `profile` (see there); `calendar`, float32 `(items, CALENDAR + horizons * known columns)`, where
        what is not known has the mean of the training items; and `index`, int32 `(items, 2)`: of the series and of the hour of
        day.
    """
    shape, statistics = facts["forecast"], facts["statistics"]
    usual = np.array(statistics["known_mean"], np.float32)
    if usual.size:
        known = np.where(np.isnan(known), usual[None], known)
    return {
        "history": history.astype(np.float32),
        "profile": profile(local, series, shape, statistics),
        "calendar": np.concatenate([calendar(local), known.astype(np.float32)], axis=1),
        "index": np.column_stack([series, seconds_of_day(local) // 3600]).astype(np.int32),
    }
