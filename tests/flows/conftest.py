"""A fresh checkout in which the real command has run once, and its servers, each made once for all tests of this folder."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from evergreen.workspace import Workspace
from tests.flows.receivers import Receivers
from tests.support.once import made_once
from tests.support.prepared import Prepared
from tests.support.shipped import copy_project
from tests.tiny import Tiny

BIN = Path(sys.executable).parent
HIDDEN = (
    "EVERGREEN_PAGES_URL",
    "PREFECT_API_URL",
    "MLFLOW_TRACKING_URI",
    "PREFECT_HOME",
    "EVERGREEN_ROOT",
    "EVERGREEN_IGNORED",
    "EVERGREEN_UTF8",
    "EVERGREEN_PREPARED",
    "PYTHONDONTWRITEBYTECODE",  # a clone's code is compiled by its first command, not by each
)

OTHER_PROJECTS = {  # what people have in their shells
    "KERAS_BACKEND": "jax",
    "KERAS_MAX_EPOCHS": "1",
    "TF_USE_LEGACY_KERAS": "1",
    "MLFLOW_RUN_ID": "0123456789abcdef0123456789abcdef",
    "MLFLOW_EXPERIMENT_NAME": "another",
    "PREFECT_PROFILE": "another",
    "GIT_DIR": "/nowhere/.git",
    "http_proxy": "http://127.0.0.1:9",  # nothing answers at the discard port
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "TMPDIR": "/nowhere",
    "LC_ALL": "POSIX",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


@functools.cache
def prepared() -> Prepared:
    """Started when it is first needed; it ends with the tests."""
    started = Prepared()
    atexit.register(started.close)
    return started


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Checkout:
    """A clone to run the real commands in.

    Attributes:
        root: of the clone.
        packages: folders in it from which further packages are found, with their entry points.
        hands_over: whether what its commands start (a shell, DVC, a worker) goes on in children of the process with the large
            libraries.
    """

    root: Path
    packages: tuple[str, ...] = ()
    hands_over: bool = False

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        path = os.pathsep.join([str(self.root), *(str(self.root / folder) for folder in self.packages)])
        found = kept | {"PATH": f"{BIN}{os.pathsep}{kept['PATH']}", "PYTHONPATH": path, "COLUMNS": "160"}
        return prepared().handing_over(found) if self.hands_over else found

    def run(self, *command: str, timeout: float = 300, **environment: str) -> Done:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment | environment, capture_output=True, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def evergreen(self, *arguments: str, timeout: float = 300, **environment: str) -> Done:
        """Run a command: in a child of a process that has the large libraries, unless its environment says something that these
        read at their import."""
        read_later = all(name.startswith(("EVERGREEN_", "PREFECT_")) for name in environment)
        if not read_later:
            return replace(self, hands_over=False).run(
                sys.executable, "-m", "flows.cli", *arguments, timeout=timeout, **environment
            )
        handing_over = prepared().handing_over(self.environment | environment)  # also Prefect's temporary server
        return Done(*prepared().run("flows.cli", arguments, self.root, handing_over, timeout))

    def change(self, scenario: str, old: str, new: str) -> None:
        path = self.root / "scenarios" / f"{scenario}.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def copy(self, folder: Path) -> Checkout:
        shutil.copytree(self.root, folder, symlinks=True)
        return replace(self, root=folder)


def clone(folder: Path) -> Checkout:
    """The project as it is shipped, as a repository of its own with one commit."""
    copy_project(folder)
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "clone"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return Checkout(folder)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Any]:
    """A fresh clone after `evergreen run --json`, and what that printed. Tests copy it before they change it. The run is made
    in the shell of somebody who works on other projects too, behind a proxy: that must not change it."""

    def make(folder: Path) -> None:
        other = tmp_path_factory.mktemp("other-project")
        (other / "keras.json").write_text('{"backend": "jax", "floatx": "float16", "image_data_format": "channels_first"}')
        done = clone(folder).evergreen("run", "--json", **OTHER_PROJECTS, KERAS_HOME=str(other))
        assert done.status == 0, done.err
        assert "Ignored of your global settings: " in done.err and "image_data_format" in done.err
        (folder / "printed.json").write_text(done.out)

    made = made_once(tmp_path_factory, "trained", make)
    own = Checkout(made).copy(tmp_path_factory.mktemp("trained") / "clone")
    printed = own.root / "printed.json"
    summary = json.loads(printed.read_text())
    printed.unlink()
    return own, summary


@pytest.fixture
def checkout(trained: tuple[Checkout, Any], tmp_path: Path) -> Checkout:
    """A copy of the trained clone, to change at will."""
    return trained[0].copy(tmp_path / "copy")


@dataclass(frozen=True)
class Up:
    """`evergreen up`, running."""

    checkout: Checkout
    process: psutil.Popen
    prefect_url: str
    mlflow_url: str
    pages_url: str
    reported: dict[str, str] = field(default_factory=dict)  # what its environment said besides

    def ask(self, path: str, question: Any = None, method: str | None = None) -> Any:
        """What Prefect's server answers: to a GET, or to a POST (or another method) of the question."""
        request = urllib.request.Request(
            f"{self.prefect_url}/api/{path}",
            data=None if question is None else json.dumps(question).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > until:  # its database is busy: Prefect's own client asks again, too
                    raise
                time.sleep(0.5)


@pytest.fixture(scope="module")
def champion(registered_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A checkout with a champion, which the tests of a module share and leave as it is."""
    tiny = Tiny(shutil.copytree(registered_once, tmp_path_factory.mktemp("champion") / "checkout", symlinks=True))
    tiny.promote(force=True)
    return tiny


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_up(checkout: Checkout, prefect_port: int, mlflow_port: int, **environment: str) -> Up:
    """Start `evergreen up` and wait until it prints its links."""
    log, pages_port = checkout.root / "up.log", free_port()
    ports = {"--prefect-port": prefect_port, "--mlflow-port": mlflow_port, "--pages-port": pages_port}
    with open(log, "wb") as output:
        process = psutil.Popen(
            [sys.executable, "-m", "flows.cli", "up", *(part for option, port in ports.items() for part in (option, str(port)))],
            cwd=checkout.root, env=checkout.environment | environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    until = time.monotonic() + 240
    while b"Ctrl-C" not in log.read_bytes():
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.2)
    return Up(checkout, process, *(f"http://127.0.0.1:{port}" for port in ports.values()), reported=environment)


def end_up(running: Up) -> None:
    """Ctrl-C; nothing may be left of it."""
    family = running.process.children(recursive=True)
    running.process.send_signal(signal.SIGINT)
    status = running.process.wait(60)
    left = [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        process.kill()
    assert not left, f"evergreen up left {left} running"
    assert status == 0


@pytest.fixture(scope="session")
def receivers() -> Iterator[Receivers]:
    """What the servers of `up` tell people comes in here."""
    listening = Receivers()
    yield listening
    listening.stop()


@pytest.fixture(scope="session")
def up(trained: tuple[Checkout, Any], receivers: Receivers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The servers over a copy of the trained clone; at the end, Ctrl-C, and nothing may be left of them."""
    copy = trained[0].copy(tmp_path_factory.mktemp("up") / "clone")
    running = start_up(copy, free_port(), free_port(), **receivers.environment)
    yield running
    end_up(running)
