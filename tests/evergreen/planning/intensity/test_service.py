"""Services that give a grid's intensity: they answer, fail, or talk nonsense (a real server on loopback)."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from evergreen.errors import WrongUse
from evergreen.planning.intensity.electricity_maps import ElectricityMaps
from evergreen.planning.intensity.great_britain import GreatBritain
from evergreen.planning.intensity.provider import NoIntensity
from evergreen.planning.intensity.series import HALF_HOUR
from tests.evergreen.planning.intensity import DAY, HOUR, MONDAY, values_of


class Service:
    """A server on loopback that answers as it is set to: `answers` are statuses, bytes, "hang" or "drip"; the last one goes on
    for ever.

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
    assert len(service.asked) == asked and values_of(again) == values_of(first.between(MONDAY + HOUR, MONDAY + DAY))


def test_half_a_cached_answer_is_asked_for_again(
    provider: ElectricityMaps | GreatBritain, service: Service, tmp_path: Path
) -> None:
    first = provider.history(MONDAY, MONDAY + DAY)
    for kept in (tmp_path / "cache").iterdir():
        kept.write_bytes(kept.read_bytes()[:100])
    assert values_of(provider.history(MONDAY, MONDAY + DAY)) == values_of(first)


@pytest.mark.parametrize("failure", [429, 500, 502, 503, 504])
def test_a_failure_that_passes_is_no_failure(provider: ElectricityMaps | GreatBritain, service: Service, failure: int) -> None:
    truth = service.true_answer(
        "/v3?zone=DE&start=2020-06-01T00:00Z&end=2020-06-02T00:00Z"
        if isinstance(provider, ElectricityMaps)
        else "/intensity/2020-06-01T00:00Z/2020-06-02T00:00Z"
    )
    service.answers = [failure, failure, truth]
    assert values_of(provider.history(MONDAY, MONDAY + HOUR))[0] == 100  # and an hour that 429 may ask for is not waited


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
def test_what_a_service_gets_wrong_is_reported_and_what_to_do(
    provider: ElectricityMaps | GreatBritain, service: Service, tmp_path: Path, answer: int | bytes | str, message: str
) -> None:
    service.answers = [answer]
    with pytest.raises(NoIntensity, match=message) as raised:
        provider.history(MONDAY, MONDAY + DAY)
    assert "the-secret-token" not in str(raised.value) and "\n" not in str(raised.value)
    assert not list(tmp_path.glob("cache/*"))  # nonsense is not kept


def test_a_service_that_is_not_there_is_reported(tmp_path: Path) -> None:
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
    found = values_of(provider.history(MONDAY, MONDAY + DAY))
    assert [found[0], found[-1]] == [200, 300] and set(found[1:-1]) == {None}


def test_another_zone_than_asked_for_is_refused(service: Service, tmp_path: Path) -> None:
    service.answers = [b'{"data": [{"zone": "FR", "datetime": "2020-06-01T00:00Z", "carbonIntensity": 5}]}']
    with pytest.raises(NoIntensity, match="answered for another zone; expected DE; got 'FR'"):
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
    assert values_of(GreatBritain(tmp_path / "file" / "cache", service.url).history(MONDAY, MONDAY + HOUR))
