"""The process in which a run that was started from a deployment lives."""

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
ASK_SECONDS = 5.0  # between two questions whether a run was cancelled


def attempt(body: Callable[P, R]) -> Callable[P, R]:
    """Makes of a flow's function one whose run, when it is stopped, Prefect shows as cancelled: its engine would take what ends the process
    for a crash, or go on waiting for a server."""

    @functools.wraps(body)
    def stoppable(*args: P.args, **kwargs: P.kwargs) -> Any:  # what the body gives, or a state
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

    # Prefect evaluates annotations that are text among the names of the wrapper's file.
    stoppable.__signature__ = inspect.signature(body, eval_str=True)  # type: ignore[attr-defined]
    return stoppable


def start(flow: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a flow in this process, for the command that was given at a terminal; what it gives.

    Raises:
        Stopped: Ctrl-C, or another signal, has ended it.
    """
    with stop_postponed():
        try:
            return flow(*args, **kwargs)
        finally:
            check()


def _cancel(run: str) -> Callable[[], None]:
    """Mark the run as cancelled from outside of the flow."""

    def cancel() -> None:
        from prefect import get_client

        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(run), cancelled(), force=True)

    return cancel


def _end_where_cancelled(run: str) -> None:
    """Wait until the run is cancelled on Prefect's page, then end this process: no worker does that for a command."""
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
    """What a flow does first. The environment is as the `evergreen` command sets it, also where a worker was started by hand; and
    if a worker started this process, it ends with the worker: Prefect starts it in a session of its own, where it would go on
    unseen, and in the way of the next run, when the worker is killed."""
    speak()
    configure(Workspace.find())
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        worker = os.getppid()
        told = end_with_parent() and not _is_orphaned(worker)
        threading.Thread(target=_end_with, args=(worker, told), name="end-with-worker", daemon=True).start()


def speak() -> None:
    """Let the project's log lines through in a process that a worker started: a logger without a level of its own has the root's there, which
    passes warnings alone. The command line has set its own."""
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


def end_with_parent() -> bool:
    """Let Linux send this process SIGTERM in the moment in which its parent dies, however that happens: before this process writes
    to a pipe that nobody reads any more, and fails by that.

    Returns:
        Whether it will; other systems can't.
    """
    with contextlib.suppress(Exception):
        import ctypes

        return bool(ctypes.CDLL("libc.so.6").prctl(1, signal.SIGTERM) == 0)  # PR_SET_PDEATHSIG, prctl(2)
    return False


def _end_with(worker: int, told: bool) -> None:
    """Wait until the parent is another than `worker`, then end: by SIGTERM, on which Prefect notes the run as crashed and every
    stage leaves its outputs as they were (a second one would interrupt that: none where the system has `told` already); and where
    that is of no use, by SIGKILL."""
    while os.getppid() == worker and not _is_orphaned(worker):
        time.sleep(1)
    if not told:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_orphaned(parent: int) -> bool:
    """Whether the worker had died before the flow began. In a container the worker may itself be process 1."""
    if parent != 1:
        return False
    import psutil

    try:
        return not any("prefect" in word for word in psutil.Process(1).cmdline())
    except psutil.Error:
        return False
