"""`evergreen up`: runs Prefect's server, MLflow's server, the page server and a worker, all on loopback, until Ctrl-C; nothing
is left running."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from evergreen.environment import PAGES_URL, Servers, answers
from evergreen.errors import EvergreenError, WrongUse
from evergreen.registry.store import ARTIFACT_ROOT, artifacts, database, readdress
from evergreen.stopping import stop_postponed
from evergreen.workspace import Workspace
from flows.mlflow_app import APP_NAME
from flows.stoppable import end_with_parent

LOOPBACK = "127.0.0.1"
WORKER = "worker-"  # followed by its pool: the name of its process and log
PAGES = "page-server"
STARTS_A_MINUTE = 3  # a process that ends by itself more often would keep doing so


@dataclass
class Processes:
    """The processes started by `evergreen up`, each in its own session with its own log; they are ended together with their
    children."""

    logs: Path
    environment: dict[str, str]
    directory: Path
    started: dict[str, psutil.Popen] = field(default_factory=dict)
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)
    started_again: list[float] = field(default_factory=list)  # when, by the monotonic clock

    def start(self, name: str, *command: str) -> None:
        """Start a process whose output goes to its log; a restarted process appends to it."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.commands[name] = command
        with open(self.logs / f"{name}.log", "ab" if name in self.started else "wb") as log:
            self.started[name] = psutil.Popen(
                [sys.executable, "-m", *command],
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,  # even if `evergreen up` can't clean up (kill -9)
            )

    def wait_until(self, name: str, ready: Callable[[], bool], timeout_seconds: float = 180) -> None:
        """Wait until a process is ready.

        Raises:
            EvergreenError: the process ended, or wasn't ready in time; the error includes the end of its log.
        """
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            if ready():
                return
            if not self.started[name].is_running() or self.started[name].poll() is not None:
                break
            time.sleep(0.2)
        log = self.logs / f"{name}.log"
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-3:]
        raise EvergreenError(f"{name} did not start: {' / '.join(last)}", fix=f"Its whole log is {log}.")

    def start_again(self, name: str) -> None:
        """Restart a process that has ended.

        Raises:
            EvergreenError: there have been too many restarts.
        """
        now = time.monotonic()
        self.started_again = [*(at for at in self.started_again if at > now - 60), now]
        if len(self.started_again) > STARTS_A_MINUTE:
            raise EvergreenError(f"{name} ends by itself again and again", fix=f"Its log is {self.logs / f'{name}.log'}.")
        self.start(name, *self.commands[name])

    def first_ended(self) -> str | None:
        """The name of a process that has ended; None if all are running."""
        return next((name for name, process in self.started.items() if process.poll() is not None), None)

    def end(self) -> None:
        """Ask every process and its children to end, the last started first; after 10 s they are killed."""
        for process in reversed(self.started.values()):
            end_tree(process)


