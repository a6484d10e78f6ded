"""The networks that learn one label an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.kinds.base.learner import Learner, Range
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.comparison import ACCURACY
from evergreen.kinds.classify.settings import ImageScenario

if TYPE_CHECKING:
    import keras

OF_THE_NETWORK = ("model", "filters", "mirror")  # the settings of `train` that decide the weights' number and meaning


class ImageLearner(Learner[ImageScenario]):
    """Small convolutional networks (`evergreen.models.cnn`) under Muon."""

    metric = ACCURACY
    inputs = ("images",)
    outputs = ("probabilities",)

    def build(self, scenario: ImageScenario, train: Split, *, steps: int) -> keras.Model:
        """A compiled network that learns one label an image.

        The step size climbs to `learning_rate` in the first twentieth of the steps and falls to 0 with a cosine in the rest, under
        Muon (see `evergreen.models.muon`). Biases and normalizations don't decay.

        Returns:
            A model of images uint8 `(batch, height, width, channels)` to probabilities float32 `(batch, labels)`; it learns
            from one-hot labels float32 `(batch, labels)`.
        """
        import keras

        from evergreen.models import cnn
        from evergreen.models.muon import Muon

        settings, shape, label_count = scenario.train, train["images"].shape[1:], len(train.facts["labels"])
        network = {"residual": cnn.residual, "plain": cnn.plain}[settings.model]
        varied = settings.flip != "none" or settings.shift or settings.erase
        augment = cnn.Augment(settings.flip, settings.shift, settings.erase, name="augment", dtype="uint8") if varied else None
        model = network(shape, label_count, filters=settings.filters, augment=augment, mirror=settings.mirror)
        climb = max(1, steps // 20)
        optimizer = Muon(
            keras.optimizers.schedules.CosineDecay(
                settings.learning_rate / 10, max(1, steps - climb), warmup_target=settings.learning_rate, warmup_steps=climb
            ),
            weight_decay=settings.weight_decay or None,
        )
        optimizer.exclude_from_weight_decay([variable for variable in model.trainable_variables if len(variable.shape) < 2])
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model

    def targets(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """One-hot labels, float32 `(rows, labels)`."""
        one_hot: np.ndarray = np.eye(len(split.facts["labels"]), dtype=np.float32)[split["labels"][rows]]
        return one_hot

    def loss_of_guessing(self, train: Split) -> float:
        """Of predicting all labels alike: log(labels)."""
        return math.log(max(2, len(train.facts["labels"])))

    def settings(self, train: Split) -> dict[str, Any]:
        """Labels, the images' shape, and the range with which deep images were read."""
        read_with = train.facts.get("range")
        return {
            "labels": list(train.facts["labels"]),
            "shape": list(train["images"].shape[1:]),
            **({"range": read_with} if read_with else {}),
        }

    def different_networks(self, scenario: ImageScenario, settings: Mapping[str, Any]) -> list[str]:
        """Architecture, image size or labels."""
        pixels = scenario.preprocess
        compared = {
            **{key: (settings["train"].get(key), getattr(scenario.train, key)) for key in OF_THE_NETWORK},
            "image size": (list(settings["shape"]), [pixels.height, pixels.width, pixels.channels]),
            "labels": (list(settings["labels"]), list(scenario.validation.labels)),
        }
        return [key for key, (theirs, ours) in compared.items() if theirs != ours]

    def random_split(self, scenario: ImageScenario, items: int, random: np.random.Generator) -> Split:
        """Random pixels and labels."""
        pixels, labels = scenario.preprocess, scenario.validation.labels
        images = random.integers(0, 256, (items, pixels.height, pixels.width, pixels.channels), np.uint8)
        return Split("train", {"images": images, "labels": random.integers(0, len(labels), items)}, {"labels": labels})

    def search_space(self, scenario: ImageScenario, train: Split) -> list[Range]:
        """Step size, regularization, augmentation, the network's width, and epochs."""
        settings, side = scenario.train, min(train["images"].shape[1:3])
        filters = max(4, settings.filters // 4 * 4)
        return [
            Range("learning_rate", settings.learning_rate / 4, min(10.0, settings.learning_rate * 4), log=True),
            Range(
                "weight_decay", max(1e-6, settings.weight_decay / 10), min(1.0, max(1e-3, settings.weight_decay * 10)), log=True
            ),
            Range("label_smoothing", 0.0, 0.2),
            Range("filters", max(4, filters // 8 * 4), filters * 2, step=4),  # what a prediction takes
            Range("epochs", max(1, settings.epochs // 2), settings.epochs * 2, step=1),  # what training takes
            Range("shift", 0, max(1, side // 8, settings.shift), step=1),
            Range("erase", 0, max(1, side // 4, settings.erase), step=1),
        ]

    def preparation_work(self, scenario: ImageScenario) -> str:
        """The size of the images."""
        pixels = scenario.preprocess
        return f"{pixels.height}×{pixels.width}×{pixels.channels}"

    def prediction_work(self, scenario: ImageScenario) -> str:
        """Network, image size and number of labels."""
        train, labels = scenario.train, len(scenario.validation.labels)
        ways = ", both ways" if train.mirror else ""
        return f"{train.model} of {train.filters} filters on {self.preparation_work(scenario)}, {labels} labels{ways}"

    def training_work(self, scenario: ImageScenario) -> str:
        """The same with precision, batch size and augmentation."""
        train = scenario.train
        return (
            f"{self.prediction_work(scenario)}, {train.precision} precision, batches of {train.batch_size}, flip {train.flip}, "
            f"shift {train.shift}, erase {train.erase}"
        )

    def class_weight(self, scenario: ImageScenario, train: Split) -> dict[int, float] | None:
        """Such that all labels weigh the same together, where `train.class_weights` says so."""
        if scenario.train.class_weights == "none":
            return None
        return class_weights(train["labels"], len(train.facts["labels"]))

    def agree(self, trained: np.ndarray, served: np.ndarray) -> np.ndarray:
        """The same likeliest label."""
        same: np.ndarray = trained.argmax(axis=1) == served.argmax(axis=1)
        return same


def class_weights(labels: np.ndarray, label_count: int) -> dict[int, float]:
    """For each label the weight with which its items count, so that all labels weigh the same together.

    Args:
        labels: integers `(items,)`, indices below `label_count`.
    """
    counts = np.bincount(labels, minlength=label_count)
    return {label: len(labels) / (label_count * max(int(count), 1)) for label, count in enumerate(counts)}
