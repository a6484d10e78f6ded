from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from evergreen.kinds.classify.metrics import calibration, calibration_error
from evergreen.training.calibration import HIGHEST, LOWEST, helpful_temperature, temperature


def answers(items: int, sure: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(items, 4)` of a network that is `sure` times as sure of itself as it may be, and the labels."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(items, 4)) * 2
    labels = (softmax(logits, axis=1).cumsum(axis=1) > random.random((items, 1))).argmax(axis=1)
    return logits * sure, labels


@pytest.mark.parametrize("sure", [0.25, 1.0, 4.0])
def test_what_is_too_sure_or_too_unsure_of_itself_is_calibrated(sure: float) -> None:
    logits, labels = answers(20_000, sure)
    found = temperature(logits[None], labels)
    assert found == pytest.approx(sure, rel=0.05)
    assert calibration_error(calibration(labels, softmax(logits / found, axis=1))) < 0.01
    if sure != 1:
        assert calibration_error(calibration(labels, softmax(logits, axis=1))) > 0.1


@given(st.floats(0.2, 5.0))
def test_the_temperature_grows_with_the_logits(factor: float) -> None:
    logits, labels = answers(200, 1.0)
    assert temperature(factor * logits[None], labels) == pytest.approx(factor * temperature(logits[None], labels), rel=1e-3)


@pytest.mark.parametrize("items", [1, 20, 1_000])
def test_a_few_items_that_are_all_right_do_not_make_a_network_certain(items: int) -> None:
    labels = np.arange(items) % 3
    logits = 3 * np.eye(3)[labels]
    confidence = softmax(logits / temperature(logits[None], labels), axis=1).max(axis=1)
    assert confidence == pytest.approx((items + 1) / (items + 3), abs=1e-3)


def test_two_ways_of_looking_count_by_the_mean_of_their_probabilities() -> None:
    logits, labels = answers(5_000, 2.0)
    assert temperature(np.stack([logits, logits]), labels) == pytest.approx(temperature(logits[None], labels), rel=1e-4)
    other = logits + np.random.default_rng(1).normal(size=logits.shape)
    mean = temperature(np.stack([logits, other]), labels)
    probabilities = softmax(np.stack([logits, other]) / mean, axis=2).mean(axis=0)
    uncalibrated = softmax(np.stack([logits, other]), axis=2).mean(axis=0)
    assert calibration_error(calibration(labels, probabilities)) < 0.3 * calibration_error(calibration(labels, uncalibrated))


def test_the_ends_are_kept_where_no_temperature_fits() -> None:
    labels = np.array([0, 1] * 50)
    for logits in (np.eye(2)[1 - labels], 1e-9 * np.eye(2)[labels]):  # all wrong; far too small
        assert LOWEST <= temperature(logits[None], labels) <= HIGHEST


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(softmax(logits, axis=1)[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize(("sure", "items"), [(4.0, 40), (4.0, 500), (0.25, 100)])
def test_the_temperature_is_taken_where_it_surely_helps(sure: float, items: int) -> None:
    logits, labels = answers(items, sure)
    assert helpful_temperature(logits[None], labels) == temperature(logits[None], labels)


def test_on_few_items_a_calibrated_network_is_mostly_left_as_it_is_and_is_better_for_it() -> None:
    others, of_others = answers(20_000, 1.0, seed=99)
    losses = {"always": 0.0, "where it helps": 0.0, "never": 0.0}
    scaled = 0
    for seed in range(20):
        logits, labels = answers(60, 1.0, seed)
        found = helpful_temperature(logits[None], labels)
        scaled += found != 1
        losses["always"] += log_loss(others / temperature(logits[None], labels), of_others)
        losses["where it helps"] += log_loss(others / found, of_others)
        losses["never"] += log_loss(others, of_others)
    assert scaled <= 5
    assert losses["never"] <= losses["where it helps"] < losses["always"]


@pytest.mark.parametrize("items", [1, 2, 20])
def test_a_network_that_is_right_about_a_few_items_stays_as_sure_as_it_is(items: int) -> None:
    labels = np.arange(items) % 3
    assert helpful_temperature(5 * np.eye(3)[labels][None], labels) == 1