def end_tree(process: psutil.Process, timeout_seconds: float = 10) -> None:
    """End a process and everything that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=timeout_seconds)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(alive, timeout=5)


@contextlib.contextmanager
def servers(
    workspace: Workspace, prefect_port: int, mlflow_port: int, pages_port: int, say: Callable[[str], None]
) -> Iterator[Processes]:
    """Start the servers and the worker, yield once all servers answer, and end everything afterwards, however the block is
    left.

    Raises:
        WrongUse: a port is in use, or this checkout's servers are already up.
        EvergreenError: one of them did not start.
    """
    already = Servers.running(workspace)
    if already:
        raise WrongUse(
            f"this checkout's servers are up already (process {already.pid}): {already.prefect_url} and {already.mlflow_url}",
            fix="Use them, or end them with Ctrl-C where they run.",
        )
    ports = {"Prefect": prefect_port, "MLflow": mlflow_port, "pages": pages_port}
    for name, port in ports.items():
        _refuse_taken(name, f"--{name.lower()}-port", port)

    with workspace.lock("up", timeout_seconds=0):  # another one may be starting
        yield from _servers(workspace, prefect_port, mlflow_port, pages_port, say)


def _servers(
    workspace: Workspace, prefect_port: int, mlflow_port: int, pages_port: int, say: Callable[[str], None]
) -> Iterator[Processes]:
    urls = Servers(os.getpid(), *(f"http://{LOOPBACK}:{port}" for port in (prefect_port, mlflow_port, pages_port)))
    processes = Processes(workspace.private / "logs", _environment(workspace, urls), workspace.root)
    try:
        say("Starting Prefect's server …")
        processes.start("prefect-server", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(prefect_port))
        say("Starting MLflow's server …")
        artifacts(database(workspace)).mkdir(parents=True, exist_ok=True)
        readdress(database(workspace))
        processes.start(
            "mlflow-server",
            "mlflow",
            "server",
            "--host",
            LOOPBACK,
            "--port",
            str(mlflow_port),
            "--workers",
            "1",
            *serving_options(workspace),
        )
        processes.start(PAGES, "flows.pages", str(pages_port))
        processes.wait_until("prefect-server", lambda: answers(f"{urls.prefect_api_url}/health"))
        processes.wait_until("mlflow-server", lambda: answers(f"{urls.mlflow_url}/health"))
        processes.wait_until(PAGES, lambda: answers(f"{urls.pages_url}/"))
        say("Deploying the scenarios, starting a worker …")
        subprocess.run(
            [sys.executable, "-m", "flows.deploy"],
            env=processes.environment,
            cwd=workspace.root,
            check=True,
            timeout=360,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )
        for pool in _pools(workspace, say):
            processes.start(
                f"{WORKER}{pool}",
                "prefect",
                "worker",
                "start",
                "--pool",
                pool,
                "--type",
                "process",
                "--name",
                f"evergreen-{pool}",
            )
        urls.write(workspace)
        yield processes
    except subprocess.CalledProcessError as error:
        raise EvergreenError("the scenarios could not be deployed", received=error.returncode) from None
    finally:
        with stop_postponed():
            cancel_runs(urls)
            (workspace.private / "up.json").unlink(missing_ok=True)
            processes.end()


def cancel_runs(urls: Servers, timeout_seconds: float = 10.0) -> None:
    """Cancel the workers' runs and wait until they end: if killed, they would be shown as crashed, and reported to users as
    failures."""
    ours = {
        "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}, "deployment_id": {"is_null_": False}}
    }
    until = time.monotonic() + timeout_seconds
    with contextlib.suppress(OSError, ValueError):  # the server may have ended, or never started
        for run in _ask(urls, "flow_runs/filter", ours):
            _ask(urls, f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
        while time.monotonic() < until and _ask(urls, "flow_runs/filter", ours):
            time.sleep(0.2)


def _ask(urls: Servers, path: str, question: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{urls.prefect_api_url}/{path}", data=json.dumps(question).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=3) as response:
        return json.load(response)


def _pools(workspace: Workspace, say: Callable[[str], None]) -> list[str]:
    """The work pools that the scenarios use and this machine can serve: `cpu`, and `gpu` if there is a graphics card."""
    from evergreen.energy.meter import available_methods
    from flows.deploy import scenarios

    found = scenarios(workspace)[0]
    pools: list[str] = sorted({scenario.pool for scenario in found})
    if "gpu" in pools and "nvml" not in available_methods():
        waiting = ", ".join(scenario.name for scenario in found if scenario.pool == "gpu")
        say(f"No graphics card here: runs of {waiting} wait for a worker of the pool gpu on another machine.")
        pools.remove("gpu")
    return pools


def serving_options(workspace: Workspace) -> list[str]:
    """Options for `mlflow server`: the checkout's own store, with artifacts served to any MLflow client, and pages that open on
    model training."""
    store = database(workspace)
    installed = {
        entry.name for entry in importlib.metadata.entry_points(group="mlflow.app")
    }  # an older installation lacks ours
    return [
        *(["--app-name", APP_NAME] if APP_NAME in installed else []),
        "--backend-store-uri",
        f"sqlite:///{store}",
        "--default-artifact-root",
        ARTIFACT_ROOT,
        "--serve-artifacts",
        "--artifacts-destination",
        str(artifacts(store)),
    ]


def _environment(workspace: Workspace, urls: Servers) -> dict[str, str]:
    return os.environ | {
        "PREFECT_API_URL": urls.prefect_api_url,
        "PREFECT_SERVER_UI_API_URL": urls.prefect_api_url,
        "PREFECT_HOME": str(workspace.private / "prefect"),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "MLFLOW_TRACKING_URI": urls.mlflow_url,
        PAGES_URL: urls.pages_url,
        "EVERGREEN_ROOT": str(workspace.root),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its job runners are for features that Evergreen does not use
        "PYTHONUNBUFFERED": "1",
    }


def _refuse_taken(name: str, option: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise WrongUse(
                f"port {port}, needed for {name}, is taken by another program",
                fix=f"End that program, or choose another port: evergreen up {option} {port + 1}",
            ) from None


def serve(workspace: Workspace, prefect_port: int, mlflow_port: int, pages_port: int) -> None:
    """Run the servers and the worker until the process is stopped (Ctrl-C, SIGTERM, closing the terminal), then end them.

    Raises:
        EvergreenError: a server ended by itself, or a restarted process ended too often.
        Stopped: the normal end.
    """

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with servers(workspace, prefect_port, mlflow_port, pages_port, say) as processes:
        print(f"Prefect  http://{LOOPBACK}:{prefect_port}   runs and deployments")
        print(f"MLflow   http://{LOOPBACK}:{mlflow_port}   metrics and registered models")
        print(f"Pages    http://{LOOPBACK}:{pages_port}   reports, Data Docs and pictures")
        print("Ctrl-C ends them and the worker.", flush=True)
        while True:
            ended = processes.first_ended()
            if ended and ended.startswith(WORKER):
                say(
                    f"The {ended} has ended; another one is started. What it was doing is marked as crashed within two minutes."
                )
                processes.start_again(ended)
            elif ended == PAGES:
                say(f"The {ended} has ended; another one is started.")
                processes.start_again(ended)
            elif ended:
                break
            time.sleep(0.5)
    raise EvergreenError(
        f"{ended} ended by itself, and the others are stopped", fix=f"Its log is {processes.logs / f'{ended}.log'}."
    )
