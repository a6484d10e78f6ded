"""Convolutional networks that classify images, and the layers that they add to Keras's own.

Each network takes raw pixels, uint8 `(batch, height, width, channels)`, and returns probabilities, float32 `(batch, labels)`.
The preprocessing of pixels is part of the model, so that serving can't differ from training.

This module imports Keras at its top, since its layers must be registered by name when a saved model is loaded; import it late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

Flip = Literal["none", "horizontal", "both"]
GREY = 128  # becomes 0 when the networks scale it


def restarted(seed: int, epoch: int) -> list[int]:
    """The state of a seed generator, two numbers of 32 bits, at the beginning of an epoch: another one for each epoch."""
    return [seed % 2**32, epoch * 1_000_003 % 2**32]


@keras.saving.register_keras_serializable("evergreen")
class Augment(layers.Layer):
    """Randomly flips and shifts each image and greys a square of it in training; otherwise passes images through unchanged.

    Input and output: `(batch, height, width, channels)`, values 0 to 255, any dtype. The area uncovered by a shift is filled by
    reflection at the border. The square, of side `erase` pixels, may lie partly outside (cutout, DeVries and Taylor 2017).
    `restart(seed, epoch)` makes an epoch's choices the same whenever it is repeated.
    """

    def __init__(self, flip: Flip = "none", shift: int = 0, erase: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self.flip, self.shift, self.erase = flip, shift, erase
        self.random = keras.random.SeedGenerator(0)

    def restart(self, seed: int, epoch: int) -> None:
        self.random.state.assign(restarted(seed, epoch))

    def call(self, images: Any, training: bool = False) -> Any:
        if not training:
            return images
        batch = ops.shape(images)[0]
        height, width, channels = images.shape[1:]
        if self.flip != "none" or self.shift:
            rows = self._positions(batch, height, flip=self.flip == "both")  # (batch, height)
            columns = self._positions(batch, width, flip=self.flip != "none")  # (batch, width)
            # One gather does the flips and both shifts: every pixel of the result is looked up by its index in the batch.
            first = ops.arange(batch, dtype="int32")[:, None, None] * (height * width)
            numbers = first + rows[:, :, None] * width + columns[:, None, :]  # (batch, height, width)
            images = ops.take(ops.reshape(images, (-1, channels)), numbers, axis=0)
        if self.erase:
            erased = ops.logical_and(self._erased(batch, height)[:, :, None], self._erased(batch, width)[:, None, :])
            images = ops.where(erased[..., None], ops.cast(GREY, images.dtype), images)
        return images

    def _erased(self, batch: Any, length: int) -> Any:
        """For each image, the positions along one side that its square covers: bool `(batch, length)`."""
        start = keras.random.randint((batch, 1), 1 - self.erase, length, "int32", seed=self.random)
        position = ops.arange(length, dtype="int32")[None, :]
        return ops.logical_and(position >= start, position < start + self.erase)

    def _positions(self, batch: Any, length: int, *, flip: bool) -> Any:
        """For each image, the source positions of its pixels along one side: int32 `(batch, length)`."""
        position = ops.arange(length, dtype="int32")[None, :]
        if self.shift:
            shift = min(self.shift, length - 1)
            # Each draw advances the seed generator's state, so the draws of a step differ.
            position = position + keras.random.randint((batch, 1), -shift, shift + 1, "int32", seed=self.random)
            position = ops.abs(position)
            position = (length - 1) - ops.abs((length - 1) - position)
        else:
            position = ops.tile(position, (batch, 1))
        if flip:
            turned = keras.random.randint((batch, 1), 0, 2, "int32", seed=self.random)
            position = turned * (length - 1) + (1 - 2 * turned) * position
        return position

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "flip": self.flip, "shift": self.shift, "erase": self.erase}


class OnlyInTraining:
    """Makes a layer of Keras's that varies images leave them alone unless it is called with `training=True`, as all other
    layers do; Keras's own vary them unless they are called with `training=False`."""

    def call(self, images: Any, training: bool = False) -> Any:
        return super().call(images, training=training) if training else images  # type: ignore[misc]


@keras.saving.register_keras_serializable("evergreen")
class Rotate(OnlyInTraining, layers.RandomRotation):
    """Turns each image by an angle of its own."""


@keras.saving.register_keras_serializable("evergreen")
class ChangeBrightness(OnlyInTraining, layers.RandomBrightness):
    """Makes each image brighter or darker."""


