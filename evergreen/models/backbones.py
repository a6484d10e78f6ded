"""Backbones: pre-trained networks without their last layer, as image classifiers are built on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evergreen.models import efficientnet_lite

if TYPE_CHECKING:
    import keras

# The stages of EfficientNet-Lite0, counted from 0, from whose outputs features are taken: all but the first. On four data sets
# (bench/README.md) they are as good as fewer or later ones, or better.
DEPTHS = (1, 2, 3, 4, 5, 6)
EARLY_DEPTHS = (1, 2, 3, 4)  # of its first five stages alone


@dataclass(frozen=True)
class Backbone:
    """A pre-trained network, with its weights and with its preprocessing of pixels.

    Attributes:
        name: of the classifiers that are built on it.
        network: maps images, `(batch, height, width, 3)` with values 0 to 255 in RGB order, of any height and width, to its
            features at several depths: maps, `(batch, rows, columns, channels)`, or vectors, `(batch, values)`.
        trained_from: the name of the first layer that is fine-tuned. Those before it see edges and textures, which are the same
            everywhere, and their gradients would take over half of the time.
    """

    name: str
    network: keras.Model
    trained_from: str

    def features(self, images: Any) -> Sequence[Any]:
        """Add the network's layers to a graph, one by one. If that is done for several images, they share the layers."""
        found: Any = self.network.call(images)
        return found if isinstance(found, list | tuple) else [found]

    def freeze(self) -> None:
        """Make only the later layers trainable, without their normalizations: the statistics of a few hundred images are worse
        than those that the network was trained with."""
        from keras.layers import BatchNormalization

        trainable = False
        for layer in self.network.layers:
            trainable = trainable or layer.name == self.trained_from
            layer.trainable = trainable and not isinstance(layer, BatchNormalization)


def efficientnet_lite0() -> Backbone:
    """EfficientNet-Lite0 with ImageNet's weights. The fourth of its seven stages is the first one that is fine-tuned.

    Raises:
        EvergreenError: the package with the weights is missing, or is not the expected one.
    """
    import keras

    images = keras.Input((None, None, 3))
    maps = efficientnet_lite.backbone(images)
    network = keras.Model(images, [maps[depth] for depth in DEPTHS])
    efficientnet_lite.load_weights(network)
    return Backbone("efficientnet_lite0", network, "block_5_expand")


def efficientnet_lite0_small() -> Backbone:
    """The first five stages of EfficientNet-Lite0 with ImageNet's weights, which hold a quarter of its parameters. All of them
    are fine-tuned: they are to learn to say what the whole network says of a larger image.

    Raises:
        EvergreenError: as for `efficientnet_lite0`.
    """
    import keras

    images = keras.Input((None, None, 3))
    maps = efficientnet_lite.backbone(images)
    network = keras.Model(images, [maps[depth] for depth in EARLY_DEPTHS])
    efficientnet_lite.load_weights(network)
    return Backbone("efficientnet_lite0_small", network, "stem")
