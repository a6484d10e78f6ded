"""Readings on a grid of equal steps: the history and the targets of each, and what was wrong with its time.

A reading is an item. It is the first target of a forecast from the readings before it; further horizons have later readings as
their targets. `Readings` has a row for each item in the order of arrival, and so have all arrays made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from evergreen.kinds.forecast.features import DAY, steps_around
from evergreen.kinds.forecast.settings import ForecastPreprocess
from evergreen.kinds.forecast.times import local_seconds

SECOND = 1_000_000  # microseconds
ZONE_BLOCK = 900  # seconds: offsets of zones change at multiples of a quarter of an hour
MOST_WEEKS = 53  # that the latest earlier day of the same weekday is looked for


@dataclass(frozen=True)
class Readings:
    """The readings of a data set.

    Attributes:
        names: of the series, sorted.
        series: int64 `(items,)`: the index of each one's series.
        microseconds: int64 `(items,)`: since 1970-01-01, UTC.
        values: float64 `(items,)`.
        known: float32 `(items, columns)`: what is known in advance of their times.
        given: int8 `(items,)`: the split that the source gives, or -1.
    """

    names: tuple[str, ...]
    series: np.ndarray
    microseconds: np.ndarray
    values: np.ndarray
    known: np.ndarray
    given: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Grid:
    """Readings in the steps of their series.

    Attributes:
        step_seconds: between two steps.
        step: int64 `(items,)`: the number of the step, since 1970-01-01.
        off_grid: bool `(items,)`: the time is too far from a step, or another reading is nearer to the same one.
        order: int64: the rows of those that are on the grid, by series and time.
    """

    step_seconds: int
    step: np.ndarray
    off_grid: np.ndarray
    order: np.ndarray


@dataclass(frozen=True)
class Windows:
    """What is forecast from what.

    Attributes:
        history: float32 `(items, history)`: the readings before, the oldest first; 0 where `usable` is False.
        usable: bool `(items,)`: whether there is a history.
        crosses: bool `(items,)`: whether it runs across steps without a reading.
        targets: float32 `(items, horizons)`; NaN where there is no reading.
        known: float32 `(items, horizons * columns)`: NaN where it is not known.
        local: datetime64[s] `(items,)`: the clock of the series.
        same_weekday: float32 `(items, horizons)`: the reading at the time of each target on the latest earlier day of the same
            weekday; NaN if there is none.
        weeks_ago: int8 `(items, horizons)`: how long ago that was; 0 if there is none.
    """

    history: np.ndarray
    usable: np.ndarray
    crosses: np.ndarray
    targets: np.ndarray
    known: np.ndarray
    local: np.ndarray
    same_weekday: np.ndarray
    weeks_ago: np.ndarray


def commonest_step(series: np.ndarray, microseconds: np.ndarray) -> int:
    """The commonest time between two readings of a series, in whole seconds, at least 1; of equally common ones the
    shortest."""
    order = np.lexsort((microseconds, series))
    same = np.diff(series[order]) == 0
    seconds = np.round(np.diff(microseconds[order])[same] / SECOND).astype(np.int64)
    found, counts = np.unique(seconds[seconds > 0], return_counts=True)
    return int(found[np.argmax(counts)]) if len(found) else 1


def grid(series: np.ndarray, microseconds: np.ndarray, step_seconds: int | None, tolerance: float) -> Grid:
    """Put readings on a grid. The grid of a series begins where most of its times lie, within a step.

    Args:
        series: int64 `(items,)`.
        microseconds: int64 `(items,)`.
        step_seconds: None for the commonest one.
        tolerance: fraction of a step.
    """
    step_seconds = step_seconds or commonest_step(series, microseconds)
    step_micro = step_seconds * SECOND
    step, away = np.zeros(len(series), np.int64), np.zeros(len(series))
    for one in np.unique(series):
        rows = np.flatnonzero(series == one)
        phases, counts = np.unique(microseconds[rows] % step_micro, return_counts=True)
        phase = int(phases[np.argmax(counts)])
        step[rows] = (microseconds[rows] - phase + step_micro // 2) // step_micro
        away[rows] = np.abs(microseconds[rows] - phase - step[rows] * step_micro) / step_micro
    off_grid = away > tolerance
    order = np.lexsort((away, step, series))
    order = order[~off_grid[order]]
    again = np.zeros(len(order), bool)
    again[1:] = (np.diff(series[order]) == 0) & (np.diff(step[order]) == 0)
    off_grid[order[again]] = True
    return Grid(step_seconds, step, off_grid, order[~again])


def local_times(microseconds: np.ndarray, timezone: str | None) -> np.ndarray:
    """datetime64[s] `(items,)`: what the clock of the zone shows."""
    seconds = microseconds // SECOND
    if timezone is not None:
        zone = ZoneInfo(timezone)
        blocks, place = np.unique(seconds // ZONE_BLOCK, return_inverse=True)
        offsets = np.array(
            [local_seconds(int(block) * ZONE_BLOCK * SECOND, zone) - int(block) * ZONE_BLOCK for block in blocks]
        )
        seconds = seconds + offsets[place]
    return seconds.astype("datetime64[s]")


def windows(readings: Readings, on: Grid, settings: ForecastPreprocess, timezone: str | None) -> Windows:
    """The history and the targets of each reading, by the rules of the section `preprocess`."""
    count, length, horizons = len(readings), settings.history, settings.horizons
    first, width = horizons[0], readings.known.shape[1]
    values = readings.values.astype(np.float32)
    history, usable = np.zeros((count, length), np.float32), np.zeros(count, bool)
    crosses = np.zeros(count, bool)
    targets = np.full((count, len(horizons)), np.nan, np.float32)
    known = np.full((count, len(horizons), width), np.nan, np.float32)
    same_weekday = np.full((count, len(horizons)), np.nan, np.float32)
    weeks_ago = np.zeros((count, len(horizons)), np.int8)
    around = steps_around(length, horizons)
    for one in range(len(readings.names)):
        rows = on.order[readings.series[on.order] == one]
        steps = on.step[rows]
        if not len(rows):
            continue
        finder = _Finder(steps)
        for column, ahead in enumerate(around[length:]):
            place, there = finder.at(steps + ahead)
            targets[rows, column] = np.where(there, values[rows][place], np.nan)
            known[rows, column] = np.where(there[:, None], readings.known[rows][place], np.nan)
            same_weekday[rows, column], weeks_ago[rows, column] = _weeks_before(
                finder, steps + ahead, first + int(ahead), values[rows], on.step_seconds
            )
        if settings.across_gaps:
            found, able, crossing = _by_order(values[rows], steps, readings.given[rows], length, first)
        else:
            found, able, crossing = _by_step(finder, values[rows], steps, around[:length], settings.max_fill_steps)
        history[rows], usable[rows], crosses[rows] = found, able, crossing
    local = local_times(readings.microseconds, timezone)
    return Windows(history, usable, crosses, targets, known.reshape(count, -1), local, same_weekday, weeks_ago)


class _Finder:
    """Finds the reading at a step, or the last one before it."""

    def __init__(self, steps: np.ndarray) -> None:
        self.steps = steps

    def before(self, wanted: np.ndarray) -> np.ndarray:
        """The place of the last reading not after each step; -1 if there is none."""
        return np.searchsorted(self.steps, wanted, "right") - 1

    def at(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A place for each step, and whether the reading there has it."""
        place = np.maximum(self.before(wanted), 0)
        return place, self.steps[place] == wanted


