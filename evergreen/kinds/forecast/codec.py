"""The readings before a time as text, and the forecasts of a network as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from evergreen.errors import BadItem
from evergreen.kinds.base.codec import Codec
from evergreen.kinds.forecast import features


@dataclass(frozen=True)
class Forecast:
    """What a model says of the times after the readings that it was given.

    Attributes:
        seconds_ahead: of each horizon.
        expected: the mean, by horizon.
        quantiles: values by horizon and level, as `levels` names these.
        levels: between 0 and 1, increasing.
    """

    seconds_ahead: tuple[int, ...]
    expected: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]
    levels: tuple[float, ...]


class ForecastCodec(Codec):
    """Items are mappings: `series`, its name; `time`, that of the first target on the clock of the series, ISO 8601 without an
    offset; `history`, numbers separated by spaces, the oldest first; and `known`, those of the columns that are known in
    advance, target by target, empty if there are none, nan for one that is not known."""

    inputs = {"series": "string", "time": "string", "history": "string", "known": "string"}
    outputs = ("forecast",)

    def encode(self, items: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
        shape = self.settings["forecast"]
        names = {name: index for index, name in enumerate(shape["series"])}
        columns = len(shape["horizons"]) * len(shape["known"])
        history = np.empty((len(items), shape["history"]), np.float32)
        known = np.empty((len(items), columns), np.float32)
        series, local = np.empty(len(items), np.int64), np.empty(len(items), "datetime64[s]")
        for row, item in enumerate(items):
            if item["series"] not in names:
                raise BadItem("unknown-series", f"the model knows {', '.join(names)}, and not {item['series']!r}")
            series[row] = names[item["series"]]
            local[row] = _time(item["time"])
            history[row] = _numbers(item["history"], shape["history"], "readings", finite=True)
            known[row] = _numbers(item["known"], columns, "known numbers", finite=False)
        return features.inputs(history, known, local, series, self.settings)

    def predictions(self, outputs: Mapping[str, np.ndarray]) -> list[Forecast]:
        shape = self.settings["forecast"]
        ahead = tuple(int(horizon) * int(shape["step_seconds"]) for horizon in shape["horizons"])
        levels = tuple(shape["quantiles"])
        return [
            Forecast(ahead, tuple(one[:, 0].tolist()), tuple(map(tuple, one[:, 1:].tolist())), levels)
            for one in in_order(outputs["forecast"])
        ]

    def answers(self, output: np.ndarray) -> np.ndarray:
        found: np.ndarray = output[:, 0, 0].astype(np.float64)
        return found

    def table(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Sequence[Any]]:
        values = in_order(outputs["forecast"]).astype(np.float64).reshape(len(outputs["forecast"]), -1)
        return {name: values[:, column].tolist() for column, name in enumerate(self.columns())}

    def columns(self) -> dict[str, str]:
        shape = self.settings["forecast"]
        return {
            f"{what}_in_{int(horizon) * int(shape['step_seconds'])}s": "double"
            for horizon in shape["horizons"]
            for what in ("expected", *(f"quantile_{level:g}" for level in shape["quantiles"]))
        }


def in_order(output: np.ndarray) -> np.ndarray:
    """The network's output with the quantiles of each forecast in their order, `(items, horizons, 1 + quantiles)`: they are
    learned independently of each other, and could cross."""
    return np.concatenate([output[..., :1], np.sort(output[..., 1:], axis=-1)], axis=-1)


def _time(text: str) -> np.datetime64:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None:
        raise BadItem("no-time", f"{text!r} is no time such as 2026-01-31T08:05:00, without an offset")
    return np.datetime64(found, "s")


def _numbers(text: str, count: int, what: str, *, finite: bool) -> np.ndarray:
    try:
        found = np.array([float(number) for number in text.split()], np.float32)
    except ValueError as error:
        raise BadItem("no-number", f"the model takes {count} {what} separated by spaces: {error}") from None
    if len(found) != count:
        raise BadItem("wrong-length", f"the model takes {count} {what} separated by spaces, and got {len(found)}")
    if finite and not np.isfinite(found).all():
        raise BadItem("not-finite", f"one of the {what} is not finite")
    return found
