"""A recurrent network that learns what a simple forecast leaves over.

The simple forecast is the last value or a linear one. The network reads the history as distances from the mean of the time of
day, and adds to the simple forecast a correction of the expected value and of each quantile, for each horizon. Its last layer
begins at zero, so that it begins as good as the simple forecast. Scaling, the linear forecast and the spread of what it leaves
over are constants inside the network, computed from training items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

LINEAR, LEFT_OVER, FACTORS = "linear", "left_over", "factors"  # layers, by name
QUANTILE_WEIGHT = 2.0  # of the pinball loss beside the squared error, both of scaled values


@dataclass(frozen=True)
class Statistics:
    """What the network knows of the training items.

    Attributes:
        mean, spread: of each series, `(series,)`.
        known_mean, known_spread: of the inputs that are known in advance, `(known,)`.
        kernel, bias: of the linear forecast, `(features, horizons)` and `(horizons,)`.
        offsets: quantiles of what the simple forecast leaves over, in spreads, by hour of day: `(24, horizons, quantiles)`.
    """

    mean: np.ndarray
    spread: np.ndarray
    known_mean: np.ndarray
    known_spread: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    offsets: np.ndarray


def build(
    layer: Literal["gru", "lstm", "simple_rnn", "linear"],
    over: Literal["last", "linear"],
    units: int,
    history: int,
    calendar: int,
    statistics: Statistics,
) -> keras.Model:
    """The network, not compiled.

    Args:
        layer: the recurrent one; `linear` for the linear forecast alone, whose coefficients are then trained.
        over: the simple forecast.
        units: of the recurrent and the hidden layer.
        history: the number of readings.
        calendar: the number of calendar inputs, including what is known in advance.

    Returns:
        Maps `history` float32 `(items, history)`, `profile` float32 `(items, history + horizons)`, `calendar` float32
        `(items, calendar)` and `index` int32 `(items, 2)` (series, hour of day) to float32 `(items, horizons, 1 + quantiles)`:
        the expected value and the quantiles.
    """
    _, horizons, levels = statistics.offsets.shape
    values = keras.Input((history,), name="history")
    profile = keras.Input((history + horizons,), name="profile")
    when = keras.Input((calendar,), name="calendar")
    index = keras.Input((2,), dtype="int32", name="index")
    series, hour = index[:, 0], index[:, 1]

    mean = _constant("mean", statistics.mean[:, None])(series)
    spread = _constant("spread", statistics.spread[:, None])(series)
    count = len(statistics.mean)
    known_mean, known_spread = (_constant(name, np.ones((count, calendar)))(series) for name in ("known_mean", "known_spread"))
    scaled_calendar = (when - known_mean) / known_spread
    distances = (values - profile[:, :history]) / spread
    level = (profile - mean) / spread
    features = layers.Concatenate(name="features")([distances, level, scaled_calendar])

    linear = layers.Dense(horizons, trainable=layer == "linear", name=LINEAR)
    expected = profile[:, history:] + spread * linear(features)
    if over == "last" and layer != "linear":
        expected = ops.repeat(values[:, -1:], horizons, axis=1) + 0 * expected
    offsets = layers.Reshape((horizons, levels))(_constant("offsets", statistics.offsets.reshape(24, -1))(hour))
    correction = layers.Reshape((horizons, 1 + levels))(_left_over(layer, units, horizons, levels, distances, level, features))
    point = expected + spread * correction[:, :, 0]
    factors = layers.Reshape((horizons, levels))(_constant(FACTORS, np.ones((len(statistics.mean), horizons * levels)))(series))
    around = factors * (offsets + correction[:, :, 1:])
    quantiles = ops.expand_dims(point, -1) + ops.expand_dims(spread, -1) * around
    forecast = layers.Concatenate(axis=-1, name="forecast", dtype="float32")([ops.expand_dims(point, -1), quantiles])
    model = keras.Model([values, profile, when, index], forecast)
    _set_constants(model, statistics)
    return model


def loss(levels: tuple[float, ...]) -> Any:
    """The squared error of the expected value plus the pinball loss of the quantiles (Koenker and Bassett 1978), both in
    spreads,
    averaged over horizons.

    Args:
        levels: of the quantiles.

    Returns:
        A function of targets `(items, horizons, 2)`, each the value (NaN if there is none) and the spread of its series, and of
        the network's output.
    """

    def forecast_loss(truth: Any, output: Any) -> Any:
        actual, spread = truth[..., :1], truth[..., 1:]
        there = ops.logical_not(ops.isnan(actual))
        error = ops.where(there, (ops.where(there, actual, 0.0) - output) / spread, 0.0)
        level = ops.convert_to_tensor(np.array(levels, np.float32))
        pinball = ops.maximum(level * error[..., 1:], (level - 1) * error[..., 1:])
        each = ops.square(error[..., 0]) + QUANTILE_WEIGHT * ops.mean(pinball, axis=-1)
        return ops.sum(each) / ops.maximum(ops.sum(ops.cast(there, "float32")), 1.0)

    return forecast_loss


def mae(truth: Any, output: Any) -> Any:
    """The absolute error of the expected value at the first horizon, `(items,)`. Arguments as of `loss`."""
    return ops.abs(truth[:, 0, 0] - output[:, 0, 0])


def _left_over(layer: str, units: int, horizons: int, levels: int, distances: Any, level: Any, features: Any) -> Any:
    size = horizons * (1 + levels)
    if layer == "linear":  # a constant correction of the quantiles alone would do; zero inputs keep the graph the same
        return layers.Dense(size, kernel_initializer="zeros", name=LEFT_OVER, trainable=False)(features)
    steps = int(distances.shape[1])
    sequence = ops.stack([distances, level[:, :steps]], axis=-1)
    # Unrolled, since the loop of a recurrent layer has no equivalent in ONNX that is the same in every export.
    made = {"gru": layers.GRU, "lstm": layers.LSTM, "simple_rnn": layers.SimpleRNN}[layer]
    state = made(units, unroll=True, name="recurrent")(sequence)
    hidden = layers.Dense(units, "relu", name="hidden")(layers.Concatenate()([state, features]))
    return layers.Dense(size, kernel_initializer="zeros", name=LEFT_OVER)(hidden)


def _constant(name: str, values: np.ndarray) -> Any:
    """A table of constants, of which an index chooses a row. `values` gives the shape; `_set_constants` the content."""
    return layers.Embedding(values.shape[0], values.shape[1], trainable=False, name=name, embeddings_initializer="ones")


def _set_constants(model: keras.Model, statistics: Statistics) -> None:
    tables = {
        "mean": statistics.mean[:, None],
        "spread": statistics.spread[:, None],
        "offsets": statistics.offsets.reshape(24, -1),
    }
    for name, values in tables.items():
        model.get_layer(name).set_weights([values.astype(np.float32)])
    model.get_layer(LINEAR).set_weights([statistics.kernel.astype(np.float32), statistics.bias.astype(np.float32)])
