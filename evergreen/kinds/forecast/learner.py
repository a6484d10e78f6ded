"""Recurrent networks, and the linear model as one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.kinds.base.learner import Learner, Range
from evergreen.kinds.base.split import Split
from evergreen.kinds.forecast.comparison import MAE
from evergreen.kinds.forecast.features import CALENDAR
from evergreen.kinds.forecast.settings import ForecastScenario

if TYPE_CHECKING:
    import keras

    from evergreen.models.recurrent import Statistics

GRADIENT_NORM = 1.0  # of all gradients together, at most
EVALUATED_AT_ONCE = 1024  # items


class ForecastLearner(Learner[ForecastScenario]):
    """Builds and trains the networks of `evergreen.models.recurrent`."""

    metric = MAE
    inputs = ("history", "profile", "calendar", "index")
    outputs = ("forecast",)
    largest_difference = 1e-2  # of values; networks calculate in float32

    def build(self, scenario: ForecastScenario, train: Split, *, steps: int) -> keras.Model:
        import keras

        from evergreen.models import recurrent

        settings = scenario.train
        model = recurrent.build(
            settings.model, settings.over, settings.units, train["history"].shape[1], train["calendar"].shape[1],
            _statistics(train, settings.over),
        )  # fmt: skip
        rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, max(1, steps))
        optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay, global_clipnorm=GRADIENT_NORM)
        model.compile(optimizer, recurrent.loss(tuple(train.facts["forecast"]["quantiles"])), metrics=[recurrent.mae])
        return model

    def first_epoch(
        self, scenario: ForecastScenario, model: keras.Model, train: Split, val: Split, report: Callable[[int], object]
    ) -> dict[str, float] | None:
        if scenario.train.model != "linear":
            return None
        fitted = train.facts["linear"]  # whatever weights a warm start began with
        model.get_layer("linear").set_weights([np.array(fitted[name], np.float32) for name in ("kernel", "bias")])
        found: dict[str, float] = {}
        for prefix, split in (("", train), ("val_", val)):
            if len(split):
                rows = np.arange(len(split))
                inputs = [np.array(split[name]) for name in self.inputs]
                judged = model.evaluate(
                    inputs, self.targets(split, rows), batch_size=EVALUATED_AT_ONCE, verbose=0, return_dict=True
                )
                found |= {f"{prefix}{name}": float(value) for name, value in judged.items()}
            report(len(split))
        return found

    def calibrate(self, scenario: ForecastScenario, model: keras.Model, val: Split) -> None:
        """Widen or narrow the distance of each quantile from the expected value, for each horizon, so that as many validation
        items lie below it as its level says: conformalized quantile regression in its relative form (Romano, Patterson and
        Candès 2019; Sesia and Candès 2020)."""
        from evergreen.models.recurrent import FACTORS

        output = model.predict([np.array(val[name]) for name in self.inputs], batch_size=EVALUATED_AT_ONCE, verbose=0)
        layer = model.get_layer(FACTORS)
        [factors] = layer.get_weights()
        levels = val.facts["forecast"]["quantiles"]
        found = factors.reshape(len(factors), output.shape[1], len(levels))
        for column in range(output.shape[1]):
            actual, point = val["targets"][:, column], output[:, column, 0]
            for place, level in enumerate(levels):
                found[:, column, place] *= _factor(actual - point, output[:, column, 1 + place] - point, level)
        layer.set_weights([found.reshape(factors.shape)])

    def targets(self, split: Split, rows: np.ndarray) -> np.ndarray:
        actual = split["targets"][rows].astype(np.float32)
        spread = np.array(split.facts["statistics"]["spread"], np.float32)[split["index"][rows, 0]]
        return np.stack([actual, np.broadcast_to(spread[:, None], actual.shape)], axis=-1)

    def loss_of_guessing(self, train: Split) -> float:
        return 2.0  # the variance in spreads, and a pinball loss of the same order

    def settings(self, train: Split) -> dict[str, Any]:
        return {name: train.facts[name] for name in ("forecast", "statistics")}

    def different_networks(self, scenario: ForecastScenario, settings: Mapping[str, Any]) -> list[str]:
        theirs = settings["forecast"] | {name: settings["train"][name] for name in ("model", "over", "units")}
        ours = {
            "history": scenario.preprocess.history,
            "horizons": list(scenario.preprocess.horizons),
            "quantiles": list(scenario.preprocess.quantiles),
            "known": list(scenario.collect.known),
            **{name: getattr(scenario.train, name) for name in ("model", "over", "units")},
        }
        return [name for name, value in ours.items() if theirs[name] != value]

    def random_split(self, scenario: ForecastScenario, items: int, random: np.random.Generator) -> Split:
        settings = scenario.preprocess
        length, horizons, levels = settings.history, len(settings.horizons), len(settings.quantiles)
        known = horizons * len(scenario.collect.known)
        calendar, features = CALENDAR + known, 2 * length + horizons + CALENDAR + known
        shape = {"quantiles": list(settings.quantiles)}
        statistics = {"mean": [0.0], "spread": [1.0], "known_mean": [0.0] * known, "known_spread": [1.0] * known}
        linear = {"kernel": np.zeros((features, horizons)).tolist(), "bias": [0.0] * horizons}
        offsets = {over: np.zeros((24, horizons, levels)).tolist() for over in ("last", "linear")}
        arrays = {
            "history": random.standard_normal((items, length)).astype(np.float32),
            "profile": random.standard_normal((items, length + horizons)).astype(np.float32),
            "calendar": random.standard_normal((items, calendar)).astype(np.float32),
            "index": np.zeros((items, 2), np.int32),
            "targets": random.standard_normal((items, horizons)).astype(np.float32),
        }
        return Split("train", arrays, {"forecast": shape, "statistics": statistics, "linear": linear, "offsets": offsets})

    def search_space(self, scenario: ForecastScenario, train: Split) -> list[Range]:
        rate, units = scenario.train.learning_rate, scenario.train.units
        return [
            Range("learning_rate", rate / 4, min(10, rate * 4), log=True),
            Range("units", max(1, units // 2), min(1024, units * 2), step=1),
        ]

    def preparation_work(self, scenario: ForecastScenario) -> str:
        return f"{scenario.preprocess.history} readings, {len(scenario.preprocess.horizons)} horizons"

    def prediction_work(self, scenario: ForecastScenario) -> str:
        return f"{scenario.train.model} of {scenario.train.units} units on {self.preparation_work(scenario)}"

    def training_work(self, scenario: ForecastScenario) -> str:
        return f"{self.prediction_work(scenario)}, batches of {scenario.train.batch_size}"

    def embedding(self, model: keras.Model) -> keras.KerasTensor:
        import keras

        from evergreen.models.recurrent import LEFT_OVER

        return keras.layers.Identity(dtype="float32")(model.get_layer(LEFT_OVER).input)


def _statistics(train: Split, over: str) -> Statistics:
    from evergreen.models.recurrent import Statistics

    found, linear = train.facts["statistics"], train.facts["linear"]
    mean, spread, known_mean, known_spread = (
        np.array(found[name], np.float32) for name in ("mean", "spread", "known_mean", "known_spread")
    )
    kernel, bias = (np.array(linear[name], np.float32) for name in ("kernel", "bias"))
    offsets = np.array(train.facts["offsets"][over], np.float32)
    return Statistics(mean, spread, known_mean, known_spread, kernel, bias, offsets)


def _factor(actual: np.ndarray, quantile: np.ndarray, level: float) -> float:
    """By what the distance of a quantile from the expected value is multiplied so that a fraction `level` of items lies below
    it.

    Args:
        actual, quantile: distances from the expected value, `(items,)`.
    """
    side = np.sign(level - 0.5)
    there = ~np.isnan(actual) & (np.sign(quantile) == side)
    if side == 0 or there.sum() < 1 / min(level, 1 - level):
        return 1.0
    ratio = actual[there] / quantile[there]
    return float(max(0.0, np.quantile(ratio, level if side > 0 else 1 - level)))
