"""What waiting for a clean hour saves: the published experiment of 2020 ("Let's Wait Awhile", Wiesner et al., Middleware 2021)
again, for Germany and Great Britain, and with a forecast from the past alone.

`python -m bench.carbon` measures both countries; `python bench/carbon.py FILE [--json]` any CSV file of a year (see
`evergreen.planning.intensity.csv_file.read_csv`). All figures are savings in percent of the emissions of starting at once, of
jobs of constant power, by average intensity at the place of the grid (location-based). They tell nothing of marginal emissions.

Without a prefix the forecast is the published one: the truth with normal noise of 5 % of the mean, which looks into the future.
`perfect_` is the truth itself. `past_only_` is `evergreen.planning.start`, asked anew every half hour until the job runs, as a
scheduled run could; `past_only_half_way_` asks half-way to the hour that was planned last and then at that hour, as Evergreen's
scheduled runs do; `past_only_once_` asks once, at arrival.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # python bench/carbon.py: this checkout's packages, not this folder's files
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from bench.report import Row, samples, show
from evergreen.errors import EvergreenError, WrongUse
from evergreen.planning.intensity.csv_file import read_csv
from evergreen.planning.intensity.series import HALF_HOUR, LONGEST_FILLED_GAP, IntensitySeries
from evergreen.planning.start import DAY_STEPS, LEAST_HISTORY, choose, forecast

if TYPE_CHECKING:
    from numpy.random import Generator

JOBS = 3387
SHORTEST, LONGEST = timedelta(hours=4), timedelta(hours=90)
OPENS, CLOSES = timedelta(hours=9), timedelta(hours=17)
REPETITIONS = 10
# Country: file, and the published percent saved without and with interruption; with perfect foresight, measured once.
PUBLISHED = {"Germany": ("ger.csv", 5.91, 7.93), "Great Britain": ("gb.csv", 6.56, 9.03)}
NEAR = 0.3  # percentage points
WANTED_SHARE = 0.75  # of what perfect foresight saves

Ahead = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Job:
    """Half hours since the series' start: when it arrives, how many it needs, and by when it must have ended."""

    arrival: int
    needed: int
    deadline: int


def next_workday(end: datetime) -> datetime:
    """The deadline of a job that would end at `end` if it started at once: then, if people are there to see it, else the next
    9:00 of a working day. As published, what would end on Friday evening has until Saturday 9:00, and only what would end on
    the weekend itself until Monday."""
    opening = end.replace(hour=0, minute=0) + OPENS
    if end.weekday() < 5:
        closing = opening - OPENS + CLOSES
        return opening if end < opening else end if end <= closing else opening + timedelta(days=1)
    return opening + (7 - end.weekday()) * timedelta(days=1)


def semi_weekly(end: datetime) -> datetime:
    """9:00 of the next Monday or Thursday."""
    opening = end.replace(hour=0, minute=0) + OPENS
    days = (opening + day * timedelta(days=1) for day in range(8))
    return next(day for day in days if day >= end and day.weekday() in (0, 3))


