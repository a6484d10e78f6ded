"""Fractions of items, and how sure they are."""

from __future__ import annotations

import numpy as np


def interval(hits: int, items: int) -> tuple[float, float]:
    """Within which the true share lies with 95 % confidence, by Wilson's score (1927)."""
    from scipy.stats import binomtest

    found = binomtest(hits, items).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def difference(
    first_hits: int, first_items: int, second_hits: int, second_items: int, *, level: float
) -> tuple[float, float, float]:
    """The first share less the second, with its interval at a confidence of 1 - `level`: Newcombe's, made of the two Wilson intervals
    (Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10). Both have items."""
    from scipy.stats import binomtest

    shares, below, above = [], [], []
    for hits, items in ((first_hits, first_items), (second_hits, second_items)):
        found = binomtest(hits, items).proportion_ci(confidence_level=1 - level, method="wilson")
        shares.append(hits / items)
        below.append(hits / items - found.low)
        above.append(found.high - hits / items)
    apart = shares[0] - shares[1]
    return apart, apart - float(np.hypot(below[0], above[1])), apart + float(np.hypot(above[0], below[1]))
