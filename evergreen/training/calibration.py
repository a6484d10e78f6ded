"""Calibrated probabilities: temperature scaling (Guo et al. 2017, "On calibration of modern neural networks").

A network that was trained with label smoothing is too unsure of itself, one that fits its training items perfectly too sure.
Dividing the logits by one number, the temperature, corrects that without changing which label is the most probable one (of an
image that is looked at in two ways it may, where they disagree).
"""

from __future__ import annotations

import numpy as np

LOWEST, HIGHEST = 0.05, 20.0


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
    from scipy.special import logsumexp

    ways, items, count = logits.shape
    targets = np.full((items, count), 1 / (items + count))
    targets[np.arange(items), labels] = (items + 1) / (items + count)
    logits = logits.astype(np.float64)

    def loss(logarithm: float) -> float:
        scaled = logits / np.exp(logarithm)
        of_ways = scaled - logsumexp(scaled, axis=2, keepdims=True)
        return -float((targets * (logsumexp(of_ways, axis=0) - np.log(ways))).sum() / items)

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