def jobs(series: IntensitySeries, year: int, rule: Callable[[datetime], datetime], dice: Generator) -> list[Job]:
    """The published experiment's: spread at random over the year's working days and their hours, those that the series
    covers."""
    days = [day for day in (datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(366)) if day.year == year]
    days = [day for day in days if day.weekday() < 5]
    counts = dice.multinomial(JOBS, [1 / len(days)] * len(days))
    hours = range((CLOSES - OPENS) // HALF_HOUR)
    arrivals = [
        day + OPENS + int(step) * HALF_HOUR
        for day, count in zip(days, counts, strict=True)
        for step in np.sort(dice.choice(hours, size=count))
    ]
    needs = dice.choice(range(SHORTEST // HALF_HOUR, LONGEST // HALF_HOUR), size=JOBS)
    made = []
    for arrival, needed in zip(arrivals, needs.tolist(), strict=True):
        deadline = rule(arrival + needed * HALF_HOUR)
        job = Job((arrival - series.start) // HALF_HOUR, needed, (deadline - series.start) // HALF_HOUR)
        if job.arrival >= 0 and np.isfinite(series.intensity_gco2e_per_kwh[job.arrival : job.deadline]).sum() == (
            job.deadline - job.arrival
        ):
            made.append(job)
    return made


def saved_percent(truth: np.ndarray, all_jobs: list[Job], ran: Callable[[Job], np.ndarray]) -> float:
    """By running each job in the half hours that `ran` tells, against starting it at once."""
    now = sum(float(truth[job.arrival : job.arrival + job.needed].sum()) for job in all_jobs)
    then = sum(float(truth[ran(job)].sum()) for job in all_jobs)
    return 100 * (1 - then / now)


def decided_once(ahead: Ahead, interruptible: bool) -> Callable[[Job], np.ndarray]:
    """Half hours by the forecast at a job's arrival."""

    def ran(job: Job) -> np.ndarray:
        return job.arrival + choose(ahead(job.arrival, job.deadline), job.needed, interruptible=interruptible)

    return ran


def decided_anew(ahead: Ahead, interruptible: bool) -> Callable[[Job], np.ndarray]:
    """Half hours where each half hour is decided with the forecast of its own time, as `evergreen.planning.start.plan` does."""

    def ran(job: Job) -> np.ndarray:
        done: list[int] = []
        now = job.arrival
        while len(done) < job.needed:
            left = job.needed - len(done)
            runs = job.deadline - now <= left or choose(ahead(now, job.deadline), left, interruptible=interruptible)[0] == 0
            if runs and not interruptible:
                return np.arange(now, now + left)
            if runs:
                done.append(now)
            now += 1
        return np.array(done)

    return ran


def decided_half_way(ahead: Ahead) -> Callable[[Job], np.ndarray]:
    """Half hours where it is decided anew half-way to the planned start, as `evergreen.planning.waiting.when` does, for work
    that cannot pause."""

    def ran(job: Job) -> np.ndarray:
        now = job.arrival
        while job.deadline - now > job.needed and (
            wait := choose(ahead(now, job.deadline), job.needed, interruptible=False)[0]
        ):
            now += -(-int(wait) // 2)
        return np.arange(now, now + job.needed)

    return ran


def at_random(truth: np.ndarray, all_jobs: list[Job]) -> float:
    """Percent saved, in expectation, by any start before the deadline, each as likely."""
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(truth))])
    now = then = 0.0
    for job in all_jobs:
        starts = np.arange(job.arrival, job.deadline - job.needed + 1)
        emissions = sums[starts + job.needed] - sums[starts]
        now, then = now + float(emissions[0]), then + float(emissions.mean())
    return 100 * (1 - then / now)


def noisy(truth: np.ndarray, share: float) -> Iterator[Ahead]:
    """Forecasts as published: the truth with normal noise, its standard deviation a share of the mean."""
    for seed in range(REPETITIONS):
        noise = np.random.default_rng(seed).normal(0, share * np.nanmean(truth), len(truth))
        yield _peeking(truth + noise)


def from_the_past(series: IntensitySeries, first: int, last: int, longest: int) -> Ahead:
    """`evergreen.planning.start.forecast` of every half hour from `first` up to `last`, each made of what had ended by then.

    Where too little is known yet, all is alike, and work starts at once.
    """
    forecasts = np.zeros((last - first, longest), np.float32)
    for place in range(first, last):
        now = series.start + place * HALF_HOUR
        if now - series.start >= LEAST_HISTORY:
            forecasts[place - first] = forecast(series, now=now, steps=longest)
    return lambda now, deadline: forecasts[now - first, : deadline - now]


def _peeking(values: np.ndarray) -> Ahead:
    return lambda now, deadline: values[now:deadline]


def measure(path: Path, rule: Callable[[datetime], datetime] = next_workday, *, time_zone: str = "UTC") -> dict[str, float]:
    """Every figure of one file: percent saved, and how far off the forecast from the past is a day ahead.

    Raises:
        WrongUse: the file isn't right, or covers no year's working days.
    """
    observed = read_csv(path, zone=path.stem, time_zone=time_zone)  # forecasts see only this: no gap is filled from behind
    series = observed.interpolated(LONGEST_FILLED_GAP)
    truth = series.intensity_gco2e_per_kwh
    middle = series.start + (series.end - series.start) / 2
    all_jobs = jobs(series, middle.year, rule, np.random.default_rng(0))
    if not all_jobs:
        raise WrongUse(
            f"{path} covers no job of the year {middle.year}", expected="a year, or some months", fix="Name another."
        )
    first, last = min(job.arrival for job in all_jobs), max(job.deadline for job in all_jobs)
    past = from_the_past(observed, first, last, max(job.deadline - job.arrival for job in all_jobs))
    figures = {"jobs": float(len(all_jobs)), "always_now_percent": 0.0, "random_percent": at_random(truth, all_jobs)}
    for way, interruptible in (("non_interruptible", False), ("interruptible", True)):

        def saved(ran: Callable[[Job], np.ndarray]) -> float:
            return saved_percent(truth, all_jobs, ran)

        for name, share in ((way, 0.05), (f"error_20_{way}", 0.20)):
            figures[f"{name}_percent"] = float(
                np.mean([saved(decided_once(ahead, interruptible)) for ahead in noisy(truth, share)])
            )
        figures[f"perfect_{way}_percent"] = saved(decided_once(_peeking(truth), interruptible))
        figures[f"past_only_once_{way}_percent"] = saved(decided_once(past, interruptible))
        figures[f"past_only_{way}_percent"] = saved(decided_anew(past, interruptible))
        if not interruptible:
            figures[f"past_only_half_way_{way}_percent"] = saved(decided_half_way(past))
    errors = _errors_a_day_ahead(past, truth, first, last)
    return figures | ({"forecast_error_percent": 100 * float(np.mean(errors) / np.nanmean(truth))} if errors else {})


def _errors_a_day_ahead(past: Ahead, truth: np.ndarray, first: int, last: int) -> list[float]:
    """How far off each forecast of the half hour a day later was, gCO2e/kWh, where there was one and it is known what came."""
    errors = []
    for now in range(first, last - DAY_STEPS):
        expected, came = float(past(now, now + DAY_STEPS + 1)[-1]), truth[now + DAY_STEPS]
        if expected and np.isfinite(came):
            errors.append(abs(expected - came))
    return errors


def rows(country: str) -> list[Row]:
    """The table's lines of one country."""
    file, *published = PUBLISHED[country]
    path = samples() / "carbon-intensity" / str(file)
    figures, longer = measure(path), measure(path, semi_weekly)
    lines = []
    for way, aim in zip(("non_interruptible", "interruptible"), published, strict=True):
        reached, perfect, past = (figures[f"{name}{way}_percent"] for name in ("", "perfect_", "past_only_"))
        words = f"{country}, {way.replace('_', '-')}"
        lines += [
            Row(
                f"{words}: saved at 5 % forecast error ({way}_percent)",
                f"{reached:.2f} % (at 20 % error {figures[f'error_20_{way}_percent']:.2f} %)",
                f"published {aim:.2f} %; always now 0; a random hour {figures['random_percent']:.2f} %",
                f"{reached - float(aim):+.2f} points",
                f"within {NEAR} points",
                abs(reached - float(aim)) <= NEAR,
            ),
            Row(
                f"{words}: saved by a forecast from the past alone (past_only_{way}_percent)",
                f"{past:.2f} % (decided once at arrival {figures[f'past_only_once_{way}_percent']:.2f} %)",
                f"perfect foresight {perfect:.2f} % (perfect_{way}_percent)",
                f"{past / perfect:.1%} of it",
                f"{WANTED_SHARE:.0%} at least",
                past / perfect >= WANTED_SHARE,
            ),
            Row(
                f"{words}, by the next Monday or Thursday: saved by a forecast from the past alone",
                f"{longer[f'past_only_{way}_percent']:.2f} %",
                f"perfect foresight {longer[f'perfect_{way}_percent']:.2f} %, at 5 % error {longer[f'{way}_percent']:.2f} %",
                f"{longer[f'past_only_{way}_percent'] / longer[f'perfect_{way}_percent']:.1%} of it",
                "–",
            ),
        ]
    error = figures["forecast_error_percent"]
    return [
        *lines,
        Row(f"{country}: mean error of the forecast a day ahead", f"{error:.1f} % of the mean", "–", f"{error:.1f} %", "–"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("file", nargs="?", type=Path, help="a CSV file: times, and a column of carbon intensity in gCO2e/kWh")
    parser.add_argument("--json", action="store_true", help="print the figures of FILE, or else the rows of the table, as JSON")
    parser.add_argument("--time-zone", default="UTC", help="of times without an offset (UTC)")
    parser.add_argument("--semi-weekly", action="store_true", help="jobs of FILE may end by the next Monday or Thursday")
    asked = parser.parse_args()
    if asked.file is None:
        lines = [row for country in PUBLISHED for row in rows(country)]
        print(json.dumps([asdict(row) for row in lines])) if asked.json else show(lines)
        return
    try:
        figures = measure(asked.file, semi_weekly if asked.semi_weekly else next_workday, time_zone=asked.time_zone)
    except EvergreenError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    if asked.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    else:
        for name, value in figures.items():
            print(f"{name:42}{value:10.2f}")


if __name__ == "__main__":
    main()
