"""The distance of an item from those that a network was trained on, as a layer on its embedding, so that it is part of the
exported network.

This module imports Keras at its top, as `evergreen.models.cnn` does; import it late.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from evergreen.models.spread import Spread


class Distance(layers.Layer):
    """Computes `Spread.distance`.

    Input: float32 `(batch, dimensions)`. Output: float32 `(batch,)`.

    Args:
        spread: of the embeddings of the training items.
    """

    def __init__(self, spread: Spread, **settings: Any) -> None:
        super().__init__(trainable=False, dtype="float32", **settings)
        middle = spread.centers.mean(axis=0)  # numbers far from 0 would lose digits
        centers = (spread.centers - middle).astype(np.float32)
        self._middle, self._directions = self._constant(middle), self._constant(spread.directions)
        self._centers, self._projected = self._constant(centers.T), self._constant((centers @ spread.directions).T)
        # Along a direction, a difference counts by the direction's variance instead of by the remaining one.
        self._scale = self._constant(1 / spread.variances - 1 / np.float32(spread.remaining))
        self._remaining, self._dimensions = float(spread.remaining), spread.centers.shape[1]

    def call(self, embedding: Any) -> Any:
        x = embedding - self._middle
        along = ops.matmul(x, self._directions)  # (batch, directions)
        scaled = along * self._scale
        # |x - c|² / remaining + (along - projected c)² · scale, for every center c: (batch, labels)
        everywhere = ops.sum(ops.square(x), axis=1, keepdims=True) - 2 * ops.matmul(x, self._centers)
        everywhere += ops.sum(ops.square(self._centers), axis=0)[None, :]
        further = ops.sum(scaled * along, axis=1, keepdims=True) - 2 * ops.matmul(scaled, self._projected)
        further += ops.sum(ops.square(self._projected) * self._scale[:, None], axis=0)[None, :]
        squared = ops.min(everywhere / self._remaining + further, axis=1) / self._dimensions
        return ops.sqrt(ops.maximum(squared, 0.0))

    def _constant(self, values: np.ndarray) -> Any:
        return self.add_weight(
            shape=values.shape, trainable=False, initializer=keras.initializers.Constant(values.astype(np.float32))
        )