@keras.saving.register_keras_serializable("evergreen")
class Blur(OnlyInTraining, layers.RandomGaussianBlur):
    """Blurs half of the images."""


@dataclass(frozen=True)
class Augmentation:
    """How images are varied in training.

    Attributes:
        flip: mirror images horizontally, or also vertically, at random.
        shift: pixels, either way.
        erase: side in pixels of the square that is greyed out.
        rotate: degrees, either way; the area uncovered is filled by reflection at the border.
        brightness: fraction of the range of values that is added or subtracted at most.
        blur: largest standard deviation in pixels of the blur that half of the images get.
    """

    flip: Flip = "none"
    shift: int = 0
    erase: int = 0
    rotate: float = 0.0
    brightness: float = 0.0
    blur: float = 0.0

    def __call__(self, images: Any) -> Any:
        """Add the layers that vary images, `(batch, height, width, channels)` with values 0 to 255; none without an effect."""
        values = {"value_range": (0, 255), "dtype": "float32"}
        if self.rotate or self.brightness or self.blur:  # Keras's layers compute in the dtype that they get
            images = layers.Rescaling(1.0, dtype="float32", name="values")(images)
        if self.rotate:
            images = Rotate(self.rotate / 360, dtype="float32", name="rotate")(images)
        if self.brightness:
            images = ChangeBrightness(self.brightness, name="brightness", **values)(images)
        if self.blur:
            size = 2 * math.ceil(2 * self.blur) + 1  # two standard deviations to each side
            images = Blur((0.5, 0.5), size, (0.0, self.blur), name="blur", **values)(images)
        if self.flip != "none" or self.shift or self.erase:
            images = Augment(self.flip, self.shift, self.erase, name="augment", dtype=images.dtype)(images)
        return images


NO_AUGMENTATION = Augmentation()


@keras.saving.register_keras_serializable("evergreen")
class BothWays(layers.Layer):
    """In prediction, appends each image's mirror image: `(batch, height, width, channels)` to twice the batch."""

    def call(self, images: Any, training: bool = False) -> Any:
        return images if training else ops.concatenate([images, images[:, :, ::-1]], axis=0)


@keras.saving.register_keras_serializable("evergreen")
class MeanOfBoth(layers.Layer):
    """Undoes `BothWays`: averages the outputs for an image and its mirror image, `(2 batch, values)` to `(batch, values)`."""

    def call(self, found: Any, training: bool = False) -> Any:
        return found if training else ops.mean(ops.reshape(found, (2, -1, found.shape[-1])), axis=0)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (None, *shape[1:])  # not every backend of Keras halves an unknown batch size by itself


@keras.saving.register_keras_serializable("evergreen")
class Interpolate(layers.Layer):
    """Resizes images by linear interpolation between pixels' centers: `(batch, rows, columns, channels)` to float32 `(batch,
    height, width, channels)`.

    Keras's own layer does the same, but the ONNX converter makes networks of it that do not run, or differ.
    """

    def __init__(self, height: int, width: int, **settings: Any) -> None:
        super().__init__(**({"dtype": "float32"} | settings))
        self.height, self.width = height, width

    def call(self, images: Any) -> Any:
        found = _interpolated(ops.cast(images, "float32"), self.height, axis=1)
        return _interpolated(found, self.width, axis=2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width}


def _interpolated(images: Any, length: int, axis: int) -> Any:
    old = images.shape[axis]
    position = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
    before = np.minimum(np.floor(position).astype(np.int32), max(0, old - 2))
    shape = [1] * 4
    shape[axis] = length
    share = (position - before).astype(np.float32).reshape(shape)
    after = np.minimum(before + 1, old - 1)
    return ops.take(images, before, axis=axis) * (1 - share) + ops.take(images, after, axis=axis) * share


