"""Times as tables write them, and what is done where a clock is changed."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from evergreen.errors import BadItem

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Clock:
    """Reads the times of one table.

    A time with an offset, such as 2026-03-29T01:00+01:00, is exact. One without is taken as the clock of the zone shows it, or,
    if there is none, as one that is never changed. Of an hour that a zone has twice, in autumn, the first time that a series
    has it is in summer time, and the second in winter time; one that a zone leaves out, in spring, is refused. A table has
    times of one of the two forms: of both, those unlike the first are refused, since the difference between them would be a
    guess."""

    def __init__(self, form: str | None, zone: str | None) -> None:
        """
        Args:
            form: of the times, for `datetime.strptime`; None: ISO 8601.
            zone: IANA name of the zone of times without an offset; None: none.
        """
        self._form, self._zone = form, None if zone is None else ZoneInfo(zone)
        self._has_offset: bool | None = None
        self._ambiguous: set[tuple[str, datetime]] = set()

    def read(self, series: str, written: object) -> int:
        """A time in microseconds since 1970-01-01, UTC (or on a clock that is never changed).

        Args:
            series: that has it.
            written: text, or a date or time of a table that has types.

        Raises:
            BadItem: it cannot be read (`no-time`), it never was (`no-such-time`), or it is of the other form
                (`mixed-time-zones`).
        """
        found = self._parsed(written)
        has_offset = found.tzinfo is not None
        if self._has_offset is None:
            self._has_offset = has_offset
        if has_offset != self._has_offset:
            words = ("no offset", "an offset") if has_offset else ("an offset", "no offset")
            raise BadItem("mixed-time-zones", f"the first time of the table has {words[0]}, and {written} has {words[1]}")
        if not has_offset:
            found = found.replace(tzinfo=UTC) if self._zone is None else self._located(series, found, self._zone)
        return (found.astimezone(UTC) - EPOCH) // MICROSECOND

    def _parsed(self, written: object) -> datetime:
        if isinstance(written, datetime):
            return written
        if isinstance(written, date):
            return datetime.combine(written, time())
        text = "" if written is None else str(written).strip()
        try:
            return datetime.strptime(text, self._form) if self._form else datetime.fromisoformat(text)
        except ValueError:
            like = self._form or "2026-01-31T08:05 (collect.time_format names another form)"
            raise BadItem("no-time", f"{text!r} is no time such as {like}") from None

    def _located(self, series: str, found: datetime, zone: ZoneInfo) -> datetime:
        first, second = found.replace(tzinfo=zone, fold=0), found.replace(tzinfo=zone, fold=1)
        if first.utcoffset() == second.utcoffset():
            return first
        if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != found:
            raise BadItem("no-such-time", f"the clocks of {zone.key} were put forward over {found.isoformat(' ')}")
        if (series, found) in self._ambiguous:
            return second
        self._ambiguous.add((series, found))
        return first


def local_seconds(microseconds: int, zone: ZoneInfo | None) -> int:
    """What the clock of a zone shows at a time, in seconds since 1970-01-01 on that clock.

    Args:
        microseconds: since 1970-01-01, UTC.
        zone: None for a clock that is never changed.
    """
    seconds = microseconds // 1_000_000
    if zone is None:
        return seconds
    offset = datetime.fromtimestamp(seconds, zone).utcoffset()
    assert offset is not None
    return seconds + int(offset.total_seconds())
