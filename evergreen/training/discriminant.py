"""Probabilities of labels out of sample, by linear discriminant analysis in folds.

Per fold it needs the sums and products of the features, which are additive: those of all other folds are those of all items
minus the fold's own. So all folds together take the work of one, and 60,000 items with 2,304 features take half a minute of a
processor, where logistic regressions take many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from evergreen.training.calibration import temperature
from evergreen.training.last_layer import standardized

# How far the covariance is drawn towards equal variances without correlation, as a fraction: that with the lowest log loss on
# the folds is taken. Few items need much, many items little (bench/README.md).
SHRINKAGES = (0.03, 0.1, 0.3, 0.6)


def out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    label_count: int,
    folds: Sequence[np.ndarray],
    report: Callable[[int], object] = lambda _: None,
) -> np.ndarray:
    """The probability of each label for each item, by a model that was fitted to the other folds.

    It is scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=…)`, with one temperature for all folds, which
    makes the probabilities fit how often the labels are right.

    Args:
        features: float32 `(items, features)`.
        labels: int `(items,)`, indices below `label_count`.
        folds: indices of the items of each fold; every item is in one.
        report: called with the number of folds that are done.

    Returns:
        float64 `(items, labels)`; NaN for items whose label no other fold has, which cannot be judged.
    """
    from scipy.special import softmax

    values = standardized(features, features.mean(axis=0), features.var(axis=0))
    counts = np.stack([np.bincount(labels[fold], minlength=label_count) for fold in folds])
    sums, products = np.zeros((len(folds), label_count, values.shape[1])), []
    for number, fold in enumerate(folds):
        inside = values[fold]
        np.add.at(sums[number], labels[fold], inside)
        products.append(inside.T @ inside)
        report(number + 1)
    statistics = _Statistics(np.asarray(sum(products[1:], products[0].astype(np.float64))), products, sums, counts)
    found, best = np.full((len(labels), label_count), np.nan), np.inf
    judged = np.zeros(len(labels), bool)
    for number, fold in enumerate(folds):
        judged[fold] = (counts.sum(axis=0) - counts[number])[labels[fold]] > 0
    own = labels[judged]
    for shrinkage in SHRINKAGES if judged.any() else ():
        scores = _scores(values, folds, statistics, shrinkage)[judged]
        # A label that the other folds lack has no say in the temperature.
        finite = np.where(np.isfinite(scores), scores, scores.min(axis=1, where=np.isfinite(scores), initial=np.inf)[:, None])
        probabilities = softmax(scores / temperature(finite[None], own), axis=1)
        loss = -float(np.log(np.maximum(probabilities[np.arange(len(own)), own], 1e-12)).mean())
        if loss < best:
            found[judged], best = probabilities, loss
    return found


class _Statistics(NamedTuple):
    """Sums over items: the outer products of their features, of all and of each fold; the features `(folds, labels, features)`;
    and their number, `(folds, labels)`."""

    all_products: np.ndarray
    products: Sequence[np.ndarray]
    sums: np.ndarray
    counts: np.ndarray


def _scores(values: np.ndarray, folds: Sequence[np.ndarray], statistics: _Statistics, shrinkage: float) -> np.ndarray:
    """float64 `(items, labels)`; minus infinity for labels that the other folds lack."""
    all_products, products, sums, counts = statistics
    found = np.empty((len(values), counts.shape[1]))
    for number, fold in enumerate(folds):
        weights, bias = _discriminant(
            all_products - products[number], sums.sum(axis=0) - sums[number], counts.sum(axis=0) - counts[number], shrinkage
        )
        found[fold] = values[fold] @ weights.astype(np.float32) + bias
    return found


def _discriminant(
    products: np.ndarray, sums: np.ndarray, counts: np.ndarray, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights float64 `(features, labels)` and bias float64 `(labels,)` of the scores.

    Args:
        products: float64 `(features, features)`: the sum over the items of the outer product of their features.
        sums: float64 `(labels, features)`: the sums of the features.
        counts: int `(labels,)`: the number of items.
    """
    items, known = counts.sum(), counts > 0
    means = sums / np.maximum(counts, 1)[:, None]
    covariance = (products - (means * counts[:, None]).T @ means) / items
    variance = np.trace(covariance) / len(covariance)
    covariance *= 1 - shrinkage
    covariance[np.diag_indices(len(covariance))] += shrinkage * variance + 1e-9
    weights = np.linalg.solve(covariance, means.T)
    bias = np.log(np.maximum(counts, 1) / items) - 0.5 * (means.T * weights).sum(axis=0)
    return weights, np.where(known, bias, -np.inf)
