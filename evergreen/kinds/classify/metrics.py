"""The quality of predictions with its uncertainty, by label and over all items, and the calibration of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evergreen.evaluation.bootstrap import percentile_interval, resampled
from evergreen.evaluation.proportions import interval
from evergreen.kinds.classify.answers import ANSWERED


@dataclass(frozen=True)
class LabelQuality:
    """The quality for one label. Intervals are 95 % confidence intervals (Wilson 1927, which are valid for few items too).
    Values are None if their denominator is 0."""

    label: str
    items: int
    precision: float | None
    precision_low: float | None
    precision_high: float | None
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    f1: float | None


@dataclass(frozen=True)
class Calibration:
    """The mean confidence and the accuracy of the predictions in one range of probability."""

    low: float
    high: float
    items: int
    confidence: float
    accuracy: float


def quality(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The figures over all items; means over labels include only labels that occur.

    Args:
        labels: int `(items,)`, the indices of the true labels.
        probabilities: float `(items, labels)`.

    Returns:
        `accuracy` with `accuracy_low` and `accuracy_high` (95 %, Wilson), `precision_macro`, `recall_macro`, `f1_macro`,
        `log_loss`, `calibration_error`.
    """
    from sklearn.metrics import precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    right = int((predicted == labels).sum())
    low, high = interval(right, len(labels))
    occurring = np.unique(labels)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=occurring, average="macro", zero_division=0
    )
    of_right_one = np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), 1e-12, 1)
    return {
        "accuracy": right / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "precision_macro": float(precision),
        "recall_macro": float(recall),
        "f1_macro": float(f1),
        "log_loss": float(-np.log(of_right_one).mean()),
        "calibration_error": calibration_error(calibration(labels, probabilities)),
    }


def quality_of_answers(
    labels: np.ndarray, probabilities: np.ndarray, answer: np.ndarray, unknown: np.ndarray
) -> dict[str, float]:
    """The figures of a model that does not always answer. An item that it does not know counts as a wrong answer with the most
    probable label, so that no figure over all items rises by refusing to answer.

    Args:
        labels, probabilities: as in `quality`.
        answer, unknown: as `evergreen.kinds.classify.answers.Answering.decide` returns them.

    Returns:
        Those of `quality`, with log loss and calibration by the probabilities; `coverage`, the fraction of the items that are
        answered, and `accuracy_answered`, the accuracy on them (left out if there are none), with the ends of their intervals;
        and `accuracy_most_probable`, the accuracy if the most probable label were always the answer.
    """
    found, known = quality(labels, probabilities), unknown == ANSWERED
    right, items, answered = known & (answer == labels), len(labels), int(known.sum())
    occurring = np.unique(labels)
    of_label, of_answer = labels[:, None] == occurring, answer[:, None] == occurring
    one = np.ones((1, items))
    hits, having = one @ (of_label & right[:, None]), one @ of_label
    claims, given = one @ of_answer, one @ (of_answer & known[:, None])
    figures_of = {
        "accuracy": (int(right.sum()), items),
        "coverage": (answered, items),
        **({"accuracy_answered": (int(right.sum()), answered)} if answered else {}),
    }
    for key, (hit, of) in figures_of.items():
        low, high = interval(hit, of)
        found[key], found[f"{key}_low"], found[f"{key}_high"] = hit / of, low, high
    return found | {
        "precision_macro": float(np.divide(hits, given, out=np.zeros_like(hits), where=given > 0).mean()),
        "recall_macro": float((hits / having).mean()),
        "f1_macro": float(f1_macro(hits, having, claims)[0]),
        "accuracy_most_probable": float((probabilities.argmax(axis=1) == labels).mean()),
    }


