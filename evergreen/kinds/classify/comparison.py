"""Comparisons of two classifiers on the same items, for the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evergreen.evaluation.gate import chance
from evergreen.evaluation.proportions import interval
from evergreen.kinds.base.comparison import Baseline, Comparison, Figure, Guard
from evergreen.kinds.base.metric import Metric
from evergreen.kinds.classify.metrics import f1_macro

ACCURACY = Metric("accuracy", "accuracy")
F1_MACRO = Metric("f1_macro", "macro F1")
METRICS = {metric.key: metric for metric in (ACCURACY, F1_MACRO)}
NOT_KNOWN = -2  # this and less: an item that a model does not know


def not_known(labels: np.ndarray) -> np.ndarray:
    """In a prediction, the number that says "not known, but this label is the most probable one"; and back again."""
    return NOT_KNOWN - labels


@dataclass(frozen=True)
class LabelComparison(Comparison):
    """The predictions of two classifiers for the same items.

    Attributes:
        labels: int `(items,)`, the indices in `names` of the true labels.
        champion, challenger: int `(items,)`, the indices of the predicted labels; -1 for a label that is not in `names`. An
            item that a model does not know has `not_known` of its most probable label, and counts as a wrong answer with it.
        names: of the labels.
        metric: by which they are compared.
    """

    labels: np.ndarray
    champion: np.ndarray
    challenger: np.ndarray
    names: Sequence[str]
    metric: Metric = ACCURACY
    unit: str = "test item"

    right_or_wrong = True

    @property
    def by_fraction(self) -> bool:  # type: ignore[override]
        """True if the metric is accuracy."""
        return self.metric.key == ACCURACY.key

    @property
    def gained(self) -> np.ndarray:  # type: ignore[override]
        """bool `(items,)`: True where only the challenger is right."""
        gained: np.ndarray = (self.challenger == self.labels) & (self.champion != self.labels)
        return gained

    @property
    def lost(self) -> np.ndarray:  # type: ignore[override]
        """bool `(items,)`: True where only the champion is right."""
        lost: np.ndarray = (self.champion == self.labels) & (self.challenger != self.labels)
        return lost

    @cached_property
    def _results(self) -> tuple[np.ndarray, np.ndarray]:
        """The combinations of label and both predictions that occur, int `(3, rows)`, and the number of items of each."""
        return np.unique(np.stack([self.labels, self.champion, self.challenger]), axis=1, return_counts=True)

    @property
    def counts(self) -> np.ndarray:  # type: ignore[override]
        """int `(rows,)`: the number of items with each combination of label and predictions."""
        return self._results[1]

    def values(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy or macro F1; see `Comparison.values`."""
        labels, *predicted = self._results[0]
        if self.by_fraction:
            items = weights.sum(axis=1)
            champion, challenger = (weights @ (made == labels).astype(float) / items for made in predicted)
            return champion, challenger
        occurring = np.unique(labels)
        is_label = (labels[:, None] == occurring).astype(float)

        def macro(made: np.ndarray) -> np.ndarray:
            is_right = is_label * (made == labels)[:, None]
            claimed = np.where(made <= NOT_KNOWN, not_known(made), made)
            return f1_macro(weights @ is_right, weights @ is_label, weights @ (claimed[:, None] == occurring).astype(float))

        return macro(predicted[0]), macro(predicted[1])

    def figures(self) -> tuple[Figure, Figure]:
        """Accuracies with Wilson intervals."""
        champion, challenger = (_accuracy(made == self.labels) for made in (self.champion, self.challenger))
        return champion, challenger

    def within(self, inside: np.ndarray) -> LabelComparison:
        """See `Comparison.within`."""
        labels, champion, challenger = self.labels[inside], self.champion[inside], self.challenger[inside]
        return LabelComparison(labels, champion, challenger, self.names, self.metric, self.unit)

    def guards(self) -> list[Guard]:
        """One guard per label."""
        return [Guard("label", name, self.labels == index) for index, name in enumerate(self.names)]


def against_commonest(
    labels: np.ndarray, predicted: np.ndarray, names: Sequence[str], train_items: Sequence[int], metric: Metric = ACCURACY
) -> Baseline:
    """Compare a first model with always predicting the most frequent label of the test split, the best possible without looking
    at the images (the no-information rate). The model must have been trained on items of every label.

    Args:
        labels, predicted, names: as in `LabelComparison`.
        train_items: the number of training items of each label.
    """
    commonest = int(np.bincount(labels, minlength=len(names)).argmax())
    compared = LabelComparison(labels, np.full_like(predicted, commonest), predicted, names, metric)
    items, by_naming = len(labels), int((labels == commonest).sum())
    theirs, ours = (float(values[0]) for values in compared.values(compared.counts[None].astype(float)))
    shown = f"{metric.text(ours, items=items)} of {items:,} test items are right"
    if not compared.by_fraction:
        shown = f"{metric.title} is {metric.text(ours, items=items)} on {items:,} test items"
    return Baseline(
        compared,
        f'always naming "{names[commonest]}"',
        f"{shown}, against {metric.text(theirs, items=items)}",
        tuple(
            f'no item of the training split has the label "{name}"'
            for name, count in zip(names, train_items, strict=True)
            if not count
        ),
        best_p_value=chance(items - by_naming, 0),
    )


def _accuracy(right: np.ndarray) -> Figure:
    items = len(right)
    return (int(right.sum()) / items, *interval(int(right.sum()), items)) if items else (None, None, None)
