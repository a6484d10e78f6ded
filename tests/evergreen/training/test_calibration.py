from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from evergreen.kinds.classify.metrics import calibration, calibration_error
from evergreen.training.calibration import HIGHEST, LOWEST, temperature


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
