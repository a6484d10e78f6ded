from __future__ import annotations

import numpy as np
import pytest

from evergreen.kinds.classify.learner import class_weights


def test_balanced_weights_let_every_label_weigh_the_same() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2])
    weights = class_weights(labels, 3)
    assert weights == {0: 0.5, 1: 1.5, 2: 3.0}  # 9 items over 3 labels: 3 / count


def test_balanced_weights_survive_a_label_without_items() -> None:
    assert class_weights(np.array([0, 0]), 2) == {0: 1.0, 1: 2.0}


def test_square_root_weights_are_between_equal_and_balanced_ones_and_their_mean_is_1() -> None:
    labels = np.array([0] * 16 + [1] * 4)
    weights = class_weights(labels, 2, 0.5)
    assert weights[1] / weights[0] == pytest.approx(2)  # the square root of 16 / 4
    assert np.mean([weights[label] for label in labels.tolist()]) == pytest.approx(1)
