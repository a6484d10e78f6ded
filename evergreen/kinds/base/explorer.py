"""The explorer of a kind: what `evergreen look` shows of a data set besides the counts. It is optional; without one, the page
has the counts alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

S = TypeVar("S", bound=Scenario)


@dataclass(frozen=True)
class LabelError:
    """An item whose label is likely wrong.

    Attributes:
        id: of the item.
        label: the label that it has.
        suggested: the label that it probably should have.
        probability_of_label, probability_of_suggested: 0 to 1, by a model that was fitted neither to this item nor to items
            like it.
        similar: ids of the most similar items, the most similar one first.
    """

    id: str
    label: str
    suggested: str
    probability_of_label: float
    probability_of_suggested: float
    similar: tuple[str, ...]


@dataclass(frozen=True)
class SimilarItems:
    """Items that are nearly the same, in order of arrival. They are a conflict if they have different labels."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def conflict(self) -> bool:
        """True if not all have the same label."""
        return len(set(self.labels)) > 1


@dataclass(frozen=True)
class Outlier:
    """An item unlike all others: its distance to the nearest ones, as a multiple of the median item's."""

    id: str
    distance: float


@dataclass(frozen=True)
class MapPoint:
    """An item's place on the map of similarity, 0 to 1 in both directions."""

    id: str
    x: float
    y: float


@dataclass(frozen=True)
class TrivialBaseline:
    """How well the labels are distinguished, out of sample.

    Attributes:
        name: what predicts them, for people.
        accuracy, low, high: the fraction of right predictions, with its 95 % interval.
        balanced_accuracy: the mean over the labels of that fraction.
        items: the number of items that it was measured on.
    """

    name: str
    accuracy: float
    low: float
    high: float
    balanced_accuracy: float
    items: int


@dataclass(frozen=True)
class Exploration:
    """What was found in a data set.

    Attributes:
        tables: rows by heading, for each table's title; such as the sizes of images.
        duplicates: groups of items that are nearly the same, the largest first, conflicts before all others.
        duplicates_are: how they were found and what becomes of them, in sentences.
        outliers: the most unlike first.
        label_errors: the most likely first.
        estimated_errors: an estimate of the number of wrong labels; None if it is unknown.
        points: of the items on the map.
        baselines: trivial ones first, and last what a good one reaches.
        conclusion: what the baselines say of the data set, in sentences; empty if there is nothing to say.
        notes: what was left out or sampled, a sentence each.
    """

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    duplicates: Sequence[SimilarItems]
    duplicates_are: str
    outliers: Sequence[Outlier]
    label_errors: Sequence[LabelError]
    estimated_errors: int | None
    points: Sequence[MapPoint]
    baselines: Sequence[TrivialBaseline]
    conclusion: str
    notes: Sequence[str]


class Explorer(ABC, Generic[S]):
    """Explores the data sets of one kind."""

    @abstractmethod
    def explore(self, scenario: S, workspace: Workspace) -> Exploration:
        """Explore the current items of a scenario.

        Raises:
            EvergreenError: the data set is empty, or an item of it cannot be read.
        """
