"""What services that give a grid's intensity have in common: how they are asked, and how points of time become a series."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.planning.intensity.provider import NoIntensity
from evergreen.planning.intensity.series import IntensitySeries, floor, in_utc
from evergreen.workspace import replace_file

Points = dict[datetime, float]  # when a step starts, in UTC: its gCO2e/kWh, NaN where unknown
# What reading any other JSON raises.
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)
LATER = "Try again later, or take another provider; until then work starts at once."
KEEP_RECENT_SECONDS = 10 * 60.0  # a new value comes every half hour or hour
KEEP_PAST_SECONDS = 30 * 24 * 3600.0
LONGEST_QUESTION = timedelta(days=10)  # Electricity Maps gives no more at once, Great Britain 14 days
SETTLED = timedelta(days=2)  # after which a past value is seldom corrected


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
        if_refused: what to do where the service refuses the token, or its absence.
    """

    base_url: str
    cache: Path
    timeout_seconds: float = 10.0
    retries: int = 3
    pause_seconds: float = 1.0
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    if_refused: str = LATER

    def points(self, path: str, start: datetime, end: datetime, read: Callable[[Any], Points]) -> Points:
        """What the service knows from `start` to `end`, asked for in pieces.

        Args:
            path: of a question, with `{start}` and `{end}`.
            read: makes points of the JSON of an answer.

        Raises:
            NoIntensity: as `get`.
        """
        points: Points = {}
        for first, last, keep_seconds in _pieces(start, end):
            question = path.format(start=f"{first:%Y-%m-%dT%H:%MZ}", end=f"{last:%Y-%m-%dT%H:%MZ}")
            points |= self.get(question, read, keep_seconds=keep_seconds)
        return points

    def get(self, path: str, read: Callable[[Any], Points], *, keep_seconds: float) -> Points:
        """What `read` makes of the JSON at `path`, from the cache where an answer is younger than `keep_seconds`. Only what
        could be read, and is not empty, is kept.

        Raises:
            NoIntensity: no answer, an error, or one that isn't as expected.
        """
        url = f"{self.base_url.rstrip('/')}{path}"
        kept = self.cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
        with contextlib.suppress(OSError, *UNREADABLE):  # none yet, or half of one: ask
            if time.time() - kept.stat().st_mtime < keep_seconds:
                return read(json.loads(kept.read_bytes()))
        body = self._ask(url)
        try:
            points = read(json.loads(body))
        except UNREADABLE:
            raise NoIntensity(f"the answer of {url} is not as expected", received=body[:80], fix=LATER) from None
        if points:
            with contextlib.suppress(OSError):  # a full disk is no reason to do without the answer
                replace_file(kept, body)
        return points

    def _ask(self, url: str) -> bytes:
        # requests for its retries by urllib3: of a status too, with a longer pause each time; httpx has those of connecting
        # only.
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
                raise NoIntensity(f"{url} does not answer", received=type(error).__name__, fix=LATER) from None
        if answer.status_code in (401, 403):
            raise NoIntensity(f"{url} refuses the token", received=answer.status_code, fix=self.if_refused)
        if answer.status_code != 200 or body is None:
            raise NoIntensity(
                f"{url} gave no answer that is of use",
                expected="status 200 and some kB",
                received=answer.status_code,
                fix=LATER,
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


def _pieces(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, float]]:
    """Start and end of each question and the seconds to keep its answer. The pieces begin on fixed days, whatever `start` is,
    so that tomorrow's questions about last month are today's, and are answered by the cache."""
    now = datetime.now(UTC)
    first, end = floor(in_utc(start, "the start"), LONGEST_QUESTION), min(in_utc(end, "the end"), now)
    while first < end:
        last = first + LONGEST_QUESTION
        settled = last + SETTLED < now
        yield first, last, KEEP_PAST_SECONDS if settled else KEEP_RECENT_SECONDS
        first = last


def moment_of(text: str) -> datetime:
    """A time out of an answer; services mean UTC where they don't say."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def value_of(value: Any) -> float:
    """A value out of an answer. Nonsense is unknown: one bad hour of a service is no reason to do without the others."""
    number = float(value) if isinstance(value, (int, float)) else math.nan
    return number if math.isfinite(number) and number >= 0 else math.nan


def even(points: Points, step: timedelta, start: datetime, end: datetime, zone: str, source: str) -> IntensitySeries:
    """The points as a series from `start` to the last known one before `end`."""
    first, last = floor(in_utc(start, "the start"), step), in_utc(end, "the end")
    inside = {(at - first) // step: value for at, value in points.items() if first <= at < last and math.isfinite(value)}
    if not inside:
        raise NoIntensity(
            f"{source} knows nothing of zone {zone} from {start:%F} to {end:%F}", fix="Correct the zone, or wait."
        )
    values = np.full(max(inside) + 1, np.nan)
    values[list(inside)] = list(inside.values())
    return IntensitySeries(first, step, values, zone, source)
