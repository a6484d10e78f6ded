from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from evergreen.kinds.classify.learner import class_weights
from evergreen.training.last_layer import STRENGTH, LastLayer, fit_last_layer, standardized

Items = tuple[np.ndarray, np.ndarray]


def blobs(items: int, labels: int = 3, *, features: int = 20, noise: float = 2.0, seed: int = 0) -> Items:
    """Points around a centre for each label, far from 0 and on different scales."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(labels, features))
    of = random.integers(0, labels, items)
    points = centres[of] + noise * random.normal(size=(items, features))
    return (points * np.linspace(0.1, 50, features) + 7).astype(np.float32), of


def accuracy(layer: LastLayer, items: Items) -> float:
    return float((layer.probabilities(items[0]).argmax(axis=1) == items[1]).mean())


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("labels", [2, 3])
def test_it_is_the_logistic_regression_of_scikit_learn(labels: int, balanced: bool) -> None:
    train, other = blobs(300, labels), blobs(100, labels, seed=1)
    weights = class_weights(train[1], labels) if balanced else None
    layer = fit_last_layer(*train, labels, weights)
    theirs = LogisticRegression(C=STRENGTH, max_iter=1000, class_weight="balanced" if balanced else None)
    theirs.fit(standardized(train[0], layer.mean, layer.variance), train[1])
    expected = theirs.predict_proba(standardized(other[0], layer.mean, layer.variance))
    assert np.allclose(layer.probabilities(other[0]), expected, atol=1e-4)


def test_the_same_items_give_the_same_bits() -> None:
    first, second = (fit_last_layer(*blobs(200), 3, None) for _ in range(2))
    assert np.array_equal(first.kernel, second.kernel) and np.array_equal(first.bias, second.bias)


def test_features_are_standardized() -> None:
    features, labels = blobs(200)
    layer = fit_last_layer(features, labels, 3, None)
    inputs = standardized(features, layer.mean, layer.variance)
    assert np.allclose(inputs.mean(axis=0), 0, atol=1e-4) and np.allclose(inputs.var(axis=0), 1, atol=1e-3)


def test_a_constant_feature_does_no_harm() -> None:
    train = blobs(200)
    train[0][:, 3] = 5
    layer = fit_last_layer(*train, 3, None)
    assert np.isfinite(layer.kernel).all() and accuracy(layer, train) > 0.6


def test_balanced_weights_find_the_rare_label() -> None:
    (points, of), (others, of_others) = blobs(2000, 2, noise=4), blobs(2000, 2, noise=4, seed=1)
    rare = (of == 0) | (np.arange(2000) % 40 == 0)
    train = points[rare], of[rare]
    found = {
        power: (fit_last_layer(*train, 2, class_weights(train[1], 2, power)).probabilities(others).argmax(axis=1) == 1)[
            of_others == 1
        ].mean()
        for power in (0.0, 0.5, 1.0)
    }
    assert found[1.0] > found[0.5] + 0.05 > found[0.0] + 0.1


def test_a_label_that_train_lacks_is_never_the_likeliest() -> None:
    train, other = blobs(200), blobs(100, seed=1)
    kept = train[1] != 1
    layer = fit_last_layer(train[0][kept], train[1][kept], 3, None)
    assert layer.kernel.shape == (20, 3) and 1 not in layer.probabilities(other[0]).argmax(axis=1)


def test_a_single_label_is_all_there_is_to_say() -> None:
    train = blobs(20)[0], np.ones(20, int)
    layer = fit_last_layer(*train, 3, None)
    assert layer.probabilities(train[0])[:, 1].min() > 0.99
