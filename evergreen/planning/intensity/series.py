"""What a grid emits over time, in grams of CO2 equivalents a kWh, and who tells: a CSV file, a constant, Electricity Maps, or
Great Britain's Carbon Intensity API.

All figures are averages over what the grid generates at the place where the energy is drawn (average-intensity, location-based by
the GHG Protocol's Scope 2 Guidance). What one more kWh would cause, the marginal intensity, is another figure and not told here.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from evergreen.errors import EvergreenError, WrongUse
from evergreen.workspace import replace_file

HALF_HOUR = timedelta(minutes=30)
LONGEST_FILLED_GAP = timedelta(
    hours=3
)  # in which a grid moves little and steadily; what it did in a longer one nobody can tell
LONGEST_FILE = timedelta(days=20 * 366)  # a longer one has a mistyped year in it, and would fill the memory


class NoIntensity(EvergreenError):
    """Nobody tells the intensity now. Who waits for a clean hour starts at once instead."""


@dataclass(frozen=True, eq=False)
class IntensitySeries:
    """A grid's intensity, one value a step, without holes: an unknown step is NaN.

    Attributes:
        start: of the first step, with a time zone; kept in UTC.
        step: length of every step, above zero.
        intensity_gco2e_per_kwh: float64 `(steps,)`, 0 or more, NaN where unknown: the mean over the step.
        zone: of the grid, as its source names it.
        source: of the figures, for people.
    """

    start: datetime
    step: timedelta
    intensity_gco2e_per_kwh: np.ndarray
    zone: str
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", in_utc(self.start, "an intensity series' start"))

    def __len__(self) -> int:
        return len(self.intensity_gco2e_per_kwh)

    @property
    def end(self) -> datetime:
        """Of the last step."""
        return self.start + len(self) * self.step

    @property
    def times(self) -> list[datetime]:
        """When each step starts, in UTC."""
        return [self.start + place * self.step for place in range(len(self))]

    def known_by(self, moment: datetime) -> IntensitySeries:
        """The steps that have ended by `moment`: what can be known of the past then."""
        ended = (in_utc(moment, "the moment") - self.start) // self.step
        return self._with(self.intensity_gco2e_per_kwh[: max(ended, 0)])

    def between(self, start: datetime, end: datetime) -> IntensitySeries:
        """The steps that lie within `start` to `end`."""
        first = max(-((self.start - in_utc(start, "the start")) // self.step), 0)
        ended = self.known_by(end).intensity_gco2e_per_kwh
        return self._with(ended[first:], self.start + first * self.step)

    def interpolated(self, longest: timedelta = LONGEST_FILLED_GAP) -> IntensitySeries:
        """With every gap of at most `longest` between two known steps filled by a straight line; longer ones stay unknown.

        A filled value leans on the one after the gap. Judge the past by it, but forecast from the series as it was.
        """
        values = self.intensity_gco2e_per_kwh.copy()
        known = np.flatnonzero(np.isfinite(values))
        for before, after in zip(known[:-1], known[1:], strict=True):
            if 1 < after - before <= longest / self.step + 1:
                gap = np.arange(before + 1, after)
                values[gap] = np.interp(gap, [before, after], values[[before, after]])
        return self._with(values)

    def with_step(self, step: timedelta) -> IntensitySeries:
        """The same in steps of another length: means over longer ones, repeated in shorter ones.

        Raises:
            WrongUse: neither length is a multiple of the other.
        """
        if step == self.step:
            return self
        if step < self.step and not self.step % step:
            return IntensitySeries(
                self.start, step, np.repeat(self.intensity_gco2e_per_kwh, self.step // step), self.zone, self.source
            )
        if step % self.step:
            raise WrongUse(
                f"an intensity in steps of {self.step} can't be told in steps of {step}",
                expected="a step that divides the other", fix="Take another step.",
            )  # fmt: skip
        offset = (self.start - _floor(self.start, step)) // self.step
        many = step // self.step
        values = np.concatenate([np.full(offset, np.nan), self.intensity_gco2e_per_kwh])
        rows = np.concatenate([values, np.full(-len(values) % many, np.nan)]).reshape(-1, many)
        return IntensitySeries(_floor(self.start, step), step, _means(rows), self.zone, self.source)

    def _with(self, values: np.ndarray, start: datetime | None = None) -> IntensitySeries:
        return IntensitySeries(start or self.start, self.step, values, self.zone, self.source)


class Provider(Protocol):
    """Who tells a grid's intensity."""

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """The steps from `start` to `end`, as far as they are known.

        Raises:
            NoIntensity: it can't be told now.
            WrongUse: what was asked for, or the file, is wrong.
        """
        ...


