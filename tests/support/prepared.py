"""Runs `evergreen` and other modules in children of a process that has imported the large libraries, so that their import (15 s of a processor for each
process) is paid once.

A child takes the project's own code from its checkout, as a command in a process of its own does: nothing of the project is imported here, nor is
Prefect, which reads its settings when it is imported. What is tested of starting, stopping, terminals and environments runs in processes of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).resolve().parents[2]
MESSAGE_BYTES = 2**20


class Prepared:
    """The process with the libraries, seen from outside. It runs one command at a time."""

    def __init__(self) -> None:
        self._here, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        self._busy = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=ROOT, stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONUTF8": "1"},
            )  # fmt: skip

    def run(
        self, module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
    ) -> tuple[int, str, str] | None:
        """Run `python -m MODULE ARGUMENTS` in a folder.

        Returns:
            Exit status, standard output and standard error; None where it is at another command.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and was killed.
        """
        if not self._busy.acquire(blocking=False):
            return None
        with contextlib.ExitStack() as held:
            held.callback(self._busy.release)
            out, err = (held.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            request = {"module": module, "arguments": [*arguments], "folder": str(folder), "environment": {**environment}}
            socket.send_fds(self._here, [json.dumps(request).encode()], [out.fileno(), err.fileno()])
            child = int(self._here.recv(64))
            ended = bool(select.select([self._here], [], [], timeout)[0])
            if not ended:
                family = psutil.Process(child)
                for process in (family, *family.children(recursive=True)):
                    process.kill()
            status = int(self._here.recv(64))
            said, complained = (_content(file) for file in (out, err))
            if not ended:
                raise subprocess.TimeoutExpired([module, *arguments], timeout, said, complained)
            return status, said, complained

    def close(self) -> None:
        """End it."""
        self._here.close()
        self._process.wait(60)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _serve(channel: socket.socket) -> None:
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2)
        if not request:
            return
        child = os.fork()
        if child == 0:
            channel.close()
            _become(descriptors, **json.loads(request))
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(child).encode())
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _become(descriptors: list[int], module: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Go on as `python -m MODULE ARGUMENTS` in a folder would."""
    for place, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, place)
        os.close(descriptor)
    atexit._clear()  # what the libraries do at the end of the process that has imported them is not this one's
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv = [module, *arguments]
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
    import dvc.repo  # noqa: F401
    import great_expectations  # noqa: F401
    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import mlflow.pyfunc  # noqa: F401
    import onnxruntime  # noqa: F401
    import pandas  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tf2onnx  # noqa: F401

    with socket.socket(fileno=int(sys.argv[1])) as channel:
        _serve(channel)


if __name__ == "__main__":
    main()
