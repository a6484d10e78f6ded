"""Runs `evergreen` and other modules in children of a process that has imported the large libraries, so that their import (15 s
of a processor for each process) is paid once.

A child takes the project's own code from its checkout, as a command in a process of its own does: nothing of the project is
imported here. Prefect reads its settings when it is imported: see `SetAside`. What is tested of starting, stopping, terminals
and environments runs in processes of its own.

Commands come by `Prepared.run`, or from processes with the environment of `Prepared.handing_over`, which hand over what they
were to do: what DVC, a shell or a worker of Prefect's starts, and the temporary server that Prefect starts for a command.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
HANDING_OVER = Path(__file__).resolve().with_name("handing_over")
MESSAGE_BYTES = 2**20
LIBRARIES = (
    "dvc.repo", "dvc.scm", "great_expectations", "keras", "matplotlib.pyplot", "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store", "onnxruntime", "pandas",
    "scipy.stats", "sklearn.metrics", "tf2onnx.tfonnx", "uvicorn.main",
)  # fmt: skip


class NotHere:
    """Keeps the project's own packages from being imported: MLflow would, by their entry points."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] in ("evergreen", "tasks", "flows"):
            raise ImportError(f"{name} is of the checkout that a command runs in")


class SetAside(Loader):
    """Prefect, imported before it is needed. When a child imports it, it reads the settings of the child's environment and sets
    up its logging, as it does in a process of its own. Only the intervals of the server's services are read before."""

    def __init__(self) -> None:
        import prefect.server.api.server

        self._package, self._spec = prefect, prefect.__spec__
        self._modules = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "prefect"}
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return spec_from_file_location(name, self._spec.origin, loader=self) if name == "prefect" else None

    def is_package(self, _: str) -> bool:
        return True

    def create_module(self, _: ModuleSpec) -> ModuleType:
        sys.meta_path.remove(self)
        return self._package

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
        sys.modules.update(self._modules)
        from prefect.context import refresh_global_settings_context
        from prefect.logging import configuration

        refresh_global_settings_context()
        configuration.PROCESS_LOGGING_CONFIG.clear()
        configuration.setup_logging()


class Prepared:
    """The process with the libraries, seen from outside."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="prepared-")
        self._address = f"{self._folder}/socket"
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._address], cwd=ROOT, stdin=subprocess.PIPE,
            env=os.environ | {"PYTHONUTF8": "1", "PREFECT_HOME": self._folder},
        )  # fmt: skip
        while not os.path.exists(self._address):
            assert self._process.poll() is None
            time.sleep(0.05)

    def handing_over(self, environment: Mapping[str, str]) -> dict[str, str]:
        """An environment, and that processes hand over their commands."""
        path = os.pathsep.join(filter(None, [str(HANDING_OVER), environment.get("PYTHONPATH")]))
        return {**environment, "PYTHONPATH": path, "EVERGREEN_PREPARED": self._address}

    def run(
        self, module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
    ) -> tuple[int, str, str]:
        """Run `python -m MODULE ARGUMENTS` in a folder.

        Returns:
            Exit status, standard output and standard error.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and was killed.
        """
        from tests.support.handing_over.handed_over import ask

        with contextlib.ExitStack() as held:
            nothing = held.enter_context(open(os.devnull, "rb"))
            out, err = (held.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            streams = [file.fileno() for file in (nothing, out, err)]
            connection, _ = ask(self._address, module, arguments, str(folder), environment, streams)
            with connection:
                ended = bool(select.select([connection], [], [], timeout)[0])
                status = int(connection.recv(64)) if ended else -signal.SIGKILL
            said, complained = (_content(file) for file in (out, err))
            if not ended:
                raise subprocess.TimeoutExpired([module, *arguments], timeout, said, complained)
            return status, said, complained

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)
        shutil.rmtree(self._folder, ignore_errors=True)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _serve(listener: socket.socket) -> None:
    """Start a process for each connection, until standard input is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    while listener in select.select([0, listener], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _keep(connection)
            os._exit(0)
        connection.close()


def _keep(connection: socket.socket) -> None:
    """Run the command that is asked for, and say how it ended; where nobody listens any more, kill it."""
    request, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 3)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(descriptors, **json.loads(request))
    for descriptor in descriptors:
        os.close(descriptor)
    connection.send(str(child).encode())
    ended = os.pidfd_open(child)
    if ended not in select.select([connection, ended], [], [])[0]:
        family = psutil.Process(child)
        for process in (family, *family.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.send(str(status).encode())


def _become(descriptors: list[int], module: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Go on as `python -m MODULE ARGUMENTS` in a folder would."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    atexit._clear()  # what the libraries do at the end of the process that has imported them is not this one's
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.path[:1] = [folder, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = [module, *arguments]
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

    _artifact_repository_registry.register_entrypoints()  # the checkout's
    status = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)  # the interpreter's own end would wait for threads of the process that this one was forked from


def main() -> None:
    not_here: Any = NotHere()
    sys.meta_path.insert(0, not_here)
    with warnings.catch_warnings(action="ignore"):
        _import_libraries()
    sys.meta_path.remove(not_here)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{sys.argv[1]}.new")
        listener.listen()
        os.rename(f"{sys.argv[1]}.new", sys.argv[1])
        _serve(listener)


def _import_libraries() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    SetAside()


if __name__ == "__main__":
    main()
