"""The bootstrap (Efron 1979; Efron and Tibshirani 1993): how much a figure varies when the units of evaluation are resampled.

A figure is a function of the units' weights, float64 `(draws, rows)` to `(draws,)`; a weight is the number of times that a unit
occurs in a draw. Units with the same outcome can share a row, which then stands for several (`counts`). Units that depend on
each other, such as neighbours in time, share a block and are drawn together (Künsch 1989).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

CHUNK_WEIGHTS = 2**24  # in memory at a time: 128 MB


def weights(counts: np.ndarray, *, draws: int, seed: int, blocks: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield the weights in chunks, int64 `(chunk, rows)`: first a row for the original units, then those of the draws.

    Args:
        counts: int `(rows,)`: the number of units that each row stands for.
        blocks: int `(rows,)`, from 0: rows with the same number are drawn together; None if all are independent.
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
    """A figure for the original units and for each draw, float64 `(draws,)`. Arguments as for `weights`."""
    values = np.concatenate([figure(chunk) for chunk in weights(counts, draws=draws, seed=seed, blocks=blocks)])
    return float(values[0]), values[1:]


def percentile_interval(drawn: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The confidence interval of a figure, from the percentiles of its draws `(draws,)`."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
