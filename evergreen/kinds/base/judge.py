"""How good a model is, and what people see of that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from evergreen.kinds.base.comparison import Baseline, Comparison
from evergreen.kinds.base.metric import Metric
from evergreen.kinds.base.split import Split
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

S = TypeVar("S", bound=Scenario)
Outputs = Mapping[str, np.ndarray]  # of a network, by name, one row an item


@dataclass(frozen=True)
class Plot:
    """The plot that DVC shows and compares (`dvc plots`): a CSV file, one of DVC's templates, and the columns that it draws."""

    file: str
    template: str
    x: str
    y: str


@dataclass(frozen=True)
class Evaluated:
    """A model on a split.

    Attributes:
        split: whose items it was given.
        ids, sources: of these items.
        outputs: what it gave.
    """

    split: Split
    ids: Sequence[str]
    sources: Sequence[str]
    outputs: Outputs


class Judge(ABC, Generic[S]):
    """Of one kind.

    Attributes:
        metrics: that people see first; a scenario's `promote.metric` names one of them.
        details: further ones.
        pictures: titles of the pictures that `write` makes, by file name.
        plot: that DVC shows.
        caution: what to know before using a model, for its card.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    details: ClassVar[tuple[Metric, ...]] = ()
    pictures: ClassVar[Mapping[str, str]]
    plot: ClassVar[Plot]
    caution: ClassVar[str]

    def headline(self, scenario: S) -> Metric:
        """The metric that decides."""
        return next(metric for metric in self.metrics if metric.key == scenario.promote.metric)

    def texts(self, measured: Mapping[str, float | None], metrics: Sequence[Metric]) -> dict[str, str]:
        """Figures for people, by title, with their 95 % intervals where they have one.

        Args:
            measured: by key (`measure`), with `test_items`.
        """
        items = measured.get("test_items")
        return {
            metric.title: metric.text(
                measured.get(metric.key), measured.get(f"{metric.key}_low"), measured.get(f"{metric.key}_high"),
                None if items is None else int(items),
            )
            for metric in metrics
        }  # fmt: skip

    @abstractmethod
    def predictions(self, outputs: Outputs, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> np.ndarray:
        """What a model says of each item, `(items, …)`, in terms that hold for every model of the scenario, so that two can be compared.

        Args:
            outputs: the model's.
            settings: its `settings.json`.
            facts: of the splits.
        """

    @abstractmethod
    def measure(self, split: Split, outputs: Outputs) -> dict[str, float]:
        """The figures of quality: those of `metrics` with the ends of their intervals where they have one, and any others."""

    @abstractmethod
    def breakdown(self, split: Split, outputs: Outputs) -> list[dict[str, Any]]:
        """Figures of parts of the items, a row each; empty where there are none."""

    @abstractmethod
    def write(self, evaluated: Evaluated, folder: Path) -> None:
        """Write `predictions.parquet` (`id`, `source` and what was predicted), and other tables and pictures of an evaluation.

        A picture that shows items carries their ids in its metadata as `Items`, so that `evergreen forget` finds it.
        """

    @abstractmethod
    def use(self, settings: Mapping[str, Any]) -> str:
        """What a model takes and gives, in a sentence in Markdown for its card.

        Args:
            settings: its `settings.json`.
        """

    def intervals(self, predictions: Path) -> dict[str, tuple[float, float]]:
        """95 % intervals of metrics that `measure` gives without one, by key.

        Args:
            predictions: the file `predictions.parquet` that `write` has made.
        """
        return {}

    def review(self, predictions: Path, folders: Sequence[Path]) -> str | None:
        """What there is to see of a version's predictions on the report: HTML that is escaped, without scripts and addresses but `data:`; None for
        nothing.

        Args:
            predictions: as `intervals`.
            folders: the data set's batch folders.
        """
        return None

    @abstractmethod
    def plotted(self, split: Split, outputs: Outputs) -> str:
        """The CSV text of `plot`."""

    @abstractmethod
    def tally(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """How good answers are, counted up so that two such counts can be compared.

        Args:
            answers: of `Codec.answers`, `(items,)`.
            labels: of the same items, as `Contract.labels` gives them.
        """

    @abstractmethod
    def recorded_tally(self, measured: Mapping[str, float | None]) -> dict[str, float]:
        """The same of the test split, by what was measured there."""

    @abstractmethod
    def worse(self, then: Mapping[str, float], now: Mapping[str, float], level: float) -> tuple[bool, str]:
        """Whether a model is worse on new items than it was on its test split, by more than chance; and that in words.

        Args:
            then, now: as `tally`.
            level: chance of finding it where it isn't so.
        """

    def gap(self, scenario: S, workspace: Workspace, measured: Mapping[str, float | None]) -> dict[str, Any] | None:
        """How quality on the validation split differs from that on the test split, with a `sentence` where that is beyond chance; None where nothing
        tells.

        Args:
            measured: on the test split.
        """
        return None

    def breakdown_table(self, breakdown: Sequence[Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        """`breakdown` for people: a title, and rows of values by heading; no rows where there is none."""
        return "", []

    @abstractmethod
    def learning_curve(self, history: Sequence[Mapping[str, float]]) -> Figure:
        """The picture of a training.

        Args:
            history: one entry an epoch.
        """

    @abstractmethod
    def compare(self, scenario: S, split: Split, champion: np.ndarray, challenger: np.ndarray) -> Comparison:
        """Two models on the items of a split, by their `predictions`."""

    @abstractmethod
    def baseline(self, scenario: S, split: Split, challenger: np.ndarray, train: Split) -> Baseline:
        """What a first champion must beat.

        Args:
            challenger: its `predictions` of the items of `split`.
            train: what it learned from.
        """
