"""Fits the last layer of a classifier to frozen features: a multinomial logistic regression, whose optimum is unique.

On a few hundred items this takes seconds and is the same in every run, while training by gradient steps takes minutes and gives
another result with every seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# scikit-learn's C, the inverse strength of the regularization. In five folds of each of four data sets (bench/README.md) it is
# within a point of the best of 0.0001 to 1; chosen on a small validation split, it was often far too low.
STRENGTH = 0.01
MOST_ITEMS = 20_000  # of train that are used; with more, a network trained from scratch is better anyway
ITERATIONS = 1_000
NEVER = -20.0  # the bias of a label that train lacks


@dataclass(frozen=True)
class LastLayer:
    """A fitted layer.

    Attributes:
        mean, variance: of each feature on train, float32 `(features,)`; features are standardized with them.
        kernel: float32 `(features, labels)`.
        bias: float32 `(labels,)`.
    """

    mean: np.ndarray
    variance: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """float64 `(items, labels)`."""
        from scipy.special import softmax

        found: np.ndarray = softmax(standardized(features, self.mean, self.variance) @ self.kernel + self.bias, axis=1)
        return found


def standardized(features: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Features with mean 0 and variance 1 on train, float32 `(items, features)`."""
    found: np.ndarray = ((features - mean) / np.sqrt(variance + 1e-6)).astype(np.float32)
    return found


def fit_last_layer(
    features: np.ndarray, labels: np.ndarray, label_count: int, weights: Mapping[int, float] | None
) -> LastLayer:
    """
    Args:
        features: float32 `(items, features)`.
        labels: int `(items,)`, indices below `label_count`.
        weights: of the items of each label; None for equal weights.
    """
    features, labels = _spread(features, labels)
    mean, variance = features.mean(axis=0), features.var(axis=0)
    known = np.unique(labels)
    kernel, bias = np.zeros((features.shape[1], label_count), np.float32), np.full(label_count, NEVER, np.float32)
    if len(known) > 1:
        kernel[:, known], bias[known] = _regression(standardized(features, mean, variance), labels, weights)
    else:
        bias[known] = 0
    return LastLayer(mean, variance, kernel, bias)


def _spread(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `MOST_ITEMS` of the items, at equal distances in their order."""
    chosen = np.linspace(0, len(labels) - 1, min(len(labels), MOST_ITEMS)).astype(int)
    return features[chosen], labels[chosen]


def _regression(inputs: np.ndarray, labels: np.ndarray, weights: Mapping[int, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Kernel `(features, labels)` and bias `(labels,)`; of two labels, too, for which scikit-learn gives the difference."""
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=STRENGTH, max_iter=ITERATIONS, class_weight=None if weights is None else dict(weights))
    regression.fit(inputs, labels)
    kernel, bias = regression.coef_.T, regression.intercept_
    if kernel.shape[1] == 1:
        kernel, bias = np.hstack([-kernel / 2, kernel / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    return kernel, bias
