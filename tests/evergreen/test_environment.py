"""What every tool is told before it starts."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evergreen.environment import Servers, configure
from evergreen.workspace import Workspace
from tests.conftest import ROOT

TOLD = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME", "EVERGREEN_ROOT")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the environment, in which nobody has named a server; what `configure` sets ends with the test."""
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in TOLD})


@pytest.fixture
def answering() -> Iterator[str]:
    """The address of a server that answers every question with 200."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_telemetry_is_off_in_every_tool(workspace: Workspace) -> None:
    configure(workspace)
    off = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
           "GX_ANALYTICS_ENABLED": "False", "DVC_NO_ANALYTICS": "1"}  # fmt: skip
    assert {name: os.environ[name] for name in off} == off


def test_what_the_user_has_set_is_kept(workspace: Workspace) -> None:
    os.environ["PREFECT_HOME"] = "/elsewhere"
    os.environ["PREFECT_API_URL"] = "http://prefect.example/api"
    configure(workspace)
    assert os.environ["PREFECT_HOME"] == "/elsewhere"
    assert os.environ["PREFECT_API_URL"] == "http://prefect.example/api"


def test_servers_that_answer_are_used(workspace: Workspace, answering: str) -> None:
    Servers(1, answering, answering).write(workspace)
    assert configure(workspace) == Servers(1, answering, answering)
    assert os.environ["PREFECT_API_URL"] == f"{answering}/api" and os.environ["MLFLOW_TRACKING_URI"] == answering


def test_a_users_own_mlflow_goes_before_the_checkouts(workspace: Workspace, answering: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = "http://mlflow.example"
    Servers(1, answering, answering).write(workspace)
    configure(workspace)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://mlflow.example"


@pytest.mark.parametrize("left", ["", "{", "[]", '{"pid": 1}'], ids=["empty", "half", "a list", "half an object"])
def test_what_a_kill_left_of_the_note_about_servers_is_no_server(workspace: Workspace, left: str) -> None:
    workspace.private.mkdir()
    (workspace.private / "up.json").write_text(left)
    assert configure(workspace) is None and "PREFECT_API_URL" not in os.environ


def test_servers_that_have_ended_are_not_used(workspace: Workspace) -> None:
    Servers(1, "http://127.0.0.1:9", "http://127.0.0.1:9").write(workspace)  # the discard port: nothing answers
    assert configure(workspace) is None


def test_tensorflow_starts_without_lines_that_need_worry_nobody() -> None:
    command = "from evergreen.environment import import_tensorflow; import_tensorflow(); import tensorflow, keras"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == ""
    assert "InitializeLog" not in done.stderr and "oneDNN" not in done.stderr


def test_where_tensorflow_cannot_be_imported_everything_is_shown(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("import os; os.write(2, b'no such library'); raise ImportError('broken')")
    command = "from evergreen.environment import import_tensorflow; import_tensorflow()"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "no such library" in done.stderr and "broken" in done.stderr
