"""Image classifiers on a backbone that was trained on ImageNet.

Small data sets hold too few images to learn from them what edges, textures and parts look like. A backbone has learned it from
1.3 million photographs; what remains to learn is the last layer, and, where that pays, an adjustment of the backbone.

This module imports Keras at its top, since its layers must be registered by name when a saved model is loaded; import it late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from evergreen.models import backbones
from evergreen.models.backbones import Backbone
from evergreen.models.cnn import NO_AUGMENTATION, Augmentation, BothWays, Interpolate, MeanOfBoth, reduced

FEATURES, STANDARDIZED, LAST = "features", "standardized_features", "last"
WHOLE = (1.0,)  # the resolutions of a network that sees images once, as they are


@keras.saving.register_keras_serializable("evergreen")
class Statistics(layers.Layer):
    """The mean, the maximum and the standard deviation of each channel over all positions.

    Input: `(batch, height, width, channels)`. Output: `(batch, 3 channels)`. The maximum finds what is small in the image, the
    mean and the deviation describe texture. Vectors, `(batch, values)`, are passed through.
    """

    def call(self, maps: Any) -> Any:
        if len(maps.shape) == 2:
            return maps
        mean = ops.mean(maps, axis=(1, 2))
        variance = ops.maximum(ops.mean(ops.square(maps), axis=(1, 2)) - ops.square(mean), 0)
        return ops.concatenate([mean, ops.max(maps, axis=(1, 2)), ops.sqrt(variance + 1e-6)], axis=-1)


@dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles that overlap.

    Attributes:
        side: of a tile, in pixels.
        overlap: of neighbours, in pixels, at least.
        join: `max` takes each feature from the tile that has most of it, which finds what is small; `mean` the mean.
    """

    side: int
    overlap: int
    join: Literal["max", "mean"]

    def positions(self, length: int) -> list[int]:
        """Where the tiles begin along a side of `length` pixels, which they cover at equal distances."""
        count = max(1, math.ceil((length - self.overlap) / (self.side - self.overlap)))
        return [round(one) for one in np.linspace(0, length - self.side, count)]


