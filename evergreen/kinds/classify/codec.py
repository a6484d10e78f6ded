"""The codec of image classifiers: converts encoded images to the network's input, and its probabilities to labels. It is stored
with the registered model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evergreen.kinds.base.codec import Codec
from evergreen.kinds.classify.answers import ANSWER, DISTANCE, REASONS, UNKNOWN, Answering, answered
from evergreen.media.images import PixelRange, prepare
from evergreen.media.resizing import Resize


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        label: the answer; None if the model does not know.
        probability: of this label, or of the most probable one if the model does not know.
        probabilities: of all labels.
        unknown: why it does not know: `unsure`, or `unlike` what it was trained on. Empty if it answers, as all models do whose
            scenario does not say otherwise (`train.answers`).
    """

    label: str | None
    probability: float
    probabilities: dict[str, float]
    unknown: str = ""


class ImageCodec(Codec):
    """Takes encoded images (JPEG, PNG, …) and gives labels with probabilities.

    Attributes:
        labels: in the order of the network's output.
        shape: height, width and channels (1 or 3) of the network's input.
        pixel_range: the range with which training images with more than 8 bits per value were read; None if there were none.
        mode: how training images were brought to that size, as in `evergreen.media.resizing.resize`.
        max_pixels: the largest number of pixels of an image; larger ones are refused before decoding.
        answering: when the model answers.
    """

    inputs = {"image": "binary"}
    outputs: tuple[str, ...] = ("probabilities",)
    requirements = ("opencv-python-headless", "pillow", "filelock")

    def __init__(self, settings: Mapping[str, Any], max_pixels: int = sys.maxsize) -> None:
        super().__init__(settings)
        height, width, channels = settings["shape"]
        self.labels, self.shape = tuple(settings["labels"]), (int(height), int(width), int(channels))
        self.pixel_range, self.max_pixels = range_of(settings), max_pixels
        self.mode: Resize = settings.get("resize", "stretch")
        self.answering = Answering.of(settings)
        if np.isfinite(self.answering.largest_distance):
            self.outputs = (*self.outputs, DISTANCE)

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

    def decided(self, outputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Add `answer` and `unknown`, as `Answering.decide` returns them, if the model has rules for answers."""
        if ANSWER in outputs or "answers" not in self.settings:
            return outputs
        answer, unknown = self.answering.decide(outputs["probabilities"], outputs.get(DISTANCE))
        return {**outputs, ANSWER: answer, UNKNOWN: unknown}

    def predictions(self, outputs: Mapping[str, np.ndarray]) -> list[Prediction]:
        """The answer for each image, from `probabilities`, float32 `(images, labels)`, and `distance`, float32 `(images,)`, if
        the model refuses images that are unlike those it was trained on."""
        given = answered(self.decided(outputs))
        return [
            Prediction(
                None if unknown else self.labels[index], row[index], dict(zip(self.labels, row, strict=True)), REASONS[unknown]
            )
            for index, unknown, row in zip(*(one.tolist() for one in given), outputs["probabilities"].tolist(), strict=True)
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
        """The columns `label`, `probability`, `unknown` if the model has rules for answers, and `p_LABEL` for each label."""
        found = self.predictions(outputs)
        return {
            "label": [one.label for one in found],
            "probability": [one.probability for one in found],
            **({"unknown": [one.unknown for one in found]} if "answers" in self.settings else {}),
            **{f"p_{label}": [one.probabilities[label] for one in found] for label in self.labels},
        }

    def columns(self) -> dict[str, str]:
        """See `Codec.columns`."""
        unknown = {"unknown": "string"} if "answers" in self.settings else {}
        return {"label": "string", "probability": "double", **unknown, **{f"p_{label}": "double" for label in self.labels}}


def range_of(settings: Mapping[str, Any]) -> PixelRange | None:
    """The range in a model's settings; None for models of 8-bit images, and for models from before ranges were introduced."""
    stored = settings.get("range")
    return PixelRange(stored["low"], stored["high"]) if stored else None
