"""A grid's intensity out of a CSV file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from evergreen.errors import WrongUse
from evergreen.planning.intensity.series import HALF_HOUR, LONGEST_FILLED_GAP, IntensitySeries

if TYPE_CHECKING:
    import pandas as pd

LONGEST_FILE = timedelta(days=20 * 366)  # a longer one has a mistyped year in it, and would fill the memory
DATE = r"\d{4}-?\d\d-?\d\d(?:[T ]|$)"  # pandas accepts a year alone, and words such as "now", too
OFFSET = r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$"


@dataclass(frozen=True)
class CsvFile:
    """A file's times and intensities. See `read_csv`."""

    path: Path
    zone: str
    time_zone: str = "UTC"

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        return read_csv(self.path, zone=self.zone, time_zone=self.time_zone).between(start, end)


def read_csv(path: Path, *, zone: str, time_zone: str = "UTC", step: timedelta = HALF_HOUR) -> IntensitySeries:
    """A CSV file with a header, times in its first column (ISO 8601) and the intensity in the first other column whose name has
    "intensity" in it. A column named "zone" must say `zone` in every row.

    A step of the series is the row that stands at its start, or the mean of those within where none does: so files whose step
    changes on the way, or is shorter, become even (the published experiment takes the rows at :00 and :30 too). Rows further
    apart than a step, such as hourly ones, hold up to the next. Steps without a row are unknown. Rows of one time are averaged.

    Times without an offset are `time_zone`'s. The hour that a clock change repeats is resolved by the order of the rows; the
    one it leaves out is none in UTC.

    Args:
        step: of the series.

    Raises:
        WrongUse: no such file or time zone, nothing in it, or a line that isn't right; it names file, line and value.
    """
    import pandas as pd

    rows = _rows(path, zone)
    moments = pd.DatetimeIndex(_moments(rows["time"], _time_zone(time_zone), path))
    by_time = _values(rows["value"], path).set_axis(moments).groupby(level=0).mean()
    if len(by_time) < 2:
        raise WrongUse(
            f"{path} tells no carbon intensity", expected="a header and two rows of different times at least",
            received=len(by_time), fix="Fetch the file again, or name another.",
        )  # fmt: skip
    first, last = by_time.index[0], by_time.index[-1]
    if last - first > LONGEST_FILE:
        raise WrongUse(
            f"{path} goes from {first:%F} to {last:%F}", expected=f"{LONGEST_FILE.days // 366} years at most",
            fix="Correct the mistyped year.",
        )  # fmt: skip
    known = by_time.dropna()
    starts = pd.DatetimeIndex(known.index).floor(step)
    aligned = known.index == starts
    within = known[~aligned].groupby(starts[~aligned]).mean()
    even = known[aligned].combine_first(within).reindex(pd.date_range(first.floor(step), last, freq=step))
    usually_apart = by_time.index.to_series().diff().mode()[0]
    held = int(usually_apart / step) - 1  # an hourly row is of the whole hour
    if 0 < held <= LONGEST_FILLED_GAP / step:
        even = even.ffill(limit=held)
    return IntensitySeries(even.index[0].to_pydatetime(), step, even.to_numpy(), zone, path.name)


def _rows(path: Path, zone: str) -> pd.DataFrame:
    """Columns `time` and `value` as text, indexed by line number."""
    import pandas as pd

    try:
        # Without `usecols` a row that is longer than the header would be an error.
        table = pd.read_csv(
            path, dtype=str, na_filter=False, skip_blank_lines=False, index_col=False, usecols=lambda _: True,
            encoding="utf-8-sig",
        )  # fmt: skip
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except (OSError, ValueError) as error:
        raise WrongUse(
            f"{path} can't be read", expected="a CSV file in UTF-8", received=str(error), fix="Name another file."
        ) from None
    column = next((name for name in table.columns[1:] if "intensity" in name.lower()), None)
    if column is None:
        raise WrongUse(
            f"{path}, line 1: no column for the carbon intensity", expected="a header such as Time,Carbon Intensity",
            received=list(table.columns), fix="Add the header, or name the column so.",
        )  # fmt: skip
    table.index += 2
    table = table.apply(lambda cells: cells.str.strip())
    table = table[(table != "").any(axis=1)]
    zone_column = next((name for name in table.columns if name.strip().lower() == "zone"), None)
    if zone_column is not None:
        zones = table[zone_column]
        _refuse(zones != zone, zones, path, "of another zone", zone, "Take the file of your grid's zone.")
    return pd.DataFrame({"time": table.iloc[:, 0], "value": table[column]})


def _moments(text: pd.Series, time_zone: ZoneInfo, path: Path) -> pd.Series:
    """In UTC. Of an hour that the clocks repeat, the first pass comes first: a time that isn't after the row before it is of
    the second pass."""
    import pandas as pd

    moments = pd.to_datetime(text.where(text.str.match(DATE)), format="ISO8601", errors="coerce", utc=True)
    _refuse(moments.isna(), text, path, "not a time", "one such as 2020-01-31 13:30:00", "Write it by ISO 8601.")
    local = moments[~text.str.contains(OFFSET)].dt.tz_localize(None)

    def of_pass(summer: bool) -> pd.Series:
        passes = np.full(len(local), summer)
        return local.dt.tz_localize(time_zone, ambiguous=passes, nonexistent="NaT").dt.tz_convert("UTC")

    first, second = of_pass(summer=True), of_pass(summer=False)
    _refuse(
        first.isna(), text[local.index], path, f"{time_zone.key} has no such time, its clocks were put forward then", "",
        "Name the time zone that the file is really in; many are in UTC.",
    )  # fmt: skip
    moments[local.index] = first
    for line in first.index[first != second]:
        before = moments.loc[: line - 1]
        if len(before) and first[line] <= before.iloc[-1]:
            moments[line] = second[line]
    return moments


def _values(text: pd.Series, path: Path) -> pd.Series:
    """float64; NaN where the cell is empty or says so."""
    import pandas as pd

    given = text.where(~text.str.lower().isin(["", "nan"]))
    numbers = pd.to_numeric(given, errors="coerce")
    wrong = given.notna() & ~np.isfinite(numbers)
    _refuse(wrong, text, path, "not a number", "grams of CO2e a kWh", "Correct or empty the cell.")
    values = given.astype(float)  # exactly the written number, which `to_numeric` does not always give
    _refuse(
        values < 0, values, path, "a negative carbon intensity", "0 or more",
        "Correct the value, or empty the cell where it is unknown.",
    )  # fmt: skip
    return values


def _refuse(wrong: pd.Series, cells: pd.Series, path: Path, happened: str, expected: str, fix: str) -> None:
    """
    Raises:
        WrongUse: for the first line that is wrong.
    """
    if wrong.any():
        line = wrong.index[wrong][0]
        raise WrongUse(f"{path}, line {line}: {happened}", expected=expected, received=cells.astype(object)[line], fix=fix)


def _time_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise WrongUse(
            "there is no such time zone", expected="a name such as UTC or Europe/Berlin", received=name, fix="Correct it."
        ) from None