@keras.saving.register_keras_serializable("evergreen")
class Tiles(layers.Layer):
    """Cuts images into tiles: `(batch, height, width, channels)` to `(tiles batch, side, side, channels)`, first the first tile
    of all images.

    Args:
        rows, columns: where tiles begin.
    """

    def __init__(self, rows: Sequence[int], columns: Sequence[int], side: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.rows, self.columns, self.side = list(rows), list(columns), side

    def call(self, images: Any) -> Any:
        tiles = [images[:, y : y + self.side, x : x + self.side] for y in self.rows for x in self.columns]
        return ops.concatenate(tiles, axis=0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rows": self.rows, "columns": self.columns, "side": self.side}


@keras.saving.register_keras_serializable("evergreen")
class JoinTiles(layers.Layer):
    """Undoes `Tiles` for what was computed of each: `(tiles batch, values)` to `(batch, values)`.

    Args:
        tiles: of each image.
        join: as in `Tiling`.
    """

    def __init__(self, tiles: int, join: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.tiles, self.join = tiles, join

    def call(self, values: Any) -> Any:
        of_images = ops.reshape(values, (self.tiles, -1, values.shape[-1]))
        return (ops.max if self.join == "max" else ops.mean)(of_images, axis=0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tiles": self.tiles, "join": self.join}


def classifier(
    backbone: Backbone,
    shape: tuple[int, int, int],
    labels: int,
    *,
    reduction: float = 1,
    augment: Augmentation = NO_AUGMENTATION,
    mirror: bool = False,
    resolutions: Sequence[float] = WHOLE,
    tiling: Tiling | None = None,
) -> keras.Model:
    """A backbone with one dense layer on its standardized features of several depths. The earlier part of the backbone is
    frozen, and all its normalizations.

    Args:
        shape: height, width and channels (1 or 3) of the images; grey images are given three equal channels.
        labels: the number of labels.
        reduction: the factor by which images are made smaller first; the augmentation takes the smaller image's pixels.
        augment: the augmentation in training.
        mirror: predict from each image and its mirror image, at twice the work.
        resolutions: factors of the sides at which the backbone sees each image; its features are the mean over them.
        tiling: the backbone sees the image in these tiles, whose features are joined, in place of the whole.

    Returns:
        A model that maps images uint8 `(batch, height, width, channels)` to probabilities float32 `(batch, labels)`. Its last
        layer is not trained yet: see `fit_last_layer`.
    """
    images = keras.Input(shape, dtype="uint8", name="images")
    x = augment(reduced(images, reduction))
    x = BothWays(name="both_ways", dtype=x.dtype)(x) if mirror else x
    x = layers.Concatenate(name="three_channels", dtype=x.dtype)([x] * 3) if shape[2] == 1 else x
    if tiling is None:
        x = _features(backbone, x, resolutions, FEATURES)
    else:
        rows, columns = (tiling.positions(length) for length in x.shape[1:3])
        x = Tiles(rows, columns, tiling.side, name="tiles", dtype=x.dtype)(x)
        x = _features(backbone, x, resolutions, f"{FEATURES}_of_tiles")
        x = JoinTiles(len(rows) * len(columns), tiling.join, name=FEATURES)(x)
    x = layers.BatchNormalization(center=False, scale=False, epsilon=1e-6, trainable=False, name=STANDARDIZED)(x)
    x = layers.Dense(labels, kernel_initializer="zeros", name=LAST)(x)
    found = layers.Softmax(dtype="float32", name="probabilities")(x)
    found = MeanOfBoth(name="mean_of_both", dtype="float32")(found) if mirror else found
    backbone.freeze()
    return keras.Model(images, found, name=backbone.name)


def efficientnet_lite0(shape: tuple[int, int, int], labels: int, **settings: Any) -> keras.Model:
    """EfficientNet-Lite0 with ImageNet's weights; arguments and result as for `classifier`.

    Raises:
        EvergreenError: the package with the weights is missing, or is not the expected one.
    """
    return classifier(backbones.efficientnet_lite0(), shape, labels, **settings)


def _features(backbone: Backbone, images: Any, resolutions: Sequence[float], name: str) -> Any:
    """The statistics of a backbone's features, as the mean over several resolutions: `(batch, features)`.

    Args:
        name: of the layer that gives them.
    """
    height, width = images.shape[1:3]
    several = len(resolutions) > 1
    statistics: list[Statistics] = []
    together = layers.Concatenate(name=f"{name}_at_each_resolution" if several else name)
    found = []
    for number, factor in enumerate(resolutions):
        seen = images
        if factor != 1:
            sides = (round(height * factor), round(width * factor))
            seen = Interpolate(*sides, name=f"resolution_{number}")(images)
        maps = backbone.features(seen)
        statistics = statistics or [Statistics(name=f"statistics_{depth}") for depth in range(1, len(maps) + 1)]
        found.append(together([layer(one) for layer, one in zip(statistics, maps, strict=True)]))
    return layers.Average(name=name)(found) if several else found[0]


def feature_extractor(model: keras.Model) -> keras.Model:
    """A model of the features before they are standardized: images to float32 `(batch, features)`."""
    found = model.get_layer(FEATURES).output
    if any(isinstance(layer, BothWays) for layer in model.layers):
        found = MeanOfBoth(dtype="float32")(found)
    return keras.Model(model.input, found)


def set_last_layer(model: keras.Model, mean: np.ndarray, variance: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Set how features are standardized, and the weights of the last layer.

    Args:
        mean, variance: of each feature, `(features,)`.
        kernel: `(features, labels)`.
        bias: `(labels,)`.
    """
    model.get_layer(STANDARDIZED).set_weights([mean, variance])
    model.get_layer(LAST).set_weights([kernel, bias])
