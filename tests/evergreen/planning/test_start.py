"""When to work: the forecast looks back only, the plan keeps the deadline, and whatever is in doubt starts now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.errors import WrongUse
from evergreen.planning import start as shifting
from evergreen.planning.intensity.csv_file import CsvFile
from evergreen.planning.intensity.provider import Constant, NoIntensity
from evergreen.planning.intensity.series import HALF_HOUR, IntensitySeries
from evergreen.planning.start import cheapest_start, cheapest_steps, choose, forecast, plan, plan_with

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGIN = datetime(2020, 6, 1, tzinfo=UTC)
NOW = BEGIN + 14 * DAY + 18 * HOUR  # a Monday's evening
STEPS = 14 * 48 + 36


def of(values: np.ndarray, step: timedelta = HALF_HOUR) -> IntensitySeries:
    return IntensitySeries(BEGIN, step, values, "DE", "made up")


def sunny(steps: int = STEPS, seed: int = 0) -> np.ndarray:
    """A grid that is cleanest at noon and dirtiest at midnight: 300 ± 100, and noise of 5."""
    hours = np.arange(steps) / 2
    return 300 + 100 * np.cos(hours * 2 * np.pi / 24) + np.random.default_rng(seed).normal(0, 5, steps)


# The forecast


def test_the_forecast_finds_the_days_course() -> None:
    ahead = forecast(of(sunny()), now=NOW, steps=96)
    truth = 300 + 100 * np.cos((18 + np.arange(96) / 2) * 2 * np.pi / 24)
    assert ahead.shape == (96,) and np.abs(ahead - truth).mean() < 10


def test_the_forecast_finds_the_weekend() -> None:
    steps = 6 * 7 * 48
    weekend = (np.arange(steps) // 48 % 7) >= 5
    ahead = forecast(of(np.where(weekend, 200.0, 300.0)), now=BEGIN + 42 * DAY, steps=7 * 48)
    assert ahead[5 * 48 + 12 : 7 * 48 - 12].mean() < 0.85 * ahead[12 : 5 * 48 - 12].mean()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1000), st.integers(0, 48))
def test_the_forecast_knows_nothing_of_what_has_not_ended_yet(seed: int, other: float, minutes: int) -> None:
    now = NOW + timedelta(minutes=minutes)
    values = sunny(STEPS + 200, seed)
    changed = values.copy()
    changed[(now - BEGIN) // HALF_HOUR :] = other
    assert (forecast(of(values), now=now, steps=100) == forecast(of(changed), now=now, steps=100)).all()
    assert (forecast(of(values), now=now, steps=100) == forecast(of(values).known_by(now), now=now, steps=100)).all()


@pytest.mark.parametrize("level", [0.0, 37.123456789, 500.0])
def test_of_a_grid_that_never_changes_no_change_is_forecast(level: float) -> None:
    assert forecast(of(np.full(STEPS, level)), now=NOW, steps=200) == pytest.approx(np.full(200, level), abs=1e-6)


def test_a_forecast_is_never_below_0_and_scales_with_the_grid() -> None:
    values = np.maximum(sunny() - 350, 0)
    ahead = forecast(of(values), now=NOW, steps=96)
    assert ahead.min() >= 0
    assert forecast(of(7 * values), now=NOW, steps=96) == pytest.approx(7 * ahead, abs=1e-6)


def test_unknown_steps_are_left_out_and_not_taken_for_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    values = sunny()
    whole = forecast(of(values), now=NOW, steps=96)
    gappy = values.copy()
    gappy[100:140], gappy[300], gappy[-1] = np.nan, np.nan, np.nan
    ahead = forecast(of(gappy), now=NOW, steps=96)
    assert np.isfinite(ahead).all() and np.abs(ahead - whole).max() < 20


def test_what_stands_in_for_an_unknown_value_gives_the_forecast_without_it() -> None:
    """Against the textbook's equation over the known steps alone."""
    values = sunny(7 * 48) - 300
    unknown = np.zeros(len(values), bool)
    unknown[[5, 50, 51, 52, 200]] = True
    known = np.flatnonzero(~unknown) / 48
    covariance = shifting._together(np.abs(known[:, None] - known)) + shifting.NOISE * np.eye(len(known))
    across = shifting._together(7 + np.arange(48)[:, None] / 48 - known)
    by_hand = across @ np.linalg.solve(covariance, values[~unknown])
    completed = shifting._completed(np.where(unknown, np.nan, values), 7)
    assert completed @ shifting._weights(7, 1) == pytest.approx(by_hand, abs=1e-6)


