"""Tuning: which settings of `train` are tried, how a trial is scored, and the results of all trials.

A trial is scored on the validation split alone, since the test split is reserved for the gate. Its score is the scenario's
metric minus `promote.gain_per_doubling` for each doubling of a prediction's energy relative to the scenario's own settings
(plus as much for each halving): the gate's own exchange rate, so that both agree. It is one score and not two objectives
because Optuna prunes only with a single objective. The Pareto front of quality against energy is computed from the finished
trials.

Optuna (Akiba et al. 2019) proposes settings by TPE and prunes by the median of the earlier trials at the same fraction of their
epochs: at the same epoch their learning rates would differ.
"""

from __future__ import annotations

import csv
import io
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evergreen.kinds.base.learner import Range
from evergreen.kinds.base.metric import Metric
from evergreen.scenario.settings import Scenario

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna import Study, Trial

PRUNED_FROM = 3  # tenths of a trial's epochs; earlier, accuracies are not informative enough
STARTUP_TRIALS = 5  # trials that are neither proposed from earlier ones nor pruned


def suggest(trial: Trial, one: Range) -> float:
    """Suggest a value within a range for a trial."""
    if one.step is not None:
        return trial.suggest_int(one.name, int(one.low), int(one.high), step=one.step)
    return trial.suggest_float(one.name, one.low, one.high, log=one.log)


@dataclass(frozen=True)
class TrialResult:
    """A trial that has ended.

    Attributes:
        number: from 0.
        own: whether these are the scenario's own settings.
        state: `finished`, `pruned` (others were better at the same fraction of their epochs, or its training diverged), or
            `unfinished` (killed, or ended when the budget was spent: another trial resumes it).
        settings: the tuned settings of `train`.
        quality: the scenario's metric on val; None unless finished.
        energy_wh_per_1000: of 1,000 predictions, in batches in Keras; None unless finished.
        energy_wh: spent by the trial; None if unknown.
        score: as defined in the module's docstring; None unless finished.
    """

    number: int
    own: bool
    state: Literal["finished", "pruned", "unfinished"]
    settings: dict[str, float]
    quality: float | None
    energy_wh_per_1000: float | None
    energy_wh: float | None
    score: float | None


def open_study(path: Path, name: str, seed: int) -> Study:
    """Open the study in a file, or create it. It is in SQLite, which survives a kill intact and leaves no lock behind."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///file:{urllib.parse.quote(str(path))}?uri=true"
    # The seed changes whenever a study is continued; otherwise the first proposals would be repeated.
    before = len(optuna.load_study(study_name=name, storage=storage).trials) if path.exists() else 0
    return optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed + before),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=PRUNED_FROM),
    )


def ended_trials(study: Study) -> list[TrialResult]:
    """All trials that have ended, in order."""
    from optuna.trial import TrialState

    states: dict[TrialState, Literal["finished", "pruned", "unfinished"]] = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "unfinished",
    }
    found = []
    for trial in study.trials:
        if trial.state in states:
            attributes = trial.user_attrs
            score = trial.value if trial.state == TrialState.COMPLETE else None
            found.append(
                TrialResult(
                    trial.number, attributes.get("own", False), states[trial.state], attributes.get("settings", dict(trial.params)), attributes.get("quality"),
                    attributes.get("energy_wh_per_1000"), attributes.get("energy_wh"), score,
                )
            )  # fmt: skip
    return found


def front(trials: Sequence[TrialResult], metric: Metric) -> list[TrialResult]:
    """The Pareto front: the finished trials for which no other has better quality at no more energy per prediction, the one
    with the least energy first."""
    known = [one for one in trials if one.quality is not None and one.energy_wh_per_1000 is not None]
    sign = 1 if metric.higher_is_better else -1
    known.sort(key=lambda one: (one.energy_wh_per_1000, -sign * (one.quality or 0.0)))
    best: list[TrialResult] = []
    for one in known:
        if not best or sign * (one.quality or 0.0) > sign * (best[-1].quality or 0.0):
            best.append(one)
    return best


def score(metric: Metric, own: float, quality: float, energy_ratio: float, scenario: Scenario) -> float:
    """A trial's score, as defined in the module's docstring; the higher the better.

    Args:
        metric: the scenario's.
        own: its value for the scenario's own settings.
        quality: its value for the trial's settings.
        energy_ratio: a prediction's energy relative to that with the scenario's own settings.
    """
    import math

    gain = quality if metric.margins == "absolute" and metric.higher_is_better else float(metric.gain(own, quality))
    return gain - scenario.promote.gain_per_doubling * math.log2(energy_ratio)


def as_csv(trials: Sequence[TrialResult]) -> bytes:
    """The trials as CSV, one row each, for further analysis."""
    text = io.StringIO()
    names = sorted({name for one in trials for name in one.settings})
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", "quality", "energy_wh_per_1000", "energy_wh", "score", *names])
    for one in trials:
        row: list[Any] = [one.number, one.state, one.quality, one.energy_wh_per_1000, one.energy_wh, one.score]
        writer.writerow([*row, *(one.settings.get(name) for name in names)])
    return text.getvalue().encode()


def picture(trials: Sequence[TrialResult], winner: int, metric: Metric) -> Figure:
    """A plot of quality against the energy of 1,000 predictions: every finished trial, the front as a line, with the scenario's
    own settings and the winner labelled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    factor = 100 if metric.unit == "%" else 1
    known = [one for one in trials if one.quality is not None and one.energy_wh_per_1000 is not None]

    def points(those: Sequence[TrialResult]) -> tuple[list[float], list[float]]:
        return [one.energy_wh_per_1000 or 0.0 for one in those], [factor * (one.quality or 0.0) for one in those]

    axes.scatter(*points(known), color="tab:gray", alpha=0.6, label=f"{len(known)} finished trials", zorder=2)
    best = front(trials, metric)
    axes.plot(
        *points(best), color="tab:green", marker="o", drawstyle="steps-post", label="front: none better for less", zorder=3
    )
    own = [one for one in known if one.own]
    best_one = [one for one in known if one.number == winner and not one.own]
    for those, text, colour in ((own, "the scenario's own", "tab:blue"), (best_one, "winner", "tab:red")):
        if those:
            axes.scatter(*points(those), s=120, facecolors="none", edgecolors=colour, linewidths=2, label=text, zorder=4)
    pruned = sum(one.state == "pruned" for one in trials)
    axes.set(
        xlabel="energy of 1,000 predictions, Wh",
        ylabel=f"{metric.title} on val, {metric.unit}",
        title=f"Quality against energy; {pruned} more trials were ended early",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure
