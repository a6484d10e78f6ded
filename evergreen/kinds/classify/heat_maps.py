"""Heat maps: the parts of an image on which an answer rests. They are of the served network itself.

Networks on a pre-trained backbone say what each position adds to the answer (`evergreen.models.class_activation`). For the
others there is occlusion (Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks"): squares of the image
are covered with its mean colour, one after the other, and how much less probable the answer becomes is noted. On the magnetic
tiles, class activation finds the defect more often and takes two predictions instead of a hundred (bench/README.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evergreen.kinds.base.codec import Network

GRID = 10  # cells along the longer side: as many predictions as there are cells
SQUARE = 3  # cells along the side of what is covered: a single one often hides too little to matter
LEAST = 1e-6  # probabilities are kept this far from 0 and 1
CLASS_ACTIVATION = "class_activation"  # the output of networks that have one, `(n, rows, columns, labels)`
# The standard deviation by which class activation is smoothed, as a fraction of the longer side: features see more than their
# cell.
SMOOTHING = 1 / 28

Predict = Callable[[np.ndarray], np.ndarray]  # images uint8 `(n, height, width, channels)` to probabilities `(n, labels)`


def heat_map(model: Network, image: np.ndarray, label: int) -> np.ndarray:
    """How much each part of an image speaks for a label: by class activation, or by occlusion if the network does not give it.

    Args:
        image: uint8 `(height, width, channels)`, the network's input.
        label: the label's index.

    Returns:
        float32 `(rows, columns)`: what the cells contribute to the label's log-odds. Negative where they speak against it.
    """
    activation = model.further(CLASS_ACTIVATION, {"images": image[None]})
    if activation is None:
        return by_occlusion(lambda images: model.run({"images": images})["probabilities"], image, label)
    return by_class_activation(activation[0], model.run({"images": image[None]})["probabilities"][0], label)


def by_class_activation(activation: np.ndarray, probabilities: np.ndarray, label: int) -> np.ndarray:
    """What each position contributes to a label's log-odds.

    Args:
        activation: what it contributes to each label's logit, float32 `(rows, columns, labels)`.
        probabilities: of the labels, float32 `(labels,)`.
        label: the label's index.

    Returns:
        float32 `(rows, columns)`: the contribution to the label's logit less that to the others', each of which counts by its
        probability, as in the derivative of the log-odds; smoothed.
    """
    import cv2

    others = probabilities.astype(np.float64)
    others[label] = 0
    others /= max(others.sum(), LEAST)
    odds = activation[:, :, label] - activation @ others
    # Nothing is beyond the border, so that a mark there does not count twice.
    found: np.ndarray = cv2.GaussianBlur(odds, (0, 0), SMOOTHING * max(odds.shape), borderType=cv2.BORDER_CONSTANT)
    return found.astype(np.float32)


def by_occlusion(predict: Predict, image: np.ndarray, label: int) -> np.ndarray:
    """How much less a label is believed where parts of the image are covered. Arguments as for `heat_map`.

    Returns:
        float32 `(rows, columns)`, at most `GRID` each: the fall of the label's log-odds where the cell is covered, as the mean
        over all squares that cover it.
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
