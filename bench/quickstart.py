"""Seconds until 99 % of the digits' test items are classified correctly: the quickstart's network against the usual recipe
(three blocks of convolution and pooling, a dense layer of 128, images resized to 224×224, batches of 32, Adam), on the same
split, the quickstart's own.

The time is that of `fit` from its call on, building its graph included; the tests between epochs are not counted.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import ROOT, Row, median, report
from bench.trained import image_scenario, prepared
from evergreen.preparation.arrays import open_split

AIM, OURS, USUAL, USUAL_EPOCHS = 0.99, 5, 1, 12


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The quickstart's own split of scikit-learn's digits: images uint8 `(items, 8, 8, 1)` and labels of train and test."""
    with tempfile.TemporaryDirectory() as folder:
        splits = prepared("quickstart", Path(folder)).splits("quickstart")
        train, test = open_split(splits, "train"), open_split(splits, "test")
        return np.array(train["images"]), train["labels"], np.array(test["images"]), test["labels"]


class Clock:
    """Tests after every epoch while its own time stands still; ends the training when the aim is reached."""

    def __init__(self, model: Any, images: np.ndarray, labels: np.ndarray) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.seconds, self.accuracies = 0.0, []  # type: float, list[float]
        model.predict(images, batch_size=64, verbose=0)

    def callback(self) -> Any:
        import keras

        return keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: self.look())

    def start(self) -> None:
        self.since = time.perf_counter()

    def look(self) -> None:
        self.seconds += time.perf_counter() - self.since
        predicted = self.model.predict(self.images, batch_size=64, verbose=0).argmax(axis=1)
        self.accuracies.append(float(np.mean(predicted == self.labels)))
        self.model.stop_training = self.accuracies[-1] >= AIM
        self.since = time.perf_counter()

    def reached(self) -> float:
        """Seconds to the aim; infinite if it was missed."""
        return self.seconds if self.accuracies and self.accuracies[-1] >= AIM else float("inf")


def ours(seed: int, data: tuple[np.ndarray, ...]) -> Clock:
    import keras

    from evergreen.kinds.base.split import Split
    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.preparation.arrays import steps_per_epoch, training_batches
    from evergreen.training.precision import training_policy

    scenario = image_scenario(ROOT / "scenarios", "quickstart")
    settings = scenario.train
    images, labels, test_images, test_labels = data
    split = Split("train", {"images": images, "labels": labels}, {"labels": [str(digit) for digit in range(10)]})
    learner = ImageLearner()
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(training_policy(settings))
    steps = steps_per_epoch(len(split), settings.batch_size)
    model = learner.build(scenario, split, steps=steps * settings.epochs)
    keras.config.set_dtype_policy("float32")
    clock = Clock(model, test_images, test_labels)
    clock.start()
    model.fit(
        training_batches(scenario.model_copy(update={"seed": seed}), split, learner),
        steps_per_epoch=steps,
        epochs=settings.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[clock.callback()],
    )
    return clock


def usual(seed: int, data: tuple[np.ndarray, ...]) -> Clock:
    import keras
    from keras import layers

    images, labels, test_images, test_labels = data
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    blocks = [
        layer for filters in (32, 64, 128) for layer in (layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D())
    ]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Resizing(224, 224),
            layers.Rescaling(1 / 255),
            *blocks,
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    clock = Clock(model, test_images, test_labels)
    clock.start()
    model.fit(images, labels, batch_size=32, epochs=USUAL_EPOCHS, verbose=0, callbacks=[clock.callback()])
    return clock


def rows() -> list[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    data = digits()
    own = median([ours(seed, data).reached() for seed in range(OURS)])
    rivals = [usual(seed, data) for seed in range(USUAL)]
    rival = median([clock.reached() for clock in rivals])
    spent = median([clock.seconds for clock in rivals])
    missed = "" if rival < float("inf") else f", best {100 * max(max(clock.accuracies) for clock in rivals):.1f} %"
    ratio = min(rival, spent) / own
    return [
        Row(
            "quickstart: time to 99 % on test",
            f"{own:.1f} s",
            f"the usual recipe at 224×224 {spent:.0f} s{missed}",
            f"{ratio:.0f} times faster",
            "30 times",
            ratio >= 30,
        )
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")