def test_late_news_is_bridged() -> None:
    """The last value is of four hours ago; what is forecast is still of the hours from now on."""
    ahead = forecast(of(sunny()).known_by(NOW - 4 * HOUR), now=NOW, steps=96)
    assert np.abs(ahead - forecast(of(sunny()), now=NOW, steps=96)).max() < 25


@pytest.mark.parametrize("step", [timedelta(minutes=15), HOUR])
def test_grids_reported_in_other_steps_are_forecast_by_half_hours_too(step: timedelta) -> None:
    count = int(STEPS * (HALF_HOUR / step))
    hours = np.arange(count) * (step / HOUR)
    ahead = forecast(of(300 + 100 * np.cos(hours * 2 * np.pi / 24), step), now=NOW, steps=48)
    assert np.abs(ahead - forecast(of(sunny()), now=NOW, steps=48)).max() < 30


def test_of_too_little_nothing_is_forecast() -> None:
    with pytest.raises(WrongUse, match="too little is known.*a day at least.*2.5 hours"):
        forecast(of(np.full(5, 100.0)), now=BEGIN + 2.5 * HOUR, steps=4)
    with pytest.raises(WrongUse, match="too little is known"):
        forecast(of(np.full(STEPS, np.nan)), now=NOW, steps=4)


# The choice

AHEAD = st.lists(st.floats(0, 1000), min_size=1, max_size=60).map(np.array)


@given(AHEAD, st.data())
def test_the_cheapest_stretch_is_the_cheapest_of_all_stretches(ahead: np.ndarray, data: st.DataObject) -> None:
    needed = data.draw(st.integers(1, len(ahead)))
    means = [ahead[start : start + needed].mean() for start in range(len(ahead) - needed + 1)]
    assert means[cheapest_start(ahead, needed)] == pytest.approx(min(means), abs=1e-9)


@given(AHEAD, st.data())
def test_with_foresight_choosing_is_never_worse_than_now_and_pausing_never_worse_than_not(
    ahead: np.ndarray, data: st.DataObject
) -> None:
    needed = data.draw(st.integers(1, len(ahead)))
    stretch, pausing = (choose(ahead, needed, interruptible=may_pause) for may_pause in (False, True))
    for chosen in (stretch, pausing):
        assert len(set(chosen.tolist())) == needed and (np.diff(chosen) > 0).all() and 0 <= chosen[0] <= chosen[-1] < len(ahead)
        assert ahead[chosen].sum() <= ahead[:needed].sum()
    assert stretch[-1] - stretch[0] == needed - 1
    assert ahead[cheapest_steps(ahead, needed)].sum() <= ahead[stretch].sum() + 1e-9


def test_between_equals_the_earliest_wins() -> None:
    assert choose(np.array([5.0, 3, 3, 3]), 1, interruptible=False).tolist() == [1]
    assert choose(np.array([5.0, 3, 5, 3, 3]), 2, interruptible=True).tolist() == [1, 3]
    assert choose(np.full(9, 4.0), 3, interruptible=True).tolist() == [0, 1, 2]


def test_nobody_waits_for_next_to_nothing() -> None:
    assert choose(np.array([100.0, 99.95]), 1, interruptible=False).tolist() == [0]
    assert choose(np.array([100.0, 99.8]), 1, interruptible=False).tolist() == [1]
    assert choose(np.zeros(5), 2, interruptible=True).tolist() == [0, 1]


# The plan


def test_work_waits_for_the_clean_hours_of_tomorrow() -> None:
    made = plan(of(sunny()), now=NOW, duration=4 * HOUR, deadline=NOW + DAY)
    assert not made.starts_now and len(made.intervals) == 1
    assert NOW + 14 * HOUR < made.start < NOW + 18 * HOUR  # 8:00 to 12:00 of the next day
    assert made.saving_percent is not None and made.saving_percent > 30
    assert made.reason.startswith(f"starts at {made.start:%F %H:%M} UTC: ") and "% less" in made.reason


