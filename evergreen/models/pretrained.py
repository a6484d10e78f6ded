"""Image classifiers on a backbone that was trained on ImageNet.

Small data sets hold too few images to learn from them what edges, textures and parts look like. A backbone has learned it from
1.3 million photographs; what remains to learn is the last layer, and, where that pays, an adjustment of the backbone.

This module imports Keras at its top, since its layers must be registered by name when a saved model is loaded; import it late.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from evergreen.models import efficientnet_lite
from evergreen.models.cnn import NO_AUGMENTATION, Augmentation, BothWays, MeanOfBoth, reduced

FEATURES, STANDARDIZED, LAST = "features", "standardized_features", "last"
# The stages of the backbone, counted from 0, from whose outputs features are taken: all but the first. On four data sets
# (bench/README.md) they are as good as fewer or later ones, or better.
DEPTHS = (1, 2, 3, 4, 5, 6)
# The first layer that is fine-tuned, which begins the fourth of seven stages. Those before it see edges and textures, which are
# the same everywhere, and their gradients would take over half of the time.
TRAINED_FROM = "block_5_expand"


@keras.saving.register_keras_serializable("evergreen")
class Statistics(layers.Layer):
    """The mean, the maximum and the standard deviation of each channel over all positions.

    Input: `(batch, height, width, channels)`. Output: `(batch, 3 channels)`. The maximum finds what is small in the image, the
    mean and the deviation describe texture.
    """

    def call(self, maps: Any) -> Any:
        mean = ops.mean(maps, axis=(1, 2))
        variance = ops.maximum(ops.mean(ops.square(maps), axis=(1, 2)) - ops.square(mean), 0)
        return ops.concatenate([mean, ops.max(maps, axis=(1, 2)), ops.sqrt(variance + 1e-6)], axis=-1)


def efficientnet_lite0(
    shape: tuple[int, int, int],
    labels: int,
    *,
    reduction: float = 1,
    augment: Augmentation = NO_AUGMENTATION,
    mirror: bool = False,
) -> keras.Model:
    """EfficientNet-Lite0 with ImageNet's weights, and one dense layer on standardized features of several depths.

    The first three stages of the backbone are frozen, and all its normalizations: the statistics of a few hundred images are
    worse than ImageNet's.

    Args:
        shape: height, width and channels (1 or 3) of the images; grey images are given three equal channels.
        labels: the number of labels.
        reduction: the factor by which images are made smaller first; the augmentation takes the smaller image's pixels.
        augment: the augmentation in training.
        mirror: predict from each image and its mirror image, at twice the work.

    Returns:
        A model that maps images uint8 `(batch, height, width, channels)` to probabilities float32 `(batch, labels)`. Its last
        layer is not trained yet: see `fit_last_layer`.

    Raises:
        EvergreenError: the package with the weights is missing, or is not the expected one.
    """
    images = keras.Input(shape, dtype="uint8", name="images")
    x = augment(reduced(images, reduction))
    x = BothWays(name="both_ways", dtype=x.dtype)(x) if mirror else x
    x = layers.Concatenate(name="three_channels", dtype=x.dtype)([x] * 3) if shape[2] == 1 else x
    maps = efficientnet_lite.backbone(x)
    x = layers.Concatenate(name=FEATURES)([Statistics(name=f"statistics_{depth}")(maps[depth]) for depth in DEPTHS])
    x = layers.BatchNormalization(center=False, scale=False, epsilon=1e-6, name=STANDARDIZED)(x)
    x = layers.Dense(labels, kernel_initializer="zeros", name=LAST)(x)
    found = layers.Softmax(dtype="float32", name="probabilities")(x)
    found = MeanOfBoth(name="mean_of_both", dtype="float32")(found) if mirror else found
    model = keras.Model(images, found, name="efficientnet_lite0")
    efficientnet_lite.load_weights(model)
    names = [layer.name for layer in model.layers]
    for layer in model.layers[: names.index(TRAINED_FROM)]:
        layer.trainable = False
    for layer in model.layers[names.index(TRAINED_FROM) :]:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)
    return model


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
