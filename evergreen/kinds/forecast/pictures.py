"""Pictures of forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evergreen.kinds.base.split import Split
from evergreen.kinds.forecast.settings import HIGH, LOW

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 600  # readings of the forecast's picture, at most

Drawn = tuple["Figure", Sequence[str]]  # a picture, and the ids of the items that it shows


def forecast(split: Split, output: np.ndarray, ids: Sequence[str]) -> Drawn:
    """The first horizon of the last readings of the first series, with the 80 % interval.

    Args:
        output: float `(items, horizons, 1 + quantiles)`.
        ids: of the items.
    """
    from matplotlib.figure import Figure

    shape = split.facts["forecast"]
    low, high = (1 + shape["quantiles"].index(level) for level in (LOW, HIGH))
    own = np.flatnonzero(split["index"][:, 0] == split["index"][0, 0])
    rows = own[np.argsort(split["local"][own], kind="stable")][-SHOWN:]
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(rows))  # gaps would take most of the width
    axes.fill_between(place, output[rows, 0, low], output[rows, 0, high], alpha=0.3, label="80 % interval")
    axes.plot(place, split["actual"][rows], color="black", linewidth=0.8, label="actual")
    axes.plot(place, output[rows, 0, 0], linewidth=1, label="forecast")
    times = split["local"][rows].astype("datetime64[s]")
    ticks = place[:: max(1, len(place) // 6)]
    axes.set_xticks(ticks, [str(times[tick])[:16].replace("T", " ") for tick in ticks], fontsize=8)
    axes.set(title=f"{shape['series'][int(split['index'][rows[0], 0])]}, the last {len(rows):,} test readings", ylabel="value")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    return figure, [ids[row] for row in rows]


def errors(split: Split, output: np.ndarray) -> Drawn:
    """The mean absolute error by hour of the day, and the root mean squared error by horizon beside the baselines."""
    from matplotlib.figure import Figure

    from evergreen.kinds.forecast.baselines import BASELINES

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    hours, horizons = split["index"][:, 1], split.facts["forecast"]["horizons"]
    every = split["targets"].astype(np.float64)
    shown = range(24)
    for column, horizon in enumerate(horizons):
        absolute = np.abs(output[:, column, 0] - every[:, column])
        means = [_mean(absolute[hours == hour]) for hour in shown]
        left.plot(shown, means, marker=".", label=f"{horizon} steps ahead")
    left.set(xlabel="hour of the day", ylabel="mean absolute error", ylim=(0, None), title="By hour")
    for name, made in (
        ("this model", output[:, :, 0]),
        *((one, split["baselines"][:, place]) for place, one in enumerate(BASELINES)),
    ):
        right.plot(
            horizons, [_mean((made[:, c] - every[:, c]) ** 2) ** 0.5 for c in range(len(horizons))], marker="o", label=name
        )
    right.set(xlabel="steps ahead", ylabel="root mean squared error", title="By horizon, beside the baselines")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure, []


def coverage(split: Split, output: np.ndarray) -> Drawn:
    """How many readings lie below each quantile, beside how many should, for each horizon."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes, levels = figure.subplots(), split.facts["forecast"]["quantiles"]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    every = split["targets"].astype(np.float64)
    for column, horizon in enumerate(split.facts["forecast"]["horizons"]):
        there = ~np.isnan(every[:, column])
        below = [
            _mean((every[there, column] <= output[there, column, 1 + place]).astype(float)) for place in range(len(levels))
        ]
        axes.plot(levels, below, marker="o", label=f"{horizon} steps ahead")
    axes.set(xlabel="level of the quantile", ylabel="fraction of readings below", title="Coverage")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure, []


def learning_curve(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and mean absolute error by epoch, on train and val."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    epochs = range(1, len(history) + 1)
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "mae"), ("loss", "mean absolute error"), strict=True):
        for name, text in ((key, "train"), (f"val_{key}", "val")):
            if history and name in history[0]:
                axes.plot(epochs, [entry[name] for entry in history], marker=".", label=text)
        axes.set(xlabel="epoch", ylabel=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if history:
            axes.legend()
    return figure


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")
