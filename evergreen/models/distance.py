"""The distance of an item from those that a network was trained on, as a layer on its embedding, so that it is part of the
exported network.

This module imports Keras at its top, as `evergreen.models.cnn` does; import it late.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from evergreen.models.spread import Normal, Spread


class Distance(layers.Layer):
    """Computes `Spread.distance`.

    Input: float32 `(batch, dimensions)`. Output: float32 `(batch,)`.

    Args:
        spread: of the embeddings of the training items.
    """

    def __init__(self, spread: Spread, **settings: Any) -> None:
        super().__init__(trainable=False, dtype="float32", **settings)
        self._dimensions = spread.of_all.centers.shape[1]
        self._middle = self._constant(spread.of_all.centers[0])  # numbers far from 0 would lose digits
        self._of_labels, self._of_all = (self._constants(one, spread) for one in (spread.of_labels, spread.of_all))

    def call(self, embedding: Any) -> Any:
        x = embedding - self._middle
        return (self._squared(x, *self._of_labels) - self._squared(x, *self._of_all)) / self._dimensions

    def _squared(self, x: Any, centers: Any, directions: Any, projected: Any, scale: Any, remaining: float) -> Any:
        """`Normal.squared_distance`: |x - c|² / remaining + (along - projected c)² · scale, for the nearest center c."""
        along = ops.matmul(x, directions)  # (batch, directions)
        scaled = along * scale
        everywhere = ops.sum(ops.square(x), axis=1, keepdims=True) - 2 * ops.matmul(x, centers)  # (batch, centers)
        everywhere += ops.sum(ops.square(centers), axis=0)[None, :]
        further = ops.sum(scaled * along, axis=1, keepdims=True) - 2 * ops.matmul(scaled, projected)
        further += ops.sum(ops.square(projected) * scale[:, None], axis=0)[None, :]
        return ops.min(everywhere / remaining + further, axis=1)

    def _constants(self, normal: Normal, spread: Spread) -> tuple[Any, Any, Any, Any, float]:
        centers = normal.centers - spread.of_all.centers
        return (
            self._constant(centers.T), self._constant(normal.directions), self._constant((centers @ normal.directions).T),
            # Along a direction, a difference counts by the direction's variance instead of by the remaining one.
            self._constant(1 / normal.variances - 1 / np.float32(normal.remaining)), normal.remaining,
        )  # fmt: skip

    def _constant(self, values: np.ndarray) -> Any:
        return self.add_weight(
            shape=values.shape, trainable=False, initializer=keras.initializers.Constant(values.astype(np.float32))
        )
