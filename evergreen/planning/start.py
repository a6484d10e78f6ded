"""When to do work that can wait: a forecast of the grid's intensity from its past alone, and the start, or the intervals, that
emit least before a deadline. When in doubt: now, and why in words.

The forecast is a Gaussian process (kriging; Rasmussen and Williams 2006, chapter 2): what lies ahead is a weighted sum of the last
eight weeks, each weight following from how strongly two moments go together, the farther apart the less, and more again a day and a
week apart. That is said once, in `_together`, in numbers that belong to grids and not to one grid; nothing is fitted, so the forecast
is of use from its second week on. Ridge regressions over the same past, fitted anew each day, saved less: in Germany's 2020 69 % of what
perfect foresight saves, where this saves 77 %.

Nobody knows the wind of the day after tomorrow. So a plan is not a promise: ask again every half hour with what has come in since, and
start when the answer is "now" (`Plan.starts_now`). Work that can pause asks with what is left of it. In 2020 that was worth 4 to 9 points
more of what perfect foresight saves than deciding once; `bench/carbon.py` shows both.
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
HISTORY = timedelta(
    days=56
)  # with 28 days the forecast saved 1 to 2 % less of what is possible; with 56, 1 % more than with 42
LEAST_HISTORY = timedelta(days=7)  # with less, a weekend was never seen whole
LEAST_KNOWN_SHARE = 0.5  # of the last week
LEAST_SAVING = 0.001  # below it, nobody could tell the difference: now
OLDEST = timedelta(hours=24)  # services lag by up to some hours; after a day they have failed
LONGEST_LOOK = timedelta(days=14)  # beyond it the forecast is the mean, and waiting a matter of luck


@dataclass(frozen=True)
class Plan:
    """When to work.

    Attributes:
        intervals: start and end of each, in UTC, in order and apart; together as long as the work. One where it can't pause.
        reason: in a sentence for people.
        saving_percent: forecast, of the emissions of starting now; None where there is no forecast.
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
    """The start, or the intervals, that emit least by the forecast, and end by the deadline.

    Work that no longer fits before the deadline starts now, as does all work where the past isn't known well enough to tell. Between
    equals the earliest wins.

    Args:
        history: of the grid, None where nobody tells it; what came after `now` is not looked at.
        now, deadline: with a time zone.
        duration: of the work, above zero.
        interruptible: whether it can pause, at no cost, after each half hour.

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
        return at_once("nobody tells the grid's intensity")
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
    """`plan` by what a provider tells of the last eight weeks. Where it can't, or is set up wrongly, the work starts now, and the
    reason says what was wrong: a training must not fail because a service does.

    Raises:
        WrongUse: as `plan`; nothing that the provider has to say.
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
    """The intensity of the half hours from `now` on, from those that have ended by then.

    Unknown steps of the past are replaced by what the known ones let expect, which gives the same as leaving them out.

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
    late = int((in_utc(now, "now") - past.end) // STEP + len(values) - 1 - known[-1])  # half hours that aren't known yet
    days = int(span // DAY_STEPS)  # whole ones, in the past and ahead: the weights are worked out once for many questions
    values = values[: known[-1] + 1][-days * DAY_STEPS :]
    mean = float(np.nanmean(values))
    weights = _weights(days, -(-(late + steps) // DAY_STEPS))[:, late : late + steps]
    forecast: np.ndarray = np.maximum(mean + _completed(values - mean, days) @ weights, 0.0)
    return forecast


def choose(ahead: np.ndarray, needed: int, *, interruptible: bool) -> np.ndarray:
    """The steps in which to work: `needed` of those ahead, in order; a stretch where the work can't pause.

    From now on without a pause where nothing else saves `LEAST_SAVING` of that: between equals, sooner.

    Args:
        ahead: forecast `(steps,)`, gCO2e/kWh, `needed` steps or more.
    """
    chosen = cheapest_steps(ahead, needed) if interruptible else cheapest_start(ahead, needed) + np.arange(needed)
    worth_it = ahead[chosen].sum() < (1 - LEAST_SAVING) * ahead[:needed].sum()
    return chosen if worth_it else np.arange(needed)


def cheapest_start(ahead: np.ndarray, needed: int) -> int:
    """Where the stretch of `needed` steps with the lowest mean begins; of equals the first."""
    sums = np.concatenate([[0.0], np.cumsum(ahead)])
    return int(np.argmin(sums[needed:] - sums[:-needed]))


def cheapest_steps(ahead: np.ndarray, needed: int) -> np.ndarray:
    """The `needed` lowest steps, in order of time; of equals the first."""
    return np.sort(np.argsort(ahead, kind="stable")[:needed])


def _together(days: np.ndarray) -> np.ndarray:
    """How strongly the intensities of two moments go together that lie so many days apart: the covariance, in no unit, since only
    ratios matter for a forecast.

    Weather that lasts some days, and hours; the day's course, which fades over weeks as the season moves on; the week's, which
    stays; and a level that nothing is known of beforehand. The numbers are round ones out of some thirty trials on the year 2020 in
    France, Germany and Great Britain. Little hangs on them: halving or doubling any one moves what is saved in the latter two by 2
    points of what perfect foresight saves at most.
    """
    weather = 0.5 * np.exp(-days / 2) + 0.2 * np.exp(-days / 0.4)
    day = 0.3 * np.exp(-2 * (np.sin(np.pi * days) / 0.8) ** 2 - days / 40)
    week = 0.3 * np.exp(-2 * (np.sin(np.pi * days / 7) / 0.5) ** 2 - days / 120)
    return 10.0 + weather + day + week


NOISE = 0.002  # variance of a single step for itself, on `_together`'s scale


@functools.lru_cache(maxsize=2)
def _covariance(days: int) -> np.ndarray:
    """Of the half hours of so many days with each other, float64 `(steps, steps)`."""
    from scipy.linalg import toeplitz

    covariance: np.ndarray = toeplitz(_together(np.arange(days * DAY_STEPS) / DAY_STEPS))
    covariance[np.diag_indices_from(covariance)] += NOISE
    return covariance


@functools.lru_cache(maxsize=4)
def _weights(days: int, days_ahead: int) -> np.ndarray:
    """Of each known half hour in the forecast of each one ahead, float64 `(steps, steps ahead)`: Rasmussen and Williams (2.25)."""
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
    """With each unknown value replaced by its expectation given the known ones, which leaves every forecast as it is without it.

    By blocks of the inverse covariance: only as large a system is solved as there are unknown values.
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
    """Why its past is no ground for a forecast; empty where it is."""
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
    share = np.isfinite(week).mean()
    return "" if share >= LEAST_KNOWN_SHARE else f"only {share:.0%} of the last week's intensities are known"


def _intervals(chosen: np.ndarray, now: datetime, duration: timedelta) -> tuple[tuple[datetime, datetime], ...]:
    """The chosen steps, joined where they touch; the last is cut so that all are as long as the work."""
    runs = np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)
    intervals = [(now + int(run[0]) * STEP, now + int(run[-1] + 1) * STEP) for run in runs]
    start, end = intervals[-1]
    intervals[-1] = (start, end - (len(chosen) * STEP - duration))
    return tuple(intervals)


def _words(length: timedelta) -> str:
    hours = length / timedelta(hours=1)
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
