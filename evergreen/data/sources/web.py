"""Downloads a file by HTTP or HTTPS, going on where an earlier attempt broke off.

The server is not trusted: no redirect leads to another scheme or to an address of a private network or of this machine unless
the scenario allows it, and no more bytes are taken than it allows. Addresses are checked on the open connection, so that a name
cannot mean another machine between check and use. A partial file goes on by `Range` and `If-Range` (RFC 9110, section 13.1.5).
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from evergreen import progress
from evergreen.errors import EvergreenError, Unreachable
from evergreen.scenario.settings import Download
from evergreen.secrets import from_environment, shown

ATTEMPTS = 5  # that bring nothing further, in a row
PAUSE_SECONDS = 1.0  # before the second attempt, twice as long before each further one
PIECE_BYTES = 2**20
DOWNLOADED = 200
PARTIAL = 206
OUT_OF_RANGE = 416
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)


class Refused(EvergreenError):
    """What the server wants is not allowed, or too much."""


class _BrokenOff(Exception):
    """The connection ended early; the rest may be fetched later."""


def download(url: str, target: Path, settings: Download) -> str:
    """Download a file. What an attempt has brought stays beside the target, as `.NAME.part`, and the next one goes on there.

    Args:
        target: where the file is put once it is whole.

    Returns:
        The sha256 (hex) of the file.

    Raises:
        Refused: the address, a redirect or the size is not allowed.
        Unreachable: the server does not answer, or the connection broke off again and again.
        EvergreenError: the server has no such file.
        WrongUse: the environment variable with the token is not set.
    """
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(part)
        try:
            _attempt(url, part, settings)
            break
        except (_BrokenOff, OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and not isinstance(
                error, (urllib.error.URLError, TimeoutError, ConnectionError, socket.gaierror)
            ):
                raise  # such as a full disk
            failures = 0 if _size(part) > before else failures + 1
            reason = getattr(error, "reason", None) or error
            if failures >= ATTEMPTS or isinstance(reason, socket.gaierror):
                raise Unreachable(
                    f"{shown(url)} cannot be downloaded: {reason}",
                    fix="Try again later: what has arrived is kept, and it goes on there.",
                ) from None
            time.sleep(PAUSE_SECONDS * 2 ** max(0, failures - 1) if failures else 0)
    digest = _sha256(part)
    os.replace(part, target)
    _note(part).unlink(missing_ok=True)
    return digest


def _attempt(url: str, part: Path, settings: Download) -> None:
    start, validator = _size(part), _validator(part, url)
    if start and validator is None:  # it could be of another version of the file
        part.unlink()
        start = 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "evergreen"}
    if start and validator is not None:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)
    if settings.token_variable is not None:
        request.add_unredirected_header("Authorization", f"Bearer {from_environment(settings.token_variable)}")
    try:
        answer = _opener(settings).open(request, timeout=settings.timeout_seconds)
    except urllib.error.HTTPError as error:
        if error.code == OUT_OF_RANGE and start:
            part.unlink()
            raise _BrokenOff("it has changed since the last attempt") from None
        if 300 <= error.code < 400:  # urllib itself refuses all but http, https and ftp
            raise _other_scheme(url, "another kind of address, or too many redirects") from None
        if error.code in TEMPORARY:
            raise _BrokenOff(f"the server answers {error.code} {error.reason}") from None
        raise EvergreenError(
            f"{shown(url)} cannot be downloaded: the server answers {error.code} {error.reason}",
            fix="Check collect.url" + (", and the token in the environment." if error.code in (401, 403) else "."),
        ) from None
    with answer:
        goes_on = answer.status == PARTIAL and (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-")
        if not goes_on:
            if answer.status == PARTIAL:
                part.unlink()
                raise _BrokenOff("it gave another part than was asked for")
            start = 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        _refuse_large(url, total or 0, settings)
        _remember(part, url, answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
        with open(part, "ab" if goes_on else "wb") as file:
            _receive(answer.read, file, url, total, settings)


def _receive(read: Callable[[int], bytes], file: IO[bytes], url: str, total: int | None, settings: Download) -> None:
    name = shown(url).rpartition("/")[2]
    with progress.task(f"Downloading {name}", total=total / 1e6 if total else None, unit="MB") as report:
        try:
            while piece := read(PIECE_BYTES):
                file.write(piece)
                _refuse_large(url, file.tell(), settings)
                report(file.tell() / 1e6)
        except http.client.IncompleteRead as error:
            file.write(error.partial)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and file.tell() < total:
        raise _BrokenOff(f"the connection ended after {file.tell():,} of {total:,} bytes")


def _refuse_large(url: str, size_bytes: int, settings: Download) -> None:
    limit = settings.max_gigabytes * 1e9
    if size_bytes > limit:
        raise Refused(
            f"{shown(url)} is too large", expected=f"at most {settings.max_gigabytes:g} GB", received=f"{size_bytes:,} bytes or more",
            fix="Set collect.download.max_gigabytes if it is meant so.",
        )  # fmt: skip


def refuse_private(address: str, settings: Download) -> None:
    """
    Args:
        address: of a machine, as numbers.

    Raises:
        Refused: it is of a private network or of this machine, which the settings do not allow.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    if settings.private_addresses or mapped.is_global:
        return
    raise Refused(
        f"the address leads to {mapped}, which is of a private network or of this machine",
        expected="a public address", fix="Set collect.download.private_addresses: true if that is meant.",
    )  # fmt: skip


