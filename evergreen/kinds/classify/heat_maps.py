"""Heat maps: the parts of an image on which an answer rests.

Occlusion (Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks"): squares of the image are covered
with its mean colour, one after the other, and how much less probable the answer becomes is noted. It takes nothing but the
served network, so the map is of the very model that answers, whatever its architecture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

GRID = 10  # cells along the longer side: as many predictions as there are cells
SQUARE = 3  # cells along the side of what is covered: a single one often hides too little to matter
LEAST = 1e-6  # probabilities are kept this far from 0 and 1

Predict = Callable[[np.ndarray], np.ndarray]  # images uint8 `(n, height, width, channels)` to probabilities `(n, labels)`


def heat_map(predict: Predict, image: np.ndarray, label: int) -> np.ndarray:
    """How much each part of an image speaks for a label.

    Args:
        image: uint8 `(height, width, channels)`, the network's input.
        label: the label's index.

    Returns:
        float32 `(rows, columns)`, at most `GRID` each: the fall of the label's log-odds where the cell is covered, as the mean
        over all squares that cover it. Negative where the image speaks against the label.
    """
    rows, columns = _edges(image.shape[0], max(image.shape[:2])), _edges(image.shape[1], max(image.shape[:2]))
    mean = image.mean(axis=(0, 1)).round().astype(np.uint8)
    height, width = len(rows) - 1, len(columns) - 1
    covered = np.repeat(image[None], height * width, axis=0)
    squares = [(_around(row, height), _around(column, width)) for row in range(height) for column in range(width)]
    for one, (of_rows, of_columns) in zip(covered, squares, strict=True):
        one[rows[of_rows.start] : rows[of_rows.stop], columns[of_columns.start] : columns[of_columns.stop]] = mean
    falls = _log_odds(predict(image[None])[0, label]) - _log_odds(predict(covered)[:, label])
    total, times = np.zeros((height, width)), np.zeros((height, width))
    for fall, square in zip(falls, squares, strict=True):
        total[square] += fall
        times[square] += 1
    found: np.ndarray = (total / times).astype(np.float32)
    return found


def hottest(heat: np.ndarray, shape: tuple[int, int]) -> tuple[int, int]:
    """The row and column of the pixel in the middle of the hottest cell, of an image of this height and width."""
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    middles = [int((cell + 0.5) * side / cells) for cell, side, cells in zip((row, column), shape, heat.shape, strict=True)]
    return middles[0], middles[1]


def _edges(side: int, longest: int) -> np.ndarray:
    """The first pixel of each cell along a side, and the end: int `(cells + 1,)`."""
    cells = min(side, max(1, round(GRID * side / longest)))
    edges: np.ndarray = np.linspace(0, side, cells + 1).round().astype(int)
    return edges


def _around(cell: int, cells: int) -> slice:
    """The cells that the square around a cell covers."""
    return slice(max(0, cell - SQUARE // 2), min(cells, cell + SQUARE // 2 + 1))


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    p = np.clip(probabilities.astype(np.float64), LEAST, 1 - LEAST)
    odds: np.ndarray = np.log(p / (1 - p))
    return odds
