"""What a grid emits over time: files as they come, and services that answer, fail, or talk nonsense (a real server on loopback)."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.errors import WrongUse
from evergreen.planning.intensity.series import (
    HALF_HOUR,
    Constant,
    CsvFile,
    ElectricityMaps,
    GreatBritain,
    IntensitySeries,
    NoIntensity,
    read_csv,
)

MONDAY = datetime(2020, 6, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NAN = float("nan")


def series(*values: float, start: datetime = MONDAY, step: timedelta = HALF_HOUR) -> IntensitySeries:
    return IntensitySeries(start, step, np.array(values, float), "DE", "made up")


def told(found: IntensitySeries) -> list[float | None]:
    """Its values, None where unknown."""
    return [None if np.isnan(value) else float(value) for value in found.intensity_gco2e_per_kwh]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a CSV file of these lines below a header."""

    def write(*lines: str, header: str = "Time,Carbon Intensity") -> Path:
        path = tmp_path / "grid.csv"
        path.write_text("\n".join([header, *lines]) + "\n")
        return path

    return write


# The series


def test_of_the_past_only_steps_that_have_ended_are_known() -> None:
    grid = series(1, 2, 3)
    assert told(grid.known_by(MONDAY + timedelta(minutes=59))) == [1]
    assert told(grid.known_by(MONDAY + timedelta(minutes=60))) == [1, 2]
    assert told(grid.known_by(MONDAY - DAY)) == []
    assert told(grid.known_by(MONDAY + DAY)) == [1, 2, 3]


def test_a_part_of_a_series_begins_with_its_first_whole_step() -> None:
    part = series(1, 2, 3, 4).between(MONDAY + timedelta(minutes=10), MONDAY + timedelta(minutes=90))
    assert told(part) == [2, 3] and part.start == MONDAY + HALF_HOUR


def test_a_short_gap_is_filled_by_a_straight_line_and_a_long_one_stays_unknown() -> None:
    grid = series(NAN, 1, NAN, NAN, 4, *[NAN] * 7, 5, NAN)
    assert told(grid.interpolated(3 * HOUR)) == [None, 1, 2, 3, 4, *[None] * 7, 5, None]
    assert told(grid)[2] is None  # and the series itself is as it was
    assert None not in told(grid.interpolated(3.5 * HOUR))[1:-1]


def test_steps_can_be_joined_to_means_and_cut_to_equals() -> None:
    assert told(series(1, 3, 5, NAN).with_step(HOUR)) == [2, 5]
    assert told(series(1, 3, step=HOUR).with_step(HALF_HOUR)) == [1, 1, 3, 3]
    assert told(series(1, 3, 5, start=MONDAY + HALF_HOUR).with_step(HOUR)) == [1, 4]
    with pytest.raises(WrongUse, match="in steps of 0:30:00 can't be told in steps of 0:45:00"):
        series(1).with_step(timedelta(minutes=45))


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=50), st.integers(1, 6))
def test_cutting_steps_and_joining_them_again_changes_nothing(values: list[float], parts: int) -> None:
    grid = series(*values, step=HOUR)
    assert np.allclose(grid.with_step(HOUR / parts).with_step(HOUR).intensity_gco2e_per_kwh, values)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(WrongUse, match="has no time zone"):
        series(1, start=datetime(2020, 6, 1))


# Files


def test_a_file_is_read_as_half_hours(written: Callable[..., Path]) -> None:
    found = read_csv(written("2020-06-01 00:00:00,100", "2020-06-01T00:30:00Z,110.5", "2020-06-01 03:00+02:00,120"), zone="DE")
    assert told(found) == [100, 110.5, 120]
    assert (found.start, found.step, found.zone, found.source) == (MONDAY, HALF_HOUR, "DE", "grid.csv")


def test_a_step_that_changes_inside_the_file_becomes_even(written: Callable[..., Path]) -> None:
    lines = [f"2020-06-01 {minutes // 60:02}:{minutes % 60:02},{minutes}" for minutes in (0, 30, 60, 75, 90, 105, 120, 150)]
    assert told(read_csv(written(*lines), zone="GB")) == [0, 30, 60, 90, 120, 150]


def test_where_no_row_stands_at_a_steps_start_the_mean_of_those_within_it_is_taken(written: Callable[..., Path]) -> None:
    lines = ["2020-06-01 00:00,1", "2020-06-01 00:30,2", "2020-06-01 01:10,4", "2020-06-01 01:20,6", "2020-06-01 01:30,3"]
    assert told(read_csv(written(*lines), zone="GB")) == [1, 2, 5, 3]