def _other_scheme(url: str, received: str) -> Refused:
    return Refused(
        f"{shown(url)} redirects to another scheme", expected=f"an address that begins with {urlsplit(url).scheme}://", received=received,
        fix="Give that address as collect.url, or set collect.download.other_schemes: true.",
    )  # fmt: skip


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects of the same scheme; credentials are sent on to the same server alone."""

    def __init__(self, settings: Download) -> None:
        self._settings = settings

    def redirect_request(self, request: Any, file: Any, code: int, message: str, headers: Any, address: str) -> Any:
        before, after = urlsplit(request.full_url), urlsplit(address)
        if after.scheme not in ("http", "https") or (after.scheme != before.scheme and not self._settings.other_schemes):
            raise _other_scheme(request.full_url, shown(address))
        found = super().redirect_request(request, file, code, message, headers, address)
        if found is not None and (before.scheme, before.netloc) == (after.scheme, after.netloc):
            for name, value in request.unredirected_hdrs.items():
                if name == "Authorization":
                    found.add_unredirected_header(name, value)
        return found


def _opener(settings: Download) -> urllib.request.OpenerDirector:
    """Opens HTTP and HTTPS alone, and checks on the open connection whose address it is. Behind a proxy, which resolves names,
    the name is looked up here."""

    def checked(base: Any) -> Any:
        class Checked(base):  # type: ignore[misc]
            def connect(self) -> None:
                if self._tunnel_host:
                    _refuse_private_name(self._tunnel_host, settings)
                super().connect()
                if not self._tunnel_host and not self.is_proxied:
                    refuse_private(self.sock.getpeername()[0], settings)

        return Checked

    def opened(handler: Any, base: Any, request: Any, **more: Any) -> Any:
        proxied = request.has_proxy()
        if proxied and not request._tunnel_host:
            _refuse_private_name(urlsplit(request.full_url).hostname or "", settings)
        connection = type("Connection", (checked(base),), {"is_proxied": proxied})
        return handler.do_open(connection, request, **more)

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: Any) -> Any:
            return opened(self, http.client.HTTPConnection, request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: Any) -> Any:
            return opened(self, http.client.HTTPSConnection, request, context=self._context)  # type: ignore[attr-defined]

    director = urllib.request.OpenerDirector()
    for one in (
        urllib.request.ProxyHandler(), Http(), Https(), urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
        _Redirects(settings),
    ):  # fmt: skip
        director.add_handler(one)
    return director


def _refuse_private_name(host: str, settings: Download) -> None:
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None)}
    except OSError:  # only the proxy knows the name
        return
    for address in found:
        refuse_private(address, settings)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _remember(part: Path, url: str, etag: str | None, modified: str | None) -> None:
    """Keep what tells whether the file is still the same: a strong ETag, or else the time of change."""
    strong = etag if etag and not etag.startswith("W/") else None
    _note(part).write_text(json.dumps({"url": shown(url), "validator": strong or modified}), encoding="utf-8")


def _validator(part: Path, url: str) -> str | None:
    try:
        found = json.loads(_note(part).read_text(encoding="utf-8"))
        return str(found["validator"]) if found["url"] == shown(url) and found["validator"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
