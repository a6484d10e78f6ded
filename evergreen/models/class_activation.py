"""How much each position of an image adds to each label's logit, as a layer on the feature maps that the last layer rests on,
so that it is part of the exported network.

This module imports Keras at its top, as `evergreen.models.cnn` does; import it late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from evergreen.models.cnn import BothWays
from evergreen.models.pretrained import FEATURES, LAST, STANDARDIZED, Statistics


class ClassActivation(layers.Layer):
    """Splits the logits of a dense layer on standardized `Statistics` into what each position contributes.

    Class activation maps (Zhou et al. 2016, "Learning deep features for discriminative localization") do so for means over all
    positions. Here the maximum of a channel is contributed by the position where it is, by equal parts where there are several,
    and the standard deviation by each position in proportion to its squared deviation.

    Input: a list of feature maps, float32 `(batch, height, width, channels)` each, and a list of their `Statistics`, both in
    the order of the features. Output: float32 `(batch, rows, columns, labels)`, of the size of the first map; its sum over all
    positions, plus the last layer's bias, is the label's logit.

    Args:
        mean, deviation: of the features before they are standardized, `(features,)`.
        kernel: of the last layer, `(features, labels)`.
        mirrored: the second half of the batch is the first half's mirror images (`BothWays`): the mean of both is given.
    """

    def __init__(
        self, mean: np.ndarray, deviation: np.ndarray, kernel: np.ndarray, *, mirrored: bool = False, **settings: Any
    ) -> None:
        super().__init__(trainable=False, dtype="float32", **settings)
        self._mean, self._mirrored = mean.astype(np.float32), mirrored
        self._weights = (kernel / deviation[:, None]).astype(np.float32)

    def call(self, maps: Sequence[Any], statistics: Sequence[Any]) -> Any:
        rows, columns = maps[0].shape[1:3]
        total: Any = 0
        start = 0
        for one, found in zip(maps, statistics, strict=True):
            end = start + found.shape[-1]
            located = _located(one, ops.expand_dims(found, (1, 2)), self._mean[start:end])
            # A matrix product at each position, as a convolution: the converted one would compute its shape at run time.
            activation = ops.conv(located, self._weights[None, None, start:end])
            total = total + _enlarged(activation, rows, columns)
            start = end
        if not self._mirrored:
            return total
        both = ops.reshape(total, (2, -1, *total.shape[1:]))
        return (both[0] + ops.flip(both[1], axis=2)) / 2


def class_activation(model: keras.Model) -> keras.KerasTensor | None:
    """The class activation of a classifier's images; None if its last layer does not rest on `Statistics` of feature maps, or
    on those of several resolutions or tiles, whose positions differ."""
    names = {layer.name for layer in model.layers}
    if not {FEATURES, STANDARDIZED, LAST} <= names or not isinstance(model.get_layer(FEATURES), layers.Concatenate):
        return None
    pooled = [layer for layer in model.layers if isinstance(layer, Statistics)]
    maps, statistics = [layer.input for layer in pooled], [layer.output for layer in pooled]
    standardized = model.get_layer(STANDARDIZED)
    mean, variance = standardized.get_weights()
    kernel, _ = model.get_layer(LAST).get_weights()
    if any(len(one.shape) != 4 for one in maps):  # vectors have no positions
        return None
    mirrored = any(isinstance(layer, BothWays) for layer in model.layers)
    deviation = np.sqrt(variance + standardized.epsilon)
    found: keras.KerasTensor = ClassActivation(mean, deviation, kernel, mirrored=mirrored)(maps, statistics)
    return found


def _located(maps: Any, statistics: Any, usual: np.ndarray) -> Any:
    """By how much each statistic exceeds its usual value, divided among the positions that it comes from: `(batch, height,
    width, 3 channels)`."""
    mean, largest, deviation = ops.split(statistics, 3, axis=-1)
    usual_mean, usual_largest, usual_deviation = np.split(usual, 3)
    is_largest = ops.cast(maps >= largest, "float32")
    of_largest = is_largest / ops.sum(is_largest, axis=(1, 2), keepdims=True)
    squared = ops.square(maps - mean) + 1e-6  # equal shares of a constant channel
    of_deviation = squared / ops.sum(squared, axis=(1, 2), keepdims=True)
    return ops.concatenate(
        [
            (maps - usual_mean) / (maps.shape[1] * maps.shape[2]),
            of_largest * (largest - usual_largest),
            of_deviation * (deviation - usual_deviation),
        ],
        axis=-1,
    )


def _enlarged(activation: Any, rows: int, columns: int) -> Any:
    """A map with more positions and the same sum: each position is divided among those that it covers."""
    for axis, size in ((1, rows), (2, columns)):
        covering = np.arange(size) * activation.shape[axis] // size  # for each position of the larger map
        shares = 1 / np.bincount(covering)[covering].astype(np.float32)
        shape = tuple(size if dimension == axis else 1 for dimension in range(4))
        activation = ops.take(activation, covering, axis=axis) * shares.reshape(shape)
    return activation
