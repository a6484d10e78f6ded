"""A hidden layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.kinds.base.learner import Learner, Range
from evergreen.kinds.base.split import Split
from tests.support.readings.comparison import ERROR
from tests.support.readings.settings import ReadingsScenario

if TYPE_CHECKING:
    import keras


class ReadingsLearner(Learner[ReadingsScenario]):
    metric = ERROR
    inputs = ("history",)
    outputs = ("next",)
    largest_difference = 1e-2

    def build(self, scenario: ReadingsScenario, train: Split, *, steps: int) -> keras.Model:
        import keras

        numbers = keras.Input((train["history"].shape[1],), name="history")
        centred = keras.layers.Rescaling(1 / train.facts["spread"], -train.facts["mean"] / train.facts["spread"])(numbers)
        hidden = keras.layers.Dense(scenario.train.units, "relu")(centred)
        found = keras.layers.Dense(1, name="last")(hidden)
        found = keras.layers.Rescaling(train.facts["spread"], train.facts["mean"], dtype="float32")(found)
        model = keras.Model(numbers, found)
        model.compile(keras.optimizers.Adam(scenario.train.learning_rate), "mse", metrics=[keras.metrics.MeanAbsoluteError()])
        return model

    def targets(self, split: Split, rows: np.ndarray) -> np.ndarray:
        numbers: np.ndarray = split["next"][rows].astype(np.float32)[:, None]
        return numbers

    def loss_of_guessing(self, train: Split) -> float:
        return float(train["next"].var()) + 1e-9

    def settings(self, train: Split) -> dict[str, Any]:
        return {"history": int(train["history"].shape[1])}

    def different_networks(self, scenario: ReadingsScenario, settings: Mapping[str, Any]) -> list[str]:
        compared = {
            "history": (settings["history"], scenario.preprocess.history),
            "units": (settings["train"]["units"], scenario.train.units),
        }
        return [name for name, (theirs, ours) in compared.items() if theirs != ours]

    def random_split(self, scenario: ReadingsScenario, items: int, random: np.random.Generator) -> Split:
        history = random.standard_normal((items, scenario.preprocess.history)).astype(np.float32)
        return Split("train", {"history": history, "next": history[:, 0]}, {"mean": 0.0, "spread": 1.0})

    def search_space(self, scenario: ReadingsScenario, train: Split) -> list[Range]:
        rate, units = scenario.train.learning_rate, scenario.train.units
        return [Range("learning_rate", rate / 4, rate * 4, log=True), Range("units", max(1, units // 2), units * 2, step=1)]

    def preparation_work(self, scenario: ReadingsScenario) -> str:
        return f"{scenario.preprocess.history} numbers"

    def prediction_work(self, scenario: ReadingsScenario) -> str:
        return f"{scenario.train.units} units on {self.preparation_work(scenario)}"

    def training_work(self, scenario: ReadingsScenario) -> str:
        return f"{self.prediction_work(scenario)}, batches of {scenario.train.batch_size}"
