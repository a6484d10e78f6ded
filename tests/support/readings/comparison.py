"""Two models by their errors on the same readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evergreen.evaluation.bootstrap import percentile_interval, resampled
from evergreen.kinds.base.comparison import Comparison, Figure, Guard
from evergreen.kinds.base.metric import Metric

ERROR = Metric("mean_absolute_error", "mean error", higher_is_better=False, unit="°C", margins="relative")
BLOCK = 7  # readings that follow each other and are drawn together


def blocks_of(days: np.ndarray) -> np.ndarray:
    """int `(readings,)`, from 0: the block of each reading, by its day as a number."""
    found: np.ndarray = np.unique(days // BLOCK, return_inverse=True)[1]
    return found


def interval(errors: np.ndarray, days: np.ndarray) -> tuple[float, float]:
    """Of the mean of errors `(readings,)`, 95 %, by the block bootstrap."""

    def mean(weights: np.ndarray) -> np.ndarray:
        found: np.ndarray = weights @ errors / weights.sum(axis=1)
        return found

    _, drawn = resampled(mean, np.ones(len(errors), np.int64), draws=500, seed=0, blocks=blocks_of(days))
    return percentile_interval(drawn)


@dataclass(frozen=True)
class ErrorComparison(Comparison):
    """Absolute errors of both, float64 `(readings,)`, and the readings' days as numbers."""

    champion: np.ndarray
    challenger: np.ndarray
    days: np.ndarray
    unit: str = "test reading"

    metric = ERROR
    right_or_wrong = False
    by_fraction = False

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
        return blocks_of(self.days)

    def values(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = weights.sum(axis=1)
        return weights @ self.champion / total, weights @ self.challenger / total

    def figures(self) -> tuple[Figure, Figure]:
        return _figure(self.champion, self.days), _figure(self.challenger, self.days)

    def within(self, inside: np.ndarray) -> ErrorComparison:
        return ErrorComparison(self.champion[inside], self.challenger[inside], self.days[inside], self.unit)

    def guards(self) -> Sequence[Guard]:
        return ()


def _figure(errors: np.ndarray, days: np.ndarray) -> Figure:
    return (float(errors.mean()), *interval(errors, days)) if len(errors) else (None, None, None)