def residual(
    shape: tuple[int, int, int],
    labels: int,
    *,
    filters: int = 32,
    reduction: float = 1,
    augment: Augmentation = NO_AUGMENTATION,
    mirror: bool = False,
) -> keras.Model:
    """A small residual network for images of at least 4×4 pixels.

    Images with a side of more than 32 pixels are halved by the first convolution, and then by convolutions with pooling until
    the side is at most 32, at which convolutions are worth their time (pooling keeps small details that strides skip). Three
    stages of `filters`, 4 `filters` and 4 `filters` channels follow, each a convolution, a halving and a residual block (the
    proportions of airbench94, Jordan 2024).

    Args:
        shape: height, width and channels of the images.
        labels: the number of labels.
        filters: channels of the first stage.
        reduction: the factor by which images are made smaller first; the augmentation takes the averages for pixels.
        augment: the augmentation in training.
        mirror: predict from each image and its mirror image, at twice the work.
    """
    images = keras.Input(shape, dtype="uint8", name="images")
    x = _pixels(images, augment, mirror, reduction)
    side, channels = max(x.shape[1:3]), max(filters // 2, 8)
    # The first convolution isn't normalized, which would cost more than the convolution: pixels are scaled already, and Muon
    # keeps its kernel's norm.
    x = layers.Conv2D(
        channels, 3, strides=1 if side <= 32 else 2, padding="same", activation="relu", kernel_initializer="he_normal"
    )(x)
    side = side if side <= 32 else -(-side // 2)
    while side > 32:
        x, side = _convolution(x, channels, halve=True), -(-side // 2)
    for stage, channels in enumerate((filters, 4 * filters, 4 * filters)):
        small = stage == 0 and side <= 16
        x = _convolution(x, channels, halve=not small and min(x.shape[1:3]) > 1)
        x = layers.Add()([x, _convolution(x, channels)])
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(images, _probabilities(x, labels, mirror), name="residual")


def plain(
    shape: tuple[int, int, int],
    labels: int,
    *,
    filters: int = 32,
    reduction: float = 1,
    augment: Augmentation = NO_AUGMENTATION,
    mirror: bool = False,
) -> keras.Model:
    """The usual three blocks of convolution and pooling, and a dense layer of 128. Arguments as for `residual`."""
    images = keras.Input(shape, dtype="uint8", name="images")
    x = _pixels(images, augment, mirror, reduction)
    for block in range(3):
        x = layers.Conv2D(filters * 2**block, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(padding="same")(x)
    # A dense layer over all positions, as a convolution of their size. Flattening would compute the batch's shape at run time,
    # which the ONNX converter usually but not always folds away, so that the same weights could give different files.
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(128, x.shape[1:3], activation="relu")(x))
    return keras.Model(images, _probabilities(x, labels, mirror), name="plain")


def load(path: Path) -> keras.Model:
    """Load a saved model in Keras's safe mode."""
    from evergreen.models import pretrained  # noqa: F401 (its layers are registered by name)

    return keras.models.load_model(path, compile=False, safe_mode=True)


def reduced(images: Any, reduction: float) -> Any:
    """Add the layers that make images smaller, `(batch, height, width, channels)` to about `(batch, height / reduction, width /
    reduction, channels)`; none for 1.

    Whole squares of pixels are averaged. What remains of a reduction that is no integer, a factor below 2, is interpolated.
    """
    if reduction == 1:
        return images
    height, width = (max(1, round(side / reduction)) for side in images.shape[1:3])
    x = layers.Rescaling(1.0, dtype="float32", name="pixels")(images)
    if reduction >= 2:
        x = layers.AveragePooling2D(int(reduction), dtype="float32", name="reduction")(x)
    if reduction != int(reduction):
        x = Interpolate(height, width, name="interpolation")(x)
    return x


def _pixels(images: Any, augment: Augmentation, mirror: bool, reduction: float) -> Any:
    x = augment(reduced(images, reduction))  # in this order, so that the augmentation has less to do
    x = BothWays(name="both_ways", dtype=x.dtype)(x) if mirror else x
    return layers.Rescaling(1 / 64, offset=-2, name="scale")(x)  # roughly zero mean, unit variance for photographs


def _convolution(x: Any, filters: int, *, halve: bool = False) -> Any:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    if halve:  # before the normalization and the activation, which then have a quarter of the work
        x = layers.MaxPooling2D(padding="same")(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def _probabilities(x: Any, labels: int, mirror: bool) -> Any:
    # The logits are scaled down, so that the step size that suits the convolutions doesn't make the last layer diverge.
    logits = layers.Rescaling(1 / 8, name="logits")(layers.Dense(labels, name="last")(x))
    found = layers.Softmax(dtype="float32", name="probabilities")(logits)
    return MeanOfBoth(name="mean_of_both", dtype="float32")(found) if mirror else found
