"""Encoded images as the network takes them, and its probabilities as labels. It travels with the registered model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evergreen.kinds.base.codec import Codec
from evergreen.media.images import PixelRange, prepare


@dataclass(frozen=True)
class Prediction:
    """What the model makes of one image.

    Attributes:
        label: the likeliest.
        probability: of it.
        probabilities: of all labels.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


class ImageCodec(Codec):
    """Encoded images (JPEG, PNG, …) in, a label with its probability out.

    Attributes:
        labels: in the order of the network's output.
        shape: height, width and channels (1 or 3) that the network takes.
        pixel_range: with which it learned from images of more than 8 bits a value; None where there were none.
        max_pixels: larger images are refused before decoding.
    """

    inputs = {"image": "binary"}
    outputs = ("probabilities",)

    def __init__(self, settings: Mapping[str, Any], max_pixels: int = sys.maxsize) -> None:
        super().__init__(settings)
        height, width, channels = settings["shape"]
        self.labels, self.shape = tuple(settings["labels"]), (int(height), int(width), int(channels))
        self.pixel_range, self.max_pixels = range_of(settings), max_pixels

    def encode(self, items: Sequence[bytes]) -> dict[str, np.ndarray]:
        """The images as uint8 `(images, height, width, channels)`, RGB order, by the name `images`.

        Raises:
            BadImage: one of them is no usable image, or has more pixels than allowed.
        """
        height, width, channels = self.shape
        pixels = np.empty((len(items), *self.shape), np.uint8)
        for index, image in enumerate(items):
            pixels[index] = prepare(image, height, width, channels, self.max_pixels, self.pixel_range)  # type: ignore[arg-type]
        return {"images": pixels}

    def predictions(self, outputs: Mapping[str, np.ndarray]) -> list[Prediction]:
        """Label and probabilities of each image, from `probabilities`, float32 `(images, labels)`."""
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
        """int64 `(images,)`: the likeliest label of each."""
        likeliest: np.ndarray = output.argmax(axis=1)
        return likeliest

    def table(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Sequence[Any]]:
        """`label`, `probability`, and a column `p_LABEL` for each label."""
        found = self.predictions(outputs)
        return {
            "label": [one.label for one in found],
            "probability": [one.probability for one in found],
            **{f"p_{label}": [one.probabilities[label] for one in found] for label in self.labels},
        }

    def columns(self) -> dict[str, str]:
        """As `Codec.columns`."""
        return {"label": "string", "probability": "double", **{f"p_{label}": "double" for label in self.labels}}


def range_of(settings: Mapping[str, Any]) -> PixelRange | None:
    """The range that a model's settings carry; None in those of images of 8 bits, and of before there were ranges."""
    stored = settings.get("range")
    return PixelRange(stored["low"], stored["high"]) if stored else None
