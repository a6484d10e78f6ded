"""A web server on loopback that misbehaves as it is told to."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

ETAG = '"v1"'


@dataclass
class Web:
    """What the server has, and what was asked of it.

    Attributes:
        address: with the port, without a final slash.
        files: content by path.
        redirects: address by path.
        breaks: by path, after how many bytes of an answer the connection ends; one is taken for each answer.
        fails: by path, status codes of the next answers.
        token: that a request must bring; None if none is needed.
        requests: the path, the Range and the Authorization of each request.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    fails: dict[str, list[int]] = field(default_factory=dict)
    token: str | None = None
    etag: str | None = ETAG
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)


@contextmanager
def served() -> Iterator[Web]:
    """A server while the block runs."""
    web = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted, path = self.headers.get("Range"), self.path.partition("?")[0]
            web.requests.append((path, wanted, self.headers.get("Authorization")))
            if web.fails.get(path):
                self.send_error(web.fails[path].pop(0))
            elif path in web.redirects:
                self.send_response(302)
                self.send_header("Location", web.redirects[path])
                self.end_headers()
            elif web.token is not None and self.headers.get("Authorization") != f"Bearer {web.token}":
                self.send_error(401)
            elif path not in web.files:
                self.send_error(404)
            else:
                self._send(web.files[path], wanted, web.breaks.get(path))

        def _send(self, content: bytes, wanted: str | None, breaks: list[int] | None) -> None:
            begin = 0
            if wanted and self.headers.get("If-Range") == web.etag:
                begin = int(wanted.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if web.etag:
                self.send_header("ETag", web.etag)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin:][: breaks.pop(0)] if breaks else content[begin:])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        web.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()
