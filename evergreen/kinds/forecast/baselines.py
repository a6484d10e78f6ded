"""What every model is compared with, computed once for all models of the same splits: three forecasts without a model, a linear
model and boosted trees (scikit-learn) of the inputs that networks get, and the statistics that networks begin from.

All of them see training items alone; val chooses the strength of the linear model's penalty and the size of the trees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.kinds.base.split import TRAIN, VAL
from evergreen.kinds.forecast import features
from evergreen.kinds.forecast.windows import Windows

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

NAIVE = ("last value", "mean of the time of day", "latest same weekday")
MODELS = ("linear model", "boosted trees")
BASELINES = (*NAIVE, *MODELS)
PENALTIES = (1e-3, 1e-1, 1.0, 10.0, 100.0)  # of the linear model, times the squares of its coefficients
LEAVES = (7, 15)  # of each tree
TREES = 150  # at most
TREE_ITEMS = 50_000  # of train at most, evenly spread: with more, trees take longer and gain next to nothing
FEW = 30  # residuals in an hour of the day, below which those of all hours are used


@dataclass(frozen=True)
class Fitted:
    """The linear model, `(features, horizons)` and `(horizons,)`, for scaled targets."""

    kernel: np.ndarray
    bias: np.ndarray


def statistics(
    values: np.ndarray, local: np.ndarray, series: np.ndarray, known: np.ndarray, count: int, step_seconds: int, smoothing: int
) -> dict[str, Any]:
    """The fact `statistics`, of training items alone: the mean and the spread of each series, the mean of each time of day,
    averaged over `smoothing` of them, and mean and spread of what is known in advance.

    Args:
        values: `(items,)`.
        local: datetime64[s] `(items,)`.
        series: the index of each item's series, `(items,)`.
        known: float32 `(items, horizons * columns)`.
        count: the number of series.
    """
    mean, spread, profiles = np.zeros(count), np.ones(count), []
    slots = features.slot(local, step_seconds)
    for one in range(count):
        own = series == one
        mean[one], spread[one] = (values[own].mean(), values[own].std() or 1.0) if own.any() else (0.0, 1.0)
        profiles.append(smoothed(mean_of_the_time_of_day(values[own], slots[own], step_seconds), smoothing))
    with np.errstate(all="ignore"):
        there = ~np.isnan(known)
        counted = np.maximum(there.sum(axis=0), 1)
        known_mean = np.where(there, known, 0).sum(axis=0) / counted
        known_spread = np.sqrt((np.where(there, known - known_mean, 0) ** 2).sum(axis=0) / counted)
    return {
        "mean": _short(mean),
        "spread": _short(spread),
        "profile": [_short(one) for one in profiles],
        "known_mean": _short(known_mean),
        "known_spread": _short(np.where(known_spread > 0, known_spread, 1)),
    }


def mean_of_the_time_of_day(values: np.ndarray, slots: np.ndarray, step_seconds: int) -> np.ndarray:
    """float64 `(slots of a day,)`: the mean of each time of day; where there is no value, that of the times around it."""
    count = features.slots_of_day(step_seconds)
    sums, many = np.bincount(slots, values, count), np.bincount(slots, minlength=count)
    if not many.any():
        return np.zeros(count)
    there = np.flatnonzero(many)
    found: np.ndarray = np.interp(np.arange(count), there, sums[there] / many[there], period=count)
    return found


def smoothed(profile: np.ndarray, width: int) -> np.ndarray:
    """The centred average over so many times of day, across midnight."""
    width = min(width, len(profile) - 1 + len(profile) % 2)
    if width < 3:
        return profile
    half = width // 2
    around = np.concatenate([profile[-half:], profile, profile[:half]])
    return np.convolve(around, np.ones(width) / width, "valid")


def linear_inputs(inputs: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> np.ndarray:
    """float64 `(items, features)`: the network's inputs, scaled as inside the network, in one row for each item."""
    stats, length = facts["statistics"], facts["forecast"]["history"]
    series = inputs["index"][:, 0]
    mean, spread = (np.array(stats[name])[series][:, None] for name in ("mean", "spread"))
    profile = inputs["profile"].astype(np.float64)
    history = (inputs["history"] - profile[:, :length]) / spread
    calendar = inputs["calendar"].astype(np.float64)
    calendar[:, features.CALENDAR :] = (calendar[:, features.CALENDAR :] - stats["known_mean"]) / stats["known_spread"]
    return np.concatenate([history, (profile - mean) / spread, calendar], axis=1)