def _by_step(
    finder: _Finder, values: np.ndarray, steps: np.ndarray, around: np.ndarray, max_fill: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The history of the steps before; a missing reading is filled with the last one, if that is near enough."""
    wanted = steps[:, None] + around[None]
    place = finder.before(wanted)
    there = np.maximum(place, 0)
    age = wanted - finder.steps[there]
    able = ((place >= 0) & (age <= max_fill)).all(axis=1)
    return np.where(able[:, None], values[there], 0), able, (age > 0).any(axis=1) & able


def _by_order(
    values: np.ndarray, steps: np.ndarray, given: np.ndarray, length: int, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The history of the readings before, however long ago they were, within those that the source gives the same split."""
    place = np.arange(len(values))[:, None] + np.arange(-length - first + 1, -first + 1)[None]
    there = np.maximum(place, 0)
    able = (place[:, 0] >= 0) & (given[there] == given[:, None]).all(axis=1)
    crosses = (steps - steps[there[:, 0]] != length + first - 1) & able
    return np.where(able[:, None], values[there], 0), able, crosses


def _weeks_before(
    finder: _Finder, wanted: np.ndarray, ahead: int, values: np.ndarray, step_seconds: int
) -> tuple[np.ndarray, np.ndarray]:
    """The readings at the same time some weeks before, the latest that are known when the forecast is made, and how many
    weeks."""
    found, weeks = np.full(len(wanted), np.nan, np.float32), np.zeros(len(wanted), np.int8)
    for number in range(1, MOST_WEEKS + 1):
        back = number * 7 * DAY // step_seconds
        open_ = weeks == 0
        if back < ahead or back * step_seconds != number * 7 * DAY or not open_.any():
            continue
        place, there = finder.at(wanted[open_] - back)
        found[open_] = np.where(there, values[place], np.nan)
        weeks[open_] = np.where(there, number, 0)
    return found, weeks


def runs_of_equal(values: np.ndarray) -> np.ndarray:
    """int64 `(values,)`: how many values in a row, up to each one, are the same."""
    if not len(values):
        return np.zeros(0, np.int64)
    begins = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[begins, len(values)])
    found: np.ndarray = np.arange(len(values)) - np.repeat(begins, lengths) + 1
    return found


def indices(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The distinct names, sorted, and the index of each."""
    known = sorted(set(names))
    place = {name: index for index, name in enumerate(known)}
    return tuple(known), np.array([place[name] for name in names], np.int64)
