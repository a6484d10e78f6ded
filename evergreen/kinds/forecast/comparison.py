"""Two models by their errors on the same readings, at the first horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evergreen.evaluation.bootstrap import percentile_interval, resampled
from evergreen.kinds.base.comparison import Comparison, Figure, Guard
from evergreen.kinds.base.metric import Metric

MAE = Metric("mae", "mean absolute error", higher_is_better=False, unit="", margins="relative")
RMSE = Metric("rmse", "root mean squared error", higher_is_better=False, unit="", margins="relative")
R2 = Metric("r2", "R²", unit="")
METRICS = {"mae": MAE, "rmse": RMSE}
DAY = 86_400  # seconds: the errors of a day depend on each other, and are drawn together
DRAWS = 500


def blocks_of(local: np.ndarray) -> np.ndarray:
    """int `(readings,)`, from 0: the day of each reading, by the seconds on its clock."""
    found: np.ndarray = np.unique(local // DAY, return_inverse=True)[1]
    return found


def mean_error(errors: np.ndarray, weights: np.ndarray, metric: Literal["mae", "rmse"]) -> np.ndarray:
    """The metric of each draw, `(draws,)`.

    Args:
        errors: absolute ones, `(readings,)`.
        weights: how often each occurs in a draw, `(draws, readings)`.
    """
    total = weights.sum(axis=1)
    if metric == "mae":
        found: np.ndarray = weights @ errors / total
        return found
    squared: np.ndarray = np.sqrt(weights @ errors**2 / total)
    return squared


def interval(errors: np.ndarray, local: np.ndarray, metric: Literal["mae", "rmse"]) -> tuple[float, float]:
    """The 95 % interval of a metric of absolute errors `(readings,)`, by the bootstrap of whole days (Künsch 1989)."""

    def value(weights: np.ndarray) -> np.ndarray:
        return mean_error(errors, weights, metric)

    found, drawn = resampled(value, np.ones(len(errors), np.int64), draws=DRAWS, seed=0, blocks=blocks_of(local))
    low, high = percentile_interval(drawn)
    return min(low, found), max(high, found)


@dataclass(frozen=True)
class ErrorComparison(Comparison):
    """Absolute errors of both, float64 `(readings,)`, and the seconds on the readings' clocks."""

    champion: np.ndarray
    challenger: np.ndarray
    local: np.ndarray
    by: Literal["mae", "rmse"]
    unit: str = "test reading"

    right_or_wrong = False
    by_fraction = False

    @property
    def metric(self) -> Metric:  # type: ignore[override]
        return METRICS[self.by]

    @property
    def gained(self) -> np.ndarray:  # type: ignore[override]
        better: np.ndarray = self.challenger < self.champion
        return better

    @property
    def lost(self) -> np.ndarray:  # type: ignore[override]
        worse: np.ndarray = self.challenger > self.champion
        return worse

    @property
    def counts(self) -> np.ndarray:  # type: ignore[override]
        return np.ones(len(self.champion), np.int64)

    @property
    def blocks(self) -> np.ndarray:  # type: ignore[override]
        return blocks_of(self.local)

    def values(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return mean_error(self.champion, weights, self.by), mean_error(self.challenger, weights, self.by)

    def figures(self) -> tuple[Figure, Figure]:
        return _figure(self.champion, self.local), _figure(self.challenger, self.local)

    def within(self, inside: np.ndarray) -> ErrorComparison:
        return ErrorComparison(self.champion[inside], self.challenger[inside], self.local[inside], self.by, self.unit)

    def guards(self) -> Sequence[Guard]:
        return ()


def _figure(errors: np.ndarray, local: np.ndarray) -> Figure:
    return (float(errors.mean()), *interval(errors, local, "mae")) if len(errors) else (None, None, None)