def scaled(inputs: Mapping[str, np.ndarray], targets: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    """float64 `(items, horizons)`: the targets' distances from the mean of the time of day, in spreads of their series."""
    spread = np.array(facts["statistics"]["spread"])[inputs["index"][:, 0]][:, None]
    found: np.ndarray = (targets - inputs["profile"][:, facts["forecast"]["history"] :].astype(np.float64)) / spread
    return found


def fit_linear(rows: np.ndarray, targets: np.ndarray, split: np.ndarray) -> Fitted:
    """A linear model with a quadratic penalty for each horizon.

    Args:
        rows: float64 `(items, features)`.
        targets: float64 `(items, horizons)`; NaN where there is none.
        split: int8 `(items,)`.
    """
    from sklearn.linear_model import Ridge

    kernels, biases = [], []
    for column in range(targets.shape[1]):
        there = ~np.isnan(targets[:, column])
        train, val = there & (split == TRAIN), there & (split == VAL)
        if not train.any():
            kernels.append(np.zeros(rows.shape[1]))
            biases.append(0.0)
            continue
        best, least = None, np.inf
        for penalty in PENALTIES:
            model = Ridge(penalty).fit(rows[train], targets[train, column])
            error = float(np.mean((model.predict(rows[val]) - targets[val, column]) ** 2)) if val.any() else penalty
            if error < least:
                best, least = model, error
        assert best is not None
        kernels.append(best.coef_)
        biases.append(float(best.intercept_))
    return Fitted(np.column_stack(kernels), np.array(biases))


def fit_trees(rows: np.ndarray, targets: np.ndarray, split: np.ndarray, seed: int) -> np.ndarray:
    """The forecasts of boosted trees for all items, float64 `(items, horizons)`. Arguments as in `fit_linear`."""
    found = np.zeros(targets.shape)
    for column in range(targets.shape[1]):
        there = ~np.isnan(targets[:, column])
        train, val = np.flatnonzero(there & (split == TRAIN)), np.flatnonzero(there & (split == VAL))
        if not len(train):
            continue
        train = train[np.unique(np.linspace(0, len(train) - 1, TREE_ITEMS).astype(int))] if len(train) > TREE_ITEMS else train
        judged = val if len(val) else train
        least, best = np.inf, (LEAVES[0], TREES)
        for leaves in LEAVES:
            model = _trees(leaves, TREES, seed).fit(rows[train], targets[train, column])
            errors = [np.mean((one - targets[judged, column]) ** 2) for one in model.staged_predict(rows[judged])]
            number = int(np.argmin(errors))
            if errors[number] < least:
                least, best = errors[number], (leaves, number + 1)
        found[:, column] = _trees(*best, seed).fit(rows[train], targets[train, column]).predict(rows)
    return found


def _trees(leaves: int, trees: int, seed: int) -> HistGradientBoostingRegressor:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=trees, max_leaf_nodes=leaves, min_samples_leaf=20, early_stopping=False, random_state=seed
    )


def offsets(residuals: np.ndarray, hours: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """float64 `(24, horizons, levels)`: quantiles of residuals `(items, horizons)` in each hour of the day; NaN residuals do
    not
    count."""
    overall = (
        np.nan_to_num(np.nanquantile(residuals, levels, axis=0).T)
        if len(residuals)
        else np.zeros((residuals.shape[1], len(levels)))
    )
    found = np.tile(overall[None], (24, 1, 1))
    for hour in range(24):
        own = residuals[hours == hour]
        for column in range(residuals.shape[1]):
            there = own[~np.isnan(own[:, column]), column]
            if len(there) >= FEW:
                found[hour, column] = np.quantile(there, levels)
    return found


def naive(
    windows: Windows, inputs: Mapping[str, np.ndarray], values: np.ndarray, train: np.ndarray, facts: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The forecasts without a model, float64 `(items, horizons)` by name. Where there is no earlier day of the same weekday,
    the
    mean of the time of day stands for it.

    Args:
        values: float64 `(items,)`.
        train: bool `(items,)`: the training items.
    """
    shape, series = facts["forecast"], inputs["index"][:, 0]
    step, count = shape["step_seconds"], len(shape["series"])
    slots = features.slot(windows.local, step)
    means = np.array([
        mean_of_the_time_of_day(values[train & (series == one)], slots[train & (series == one)], step) for one in range(count)
    ])  # fmt: skip
    ahead = features.steps_around(shape["history"], shape["horizons"])[shape["history"] :] * np.timedelta64(step, "s")
    of_day = means[series[:, None], features.slot(windows.local[:, None] + ahead[None], step)]
    weekday = np.where(np.isnan(windows.same_weekday), of_day, windows.same_weekday)
    last = np.repeat(windows.history[:, -1:].astype(np.float64), len(shape["horizons"]), axis=1)
    return dict(zip(NAIVE, (last, of_day, weekday), strict=True))


def _short(values: np.ndarray) -> list[float]:
    """Numbers with so many digits as float32 has: what is written is what is computed with."""
    return [float(np.format_float_positional(np.float32(value))) for value in values]
