"""The process in which a run that was started from a deployment lives."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from evergreen.environment import configure
from evergreen.workspace import Workspace

GRACE_SECONDS = 30.0


def begin() -> None:
    """What a flow does first. The environment is as the `evergreen` command sets it, also where a worker was started by hand; and
    if a worker started this process, it ends with the worker: Prefect starts it in a session of its own, where it would go on
    unseen, and in the way of the next run, when the worker is killed."""
    configure(Workspace.find())
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        worker = os.getppid()
        told = end_with_parent() and not _is_orphaned(worker)
        threading.Thread(target=_end_with, args=(worker, told), name="end-with-worker", daemon=True).start()


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