def test_an_hourly_row_is_of_the_whole_hour(written: Callable[..., Path]) -> None:
    lines = ["2020-06-01 00:00,1", "2020-06-01 01:00,2", "2020-06-01 02:00,", "2020-06-01 03:00,4", "2020-06-01 04:00,5"]
    assert told(read_csv(written(*lines), zone="DE")) == [1, 1, 2, 2, None, None, 4, 4, 5]


@pytest.mark.parametrize("unknown", ["", "NaN", "nan", " "])
def test_what_is_not_known_and_what_is_missing_is_unknown_and_never_0(written: Callable[..., Path], unknown: str) -> None:
    lines = [
        "2020-06-01 00:00,1",
        f"2020-06-01 00:30,{unknown}",
        "2020-06-01 01:00,3",
        "2020-06-01 02:00,4",
        "2020-06-01 02:30,4",
    ]
    assert told(read_csv(written(*lines), zone="DE")) == [1, None, 3, None, 4, 4]


def test_rows_may_come_in_any_order_and_twice(written: Callable[..., Path]) -> None:
    lines = ["2020-06-01 01:00,3", "2020-06-01 00:00,1", "2020-06-01 00:30,2", "", "2020-06-01 01:00,5"]
    assert told(read_csv(written(*lines), zone="DE")) == [1, 2, 4]


def local_rows(first: datetime, hours: list[float]) -> list[str]:
    """Hours written by a clock on the wall."""
    return [f"{first + hour * HOUR:%F %H:%M},{place}" for place, hour in enumerate(hours)]


def test_the_hour_that_the_clocks_repeat_in_autumn_is_two_hours(written: Callable[..., Path]) -> None:
    path = written(*local_rows(datetime(2020, 10, 25), [0, 0.5, 1, 1.5, 2, 2.5, 2, 2.5, 3, 3.5]))
    found = read_csv(path, zone="DE", time_zone="Europe/Berlin")
    assert told(found) == list(range(10)) and found.start == datetime(2020, 10, 24, 22, tzinfo=UTC)


def test_the_hour_that_the_clocks_leave_out_in_spring_is_no_gap(written: Callable[..., Path]) -> None:
    path = written(*local_rows(datetime(2020, 3, 29), [0.5, 1, 1.5, 3, 3.5]))
    assert told(read_csv(path, zone="DE", time_zone="Europe/Berlin")) == list(range(5))


def test_a_time_that_its_zones_clocks_never_showed_is_refused_with_its_line(written: Callable[..., Path]) -> None:
    path = written(*local_rows(datetime(2020, 3, 29), [1, 1.5, 2, 2.5]))
    with pytest.raises(
        WrongUse, match=r"grid.csv, line 4: Europe/Berlin has no such time.*'2020-03-29 02:00'.*many are in UTC"
    ):
        read_csv(path, zone="DE", time_zone="Europe/Berlin")


