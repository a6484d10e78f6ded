"""The process of a flow run: when it is stopped, Prefect shows the run as cancelled; it never outlives the worker that started
it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from evergreen.environment import configure
from evergreen.stopping import before_killed, check, stop_allowed, stop_command, stop_postponed, stop_requested, supervised
from evergreen.workspace import Workspace
from tasks.stage import cancelled

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("evergreen")

GRACE_SECONDS = 30.0
ASK_SECONDS = 5.0  # between two queries whether the run was cancelled


def stoppable(body: Callable[P, R]) -> Callable[P, R]:
    """Decorator for a flow's function: when its run is stopped, Prefect shows it as cancelled. Otherwise Prefect's engine would
    treat the stop as a crash, or go on waiting for a server."""

    @functools.wraps(body)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:  # the body's result, or a state
        from prefect.runtime import flow_run

        begin()
        before_killed(_cancel(flow_run.id))
        if supervised() and "PREFECT_API_URL" in os.environ:
            threading.Thread(target=_end_where_cancelled, args=(flow_run.id,), name="end-where-cancelled", daemon=True).start()
        try:
            with stop_allowed():
                return body(*args, **kwargs)
        except BaseException:
            if not stop_requested():
                raise
            return cancelled()

    # Prefect would evaluate annotations given as strings in the namespace of this module, not of the flow's.
    wrapped.__signature__ = inspect.signature(body, eval_str=True)  # type: ignore[attr-defined]
    return wrapped


def start(flow: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a flow in this process, for a command given at a terminal, and return its result.

    Raises:
        Stopped: Ctrl-C or another signal ended it.
    """
    with stop_postponed():
        try:
            return flow(*args, **kwargs)
        finally:
            check()


def _cancel(run: str) -> Callable[[], None]:
    """Make a function that marks the run as cancelled from outside the flow."""

    def cancel() -> None:
        from prefect import get_client

        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(run), cancelled(), force=True)

    return cancel


def _end_where_cancelled(run: str) -> None:
    """Wait until the run is cancelled on Prefect's page, then end this process: a run started by a command has no worker to do
    that."""
    from prefect import get_client

    while True:
        time.sleep(ASK_SECONDS)
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(run)).state
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                log.warning("The run was cancelled on Prefect's page.")
                stop_command()
                return


def begin() -> None:
    """Prepare the process of a flow run.

    It sets the environment as the `evergreen` command does, even if the worker was started by hand. If a worker started this
    process, the process ends with the worker: Prefect starts it in its own session, so that after the worker is killed it would
    continue unnoticed and block the next run.
    """
    speak()
    configure(Workspace.find())
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        worker = os.getppid()
        by_system = end_with_parent() and not _is_orphaned(worker)
        threading.Thread(target=_end_with, args=(worker, by_system), name="end-with-worker", daemon=True).start()


def speak() -> None:
    """Enable the project's log messages in a process started by a worker: there, a logger without its own level inherits that
    of the root logger, which only passes warnings. The command line sets its own level."""
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


def end_with_parent() -> bool:
    """Have Linux send this process SIGTERM as soon as its parent dies, for whatever reason: otherwise it would fail at the next
    write to a pipe that no longer has a reader.

    Returns:
        True if the signal was set up; other systems can't.
    """
    with contextlib.suppress(Exception):
        import ctypes

        return bool(ctypes.CDLL("libc.so.6").prctl(1, signal.SIGTERM) == 0)  # PR_SET_PDEATHSIG, prctl(2)
    return False


def _end_with(worker: int, by_system: bool) -> None:
    """Wait until this process is no longer a child of `worker`, then end it: by SIGTERM, and if that does not help, by SIGKILL.

    On SIGTERM, Prefect records the run as crashed and every stage leaves its outputs as they were.

    Args:
        by_system: the system has already sent SIGTERM. A second one would interrupt this cleanup, so none is sent.
    """
    while os.getppid() == worker and not _is_orphaned(worker):
        time.sleep(1)
    if not by_system:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_orphaned(parent: int) -> bool:
    """True if the worker died before the flow began. In a container, the worker may itself be process 1."""
    if parent != 1:
        return False
    import psutil

    try:
        return not any("prefect" in word for word in psutil.Process(1).cmdline())
    except psutil.Error:
        return False
