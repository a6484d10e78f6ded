"""When to do work that can wait: forecasts the grid's intensity from its past alone, and finds the start, or the intervals,
with the lowest emissions before a deadline. If in doubt, the work starts now, and the reason is given.

The forecast is a Gaussian process (kriging; Rasmussen and Williams 2006, chapter 2): a weighted sum of the last eight weeks,
with weights that follow from the covariance between two moments, which decreases with their distance and is higher again a day
and a week apart. The covariance (`_together`) has fixed numbers that suit grids in general; nothing is fitted, so the forecast
is useful from the second week on. Ridge regressions over the same history, refitted each day, saved less: for Germany in 2020,
69 % of what perfect foresight saves, against 77 %.

The wind of the day after tomorrow is unknown, so a plan is provisional: plan again every half hour with the latest data, and
start when `Plan.starts_now` is true. For work that can pause, plan with its remaining duration. In 2020 that was worth 4 to 9
points more of what perfect foresight saves than deciding once; `bench/carbon.py` shows both.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from evergreen.errors import EvergreenError, WrongUse
from evergreen.planning.intensity.provider import NoIntensity, Provider
from evergreen.planning.intensity.series import HALF_HOUR, IntensitySeries, in_utc

STEP = HALF_HOUR  # of forecasts and plans; many grids settle by it
DAY_STEPS = 48
# With 28 days the forecast saved 1 to 2 % less of what is possible; with 56, 1 % more than with 42.
HISTORY = timedelta(days=56)
LEAST_HISTORY = timedelta(days=7)  # with less, no complete weekend is included
LEAST_KNOWN_FRACTION = 0.5  # of the last week
LEAST_SAVING = 0.001  # below it, the difference is negligible: start now
OLDEST = timedelta(hours=24)  # services lag by up to some hours; after a day they have failed
LONGEST_LOOK = timedelta(days=14)  # beyond it the forecast is the mean, and waiting is a gamble


@dataclass(frozen=True)
class Plan:
    """When to work.

    Attributes:
        intervals: start and end of each, in UTC, in order and disjoint, together as long as the work; only one if the work
            can't pause.
        reason: a sentence for people.
        saving_percent: the forecast saving relative to starting now; None without a forecast.
        starts_now: whether the first interval starts at once.
    """

    intervals: tuple[tuple[datetime, datetime], ...]
    reason: str
    saving_percent: float | None
    starts_now: bool

    @property
    def start(self) -> datetime:
        """When the first interval begins."""
        return self.intervals[0][0]


def plan(
    history: IntensitySeries | None, *, now: datetime, duration: timedelta, deadline: datetime, interruptible: bool = False
) -> Plan:
    """Plan the start, or the intervals, with the lowest forecast emissions, ending by the deadline.

    Work that no longer fits before the deadline starts now, as does any work if too little of the past is known for a forecast.
    Among equal choices the earliest wins.

    Args:
        history: the grid's intensity, None if unknown; values after `now` are ignored.
        now, deadline: with a time zone.
        duration: of the work, above zero.
        interruptible: whether the work can pause, at no cost, after each half hour.

    Raises:
        WrongUse: the deadline is past, the duration isn't above zero, or a time has no zone.
    """
    now, deadline = in_utc(now, "now"), in_utc(deadline, "the deadline")
    if deadline <= now:
        raise WrongUse(
            "the deadline is past", expected=f"a time after {now:%F %H:%M} UTC", received=f"{deadline:%F %H:%M} UTC",
            fix="Name a later one, or start without a deadline.",
        )  # fmt: skip
    if duration <= timedelta(0):
        raise WrongUse("the work has no length", expected="a duration above zero", received=duration, fix="Estimate it first.")
    needed = -(-duration // STEP)
    steps = min((deadline - now) // STEP, needed + LONGEST_LOOK // STEP)

    def at_once(reason: str) -> Plan:
        return Plan(((now, now + duration),), f"starts now: {reason}", None, True)

    if now + duration > deadline:
        return at_once(f"it takes {_words(duration)} and the deadline is in {_words(deadline - now)}")
    if steps <= needed:
        return at_once(f"by the deadline in {_words(deadline - now)} there is no later start to choose")
    if history is None:
        return at_once("the grid's intensity is not known")
    if doubt := _doubt(history, now):
        return at_once(doubt)
    ahead = forecast(history, now=now, steps=steps)
    chosen = choose(ahead, needed, interruptible=interruptible)
    expected, at_present = float(ahead[chosen].mean()), float(ahead[:needed].mean())
    if chosen[-1] == needed - 1:
        return at_once(f"nothing later before the deadline is forecast to be cleaner than {at_present:.0f} gCO2e/kWh now")
    saving_percent = 100 * (1 - expected / at_present)
    intervals = _intervals(chosen, now, duration)
    begins = "starts now and pauses in between" if chosen[0] == 0 else f"starts at {intervals[0][0]:%F %H:%M} UTC"
    reason = f"{begins}: {expected:.0f} gCO2e/kWh are forecast, {at_present:.0f} where all were done now ({saving_percent:.1f} % less)"
    return Plan(intervals, reason, saving_percent, bool(chosen[0] == 0))


def plan_with(
    provider: Provider, *, now: datetime, duration: timedelta, deadline: datetime, interruptible: bool = False
) -> Plan:
    """`plan` with the last eight weeks from a provider. If the provider fails or is set up wrongly, the work starts now, and
    the reason gives the error: a training must not fail because a service does.

    Raises:
        WrongUse: as `plan`; never because of the provider.
    """
    history, trouble = None, ""
    try:
        history = provider.history(in_utc(now, "now") - HISTORY, now)
    except NoIntensity as error:
        trouble = f" ({error})"
    except EvergreenError as error:
        trouble = f" (its settings are wrong: {error})"
    made = plan(history, now=now, duration=duration, deadline=deadline, interruptible=interruptible)
    return Plan(made.intervals, made.reason + trouble, made.saving_percent, made.starts_now)


def forecast(history: IntensitySeries, *, now: datetime, steps: int) -> np.ndarray:
    """Forecast the intensity of the half hours from `now` on, from those that have ended by then.

    Unknown past steps are replaced by their expectation given the known ones, which has the same result as leaving them out.

    Returns:
        float64 `(steps,)`, gCO2e/kWh, 0 or more. The first is of the half hour in which `now` lies.

    Raises:
        WrongUse: less than a day is known of the past.
    """
    past = history.known_by(now).with_step(STEP).known_by(now)
    values = past.intensity_gco2e_per_kwh[-(HISTORY // STEP) :]
    known = np.flatnonzero(np.isfinite(values))
    span = known[-1] + 1 - known[0] if len(known) else 0
    if span < DAY_STEPS:
        raise WrongUse(
            "too little is known of the grid's past to forecast", expected="a day at least", received=f"{span / 2:g} hours",
            fix="Start without a forecast.",
        )  # fmt: skip
    late = int((in_utc(now, "now") - past.end) // STEP + len(values) - 1 - known[-1])  # past half hours that aren't known yet
    days = int(span // DAY_STEPS)  # whole days, past and ahead, so that many forecasts can use the same cached weights
    values = values[: known[-1] + 1][-days * DAY_STEPS :]
    mean = float(np.nanmean(values))
    weights = _weights(days, -(-(late + steps) // DAY_STEPS))[:, late : late + steps]
    forecast: np.ndarray = np.maximum(mean + _completed(values - mean, days) @ weights, 0.0)
    return forecast


def choose(ahead: np.ndarray, needed: int, *, interruptible: bool) -> np.ndarray:
    """Choose the steps in which to work: `needed` of those ahead, in order; consecutive if the work can't pause.

    If no choice saves more than the fraction `LEAST_SAVING`, the work starts now and does not pause.

    Args:
        ahead: forecast `(steps,)`, gCO2e/kWh, `needed` steps or more.
    """
    chosen = cheapest_steps(ahead, needed) if interruptible else cheapest_start(ahead, needed) + np.arange(needed)
    worth_it = ahead[chosen].sum() < (1 - LEAST_SAVING) * ahead[:needed].sum()
    return chosen if worth_it else np.arange(needed)


def cheapest_start(ahead: np.ndarray, needed: int) -> int:
    """The first of the `needed` consecutive steps with the lowest mean; the earliest in case of ties."""
    sums = np.concatenate([[0.0], np.cumsum(ahead)])
    return int(np.argmin(sums[needed:] - sums[:-needed]))


def cheapest_steps(ahead: np.ndarray, needed: int) -> np.ndarray:
    """The `needed` lowest steps, in order of time; the earliest in case of ties."""
    return np.sort(np.argsort(ahead, kind="stable")[:needed])


def _together(days: np.ndarray) -> np.ndarray:
    """The covariance of the intensities of two moments that are so many days apart; unitless, since only ratios matter for a
    forecast.

    The terms: weather lasting days and hours; the daily course, which fades over weeks as the season changes; the weekly
    course, which persists; and an unknown level. The numbers are round ones, out of some thirty trials on the year 2020 in
    France, Germany and Great Britain. The result hardly depends on them: halving or doubling any one changes the saving in the
    latter two countries by at most 2 points of what perfect foresight saves.
    """
    weather = 0.5 * np.exp(-days / 2) + 0.2 * np.exp(-days / 0.4)
    day = 0.3 * np.exp(-2 * (np.sin(np.pi * days) / 0.8) ** 2 - days / 40)
    week = 0.3 * np.exp(-2 * (np.sin(np.pi * days / 7) / 0.5) ** 2 - days / 120)
    return 10.0 + weather + day + week


NOISE = 0.002  # variance of the independent noise of each step, on `_together`'s scale


@functools.lru_cache(maxsize=2)
def _covariance(days: int) -> np.ndarray:
    """The covariance matrix of the half hours of so many days, float64 `(steps, steps)`."""
    from scipy.linalg import toeplitz

    covariance: np.ndarray = toeplitz(_together(np.arange(days * DAY_STEPS) / DAY_STEPS))
    covariance[np.diag_indices_from(covariance)] += NOISE
    return covariance


@functools.lru_cache(maxsize=4)
def _weights(days: int, days_ahead: int) -> np.ndarray:
    """The weight of each known half hour in the forecast of each one ahead, float64 `(steps, steps ahead)`; equation (2.25) of
    Rasmussen and Williams."""
    from scipy.linalg import cho_factor, cho_solve

    known = np.arange(days * DAY_STEPS) / DAY_STEPS
    ahead = days + np.arange(days_ahead * DAY_STEPS) / DAY_STEPS
    factor = cho_factor(_covariance(days), lower=True, check_finite=False)
    weights: np.ndarray = cho_solve(factor, _together(ahead[None, :] - known[:, None]), check_finite=False)
    return weights


@functools.lru_cache(maxsize=2)
def _precision(days: int) -> np.ndarray:
    return np.linalg.inv(_covariance(days))


def _completed(values: np.ndarray, days: int) -> np.ndarray:
    """The values with each unknown one replaced by its expectation given the known ones; the forecasts are the same as if the
    unknown values were left out.

    Uses blocks of the inverse covariance, so that the system to solve is only as large as the number of unknown values.
    """
    unknown = np.isnan(values)
    if not unknown.any():
        return values
    precision = _precision(days)[unknown]
    expected = -np.linalg.solve(precision[:, unknown], precision[:, ~unknown] @ values[~unknown])
    completed = values.copy()
    completed[unknown] = expected
    return completed


def _doubt(history: IntensitySeries, now: datetime) -> str:
    """Why the history does not suffice for a forecast; empty if it does."""
    past = history.known_by(now)
    known = np.flatnonzero(np.isfinite(past.intensity_gco2e_per_kwh))
    if not len(known):
        return f"nothing is known of the past of zone {history.zone}"
    first, last = past.start + int(known[0]) * past.step, past.start + int(known[-1] + 1) * past.step
    if now - last > OLDEST:
        return f"the last known intensity is {_words(now - last)} old"
    if now - first < LEAST_HISTORY:
        return f"only {_words(now - first)} of the grid's past are known, and {_words(LEAST_HISTORY)} are needed"
    week = past.between(now - LEAST_HISTORY, now).intensity_gco2e_per_kwh
    known = np.isfinite(week).mean()
    return "" if known >= LEAST_KNOWN_FRACTION else f"only {known:.0%} of the last week's intensities are known"


def _intervals(chosen: np.ndarray, now: datetime, duration: timedelta) -> tuple[tuple[datetime, datetime], ...]:
    """The chosen steps with adjacent ones joined; the last interval is cut so that the total is as long as the work."""
    runs = np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)
    intervals = [(now + int(run[0]) * STEP, now + int(run[-1] + 1) * STEP) for run in runs]
    start, end = intervals[-1]
    intervals[-1] = (start, end - (len(chosen) * STEP - duration))
    return tuple(intervals)


def _words(length: timedelta) -> str:
    hours = length / timedelta(hours=1)
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
