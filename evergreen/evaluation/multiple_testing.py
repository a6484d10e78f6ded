"""Several tests at once: what each one's p-value is worth with all of them in view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value with all of them in view: those at most `alpha` hold together at that level, under any dependence (Holm 1979, "A
    simple sequentially rejective multiple test procedure"; SciPy has only procedures for the false discovery rate)."""
    order = np.argsort(p_values)
    stepped = np.asarray(p_values)[order] * (len(p_values) - np.arange(len(p_values)))
    together = np.empty(len(p_values))
    together[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return [float(p_value) for p_value in together]