def test_work_that_can_pause_takes_both_noons() -> None:
    made = plan(of(sunny()), now=NOW, duration=6 * HOUR, deadline=NOW + 2 * DAY, interruptible=True)
    assert len(made.intervals) >= 2 and {start.date() for start, _ in made.intervals} == {
        (NOW + DAY).date(),
        (NOW + 2 * DAY).date(),
    }


def test_the_best_hour_is_now_where_it_is() -> None:
    noon = NOW - 8 * HOUR
    made = plan(of(sunny()), now=noon, duration=4 * HOUR, deadline=noon + 12 * HOUR)
    assert (
        made.starts_now and made.start == noon and "nothing later before the deadline is forecast to be cleaner" in made.reason
    )


def test_work_that_pauses_says_so_where_it_starts_now() -> None:
    noon = NOW - 7 * HOUR
    made = plan(of(sunny()), now=noon, duration=12 * HOUR, deadline=noon + 30 * HOUR, interruptible=True)
    assert made.starts_now and len(made.intervals) == 2 and made.reason.startswith("starts now and pauses in between")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    minutes=st.integers(1, 60 * 48),
    slack_minutes=st.integers(-60 * 24, 60 * 72),
    late_minutes=st.integers(0, 120),
    interruptible=st.booleans(),
    known=st.booleans(),
)
def test_a_plan_is_as_long_as_the_work_and_ends_by_the_deadline_or_starts_now(
    seed: int, minutes: int, slack_minutes: int, late_minutes: int, interruptible: bool, known: bool
) -> None:
    duration, now = timedelta(minutes=minutes), NOW + timedelta(minutes=late_minutes)
    deadline = now + max(duration + timedelta(minutes=slack_minutes), timedelta(minutes=1))
    history = of(sunny(seed=seed)) if known else None
    made = plan(history, now=now, duration=duration, deadline=deadline, interruptible=interruptible)
    assert sum((end - start for start, end in made.intervals), timedelta(0)) == duration
    assert made.starts_now is (made.start == now) and made.start >= now
    if now + duration > deadline:
        assert made.starts_now and len(made.intervals) == 1
    else:
        assert made.start <= deadline - duration and made.intervals[-1][1] <= deadline
    assert all(before[1] < after[0] for before, after in pairwise(made.intervals))
    assert interruptible or len(made.intervals) == 1
    assert (made.saving_percent or 0) >= 0 and made.reason.startswith("starts ") and "\n" not in made.reason


def test_work_that_no_longer_fits_starts_now() -> None:
    made = plan(of(sunny()), now=NOW, duration=5 * HOUR, deadline=NOW + 4 * HOUR)
    assert made.intervals == ((NOW, NOW + 5 * HOUR),)
    assert made.reason == "starts now: it takes 5.0 hours and the deadline is in 4.0 hours"


def test_work_that_just_fits_starts_now() -> None:
    made = plan(of(sunny()), now=NOW, duration=4 * HOUR, deadline=NOW + 4 * HOUR + timedelta(minutes=20))
    assert made.starts_now and "no later start to choose" in made.reason


@pytest.mark.parametrize("past", [timedelta(0), timedelta(seconds=1), 400 * DAY])
def test_a_deadline_in_the_past_is_refused(past: timedelta) -> None:
    with pytest.raises(
        WrongUse, match="the deadline is past; expected a time after 2020-06-15 18:00 UTC; got '20.*Name a later one"
    ):
        plan(of(sunny()), now=NOW, duration=HOUR, deadline=NOW - past)


@pytest.mark.parametrize("duration", [timedelta(0), -HOUR])
def test_work_without_a_length_is_refused(duration: timedelta) -> None:
    with pytest.raises(WrongUse, match="the work has no length"):
        plan(of(sunny()), now=NOW, duration=duration, deadline=NOW + DAY)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(WrongUse, match="the deadline has no time zone"):
        plan(None, now=NOW, duration=HOUR, deadline=(NOW + DAY).replace(tzinfo=None))


