from __future__ import annotations

import numpy as np

from evergreen.kinds.classify.learner import class_weights


def test_balanced_weights_let_every_label_weigh_the_same() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2])
    weights = class_weights(labels, 3)
    assert weights == {0: 0.5, 1: 1.5, 2: 3.0}  # 9 items over 3 labels: 3 / count


def test_balanced_weights_survive_a_label_without_items() -> None:
    assert class_weights(np.array([0, 0]), 2) == {0: 0.5, 1: 1.0}
