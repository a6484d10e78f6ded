"""What is set for every tool before it starts."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evergreen.environment import _FOREIGN, Servers, configure, ignored, pages_url, pin
from evergreen.workspace import Workspace
from tests.conftest import ROOT

TOLD = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME", "EVERGREEN_ROOT", "EVERGREEN_IGNORED", "EVERGREEN_PAGES_URL")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the environment, in which nobody has named a server; what `configure` sets ends with the test."""
    monkeypatch.setattr(
        os, "environ", {name: value for name, value in os.environ.items() if name not in TOLD and not _FOREIGN.fullmatch(name)}
    )


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


def test_the_page_server_is_known_where_it_answers_and_an_up_of_before_had_none(workspace: Workspace, answering: str) -> None:
    before = {"pid": 1, "prefect_url": answering, "mlflow_url": answering}
    workspace.private.mkdir(parents=True)
    (workspace.private / "up.json").write_text(json.dumps(before))
    assert configure(workspace) == Servers(1, answering, answering) and pages_url() is None
    for address, found in ((answering, answering), ("http://127.0.0.1:9", None)):
        os.environ.pop("EVERGREEN_PAGES_URL")
        Servers(1, answering, answering, address).write(workspace)
        configure(workspace)
        assert pages_url() == found


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


@pytest.mark.slow
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


FOREIGN = {
    "KERAS_BACKEND": "jax",
    "KERAS_MAX_EPOCHS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
    "TF_USE_LEGACY_KERAS": "1",
    "MLFLOW_RUN_ID": "0123456789abcdef0123456789abcdef",
    "MLFLOW_EXPERIMENT_NAME": "another",
    "MLFLOW_REGISTRY_URI": "sqlite:////another.db",
    "PREFECT_PROFILE": "another",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://another/prefect",
    "PREFECT_FLOWS_DEFAULT_RETRIES": "3",
    "GIT_DIR": "/another/.git",
    "GIT_INDEX_FILE": "/another/.git/index",
    "GX_CLOUD_ACCESS_TOKEN": "secret",
}


def test_settings_of_other_projects_reach_nothing_and_are_named_in_one_line(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "evergreen")
    os.environ.update(FOREIGN)
    configure(workspace)
    assert {name: os.environ.get(name) for name in FOREIGN} == dict.fromkeys(FOREIGN) | {"KERAS_BACKEND": "tensorflow"}
    assert len(caplog.messages) == 1 and all(name in caplog.messages[0] for name in FOREIGN)
    assert "secret" not in caplog.text
    configure(workspace)  # as a flow does, and every process that is started from here
    assert len(caplog.messages) == 1 and set(ignored()) == set(FOREIGN)


def test_what_names_a_server_a_device_or_threads_holds(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "evergreen")
    held = {
        "TF_VAR_region": "of Terraform", "MLFLOW_TRACKING_URI": "http://mlflow.example", "MLFLOW_TRACKING_TOKEN": "t", "MLFLOW_REGISTRY_URI": "http://models.example",
        "PREFECT_API_URL": "http://prefect.example/api", "PREFECT_API_KEY": "k", "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_NUM_INTRAOP_THREADS": "2",
    }  # fmt: skip
    os.environ.update(held)
    configure(workspace)
    assert {name: os.environ[name] for name in held} == held and not caplog.messages


def test_what_evergreen_sets_itself_is_not_taken_for_another_projects(workspace: Workspace) -> None:
    configure(workspace)
    del os.environ["EVERGREEN_IGNORED"]
    configure(workspace)
    assert not [name for name in ignored() if not name.startswith("PREFECT_")]


@pytest.mark.slow
def test_a_keras_json_of_the_user_trains_the_same_network_and_is_named(
    workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "evergreen")
    home = tmp_path / "home"
    (home / ".keras").mkdir(parents=True)
    theirs = {"backend": "jax", "floatx": "float16", "epsilon": 1e-3, "image_data_format": "channels_first"}
    (home / ".keras" / "keras.json").write_text(json.dumps(theirs))
    code = (
        "from evergreen.environment import import_tensorflow; import_tensorflow(); import keras; from evergreen.models import cnn; "
        "print(keras.config.backend(), keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format(), "
        "cnn.residual((24, 24, 3), 3).count_params())"
    )
    from evergreen.models import cnn

    kept = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    environment = kept | {"HOME": str(home), "KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout == f"tensorflow float32 1e-07 channels_last {cnn.residual((24, 24, 3), 3).count_params()}\n", done.stderr
    os.environ.pop("KERAS_HOME", None)
    os.environ["HOME"] = str(home)
    configure(workspace)
    assert "image_data_format" in caplog.text and "floatx" in caplog.text and str(home) in caplog.text


@pytest.mark.slow
def test_settings_are_put_back_where_keras_was_imported_before() -> None:
    code = (
        "import keras; keras.config.set_image_data_format('channels_first'); keras.config.set_floatx('float16'); "
        "from evergreen.environment import import_tensorflow; import_tensorflow(); print(keras.config.image_data_format(), keras.config.floatx())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["channels_last", "float32"], done.stderr


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_this_machine_is_never_reached_through_a_proxy(workspace: Workspace, answering: str, name: str) -> None:
    os.environ.update({name: "http://127.0.0.1:9", "NO_PROXY": "example.org, .local"})  # nothing answers at the discard port
    pin(workspace)
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.org,.local,127.0.0.1,localhost,::1"
    asked = (
        "import sys, httpx, requests, urllib.request as u; from websockets.proxy import get_proxy; from websockets.uri import parse_uri; "
        "a = sys.argv[1]; w = a.replace('http', 'ws'); "
        "print(u.urlopen(a).status, httpx.get(a).status_code, requests.get(a).status_code, get_proxy(parse_uri(w)), "
        "get_proxy(parse_uri('ws://elsewhere.test')))"
    )
    done = subprocess.run([sys.executable, "-c", asked, answering], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.split()[:4] == ["200", "200", "200", "None"], done.stderr


def test_without_a_proxy_nothing_is_said_of_proxies(workspace: Workspace) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    configure(workspace)
    assert not {"no_proxy", "NO_PROXY"} & set(os.environ)


def test_a_temporary_folder_that_is_not_there_is_not_used(workspace: Workspace) -> None:
    os.environ["TMPDIR"] = "/nowhere"
    configure(workspace)
    assert "TMPDIR" not in os.environ and any("/nowhere" in one for one in ignored())


def test_where_the_systems_language_is_not_in_utf8_evergreen_is() -> None:
    code = "import sys, locale; from evergreen.environment import in_utf8; in_utf8(); print(sys.flags.utf8_mode, sys.argv)"
    plain = os.environ | {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    plain.pop("EVERGREEN_UTF8", None)
    done = subprocess.run([sys.executable, "-c", code, "an argument"], capture_output=True, text=True, cwd=ROOT, env=plain)
    assert done.stdout.strip() == "1 ['-c', 'an argument']", done.stderr


def test_a_users_matplotlibrc_does_not_change_the_charts(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nbackend: TkAgg\n")
    os.environ["MATPLOTLIBRC"] = str(tmp_path)
    pin(workspace)
    code = "import matplotlib; print(matplotlib.rcParams['axes.facecolor'], matplotlib.get_backend())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), cwd=ROOT)
    assert done.stdout.split() == ["white", "Agg"], done.stderr