def test_times_of_any_zone_are_the_same_moment() -> None:
    from zoneinfo import ZoneInfo

    here = plan(of(sunny()), now=NOW, duration=HOUR, deadline=NOW + DAY)
    there = ZoneInfo("America/New_York")
    assert plan(of(sunny()), now=NOW.astimezone(there), duration=HOUR, deadline=(NOW + DAY).astimezone(there)) == here


def with_unknown(places: slice) -> IntensitySeries:
    values = sunny()
    values[places] = np.nan
    return of(values)


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (None, "the grid's intensity is not known"),
        (of(np.array([])), "nothing is known of the past of zone DE"),
        (with_unknown(slice(None)), "nothing is known of the past"),
        (with_unknown(slice(0, STEPS - 6 * 48)), "only 6.0 days of the grid's past are known, and 7.0 days are needed"),
        (with_unknown(slice(STEPS - 50, None)), "the last known intensity is 25.0 hours old"),
        (with_unknown(slice(STEPS - 7 * 48, STEPS - 48)), "only 14% of the last week's intensities are known"),
        (of(np.full(STEPS, 200.0)), "nothing later before the deadline is forecast to be cleaner than 200 gCO2e/kWh now"),
        (of(np.zeros(STEPS)), "nothing later before the deadline is forecast to be cleaner than 0 gCO2e/kWh now"),
    ],
)
@pytest.mark.parametrize("interruptible", [False, True])
def test_when_in_doubt_work_starts_now_and_says_why(history: IntensitySeries | None, reason: str, interruptible: bool) -> None:
    made = plan(history, now=NOW, duration=HOUR, deadline=NOW + DAY, interruptible=interruptible)
    assert made.intervals == ((NOW, NOW + HOUR),) and made.starts_now and made.saving_percent is None
    assert made.reason == f"starts now: {reason}" or made.reason.startswith(f"starts now: {reason}")


def test_a_plan_that_is_asked_for_again_until_it_says_now_keeps_the_deadline() -> None:
    values = sunny(STEPS + 200, seed=3)
    values[STEPS + 10 :] += np.random.default_rng(1).normal(0, 80, 190)  # nothing goes as forecast
    now, deadline = NOW, NOW + 40 * HOUR
    while not (made := plan(of(values), now=now, duration=6 * HOUR, deadline=deadline)).starts_now:
        now += HALF_HOUR
    assert made.intervals[-1][1] <= deadline


# With a provider


