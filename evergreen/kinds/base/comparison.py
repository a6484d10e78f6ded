"""Comparisons of two models, or of a model and a baseline, on the same units of evaluation, for the gate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evergreen.kinds.base.metric import Metric

Figure = tuple[
    float | None, float | None, float | None
]  # a value and the ends of its 95 % interval; None if there are no units


class Comparison(ABC):
    """Two models on the same units of evaluation (items, windows, events, …), made by a kind's judge.

    Attributes:
        metric: by which they are compared.
        unit: the word for a unit, in the singular, such as "test item".
        gained, lost: bool `(units,)`: the units on which the challenger is better, and those on which the champion is.
        right_or_wrong: whether each unit is simply right or wrong.
        by_fraction: whether the metric is the fraction of right units, so that McNemar's test applies.
        counts: int `(rows,)`: the number of units that each distinct result represents.
        blocks: int `(rows,)`: the block of each result; dependent results share a block and are drawn together. None if all
            results are independent.
    """

    metric: Metric
    unit: str = "test item"
    gained: np.ndarray
    lost: np.ndarray
    right_or_wrong: bool
    by_fraction: bool
    counts: np.ndarray
    blocks: np.ndarray | None = None

    @abstractmethod
    def values(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The metric of champion and challenger in each draw, float64 `(draws,)` each. `weights` `(draws, rows)` says how often
        each result occurs in a draw."""

    @abstractmethod
    def figures(self) -> tuple[Figure, Figure]:
        """The values of champion and challenger on these units to show, by the judge's first metric."""

    @abstractmethod
    def within(self, inside: np.ndarray) -> Comparison:
        """The comparison restricted to some of the units, bool `(units,)`."""

    @abstractmethod
    def guards(self) -> Sequence[Guard]:
        """The slices on which quality must not decrease, in addition to those of the scenario."""

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.gained)


@dataclass(frozen=True)
class Guard:
    """The units with one value of a column; `inside` is bool `(units,)`. With fewer than `least_units` units the slice is shown
    but not tested."""

    column: str
    value: str
    inside: np.ndarray
    least_units: int = 1


@dataclass(frozen=True)
class Baseline:
    """The baseline that a first champion must beat.

    Attributes:
        comparison: of the model with the baseline, which takes the champion's part.
        name: what the baseline does, such as 'always naming "cat"'.
        words: how good both are, as a clause.
        failures: further reasons why the model cannot be the first champion, as clauses.
        best_p_value: of a perfect model; with few units not even that would be better by more than chance.
    """

    comparison: Comparison
    name: str
    words: str
    failures: tuple[str, ...]
    best_p_value: float
