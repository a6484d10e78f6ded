"""What the store holds now, asked of a real MLflow server: the same as its file says, also where it asks for credentials."""

from __future__ import annotations

import base64
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evergreen.errors import Unreachable
from evergreen.registry.models import Held, look_up, set_champion
from tests.flows.test_faults import Mlflow
from tests.tiny import NAME, Tiny

pytestmark = [pytest.mark.slow, pytest.mark.servers]
PASSWORD = base64.b64encode(b"somebody:secret").decode()


@pytest.fixture
def server(registered: Tiny) -> Iterator[Mlflow]:
    running = Mlflow(registered)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def guarded(server: Mlflow) -> Iterator[str]:
    """The address of a server that passes on to MLflow what comes with the right name and password."""

    class Guard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != f"Basic {PASSWORD}":
                self.send_error(401)
                return
            try:
                with urllib.request.urlopen(f"{server.url}{self.path}", timeout=60) as answer:
                    status, body = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, body = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    guard = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    threading.Thread(target=guard.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{guard.server_port}"
    guard.shutdown()
    guard.server_close()


def test_a_server_says_what_its_file_says_and_needs_no_client(
    registered: Tiny, server: Mlflow, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, last = registered.workspace, registered.register()
    set_champion(workspace, NAME, 1)
    by_file = look_up(workspace, NAME, last.fingerprint)
    assert by_file == Held(1, last.run_id, last.created_at_ms, {"champion": 1, "challenger": 1})

    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", server.url)
        patched.setattr("evergreen.registry.models.connect", None)  # MLflow's client is not asked
        assert look_up(workspace, NAME, last.fingerprint) == by_file
        assert look_up(workspace, NAME, "of another model") == Held(None, None, 0, by_file.aliases)
        assert look_up(workspace, "cifar10", last.fingerprint) == Held(None, None, 0, {})

    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unreachable, match="does not answer"):
        look_up(workspace, NAME, last.fingerprint)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert look_up(workspace, NAME, last.fingerprint) == by_file