def test_a_wall_clocks_file_that_is_taken_for_utc_is_read_with_a_mean_and_a_gap(written: Callable[..., Path]) -> None:
    autumn = read_csv(written(*local_rows(datetime(2020, 10, 25), [1.5, 2, 2.5, 2, 2.5, 3])), zone="DE")
    spring = read_csv(written(*local_rows(datetime(2020, 3, 29), [0.5, 1, 1.5, 3, 3.5])), zone="DE")
    assert told(autumn) == [0, 2, 3, 5] and told(spring) == [0, 1, 2, None, None, 3, 4]


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
def test_a_line_that_is_not_right_is_told_with_file_value_and_remedy(
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


# A constant


def test_a_constant_is_the_same_at_any_hour() -> None:
    assert told(Constant(380, "DE").history(MONDAY, MONDAY + 2 * HOUR)) == [380] * 4


@pytest.mark.parametrize("value", [-1.0, NAN, float("inf")])
def test_a_constant_that_is_no_intensity_is_refused(value: float) -> None:
    with pytest.raises(WrongUse, match="is no intensity"):
        Constant(value, "DE")


# Services


class Service:
    """A server on loopback that answers as told: `answers` are statuses, bytes, "hang" or "drip"; the last one goes on for ever.

    Without answers it tells half hours, or hours, of the intensity 100, 101, … of what it is asked for.
    """

    def __init__(self) -> None:
        self.answers: list[int | bytes | str] = []
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.closing = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(self.path)
                service.tokens.append(self.headers.get("auth-token"))
                answer = service.next()
                if answer is None:
                    answer = service.true_answer(self.path)
                if answer == "hang":
                    service.closing.wait(30)
                    return
                if answer == "drip":
                    self.drip()
                    return
                body = answer if isinstance(answer, bytes) else b"{}"
                self.send_response(answer if isinstance(answer, int) else 200)
                if answer == 302:
                    self.send_header("Location", f"{service.url}/elsewhere")
                if answer == 429:
                    self.send_header("Retry-After", "3600")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def drip(self) -> None:
                """A byte now and then, often enough for every time-out of a single read."""
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for _ in range(1000):
                        self.wfile.write(b" ")
                        if service.closing.wait(0.02):
                            break

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def next(self) -> int | bytes | str | None:
        if len(self.answers) > 1:
            return self.answers.pop(0)
        return self.answers[0] if self.answers else None

    @staticmethod
    def true_answer(path: str) -> bytes:
        if path.startswith("/intensity/"):
            first, last = map(datetime.fromisoformat, path.split("/")[2:])
            rows = [
                {"from": f"{at:%Y-%m-%dT%H:%MZ}", "intensity": {"forecast": 1, "actual": 100 + place, "index": "low"}}
                for place, at in enumerate(_times(first, last, HALF_HOUR))
            ]
            return json.dumps({"data": rows}).encode()
        query = parse_qs(urlparse(path).query)
        first, last = (datetime.fromisoformat(query[name][0]) for name in ("start", "end"))
        hours = [
            {"zone": query["zone"][0], "carbonIntensity": 100 + place, "datetime": f"{at:%Y-%m-%dT%H:%M:%S.000Z}"}
            for place, at in enumerate(_times(first, last, HOUR))
        ]
        return json.dumps({"zone": query["zone"][0], "data": hours}).encode()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _times(first: datetime, last: datetime, step: timedelta) -> list[datetime]:
    return [first + place * step for place in range((last - first) // step)]


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRICITYMAPS_TOKEN", "the-secret-token")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(params=["Electricity Maps", "Great Britain"])
def provider(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> ElectricityMaps | GreatBritain:
    if request.param == "Great Britain":
        return GreatBritain(tmp_path / "cache", service.url, timeout_seconds=0.3, pause_seconds=0.001)
    return ElectricityMaps("DE", tmp_path / "cache", service.url, timeout_seconds=0.3, pause_seconds=0.001)


def test_a_service_is_asked_in_pieces_and_its_answers_are_joined(
    provider: ElectricityMaps | GreatBritain, service: Service
) -> None:
    found = provider.history(MONDAY, MONDAY + 15 * DAY)
    assert (found.start, found.end, found.zone) == (MONDAY, MONDAY + 15 * DAY, provider.zone)
    assert np.isfinite(found.intensity_gco2e_per_kwh).all() and found.intensity_gco2e_per_kwh.min() >= 100
    assert len(service.asked) in (2, 3)  # of at most ten days each


def test_what_was_answered_is_not_asked_again(provider: ElectricityMaps | GreatBritain, service: Service) -> None:
    first = provider.history(MONDAY, MONDAY + DAY)
    asked = len(service.asked)
    service.answers = [500]
    again = provider.history(MONDAY + HOUR, MONDAY + DAY)  # another part of it
    assert len(service.asked) == asked and told(again) == told(first.between(MONDAY + HOUR, MONDAY + DAY))


def test_half_a_cached_answer_is_asked_for_again(
    provider: ElectricityMaps | GreatBritain, service: Service, tmp_path: Path
) -> None:
    first = provider.history(MONDAY, MONDAY + DAY)
    for kept in (tmp_path / "cache").iterdir():
        kept.write_bytes(kept.read_bytes()[:100])
    assert told(provider.history(MONDAY, MONDAY + DAY)) == told(first)


@pytest.mark.parametrize("failure", [429, 500, 502, 503, 504])
def test_a_failure_that_passes_is_no_failure(provider: ElectricityMaps | GreatBritain, service: Service, failure: int) -> None:
    truth = service.true_answer(
        "/v3?zone=DE&start=2020-06-01T00:00Z&end=2020-06-02T00:00Z"
        if isinstance(provider, ElectricityMaps)
        else "/intensity/2020-06-01T00:00Z/2020-06-02T00:00Z"
    )
    service.answers = [failure, failure, truth]
    assert told(provider.history(MONDAY, MONDAY + HOUR))[0] == 100  # and an hour that 429 may ask for is not waited


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (429, "no answer that is of use.*got 429"),
        (500, "no answer that is of use.*got 500"),
        (404, "no answer that is of use.*got 404"),
        (302, "no answer that is of use.*got 302"),  # followed, it would take the token to another host
        (401, "refuses the token"),
        (403, "refuses the token"),
        (b"<html>Bad gateway</html>", "not as expected.*Bad gateway"),
        (b"", "not as expected"),
        (b"\xff\xfe\x00garbage", "not as expected"),
        (b"[" * 100_000, "not as expected"),
        (b"null", "not as expected"),
        (b"[]", "not as expected"),
        (b'{"error": "quota"}', "not as expected"),
        (b'{"data": [{"from": 5, "datetime": 5}]}', "not as expected"),
        (b'{"data": ["x"]}', "not as expected"),
        (b'{"data": []}', "knows nothing of zone"),
        ("hang", "does not answer"),
        ("drip", "no answer that is of use"),
    ],
)
def test_what_a_service_gets_wrong_is_told_and_what_to_do(
    provider: ElectricityMaps | GreatBritain, service: Service, tmp_path: Path, answer: int | bytes | str, message: str
) -> None:
    service.answers = [answer]
    with pytest.raises(NoIntensity, match=message) as raised:
        provider.history(MONDAY, MONDAY + DAY)
    assert "the-secret-token" not in str(raised.value) and "\n" not in str(raised.value)
    assert not list(tmp_path.glob("cache/*"))  # nonsense is not kept


def test_a_service_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoIntensity, match="does not answer"):
        GreatBritain(tmp_path, "http://127.0.0.1:9", timeout_seconds=0.3, pause_seconds=0.001).history(MONDAY, MONDAY + DAY)


@pytest.mark.parametrize("value", ["null", "-5", "NaN", '"many"', "1e999"])
def test_a_value_that_makes_no_sense_is_unknown_and_the_others_are_kept(
    provider: ElectricityMaps | GreatBritain, service: Service, value: str
) -> None:
    if isinstance(provider, ElectricityMaps):
        row = '{"datetime": "2020-06-01T%s:00Z", "carbonIntensity": %s}'
    else:
        row = '{"from": "2020-06-01T%s:00Z", "intensity": {"actual": %s}}'
    rows = [row % (hour, given) for hour, given in (("00", "200"), ("01", value), ("02", "300"))]
    service.answers = [f'{{"data": [{", ".join(rows)}]}}'.encode()]
    found = told(provider.history(MONDAY, MONDAY + DAY))
    assert [found[0], found[-1]] == [200, 300] and set(found[1:-1]) == {None}


def test_another_zone_than_asked_for_is_refused(service: Service, tmp_path: Path) -> None:
    service.answers = [b'{"data": [{"zone": "FR", "datetime": "2020-06-01T00:00Z", "carbonIntensity": 5}]}']
    with pytest.raises(NoIntensity, match="told another zone; expected DE; got 'FR'"):
        ElectricityMaps("DE", tmp_path, service.url).history(MONDAY, MONDAY + DAY)


def test_what_lies_ahead_is_not_asked_for(provider: ElectricityMaps | GreatBritain, service: Service) -> None:
    with pytest.raises(NoIntensity, match="knows nothing"):
        provider.history(datetime.now(UTC) + 30 * DAY, datetime.now(UTC) + 40 * DAY)
    assert not service.asked


def test_the_token_is_sent_and_neither_kept_nor_shown(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    maps = ElectricityMaps("DE", tmp_path, service.url)
    maps.history(MONDAY, MONDAY + DAY)
    printed = capsys.readouterr()
    assert set(service.tokens) == {"the-secret-token"}
    kept = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "the-secret-token" not in caplog.text + repr(maps) + kept + printed.out + printed.err


def test_without_a_token_nothing_is_asked(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELECTRICITYMAPS_TOKEN")
    with pytest.raises(WrongUse, match="ELECTRICITYMAPS_TOKEN is not set"):
        ElectricityMaps("DE", tmp_path, service.url).history(MONDAY, MONDAY + DAY)
    assert not service.asked


def test_a_cache_that_cannot_be_written_is_done_without(service: Service, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert told(GreatBritain(tmp_path / "file" / "cache", service.url).history(MONDAY, MONDAY + HOUR))
