"""Confidence intervals of proportions."""

from __future__ import annotations

import numpy as np


def interval(hits: int, items: int) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion, by Wilson's score (1927)."""
    from scipy.stats import binomtest

    found = binomtest(hits, items).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def difference(
    first_hits: int, first_items: int, second_hits: int, second_items: int, *, level: float
) -> tuple[float, float, float]:
    """The first proportion minus the second, with its interval at a confidence of 1 - `level`: Newcombe's, from the two Wilson
    intervals (Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10). Both numbers
    of items are above 0."""
    from scipy.stats import binomtest

    proportions, below, above = [], [], []
    for hits, items in ((first_hits, first_items), (second_hits, second_items)):
        found = binomtest(hits, items).proportion_ci(confidence_level=1 - level, method="wilson")
        proportions.append(hits / items)
        below.append(hits / items - found.low)
        above.append(found.high - hits / items)
    apart = proportions[0] - proportions[1]
    return apart, apart - float(np.hypot(below[0], above[1])), apart + float(np.hypot(above[0], below[1]))
