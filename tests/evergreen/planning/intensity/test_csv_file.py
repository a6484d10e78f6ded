"""A grid's intensity out of files as they come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evergreen.errors import WrongUse
from evergreen.planning.intensity.csv_file import CsvFile, read_csv
from evergreen.planning.intensity.series import HALF_HOUR
from tests.evergreen.planning.intensity import DAY, HOUR, MONDAY, values_of


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a CSV file of these lines below a header."""

    def write(*lines: str, header: str = "Time,Carbon Intensity") -> Path:
        path = tmp_path / "grid.csv"
        path.write_text("\n".join([header, *lines]) + "\n")
        return path

    return write


def test_a_file_is_read_as_half_hours(written: Callable[..., Path]) -> None:
    found = read_csv(written("2020-06-01 00:00:00,100", "2020-06-01T00:30:00Z,110.5", "2020-06-01 03:00+02:00,120"), zone="DE")
    assert values_of(found) == [100, 110.5, 120]
    assert (found.start, found.step, found.zone, found.source) == (MONDAY, HALF_HOUR, "DE", "grid.csv")


def test_a_step_that_changes_inside_the_file_becomes_even(written: Callable[..., Path]) -> None:
    lines = [f"2020-06-01 {minutes // 60:02}:{minutes % 60:02},{minutes}" for minutes in (0, 30, 60, 75, 90, 105, 120, 150)]
    assert values_of(read_csv(written(*lines), zone="GB")) == [0, 30, 60, 90, 120, 150]


def test_where_no_row_stands_at_a_steps_start_the_mean_of_those_within_it_is_taken(written: Callable[..., Path]) -> None:
    lines = ["2020-06-01 00:00,1", "2020-06-01 00:30,2", "2020-06-01 01:10,4", "2020-06-01 01:20,6", "2020-06-01 01:30,3"]
    assert values_of(read_csv(written(*lines), zone="GB")) == [1, 2, 5, 3]


def test_an_hourly_row_is_of_the_whole_hour(written: Callable[..., Path]) -> None:
    lines = ["2020-06-01 00:00,1", "2020-06-01 01:00,2", "2020-06-01 02:00,", "2020-06-01 03:00,4", "2020-06-01 04:00,5"]
    assert values_of(read_csv(written(*lines), zone="DE")) == [1, 1, 2, 2, None, None, 4, 4, 5]


@pytest.mark.parametrize("unknown", ["", "NaN", "nan", " "])
def test_what_is_not_known_and_what_is_missing_is_unknown_and_never_0(written: Callable[..., Path], unknown: str) -> None:
    lines = [
        "2020-06-01 00:00,1",
        f"2020-06-01 00:30,{unknown}",
        "2020-06-01 01:00,3",
        "2020-06-01 02:00,4",
        "2020-06-01 02:30,4",
    ]
    assert values_of(read_csv(written(*lines), zone="DE")) == [1, None, 3, None, 4, 4]


def test_rows_may_come_in_any_order_and_twice(written: Callable[..., Path]) -> None:
    lines = ["2020-06-01 01:00,3", "2020-06-01 00:00,1", "2020-06-01 00:30,2", "", "2020-06-01 01:00,5"]
    assert values_of(read_csv(written(*lines), zone="DE")) == [1, 2, 4]


def local_rows(first: datetime, hours: list[float]) -> list[str]:
    """Hours written by a clock on the wall."""
    return [f"{first + hour * HOUR:%F %H:%M},{place}" for place, hour in enumerate(hours)]


def test_the_hour_that_the_clocks_repeat_in_autumn_is_two_hours(written: Callable[..., Path]) -> None:
    path = written(*local_rows(datetime(2020, 10, 25), [0, 0.5, 1, 1.5, 2, 2.5, 2, 2.5, 3, 3.5]))
    found = read_csv(path, zone="DE", time_zone="Europe/Berlin")
    assert values_of(found) == list(range(10)) and found.start == datetime(2020, 10, 24, 22, tzinfo=UTC)


def test_the_hour_that_the_clocks_leave_out_in_spring_is_no_gap(written: Callable[..., Path]) -> None:
    path = written(*local_rows(datetime(2020, 3, 29), [0.5, 1, 1.5, 3, 3.5]))
    assert values_of(read_csv(path, zone="DE", time_zone="Europe/Berlin")) == list(range(5))