def by_label(labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> list[LabelQuality]:
    """The quality for each label. The arguments are those of `quality`."""
    return label_quality(confusion(labels, probabilities), names)


def label_quality(matrix: np.ndarray, names: Sequence[str]) -> list[LabelQuality]:
    """The quality for each label.

    Args:
        matrix: from `confusion` or `confusion_of_answers`. In F1, items that are not known count as answers with the most
            probable label.
        names: of the labels.
    """
    table = []
    for index, name in enumerate(names):
        hits, items, claims = (int(count) for count in (matrix[index, index], matrix[index].sum(), matrix[:, index].sum()))
        precision, recall = _proportion(hits, claims), _proportion(hits, items)
        claims += int(matrix[:, len(names) + index :: len(names)].sum())
        f1 = 2 * hits / (items + claims) if items + claims else None
        table.append(LabelQuality(name, items, *precision, *recall, f1))
    return table


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """int `(labels, labels)`: the number of items by true label (rows) and predicted label (columns)."""
    from sklearn.metrics import confusion_matrix

    indices = np.arange(probabilities.shape[1])
    matrix: np.ndarray = confusion_matrix(labels, probabilities.argmax(axis=1), labels=indices)
    return matrix


def confusion_of_answers(labels: np.ndarray, answer: np.ndarray, unknown: np.ndarray, label_count: int) -> np.ndarray:
    """int `(labels, 2 labels)`: the number of items by true label (rows), by the label answered, and, in the second half of the
    columns, by the most probable label of the items that are not known. The arguments are those of `quality_of_answers`."""
    matrix = np.zeros((label_count, 2 * label_count), np.int64)
    np.add.at(matrix, (labels, answer + label_count * (unknown != ANSWERED)), 1)
    return matrix


def calibration(labels: np.ndarray, probabilities: np.ndarray, ranges: int = 15) -> list[Calibration]:
    """The predictions by confidence, in ranges of equal width; empty ranges are left out."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bin_of_item = np.clip(np.ceil(confidence * ranges).astype(int) - 1, 0, ranges - 1)
    return [
        Calibration(
            k / ranges, (k + 1) / ranges, int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())
        )
        for k in range(ranges)
        if (inside := bin_of_item == k).any()
    ]


def calibration_error(table: Sequence[Calibration]) -> float:
    """The expected calibration error (Naeini et al. 2015): the mean absolute difference between confidence and accuracy,
    weighted by items."""
    items = sum(entry.items for entry in table)
    return sum(entry.items * abs(entry.confidence - entry.accuracy) for entry in table) / items


def f1_macro(hits: np.ndarray, items: np.ndarray, claims: np.ndarray) -> np.ndarray:
    """Macro F1 of weighted items: the mean of F1 over the labels that occur.

    Args:
        hits, items, claims: float `(draws, labels)`, for each label the total weight of the items that are correctly predicted
            as it, that have it, and that are predicted as it.

    Returns:
        float64 `(draws,)`.
    """
    occurs = items > 0
    f1 = np.divide(2 * hits, items + claims, out=np.zeros_like(hits), where=occurs & (items + claims > 0))
    macro: np.ndarray = f1.sum(axis=1) / occurs.sum(axis=1)
    return macro


def f1_macro_interval(
    labels: np.ndarray, predicted: np.ndarray, known: np.ndarray, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % confidence interval of macro F1, by the percentile bootstrap over items.

    Args:
        labels: `(items,)`, the true labels, of any sortable type.
        predicted: `(items,)`, of the same type.
        known: bool `(items,)`, False for items that count as wrong because the model does not know them.
        draws: the number of bootstrap samples.
    """
    names, numbers = np.unique(np.concatenate([labels, predicted]).astype(str), return_inverse=True)
    actual, given = numbers[: len(labels)], numbers[len(labels) :]
    cells, counts = np.unique((actual * len(names) + given) * 2 + known, return_counts=True)
    cells, is_known = cells // 2, cells % 2 == 1
    rows, columns = cells // len(names), cells % len(names)
    is_row, is_column = (np.eye(len(names))[number] for number in (rows, columns))

    def macro(weights: np.ndarray) -> np.ndarray:
        return f1_macro((weights * (is_known & (rows == columns))) @ is_row, weights @ is_row, weights @ is_column)

    _, drawn = resampled(macro, counts, draws=draws, seed=seed)
    return percentile_interval(drawn)


def _proportion(hits: int, items: int) -> tuple[float | None, float | None, float | None]:
    return (hits / items, *interval(hits, items)) if items else (None, None, None)
