"""Receivers of messages on loopback: a webhook and a mail server, just enough of each to receive something."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """What has come in so far."""

    webhooks: list[Any] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)


class Receivers:
    """Both servers, running until `stop`."""

    def __init__(self) -> None:
        received = self.received = Received()

        class Webhook(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.webhooks.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        class Mail(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 localhost\r\n")
                while line := self.rfile.readline():
                    word = line.strip().upper()
                    if word == b"DATA":
                        self.wfile.write(b"354 go on\r\n")
                        lines = iter(self.rfile.readline, b".\r\n")
                        received.mails.append(b"".join(lines).decode())
                    elif word == b"QUIT":
                        self.wfile.write(b"221 bye\r\n")
                        return
                    self.wfile.write(b"250 ok\r\n")

        self._servers = [
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook),
            socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail),
        ]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """Names both to `evergreen up`."""
        webhook, mail = (server.server_address[1] for server in self._servers)
        return {
            "EVERGREEN_WEBHOOK_URL": f"http://127.0.0.1:{webhook}/hook",
            "EVERGREEN_EMAIL_URL": f"mailto://127.0.0.1:{mail}?from=evergreen@localhost.localdomain&to=me@localhost.localdomain",
        }

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