class Failing:
    """A provider that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        raise self.error


def test_a_provider_is_asked_for_the_past_and_not_for_what_lies_ahead() -> None:
    asked = []

    class Asked(Constant):
        def history(self, start: datetime, end: datetime) -> IntensitySeries:
            asked.append((start, end))
            return super().history(start, end)

    made = plan_with(Asked(300, "DE"), now=NOW, duration=HOUR, deadline=NOW + DAY)
    assert asked == [(NOW - shifting.HISTORY, NOW)] and made.starts_now and "cleaner than 300 gCO2e/kWh now" in made.reason


def test_a_service_that_fails_stops_no_work() -> None:
    made = plan_with(Failing(NoIntensity("it is down")), now=NOW, duration=HOUR, deadline=NOW + DAY)
    assert made.starts_now and made.reason == "starts now: the grid's intensity is not known (it is down.)"


def test_a_file_that_is_wrong_stops_no_work_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "grid.csv"
    path.write_text("Time,Carbon Intensity\n2020-06-01 00:00,-5\n")
    made = plan_with(CsvFile(path, "DE"), now=NOW, duration=HOUR, deadline=NOW + DAY)
    assert made.starts_now and "its settings are wrong" in made.reason and "line 2: a negative carbon intensity" in made.reason


def test_with_a_provider_too_a_deadline_in_the_past_is_refused() -> None:
    with pytest.raises(WrongUse, match="the deadline is past"):
        plan_with(Failing(NoIntensity("it is down")), now=NOW, duration=HOUR, deadline=NOW - DAY)


# The published experiment


@pytest.mark.parametrize(
    ("end", "next_workday", "semi_weekly"),
    [  # 2020-06-01 is a Monday
        ("2020-06-02 12:00", "2020-06-02 12:00", "2020-06-04 09:00"),
        ("2020-06-02 09:00", "2020-06-02 09:00", "2020-06-04 09:00"),
        ("2020-06-02 17:00", "2020-06-02 17:00", "2020-06-04 09:00"),
        ("2020-06-02 17:30", "2020-06-03 09:00", "2020-06-04 09:00"),
        ("2020-06-02 03:00", "2020-06-02 09:00", "2020-06-04 09:00"),
        ("2020-06-04 09:00", "2020-06-04 09:00", "2020-06-04 09:00"),
        ("2020-06-04 09:30", "2020-06-04 09:30", "2020-06-08 09:00"),
        ("2020-06-05 18:00", "2020-06-06 09:00", "2020-06-08 09:00"),
        ("2020-06-06 18:00", "2020-06-08 09:00", "2020-06-08 09:00"),
        ("2020-06-07 03:00", "2020-06-08 09:00", "2020-06-08 09:00"),
    ],
)
def test_the_experiments_deadlines_are_the_published_ones(end: str, next_workday: str, semi_weekly: str) -> None:
    from bench import carbon

    ends = datetime.fromisoformat(end).replace(tzinfo=UTC)
    assert f"{carbon.next_workday(ends):%F %H:%M}" == next_workday
    assert f"{carbon.semi_weekly(ends):%F %H:%M}" == semi_weekly


def test_the_experiments_forecasts_from_the_past_do_not_hear_of_the_future() -> None:
    from bench.carbon import from_the_past

    values = sunny(STEPS + 300)
    changed = values.copy()
    changed[STEPS + 20 :] = 1.0
    ahead, other = (from_the_past(of(these), STEPS, STEPS + 30, 100) for these in (values, changed))
    for now in range(STEPS, STEPS + 21):
        assert (ahead(now, now + 100) == other(now, now + 100)).all()
    assert (ahead(STEPS + 21, STEPS + 121) != other(STEPS + 21, STEPS + 121)).any()


def test_with_foresight_the_experiments_jobs_emit_least_and_none_misses_its_deadline() -> None:
    from bench import carbon

    values = sunny(366 * 48)
    grid = IntensitySeries(datetime(2020, 1, 1, tzinfo=UTC), HALF_HOUR, values, "DE", "made up")
    work = carbon.jobs(grid, 2020, carbon.next_workday, np.random.default_rng(0))[::40]
    saved = {}
    for may_pause in (False, True):
        once, anew = (
            decided(lambda now, end: values[now:end], may_pause) for decided in (carbon.decided_once, carbon.decided_anew)
        )
        for job in work:
            for chosen in (once(job), anew(job)):
                assert len(set(chosen.tolist())) == job.needed and job.arrival <= chosen.min() <= chosen.max() < job.deadline
        saved[may_pause] = carbon.saved_percent(values, work, once)
        assert carbon.saved_percent(values, work, anew) == pytest.approx(saved[may_pause], abs=0.1)
    assert saved[True] >= saved[False] > carbon.at_random(values, work)


@pytest.mark.samples
@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "published", "perfect"), [("ger", (5.91, 7.93), (5.92, 8.04)), ("gb", (6.56, 9.03), (6.66, 9.23))]
)
def test_the_published_savings_come_out_and_the_past_alone_reaches_three_quarters_of_foresight(
    samples: Path, file: str, published: tuple[float, float], perfect: tuple[float, float]
) -> None:
    import json
    import subprocess
    import sys

    from bench.report import ROOT

    command = [sys.executable, str(ROOT / "bench/carbon.py"), str(samples / "carbon-intensity" / f"{file}.csv"), "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout)
    for way, aim, best in zip(("non_interruptible_percent", "interruptible_percent"), published, perfect, strict=True):
        assert abs(found[way] - aim) <= 0.3 and abs(found[f"perfect_{way}"] - best) <= 0.1
        assert found[f"past_only_{way}"] >= 0.75 * found[f"perfect_{way}"]
