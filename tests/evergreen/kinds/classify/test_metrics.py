"""Quality figures: against scikit-learn and values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.evaluation.proportions import interval
from evergreen.kinds.classify.metrics import by_label, calibration, calibration_error, confusion, quality

NAMES = ["cat", "dog", "cow"]


def sure(predicted: list[int], confidence: float = 0.8) -> np.ndarray:
    """Probabilities of three labels for these predictions, each with the same confidence."""
    table = np.full((len(predicted), 3), (1 - confidence) / 2, np.float32)
    table[np.arange(len(predicted)), predicted] = confidence
    return table


def random_case(seed: int, items: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 3, items), random.dirichlet([0.5] * 3, items).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_scikit_learns(seed: int) -> None:
    from sklearn import metrics

    labels, probabilities = random_case(seed)
    predicted, found = probabilities.argmax(axis=1), quality(labels, probabilities)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    for figure, function in {
        "precision_macro": metrics.precision_score, "recall_macro": metrics.recall_score, "f1_macro": metrics.f1_score
    }.items():  # fmt: skip
        assert found[figure] == pytest.approx(function(labels, predicted, average="macro"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, probabilities.astype(float)), rel=1e-4)
    expected = metrics.precision_recall_fscore_support(labels, predicted)
    for place, row in enumerate(by_label(labels, probabilities, NAMES)):
        assert (row.label, row.items) == (NAMES[place], expected[3][place])
        assert (row.precision, row.recall, row.f1) == pytest.approx(tuple(expected[which][place] for which in range(3)))


def test_the_table_of_confusions_has_the_right_labels_in_rows() -> None:
    found = confusion(np.array([0, 0, 1]), sure([0, 1, 1]))
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("hits", "items", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718), (29, 29, 0.8830, 1)],
)
def test_the_interval_is_that_of_newcombes_examples(hits: int, items: int, low: float, high: float) -> None:
    """The first four: Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert interval(hits, items) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda items: st.tuples(st.integers(0, items), st.just(items))))
def test_an_interval_contains_the_share_and_stays_between_0_and_1(case: tuple[int, int]) -> None:
    hits, items = case
    low, high = interval(hits, items)
    assert 0 <= low <= hits / items <= high <= 1 and low < high


def test_a_label_without_items_has_no_recall_and_drags_no_mean_down() -> None:
    labels, probabilities = np.array([0, 0, 1, 1]), sure([0, 0, 1, 1])
    assert quality(labels, probabilities)["f1_macro"] == 1
    cow = by_label(labels, probabilities, NAMES)[2]
    assert (cow.items, cow.precision, cow.recall, cow.recall_low, cow.recall_high, cow.f1) == (0, None, None, None, None, None)


def test_a_label_without_items_that_was_predicted_has_a_precision_of_0() -> None:
    cow = by_label(np.array([0, 1]), sure([0, 2]), NAMES)[2]
    assert (cow.precision, cow.recall, cow.f1) == (0, None, 0)


def test_a_label_that_was_never_predicted_has_no_precision() -> None:
    dog = by_label(np.array([0, 1]), sure([0, 0]), NAMES)[1]
    assert (dog.precision, dog.recall, dog.f1) == (None, 0, 0)


def test_calibration_sets_confidence_against_accuracy() -> None:
    table = calibration(np.array([0, 0, 0, 0, 1]), sure([0, 0, 0, 1, 1], 0.8))
    (entry,) = table
    assert (entry.items, entry.accuracy) == (5, 0.8) and entry.low <= entry.confidence <= entry.high
    assert calibration_error(table) == pytest.approx(0, abs=1e-6)
    overconfident = calibration(np.array([0, 0, 1, 1]), sure([0, 0, 0, 0], 1.0))
    assert calibration_error(overconfident) == pytest.approx(0.5)


def test_a_model_that_is_utterly_sure_and_wrong_has_a_finite_loss() -> None:
    found = quality(np.array([1]), sure([0], 1.0))
    assert found["accuracy"] == 0 and np.isfinite(found["log_loss"])


@given(st.integers(0, 2**32), st.integers(1, 50))
def test_all_figures_keep_within_their_bounds(seed: int, items: int) -> None:
    labels, probabilities = random_case(seed, items)
    found: dict[str, Any] = quality(labels, probabilities)
    assert found.pop("log_loss") >= 0 and all(0 <= value <= 1 for value in found.values())
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert sum(entry.items for entry in calibration(labels, probabilities)) == items
    assert confusion(labels, probabilities).sum() == items
