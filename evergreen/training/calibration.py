"""Calibrated probabilities: temperature scaling (Guo et al. 2017, "On calibration of modern neural networks").

A network that was trained with label smoothing is too unsure of itself, one that fits its training items perfectly too sure.
Dividing the logits by one number, the temperature, corrects that without changing which label is the most probable one (of an
image that is looked at in two ways it may, where they disagree).
"""

from __future__ import annotations

import numpy as np

LOWEST, HIGHEST = 0.05, 20.0
FOLDS = 10
STANDARD_ERRORS = 1.0  # by which the log loss must fall


def helpful_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The best temperature if there is evidence that one helps, else 1.

    It is tried in folds: the log loss of each fold's items with the temperature that is best on all others, against that
    without one. It must fall by more than a standard error of the items' mean difference (the one-standard-error rule, Breiman
    et al. 1984). Where there are few items, or the network is calibrated already, a temperature that is found on them does harm
    as often as good.

    Args:
        logits, labels: as for `temperature`.
    """
    items = len(labels)
    gains = np.zeros(items)
    for fold in range(min(FOLDS, items)):
        inside = np.arange(items) % FOLDS == fold  # at equal distances, as neighbours often have one label
        if inside.all():
            return 1.0
        found = temperature(logits[:, ~inside], labels[~inside])
        gains[inside] = _log_loss(logits[:, inside], labels[inside], 1.0) - _log_loss(logits[:, inside], labels[inside], found)
    helps = gains.mean() > STANDARD_ERRORS * gains.std(ddof=1) / np.sqrt(items)
    return temperature(logits, labels) if helps else 1.0


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest log loss on validation items.

    Each label that an item does not have counts with the probability 1 / (items + labels), by Laplace's rule, as Platt (1999)
    does for two labels. If all of a few items are right, no temperature would be low enough otherwise.

    Args:
        logits: `(ways, items, labels)`; the probabilities are the mean over the ways of looking at an item.
        labels: int `(items,)`, indices below the number of labels.

    Returns:
        A number from 0.05 to 20.
    """
    from scipy.optimize import minimize_scalar

    _, items, count = logits.shape
    targets = np.full((items, count), 1 / (items + count))
    targets[np.arange(items), labels] = (items + 1) / (items + count)

    def loss(logarithm: float) -> float:
        return -float((targets * _log_probabilities(logits, np.exp(logarithm))).sum() / items)

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _log_loss(logits: np.ndarray, labels: np.ndarray, divisor: float) -> np.ndarray:
    """Of each item, float64 `(items,)`."""
    found: np.ndarray = -_log_probabilities(logits, divisor)[np.arange(len(labels)), labels]
    return found


def _log_probabilities(logits: np.ndarray, divisor: float) -> np.ndarray:
    """The logarithm of the mean over the ways of the probabilities, float64 `(items, labels)`."""
    from scipy.special import logsumexp

    scaled = logits.astype(np.float64) / divisor
    found: np.ndarray = logsumexp(scaled - logsumexp(scaled, axis=2, keepdims=True), axis=0) - np.log(len(logits))
    return found
