"""An object store on loopback that speaks as much of S3 as reading takes: listing and getting objects."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Store:
    """One bucket, `pets`.

    Attributes:
        address: of the server.
        objects: content by key.
        gone_after: how many objects are given before the server only answers 500; None: all.
        authorizations: of the requests.
    """

    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    gone_after: int | None = None
    authorizations: list[str] = field(default_factory=list)


@contextmanager
def served_store() -> Iterator[Store]:
    """A store while the block runs."""
    store = Store()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            store.authorizations.append(self.headers.get("Authorization") or "")
            parts = urlsplit(self.path)
            bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
            query = parse_qs(parts.query)
            if bucket != "pets" or (key and key not in store.objects):
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            elif key:
                if store.gone_after is not None:
                    store.gone_after -= 1
                    if store.gone_after < 0:
                        self._answer(500, b"<Error><Code>InternalError</Code></Error>")
                        return
                self._answer(200, store.objects[key], "application/octet-stream")
            else:
                prefix = query.get("prefix", [""])[0]
                listed = "".join(
                    f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    f"<ETag>&quot;{md5(data, usedforsecurity=False).hexdigest()}&quot;</ETag><Size>{len(data)}</Size></Contents>"
                    for name, data in sorted(store.objects.items())
                    if name.startswith(prefix)
                )
                self._answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>".encode())

        do_HEAD = do_GET

        def _answer(self, status: int, content: bytes, kind: str = "application/xml") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        store.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join()
