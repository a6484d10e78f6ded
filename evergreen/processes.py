"""Function calls in child processes on all cores, so that a crash or a hang ends one call and not the run.

`concurrent.futures.ProcessPoolExecutor` is not enough here: one crash breaks it for all calls and does not say which call it
was, and it has no time limit for a running call. It also imports the caller's main module into each child (seconds, if that is
Prefect's engine) or forks a process in which TensorFlow's threads are running.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from evergreen.errors import EvergreenError

START_SECONDS = 120.0  # for a child to import what it needs
EXIT_SECONDS = 5.0
STDERR_BYTES = 4096  # how much is read from the end of a crashed child's standard error

P = ParamSpec("P")
R = TypeVar("R")


class Crashed(EvergreenError):
    """The call ended its process: by a signal, by an exit, or because memory ran out."""


class Hung(EvergreenError):
    """The call took too long, and its process was killed."""


class ProcessPool:
    """Threads with one child process each. Use as a context manager.

    A child is a new interpreter with the parent's `sys.path`, started for its thread's first call and again after a crash. It
    ends when its parent does. Functions, arguments and results are pickled, so functions must be defined at the top level of a
    module.

    Attributes:
        processes: the maximum number of child processes.
        threads: an executor; `call` in one of its threads uses that thread's own child.
    """

    def __init__(
        self,
        processes: int | None = None,
        *,
        initializer: Callable[[], object] | None = None,
        patience_seconds: float | None = None,
    ) -> None:
        """
        Args:
            processes: the maximum number of child processes; by default one for each core that this process may use.
            initializer: called once in each child, before anything else.
            patience_seconds: time limit for one call; None for no limit.
        """
        self.processes = processes or len(os.sched_getaffinity(0))
        self.threads = ThreadPoolExecutor(self.processes, thread_name_prefix="process-pool")
        self._initializer = initializer or os.getpid
        self._patience_seconds = patience_seconds
        self._own = threading.local()
        self._children: list[_Child] = []
        self._ended = False

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.threads.shutdown(wait=kind is None, cancel_futures=True)
        self._ended = True
        for child in list(self._children):  # running calls fail now
            child.process.kill()
        self.threads.shutdown(wait=True)
        for child in self._children:
            child.stop()

    def submit(self, function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> Future[R]:
        """Run `call` in one of the pool's threads."""
        return self.threads.submit(partial(self.call, function, *arguments, **keywords))

    def call(self, function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
        """Call a function in the child of the calling thread, and wait for its result.

        Raises:
            Crashed, Hung: the call ended its process. The thread's next call gets a new one.
            EvergreenError: no process can be started, or the pool has ended.
            Exception: whatever the function raises, with the child's traceback as a note.
        """
        child: _Child | None = getattr(self._own, "child", None)
        if child is None:
            child = self._own.child = self._started()
        if self._ended:  # the child was stopped by the pool's end, not by the call
            raise EvergreenError("the work was stopped before its end")
        try:
            result: R = child.call(function, arguments, keywords, self._patience_seconds)
        except (Crashed, Hung):
            self._children.remove(child)
            self._own.child = None
            raise
        return result

    def _started(self) -> _Child:
        child = _Child()
        self._children.append(child)
        try:
            child.call(self._initializer, (), {}, START_SECONDS)
        except (Crashed, Hung) as error:  # otherwise the first call would appear to be the cause
            self._children.remove(child)
            raise EvergreenError(f"a child process does not start: {error.happened}") from None
        return child


class _Child:
    """A process that answers calls, one at a time."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "evergreen.processes", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env=os.environ | {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},  # a core for each
        )
        theirs.close()

    def call(
        self,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        keywords: dict[str, object],
        patience_seconds: float | None,
    ) -> Any:
        """
        Raises:
            Crashed, Hung: the call ended its process, or took too long; the process is stopped.
            Exception: whatever the function raises.
        """
        try:
            self._connection.send((function, arguments, keywords))
            if not self._connection.poll(patience_seconds):
                self.stop()
                raise Hung(f"a call in a child process took more than {patience_seconds:g} seconds")
            succeeded, answer = self._connection.recv()
        except (EOFError, OSError):
            raise Crashed(self._last_words()) from None
        if not succeeded:
            raise answer
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._connection.close()
        self._stderr.close()

    def _last_words(self) -> str:
        """Stop the process; returns the last line that it wrote to standard error, or its exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # its end of the connection is closed: it is exiting
            self.process.wait(EXIT_SECONDS)
        self.process.kill()
        status = self.process.wait()
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - STDERR_BYTES))
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        self.stop()
        return lines[-1] if lines else f"its process ended with status {status}"


def _answer_calls(connection: Connection) -> None:
    """Answer calls until the other end is closed."""
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            function, arguments, keywords = pickle.loads(message)
            answer = pickle.dumps((True, function(*arguments, **keywords)))
        except Exception as error:
            error.add_note(f"In the child process:\n{traceback.format_exc()}")
            answer = pickle.dumps((False, _portable(error)))
        try:
            connection.send_bytes(answer)
        except OSError:
            return


def _portable(error: Exception) -> Exception:
    """The error itself if it can be pickled, else one with the same message."""
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        return EvergreenError(f"{type(error).__name__}: {error}")
    return copy


if __name__ == "__main__":
    _answer_calls(Connection(int(sys.argv[1])))
