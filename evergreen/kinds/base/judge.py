"""The judge of a kind: measures the quality of models, and presents it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from evergreen.kinds.base.codec import Network
from evergreen.kinds.base.comparison import Baseline, Comparison
from evergreen.kinds.base.metric import Metric
from evergreen.kinds.base.split import Split
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

S = TypeVar("S", bound=Scenario)
Outputs = Mapping[str, np.ndarray]  # of a network, by name; one row per item


@dataclass(frozen=True)
class Plot:
    """The plot that DVC shows and compares (`dvc plots`): a CSV file, one of DVC's templates, and the columns that it draws."""

    file: str
    template: str
    x: str
    y: str


@dataclass(frozen=True)
class Review:
    """A closer look at a version's predictions on the test split, for the report.

    Attributes:
        figures: for programs, by their keys in `evergreen report --json`.
        html: for people. Escaped; contains no scripts and no addresses other than `data:`. Empty if there is nothing to show.
    """

    figures: Mapping[str, Any]
    html: str


NOTHING_TO_REVIEW = Review({}, "")


@dataclass(frozen=True)
class Breakdown:
    """A table of the quality on parts of the items, such as those of each label, for people.

    Attributes:
        title: of the table.
        rows: values by heading; all rows have the same headings. Empty if there is nothing to show.
        notes: sentences about the table.
    """

    title: str
    rows: tuple[dict[str, str | int], ...]
    notes: tuple[str, ...] = ()


NO_BREAKDOWN = Breakdown("", ())


@dataclass(frozen=True)
class SliceGaps:
    """How the quality differs between slices of the items, such as those of each camera.

    Attributes:
        figures: for programs, one mapping with the same keys for each comparison.
        breakdown: for people, those that chance explains least first; with notes about each gap that chance does not explain,
            and about slices that are too small to conclude anything.
    """

    figures: tuple[dict[str, Any], ...] = ()
    breakdown: Breakdown = NO_BREAKDOWN


@dataclass(frozen=True)
class Gap:
    """The difference between the quality on the validation split and that on the test split.

    Attributes:
        figures: for programs, by key.
        sentence: the difference and what to do about it, if it is larger than chance explains; else None.
    """

    figures: dict[str, float | int | bool]
    sentence: str | None

    def to_dict(self) -> dict[str, float | int | bool | str | None]:
        """The form in which the command line prints it and records store it."""
        return {**self.figures, "sentence": self.sentence}


@dataclass(frozen=True)
class Evaluated:
    """A model's outputs for the items of a split.

    Attributes:
        split: the items.
        ids, sources: of these items, in the same order.
        outputs: of the model.
        settings: the model's `settings.json`.
        model: to run it on other items than these.
    """

    split: Split
    ids: Sequence[str]
    sources: Sequence[str]
    outputs: Outputs
    settings: Mapping[str, Any]
    model: Network


