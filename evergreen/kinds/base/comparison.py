"""Two models, or a model and a baseline, on the same units of evaluation, as the gate compares them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evergreen.kinds.base.metric import Metric

Figure = tuple[float | None, float | None, float | None]  # a value and the ends of its 95 % interval; None without units


class Comparison(ABC):
    """Two models on the same units of evaluation (items, windows, events …), as a kind's judge sees them.

    Attributes:
        metric: by which they are compared.
        unit: what is counted, in the singular, such as "test item".
        gained, lost: bool `(units,)`: on which the challenger does better, and on which the champion does.
        right_or_wrong: whether each unit is simply right or wrong.
        by_fraction: whether the metric is the fraction of right units, so that McNemar's test decides.
        counts: int `(rows,)`: the units that each distinct result stands for.
        blocks: int `(rows,)`: results that depend on each other and are drawn together; None where all are independent.
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
        """The metric of champion and challenger, float64 `(draws,)` each, by how often each result occurs in a draw, `(draws, rows)`."""

    @abstractmethod
    def figures(self) -> tuple[Figure, Figure]:
        """What people see of champion and challenger for these units."""

    @abstractmethod
    def within(self, inside: np.ndarray) -> Comparison:
        """The same for some of the units, bool `(units,)`."""

    @abstractmethod
    def guards(self) -> Sequence[Guard]:
        """The slices that must not get worse, apart from the scenario's own."""

    @property
    def units(self) -> int:
        """How many."""
        return len(self.gained)


@dataclass(frozen=True)
class Guard:
    """The units with one value of a column: `inside` is bool `(units,)`. With fewer than `least_units` it is shown and not judged."""

    column: str
    value: str
    inside: np.ndarray
    least_units: int = 1


@dataclass(frozen=True)
class Baseline:
    """What a first champion must beat.

    Attributes:
        comparison: with the baseline in the champion's place.
        name: what it does, such as 'always naming "cat"'.
        words: how good both are, as a clause.
        failures: what else keeps the model from being the first champion, as clauses.
        best_p_value: of the best model that there can be: with few units not even that one would be better by more than chance.
    """

    comparison: Comparison
    name: str
    words: str
    failures: tuple[str, ...]
    best_p_value: float
