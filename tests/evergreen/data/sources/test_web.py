"""Downloads go on where they broke off, and lead nowhere that the scenario does not allow."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evergreen.data.sources import web as module
from evergreen.data.sources.web import Refused, download, refuse_private
from evergreen.errors import EvergreenError, Unreachable, WrongUse
from evergreen.scenario.settings import Collect, Download
from tests.support.web import Web, served

CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.001)
    with served() as found:
        found.files["/a.tar"] = CONTENT
        yield found


def fetch(web: Web, target: Path, path: str = "/a.tar", **settings: Any) -> str:
    return download(
        web.address + path, target, Download.model_validate({"private_addresses": True, "timeout_seconds": 5} | settings)
    )


def test_a_whole_file_is_put_in_its_place_with_its_checksum(web: Web, tmp_path: Path) -> None:
    assert fetch(web, tmp_path / "new/a.tar") == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "new/a.tar").read_bytes() == CONTENT and len(list((tmp_path / "new").iterdir())) == 1


def test_a_broken_connection_goes_on_where_it_ended(web: Web, tmp_path: Path) -> None:
    web.breaks["/a.tar"] = [100_000, 50_000]
    fetch(web, tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in web.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_run_goes_on_too_unless_the_file_has_changed(web: Web, tmp_path: Path) -> None:
    for etag, wanted in (("same", "bytes=1000-"), ("other", "bytes=1000-")):
        web.etag, web.breaks["/a.tar"], web.requests = '"same"', [1000, *[0] * module.ATTEMPTS], []
        with pytest.raises(Unreachable, match="the connection ended after 1,000 of 300,000 bytes.*it goes on there"):
            fetch(web, tmp_path / etag)
        web.etag, web.breaks, web.requests = f'"{etag}"', {}, []
        fetch(web, tmp_path / etag)
        assert (tmp_path / etag).read_bytes() == CONTENT and web.requests[0][1] == wanted


def test_without_an_etag_or_time_it_begins_again(web: Web, tmp_path: Path) -> None:
    web.etag, web.breaks["/a.tar"] = None, [1000]
    fetch(web, tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == CONTENT and [wanted for _, wanted, _ in web.requests] == [None, None]


def test_a_temporary_failure_is_tried_again_and_a_final_one_is_not(web: Web, tmp_path: Path) -> None:
    web.fails["/a.tar"] = [503, 429]
    fetch(web, tmp_path / "a.tar")
    assert len(web.requests) == 3
    with pytest.raises(EvergreenError, match=r"127.0.0.1:\d+/b.tar cannot be downloaded: the server answers 404 Not Found"):
        fetch(web, tmp_path / "b.tar", "/b.tar")
    assert len(web.requests) == 4
    web.fails["/a.tar"] = [500] * module.ATTEMPTS
    with pytest.raises(Unreachable, match="the server answers 500"):
        fetch(web, tmp_path / "c.tar")


def test_a_server_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Download.model_validate({"private_addresses": True, "timeout_seconds": 0.05})
        with pytest.MonkeyPatch.context() as patched, pytest.raises(Unreachable, match="timed out"):
            patched.setattr(module, "PAUSE_SECONDS", 0.001)
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/a.tar", tmp_path / "a.tar", settings)


def test_this_machine_and_private_networks_must_be_allowed(web: Web, tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"leads to 127.0.0.1, which is of a private network or of this machine.*private_addresses"
    ):
        fetch(web, tmp_path / "a.tar", private_addresses=False)
    assert web.requests == [] and not (tmp_path / "a.tar").exists()
    strict = Download.model_validate({})
    for address in (
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "0.0.0.0",
        "100.64.0.1",
    ):
        with pytest.raises(Refused):
            refuse_private(address, strict)
    refuse_private("93.184.215.14", strict)


def test_a_redirect_may_not_lead_to_another_scheme_or_to_a_private_address(web: Web, tmp_path: Path) -> None:
    for number, address in enumerate(("https://127.0.0.1:1/a.tar", "ftp://127.0.0.1/a.tar", "file:///etc/passwd")):
        web.redirects["/r"] = address
        with pytest.raises(Refused, match=r"redirects to another scheme; expected an address that begins with http://"):
            fetch(web, tmp_path / str(number), "/r")
    with pytest.raises(Refused):
        fetch(web, tmp_path / "file", "/r", other_schemes=True)  # a file of this machine, whatever is allowed
    web.redirects["/r"] = "/a.tar"
    fetch(web, tmp_path / "a.tar", "/r")
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_a_file_that_is_too_large_is_refused_by_its_stated_or_real_size(web: Web, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"a.tar is too large; expected at most 0.0001 GB.*300,000.*max_gigabytes"):
        fetch(web, tmp_path / "a.tar", max_gigabytes=0.0001)
    assert not (tmp_path / "a.tar").exists()


def test_a_token_comes_from_the_environment_and_goes_to_its_own_server_alone(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.token = "planted-token"
    with pytest.raises(EvergreenError, match="401.*the token in the environment"):
        fetch(web, tmp_path / "a.tar")
    with pytest.raises(WrongUse, match="the environment variable PET_TOKEN is not set.*export PET_TOKEN"):
        fetch(web, tmp_path / "a.tar", token_variable="PET_TOKEN")
    monkeypatch.setenv("PET_TOKEN", "planted-token")
    web.redirects["/r"] = "/a.tar"
    fetch(web, tmp_path / "a.tar", "/r", token_variable="PET_TOKEN")
    with served() as other:
        other.files["/a.tar"] = CONTENT
        web.redirects["/r"] = f"{other.address}/a.tar"
        fetch(web, tmp_path / "b.tar", "/r", token_variable="PET_TOKEN")
        assert other.requests == [("/a.tar", None, None)]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org/a.tar", "is no address of the web"),
        ("file:///etc/passwd", "is no address of the web"),
        ("https://anna:geheim@example.org/a.tar", "holds credentials"),
        ("https://example.org/a.tar?X-Amz-Signature=abc", "holds credentials"),
        ("https://example.org/a.tar?access_token=abc", "holds credentials"),
    ],
)
def test_an_address_in_a_scenario_is_of_the_web_and_without_credentials(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Collect.model_validate({"file": "a.tar", "url": url})
