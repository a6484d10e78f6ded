"""Several tests at once: p-values adjusted for multiple testing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values: rejecting those of at most `alpha` keeps the family-wise error rate at `alpha` under any
    dependence (Holm 1979, "A simple sequentially rejective multiple test procedure"; SciPy has only procedures for the false
    discovery rate)."""
    order = np.argsort(p_values)
    stepped = np.asarray(p_values)[order] * (len(p_values) - np.arange(len(p_values)))
    together = np.empty(len(p_values))
    together[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return [float(p_value) for p_value in together]
