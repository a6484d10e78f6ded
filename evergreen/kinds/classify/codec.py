"""The codec of image classifiers: converts encoded images to the network's input, and its probabilities to labels. It is stored
with the registered model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evergreen.kinds.base.codec import Codec
from evergreen.media.images import PixelRange, prepare
from evergreen.media.resizing import Resize


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        label: the most probable label.
        probability: of this label.
        probabilities: of all labels.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


class ImageCodec(Codec):
    """Takes encoded images (JPEG, PNG, …) and gives labels with probabilities.

    Attributes:
        labels: in the order of the network's output.
        shape: height, width and channels (1 or 3) of the network's input.
        pixel_range: the range with which training images with more than 8 bits per value were read; None if there were none.
        mode: how training images were brought to that size, as in `evergreen.media.resizing.resize`.
        max_pixels: the largest number of pixels of an image; larger ones are refused before decoding.
    """

    inputs = {"image": "binary"}
    outputs = ("probabilities",)
    requirements = ("opencv-python-headless", "pillow", "filelock")

    def __init__(self, settings: Mapping[str, Any], max_pixels: int = sys.maxsize) -> None:
        super().__init__(settings)
        height, width, channels = settings["shape"]
        self.labels, self.shape = tuple(settings["labels"]), (int(height), int(width), int(channels))
        self.pixel_range, self.max_pixels = range_of(settings), max_pixels
        self.mode: Resize = settings.get("resize", "stretch")

    def encode(self, items: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Decode images to uint8 `(images, height, width, channels)` in RGB order, under the name `images`.

        Raises:
            BadImage: an image is not usable, or has more pixels than allowed.
        """
        height, width, channels = self.shape
        pixels = np.empty((len(items), *self.shape), np.uint8)
        for index, image in enumerate(items):
            pixels[index] = prepare(image, height, width, channels, self.max_pixels, self.pixel_range, self.mode)  # type: ignore[arg-type]
        return {"images": pixels}

    def predictions(self, outputs: Mapping[str, np.ndarray]) -> list[Prediction]:
        """The label and probabilities of each image, from `probabilities`, float32 `(images, labels)`."""
        table = outputs["probabilities"]
        return [
            Prediction(self.labels[index], row[index], dict(zip(self.labels, row, strict=True)))
            for index, row in zip(table.argmax(axis=1).tolist(), table.tolist(), strict=True)
        ]

    @property
    def categories(self) -> tuple[str, ...]:
        """The labels."""
        return self.labels

    def answers(self, output: np.ndarray) -> np.ndarray:
        """int64 `(images,)`: the index of each image's most probable label."""
        likeliest: np.ndarray = output.argmax(axis=1)
        return likeliest

    def table(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Sequence[Any]]:
        """The columns `label`, `probability`, and `p_LABEL` for each label."""
        found = self.predictions(outputs)
        return {
            "label": [one.label for one in found],
            "probability": [one.probability for one in found],
            **{f"p_{label}": [one.probabilities[label] for one in found] for label in self.labels},
        }

    def columns(self) -> dict[str, str]:
        """See `Codec.columns`."""
        return {"label": "string", "probability": "double", **{f"p_{label}": "double" for label in self.labels}}


def range_of(settings: Mapping[str, Any]) -> PixelRange | None:
    """The range in a model's settings; None for models of 8-bit images, and for models from before ranges were introduced."""
    stored = settings.get("range")
    return PixelRange(stored["low"], stored["high"]) if stored else None
