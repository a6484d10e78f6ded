"""The bootstrap (Efron 1979; Efron and Tibshirani 1993): how far a figure would vary if the units of evaluation were drawn anew.

A figure is a function of the units' weights, float64 `(draws, rows)` to `(draws,)`: a weight says how often a unit occurs in a draw. Units with the
same outcome can share a row, which then stands for several (`counts`). Units that depend on each other, such as neighbours in time, share a block
and are drawn together (Künsch 1989).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

CHUNK_WEIGHTS = 2**24  # held in memory at a time: 128 MB


def weights(counts: np.ndarray, *, draws: int, seed: int, blocks: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """The weights of the units themselves, in a first row, and then those of the draws, in chunks: int64 `(chunk, rows)`.

    Args:
        counts: int `(rows,)`: the units that each row stands for.
        blocks: int `(rows,)`, from 0: rows that are drawn together; None where all are independent.
    """
    random = np.random.default_rng(seed)
    if blocks is None:
        times, row_of = counts, None
    else:
        times, row_of = np.ones(int(blocks.max()) + 1, np.int64), blocks
    size = max(1, CHUNK_WEIGHTS // max(1, len(counts)))
    first, left = counts[None], draws
    while left or len(first):
        many = min(left, size)
        drawn = random.multinomial(times.sum(), times / times.sum(), size=many)
        drawn = drawn if row_of is None else drawn[:, row_of] * counts
        yield np.concatenate([first, drawn])
        first, left = first[:0], left - many


def resampled(
    figure: Callable[[np.ndarray], np.ndarray], counts: np.ndarray, *, draws: int, seed: int, blocks: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """A figure of the units themselves, and of each draw, float64 `(draws,)`. Arguments as `weights`."""
    values = np.concatenate([figure(chunk) for chunk in weights(counts, draws=draws, seed=seed, blocks=blocks)])
    return float(values[0]), values[1:]


def percentile_interval(drawn: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Within which the figure lies with this confidence, by the percentiles of its draws `(draws,)`."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
