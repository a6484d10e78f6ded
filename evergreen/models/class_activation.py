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

    Input: a list of feature maps, float32 `(batch, height, width, channels)` each, in the order of their features. Output:
    float32 `(batch, rows, columns, labels)`, of the size of the first map; its sum over all positions, plus the last layer's
    bias, is the label's logit.

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

    def call(self, maps: Sequence[Any]) -> Any:
        rows, columns = maps[0].shape[1:3]
        total: Any = 0
        start = 0
        for one in maps:
            height, width, channels = one.shape[1:]
            mean, largest, deviation = np.split(self._mean[start : start + 3 * channels], 3)
            parts = ops.concatenate(
                [(one - mean) / (height * width), *_located(one, largest, deviation)], axis=-1
            )  # (batch, height, width, 3 channels)
            activation = ops.matmul(parts, ops.convert_to_tensor(self._weights[start : start + 3 * channels]))
            total = total + _enlarged(activation, rows, columns)
            start += 3 * channels
        if not self._mirrored:
            return total
        both = ops.reshape(total, (2, -1, *total.shape[1:]))
        return (both[0] + ops.flip(both[1], axis=2)) / 2


def class_activation(model: keras.Model) -> keras.KerasTensor | None:
    """The class activation of a classifier's images; None if its last layer does not rest on `Statistics` of feature maps."""
    names = {layer.name for layer in model.layers}
    if not {FEATURES, STANDARDIZED, LAST} <= names:
        return None
    maps = [layer.input for layer in model.layers if isinstance(layer, Statistics)]
    standardized = model.get_layer(STANDARDIZED)
    mean, variance = standardized.get_weights()
    kernel, _ = model.get_layer(LAST).get_weights()
    if sum(3 * one.shape[-1] for one in maps) != len(kernel):
        return None
    mirrored = any(isinstance(layer, BothWays) for layer in model.layers)
    deviation = np.sqrt(variance + standardized.epsilon)
    found: keras.KerasTensor = ClassActivation(mean, deviation, kernel, mirrored=mirrored)(maps)
    return found


def _located(maps: Any, usual_largest: np.ndarray, usual_deviation: np.ndarray) -> tuple[Any, Any]:
    """How much the maximum and the standard deviation of each channel exceed their usual values, each divided among the
    positions that they come from: `(batch, height, width, channels)` each."""
    largest = ops.max(maps, axis=(1, 2), keepdims=True)
    is_largest = ops.cast(ops.equal(maps, largest), "float32")
    of_largest = is_largest / ops.sum(is_largest, axis=(1, 2), keepdims=True) * (largest - usual_largest)
    squared = ops.square(maps - ops.mean(maps, axis=(1, 2), keepdims=True))
    variance = ops.mean(squared, axis=(1, 2), keepdims=True)
    share = (squared + 1e-6) / ops.sum(squared + 1e-6, axis=(1, 2), keepdims=True)  # equal shares of a constant channel
    return of_largest, share * (ops.sqrt(variance + 1e-6) - usual_deviation)


def _enlarged(activation: Any, rows: int, columns: int) -> Any:
    """A map with more positions and the same sum: each position is divided among those that it covers."""
    for axis, size in ((1, rows), (2, columns)):
        covering = np.arange(size) * activation.shape[axis] // size  # for each position of the larger map
        covered = np.bincount(covering, minlength=activation.shape[axis]).astype(np.float32)
        shape = tuple(size if dimension == axis else 1 for dimension in range(4))
        activation = ops.take(activation, covering, axis=axis) / covered[covering].reshape(shape)
    return activation