@dataclass(frozen=True)
class Constant:
    """The same at any hour, where no more is known: a figure of the year, such as `evergreen.energy.carbon.intensity` gives.

    Attributes:
        gco2e_per_kwh: 0 or more.
    """

    gco2e_per_kwh: float
    zone: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gco2e_per_kwh) and self.gco2e_per_kwh >= 0):
            raise WrongUse(
                "the constant carbon intensity is no intensity", expected="grams of CO2e a kWh, 0 or more",
                received=self.gco2e_per_kwh, fix="Take your grid's figure of last year.",
            )  # fmt: skip

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        first = _floor(in_utc(start, "the start"), HALF_HOUR)
        steps = max((in_utc(end, "the end") - first) // HALF_HOUR, 0)
        return IntensitySeries(first, HALF_HOUR, np.full(steps, float(self.gco2e_per_kwh)), self.zone, "a constant")


@dataclass(frozen=True)
class CsvFile:
    """A file's times and intensities. See `read_csv`."""

    path: Path
    zone: str
    time_zone: str = "UTC"

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        return read_csv(self.path, zone=self.zone, time_zone=self.time_zone).between(start, end)


# A file


def read_csv(path: Path, *, zone: str, time_zone: str = "UTC", step: timedelta = HALF_HOUR) -> IntensitySeries:
    """A CSV file with a header, times in its first column (ISO 8601) and the intensity in the first other column whose name has
    "intensity" in it. A column named "zone" must say `zone` in every row.

    A step of the series is the row that stands at its start, or the mean of those within where none does: so files whose step changes
    on the way, or is shorter, become even (the published experiment takes the rows at :00 and :30 too). Rows further apart
    than a step, such as hourly ones, hold up to the next. Steps without a row are unknown. Rows of one time are averaged.

    Times without an offset are `time_zone`'s. The hour that a clock change repeats is told apart by the order of the rows; the one it
    leaves out is none in UTC.

    Args:
        step: of the series.

    Raises:
        WrongUse: no such file or time zone, nothing in it, or a line that isn't right; it names file, line and value.
    """
    sums: dict[datetime, list[float]] = {}
    for moment, value in _rows(path, zone, _time_zone(time_zone)):
        sums.setdefault(moment, []).append(value)
    if len(sums) < 2:
        raise WrongUse(
            f"{path} tells no carbon intensity", expected="a header and two rows of different times at least", received=len(sums),
            fix="Fetch the file again, or name another.",
        )  # fmt: skip
    moments = sorted(sums)
    if moments[-1] - moments[0] > LONGEST_FILE:
        raise WrongUse(
            f"{path} goes from {moments[0]:%F} to {moments[-1]:%F}", expected=f"{LONGEST_FILE.days // 366} years at most",
            fix="Correct the mistyped year.",
        )  # fmt: skip
    values = _means(_padded([sums[moment] for moment in moments]))
    first = _floor(moments[0], step)
    grid = np.full((moments[-1] - first) // step + 1, np.nan)
    places = np.array([(moment - first) // step for moment in moments])
    aligned = np.array([not (moment - first) % step for moment in moments])
    for chosen in (_within(places, aligned, values), _at_start(places, aligned, values)):
        grid[list(chosen)] = list(chosen.values())
    return IntensitySeries(first, step, _held(grid, moments, step), zone, path.name)


def _rows(path: Path, zone: str, time_zone: ZoneInfo) -> Iterator[tuple[datetime, float]]:
    """Each row's time in UTC and its value, NaN where it has none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(
            f"{path} can't be read", expected="a CSV file in UTF-8", received=str(error), fix="Name another file."
        ) from None
    lines = csv.reader(text.splitlines())
    header = next(lines, [])
    column = next((place for place, name in enumerate(header) if place and "intensity" in name.lower()), None)
    if column is None:
        raise WrongUse(
            f"{path}, line 1: no column for the carbon intensity", expected="a header such as Time,Carbon Intensity", received=header,
            fix="Add the header, or name the column so.",
        )  # fmt: skip
    zone_column = next((place for place, name in enumerate(header) if name.strip().lower() == "zone"), None)
    previous: datetime | None = None
    for row in lines:
        if not any(cell.strip() for cell in row):
            continue
        where = f"{path}, line {lines.line_num}"
        cells = [cell.strip() for cell in row] + [""] * (len(header) - len(row))
        if zone_column is not None and cells[zone_column] != zone:
            raise WrongUse(
                f"{where}: of another zone",
                expected=zone,
                received=cells[zone_column],
                fix="Take the file of your grid's zone.",
            )
        previous = _moment(cells[0], time_zone, previous, where)
        yield previous, _value(cells[column], where)


def _moment(text: str, time_zone: ZoneInfo, previous: datetime | None, where: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUse(
            f"{where}: not a time", expected="one such as 2020-01-31 13:30:00", received=text, fix="Write it by ISO 8601."
        ) from None
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    local = moment.replace(tzinfo=time_zone)
    told = local.astimezone(UTC)
    if told.astimezone(time_zone).replace(tzinfo=None) != moment:
        raise WrongUse(
            f"{where}: {time_zone.key} has no such time, its clocks were put forward then", received=text,
            fix="Name the time zone that the file is really in; many are in UTC.",
        )  # fmt: skip
    # Of a repeated hour, the first pass comes first in the file: a time that isn't after the row before is of the second pass.
    return local.replace(fold=1).astimezone(UTC) if previous is not None and told <= previous else told


def _value(text: str, where: str) -> float:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise WrongUse(
            f"{where}: not a number", expected="grams of CO2e a kWh", received=text, fix="Correct or empty the cell."
        )
    if value < 0:
        raise WrongUse(
            f"{where}: a negative carbon intensity", expected="0 or more", received=value,
            fix="Correct the value, or empty the cell where it is unknown.",
        )  # fmt: skip
    return value


def _within(places: np.ndarray, aligned: np.ndarray, values: np.ndarray) -> dict[int, float]:
    """Of each step the mean of the known rows that don't stand at its start."""
    use = ~aligned & np.isfinite(values)
    used, inverse = np.unique(places[use], return_inverse=True)
    means = np.bincount(inverse, values[use]) / np.maximum(np.bincount(inverse), 1)
    return dict(zip(used.tolist(), means.tolist(), strict=True))


def _at_start(places: np.ndarray, aligned: np.ndarray, values: np.ndarray) -> dict[int, float]:
    """Of each step the known row that stands at its start."""
    use = aligned & np.isfinite(values)
    return dict(zip(places[use].tolist(), values[use].tolist(), strict=True))


def _held(grid: np.ndarray, moments: list[datetime], step: timedelta) -> np.ndarray:
    """With each row held for as long as rows are usually apart: an hourly row is of the whole hour."""
    import pandas as pd

    apart, times = np.unique(np.diff(np.array(moments, dtype="O")), return_counts=True)
    more = int(apart[np.argmax(times)] / step) - 1
    return pd.Series(grid).ffill(limit=more).to_numpy() if 0 < more <= LONGEST_FILLED_GAP / step else grid


# HTTP

Points = dict[datetime, float]  # when a step starts, in UTC: its gCO2e/kWh, NaN where unknown
_UNREADABLE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    RecursionError,
)  # what reading any other JSON raises


@dataclass(frozen=True)
class Http:
    """How a service is asked: with time-outs, again after a while where that may help, and never twice for what is known.

    Attributes:
        base_url: of the service.
        cache: folder in which answers are kept.
        timeout_seconds: for connecting, and for each wait for more of the answer.
        retries: after a failure that may pass: no connection, 429, 500, 502, 503, 504.
        pause_seconds: before the first retry but one; it doubles from one to the next.
        headers: sent along and never shown or kept, since a token is among them.
    """

    base_url: str
    cache: Path
    timeout_seconds: float = 10.0
    retries: int = 3
    pause_seconds: float = 1.0
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def get(self, path: str, read: Callable[[Any], Points], *, keep_seconds: float) -> Points:
        """What `read` makes of the JSON at `path`, from the cache where an answer is younger than `keep_seconds`. Only what could
        be read, and told something, is kept.

        Raises:
            NoIntensity: no answer, an error, or one that isn't as expected.
        """
        url = f"{self.base_url.rstrip('/')}{path}"
        kept = self.cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
        with contextlib.suppress(OSError, *_UNREADABLE):  # none yet, or half of one: ask
            if time.time() - kept.stat().st_mtime < keep_seconds:
                return read(json.loads(kept.read_bytes()))
        body = self._ask(url)
        try:
            points = read(json.loads(body))
        except _UNREADABLE:
            raise NoIntensity(f"the answer of {url} is not as expected", received=body[:80], fix=_LATER) from None
        if points:
            with contextlib.suppress(OSError):  # a full disk is no reason to do without the answer
                replace_file(kept, body)
        return points

    def _ask(self, url: str) -> bytes:
        # requests for its retries by urllib3: of a status too, with a longer pause each time; httpx has those of connecting only.
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.exceptions import HTTPError
        from urllib3.util.retry import Retry

        retry = Retry(
            total=self.retries, backoff_factor=self.pause_seconds, status_forcelist=(429, 500, 502, 503, 504),
            raise_on_status=False, respect_retry_after_header=False,  # it may ask for hours; a start that waits for it is lost
        )  # fmt: skip
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            try:
                # No redirects: they would carry the token to another host.
                answer = session.get(
                    url, headers=self.headers, timeout=self.timeout_seconds, allow_redirects=False, stream=True
                )
                arriving = iter(lambda: answer.raw.read1(65536, decode_content=True), b"")
                body = _at_most(arriving, self.timeout_seconds)
            except (requests.RequestException, HTTPError) as error:
                raise NoIntensity(f"{url} does not answer", received=type(error).__name__, fix=_LATER) from None
        if answer.status_code in (401, 403):
            raise NoIntensity(f"{url} refuses the token", received=answer.status_code, fix=f"Set {TOKEN} to a valid one.")
        if answer.status_code != 200 or body is None:
            raise NoIntensity(
                f"{url} gave no answer that is of use",
                expected="status 200 and some kB",
                received=answer.status_code,
                fix=_LATER,
            )
        return body


def _at_most(chunks: Iterator[bytes], seconds: float, limit_bytes: int = 20_000_000) -> bytes | None:
    """The whole answer; None where it is endless, or drips."""
    started, body = time.monotonic(), b""
    for chunk in chunks:
        body += chunk
        if len(body) > limit_bytes or time.monotonic() - started > seconds:
            return None
    return body


@dataclass(frozen=True)
class ElectricityMaps:
    """Electricity Maps, https://portal.electricitymaps.com/docs/api, version 3: life-cycle intensity, hourly.

    Its token is read from the environment variable ELECTRICITYMAPS_TOKEN at each question, and kept nowhere.
    """

    zone: str
    cache: Path
    base_url: str = "https://api.electricitymap.org"
    timeout_seconds: float = 10.0
    pause_seconds: float = 1.0

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        token = os.environ.get(TOKEN, "")
        if not token:
            raise WrongUse(
                f"{TOKEN} is not set", expected="a token of Electricity Maps", fix="Set it, or take another provider."
            )
        http = Http(
            self.base_url, self.cache, self.timeout_seconds, pause_seconds=self.pause_seconds, headers={"auth-token": token}
        )
        points: Points = {}
        for first, last, keep_seconds in _pieces(start, end, timedelta(days=10)):  # the most it gives at once
            path = f"/v3/carbon-intensity/past-range?zone={quote(self.zone)}&start={_minute(first)}&end={_minute(last)}"
            points |= http.get(path, self._points, keep_seconds=keep_seconds)
        return _even(points, timedelta(hours=1), start, end, self.zone, "Electricity Maps")

    def _points(self, answer: Any) -> Points:
        other = next((row["zone"] for row in answer["data"] if row.get("zone", self.zone) != self.zone), None)
        if other is not None:
            raise NoIntensity("Electricity Maps told another zone", expected=self.zone, received=other, fix="Correct the zone.")
        return {_told_time(row["datetime"]): _told(row["carbonIntensity"]) for row in answer["data"]}


@dataclass(frozen=True)
class GreatBritain:
    """The national Carbon Intensity API of Great Britain, https://carbon-intensity.github.io/api-definitions: what was emitted, by
    half hours, of generation and imports; its own forecast is not used."""

    cache: Path
    base_url: str = "https://api.carbonintensity.org.uk"
    timeout_seconds: float = 10.0
    pause_seconds: float = 1.0
    zone: str = field(default="GB", init=False)

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        http = Http(self.base_url, self.cache, self.timeout_seconds, pause_seconds=self.pause_seconds)
        points: Points = {}
        for first, last, keep_seconds in _pieces(start, end, timedelta(days=10)):  # it gives at most 14 at once
            path = f"/intensity/{_minute(first)}/{_minute(last)}"
            points |= http.get(path, self._points, keep_seconds=keep_seconds)
        return _even(points, HALF_HOUR, start, end, self.zone, "GB Carbon Intensity API")

    def _points(self, answer: Any) -> Points:
        return {_told_time(row["from"]): _told(row["intensity"]["actual"]) for row in answer["data"]}


TOKEN = "ELECTRICITYMAPS_TOKEN"
_LATER = "Try again later, or take another provider; until then work starts at once."
_KEEP_RECENT_SECONDS = 10 * 60.0  # a new value comes every half hour or hour
_KEEP_PAST_SECONDS = 30 * 24 * 3600.0
_SETTLED = timedelta(days=2)  # after which a past value is seldom corrected


def _pieces(start: datetime, end: datetime, longest: timedelta) -> Iterator[tuple[datetime, datetime, float]]:
    """Start and end of each question and the seconds to keep its answer. The pieces begin on fixed days, whatever `start` is, so
    that tomorrow's questions about last month are today's, and are answered by the cache."""
    now = datetime.now(UTC)
    first, end = _floor(in_utc(start, "the start"), longest), min(in_utc(end, "the end"), now)
    while first < end:
        last = first + longest
        settled = last + _SETTLED < now
        yield first, last, _KEEP_PAST_SECONDS if settled else _KEEP_RECENT_SECONDS
        first = last


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}"


def _told_time(text: str) -> datetime:
    """A time out of an answer; services mean UTC where they don't say."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _told(value: Any) -> float:
    """A value out of an answer. Nonsense is unknown: one bad hour of a service is no reason to do without the others."""
    number = float(value) if isinstance(value, (int, float)) else math.nan
    return number if math.isfinite(number) and number >= 0 else math.nan


def _even(points: Points, step: timedelta, start: datetime, end: datetime, zone: str, source: str) -> IntensitySeries:
    """The points as a series from `start` to the last known one before `end`."""
    first, last = _floor(in_utc(start, "the start"), step), in_utc(end, "the end")
    inside = {(at - first) // step: value for at, value in points.items() if first <= at < last and math.isfinite(value)}
    if not inside:
        raise NoIntensity(
            f"{source} knows nothing of zone {zone} from {start:%F} to {end:%F}", fix="Correct the zone, or wait."
        )
    values = np.full(max(inside) + 1, np.nan)
    values[list(inside)] = list(inside.values())
    return IntensitySeries(first, step, values, zone, source)


# Small ones


def in_utc(moment: datetime, what: str) -> datetime:
    """Raises:
    WrongUse: it doesn't say in which time zone it is.
    """
    if moment.tzinfo is None:
        raise WrongUse(f"{what} has no time zone", expected="a time with one", received=moment, fix="Add it: tzinfo=UTC.")
    return moment.astimezone(UTC)


def _time_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise WrongUse(
            "there is no such time zone", expected="a name such as UTC or Europe/Berlin", received=name, fix="Correct it."
        ) from None


def _floor(moment: datetime, step: timedelta) -> datetime:
    """The last moment up to `moment` that is a whole number of steps after 1970."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (moment - epoch) // step * step


def _padded(lists: list[list[float]]) -> np.ndarray:
    longest = max(map(len, lists))
    return np.array([values + [math.nan] * (longest - len(values)) for values in lists])


def _means(rows: np.ndarray) -> np.ndarray:
    """Of each row the mean of what is known, NaN where nothing is."""
    known = np.isfinite(rows)
    sums, counts = np.where(known, rows, 0).sum(1), known.sum(1)
    return np.divide(sums, counts, out=np.full(len(rows), np.nan), where=counts > 0)