class Judge(ABC, Generic[S]):
    """Measures and compares the models of one kind.

    Attributes:
        metrics: the main metrics; a scenario's `promote.metric` names one of them. Slices are shown by the first one
            (`Comparison.figures`).
        details: further metrics.
        pictures: titles of the pictures that `write` makes, by file name.
        tables: titles of the tables (CSV or JSON) that `write` makes, by file name, if the name is not clear by itself.
        plot: the plot that DVC shows.
        caution: what to know before using a model, for the model card.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    details: ClassVar[tuple[Metric, ...]] = ()
    pictures: ClassVar[Mapping[str, str]] = {}
    tables: ClassVar[Mapping[str, str]] = {}
    plot: ClassVar[Plot]
    caution: ClassVar[str]

    def headline(self, scenario: S) -> Metric:
        """The metric by which the gate decides."""
        return next(metric for metric in self.metrics if metric.key == scenario.promote.metric)

    def texts(self, measured: Mapping[str, float | None], metrics: Sequence[Metric]) -> dict[str, str]:
        """Formatted values by the metrics' titles, with 95 % intervals if there are any.

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
        """A model's prediction for each item, `(items, …)`, in a form that is the same for all models of the scenario, so that
        two models can be compared.

        Args:
            outputs: of the model.
            settings: the model's `settings.json`.
            facts: of the splits.
        """

    @abstractmethod
    def measure(self, split: Split, outputs: Outputs) -> dict[str, float]:
        """Measure the quality: a value for each of `metrics`, with the ends of its interval if it has one, and any further
        figures."""

    def breakdown(self, split: Split, outputs: Outputs) -> Breakdown:
        """Measure the quality on parts of the items."""
        return NO_BREAKDOWN

    def answer_rules(self, split: Split, outputs: Outputs, settings: Mapping[str, Any]) -> Breakdown:
        """Show by which rules a model answers and when it says that it does not know, and what they give on these items. By
        default nothing: it always answers.

        Args:
            settings: the model's `settings.json`.
        """
        return NO_BREAKDOWN

    def slice_gaps(self, split: Split, outputs: Outputs, columns: Mapping[str, Sequence[str]], min_items: int) -> SliceGaps:
        """Compare the quality between slices of the items; by default nothing is compared.

        Args:
            columns: the slices, as a value for each item, by the column's name.
            min_items: with fewer items on either side of a comparison, nothing is concluded.
        """
        return SliceGaps()

    @abstractmethod
    def write(self, evaluated: Evaluated, folder: Path) -> None:
        """Write `predictions.parquet` (`id`, `source` and the predictions), and the other tables and pictures of an evaluation.

        A picture that shows items must list their ids in its metadata as `Items`, so that `evergreen forget` finds it.
        """

    @abstractmethod
    def use(self, settings: Mapping[str, Any]) -> str:
        """Describe a model's input and output in one sentence, as Markdown for the model card.

        Args:
            settings: the model's `settings.json`.
        """

    def intervals(self, predictions: Path) -> dict[str, tuple[float, float]]:
        """95 % intervals, by key, of the metrics for which `measure` gives none.

        Args:
            predictions: the file `predictions.parquet` that `write` made.
        """
        return {}

    def review(self, predictions: Path | None, folders: Sequence[Path]) -> Review:
        """Look closer at a version's predictions, for the report.

        Args:
            predictions: as in `intervals`; None if no version is in use or its predictions are not on record.
            folders: the data set's batch folders.
        """
        return NOTHING_TO_REVIEW

    @abstractmethod
    def plotted(self, split: Split, outputs: Outputs) -> str:
        """The CSV text of `plot`."""

    @abstractmethod
    def tally(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Summarize the quality of answers in numbers from which `worse` can compare two sets of items.

        Args:
            answers: from `Codec.answers`, `(items,)`.
            labels: of the same items, from `Contract.labels`.
        """

    @abstractmethod
    def recorded_tally(self, measured: Mapping[str, float | None]) -> dict[str, float]:
        """The tally of the test split, computed from the figures that were measured on it."""

    @abstractmethod
    def worse(self, then: Mapping[str, float], now: Mapping[str, float], level: float) -> tuple[bool, str]:
        """Test whether a model is worse on new items than it was on its test split.

        Args:
            then, now: tallies (`tally`) of the test split and of the new items.
            level: the probability of a false alarm.

        Returns:
            True if it is worse by more than chance, and a clause with the figures.
        """

    def gap(self, scenario: S, workspace: Workspace, measured: Mapping[str, float | None]) -> Gap | None:
        """Compare the quality on the validation split with that on the test split; None if it is not known.

        Args:
            measured: the figures of the test split.
        """
        return None

    @abstractmethod
    def learning_curve(self, history: Sequence[Mapping[str, float]]) -> Figure:
        """Draw the course of a training.

        Args:
            history: the figures of each epoch.
        """

    @abstractmethod
    def compare(self, scenario: S, split: Split, champion: np.ndarray, challenger: np.ndarray) -> Comparison:
        """Compare two models on the items of a split, by their `predictions`."""

    def objections(self, scenario: S, split: Split, challenger: np.ndarray) -> tuple[str, ...]:
        """Reasons why a model must not be the champion although it is better than the present one, such as a simple baseline
        that is better than both. By default none.

        Args:
            challenger: the model's `predictions` for the items of `split`.

        Returns:
            Clauses, such as "a linear model is better (…)".
        """
        return ()

    @abstractmethod
    def baseline(self, scenario: S, split: Split, challenger: np.ndarray, train: Split) -> Baseline:
        """Compare a model with the baseline that a first champion must beat.

        Args:
            challenger: the model's `predictions` for the items of `split`.
            train: the items that it was trained on.
        """