def test_a_time_that_its_zones_clocks_never_showed_is_refused_with_its_line(written: Callable[..., Path]) -> None:
    path = written(*local_rows(datetime(2020, 3, 29), [1, 1.5, 2, 2.5]))
    with pytest.raises(
        WrongUse, match=r"grid.csv, line 4: Europe/Berlin has no such time.*'2020-03-29 02:00'.*many are in UTC"
    ):
        read_csv(path, zone="DE", time_zone="Europe/Berlin")


def test_a_wall_clocks_file_that_is_taken_for_utc_is_read_with_a_mean_and_a_gap(written: Callable[..., Path]) -> None:
    autumn = read_csv(written(*local_rows(datetime(2020, 10, 25), [1.5, 2, 2.5, 2, 2.5, 3])), zone="DE")
    spring = read_csv(written(*local_rows(datetime(2020, 3, 29), [0.5, 1, 1.5, 3, 3.5])), zone="DE")
    assert values_of(autumn) == [0, 2, 3, 5] and values_of(spring) == [0, 1, 2, None, None, 3, 4]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["2020-06-01 00:00,5", "2020-06-01 00:30,-3.5"], "line 3: a negative carbon intensity.*got -3.5.*empty the cell"),
        (["2020-06-01 00:00,many"], "line 2: not a number.*got 'many'.*Correct or empty"),
        (["2020-06-01 00:00,inf"], "line 2: not a number"),
        (["01/06/2020,5"], "line 2: not a time.*such as 2020-01-31 13:30:00.*got '01/06/2020'"),
        ([], "tells no carbon intensity.*two rows"),
        (["2020-06-01 00:00,5"], "tells no carbon intensity.*two rows"),
        (["2020-06-01 00:00,5", "9020-06-01 00:30,5"], "goes from 2020-06-01 to 9020-06-01.*mistyped year"),
    ],
)
def test_a_line_that_is_not_right_is_reported_with_file_value_and_remedy(
    written: Callable[..., Path], lines: list[str], message: str
) -> None:
    with pytest.raises(WrongUse, match=f"grid.csv.*{message}"):
        read_csv(written(*lines), zone="DE")


def test_a_file_of_another_zone_is_refused(written: Callable[..., Path]) -> None:
    path = written("2020-06-01 00:00,DE,1", "2020-06-01 00:30,FR,2", header="time,zone,intensity_gco2e_per_kwh")
    with pytest.raises(WrongUse, match="line 3: of another zone; expected DE; got 'FR'"):
        read_csv(path, zone="DE")


def test_a_file_without_content_header_or_existence_is_refused(written: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for path, message in (
        (tmp_path / "empty.csv", "line 1: no column for the carbon intensity"),
        (written("1,2", header="a,b"), r"line 1: no column.*got \['a', 'b'\]"),
        (tmp_path / "none.csv", "can't be read"),
        (tmp_path / "bytes.csv", "can't be read.*UTF-8"),
    ):
        with pytest.raises(WrongUse, match=message):
            read_csv(path, zone="DE")


@pytest.mark.parametrize("name", ["Mars/Base", "", "../etc"])
def test_a_time_zone_that_is_none_is_refused(written: Callable[..., Path], name: str) -> None:
    with pytest.raises(WrongUse, match="there is no such time zone"):
        CsvFile(written("2020-06-01 00:00,5"), "DE", name).history(MONDAY, MONDAY + DAY)


@pytest.mark.samples
@pytest.mark.parametrize("file", ["ger.csv", "gb.csv"])
def test_of_the_published_files_whose_steps_change_the_half_hours_are_taken(samples: Path, file: str) -> None:
    import pandas as pd

    rows = pd.read_csv(samples / "carbon-intensity" / file, parse_dates=["Time"])
    half_hours = rows[rows["Time"].dt.minute % 30 == 0]
    found = read_csv(samples / "carbon-intensity" / file, zone="any")
    assert found.start == datetime(2019, 12, 20, tzinfo=UTC)
    assert found.intensity_gco2e_per_kwh == pytest.approx(half_hours["Carbon Intensity"].to_numpy(), rel=1e-12)
