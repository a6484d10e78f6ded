"""Ctrl-C, SIGTERM and SIGHUP end a command within three seconds, wherever it is, with one line and with no process left.

The command runs in a forked child, and its parent waits: Python runs no signal handler while C code (an import, a training
step) is running, and a library may swallow the exception. The parent asks the child to stop, waits for it to clean up, and
kills it and its children after `grace_seconds`. A kill loses nothing, since every stage's work becomes visible by one rename.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

STOPPED = "Stopped; run the same command again to go on."
GRACE_SECONDS = 2.6
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_requested = 0  # the signal by which this process was asked to stop, or 0
_supervisor: int | None = None  # the process that waits for this one
_allowed = True  # whether `Stopped` may be raised now
_last_actions: list[Callable[[], object]] = []


class Stopped(BaseException):
    """The user or the system has stopped the command. No `except Exception` catches it and takes it for a failure."""


def supervise(work: Callable[[], int], stopped: Callable[[int], int], *, grace_seconds: float = GRACE_SECONDS) -> int:
    """Run `work` in a child process that ends when it is asked to.

    Args:
        work: returns the exit status. If `Stopped` ends it, the status is 128 plus the signal's number, as in shells.
        stopped: called with that status when no process is left, to report the stop; returns the command's exit status.
        grace_seconds: time after a signal until remaining processes are killed.

    Returns:
        The exit status.
    """
    # Signals that are ignored already (under nohup, in the background) stay ignored.
    obeyed = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    orders, telling = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, obeyed)
    child = os.fork()
    if child == 0:
        # A terminal sends these to every process started here, but only the parent handles them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.close(telling)
        _obey(orders, grace_seconds)
        sys.exit(_status_of(work))
    os.close(orders)
    received: list[int] = []
    family: dict[Any, None] = {}

    def stop(number: int, _frame: object) -> None:
        if not received:
            received.append(number)
            family.update(dict.fromkeys(_descendants(child)))
            with contextlib.suppress(BrokenPipeError):
                os.write(telling, bytes([number]))
            signal.setitimer(signal.ITIMER_REAL, grace_seconds)

    def kill(_number: int, _frame: object) -> None:
        family.update(dict.fromkeys(_descendants(child)))
        _kill(family)

    signal.signal(signal.SIGALRM, kill)
    for number in obeyed:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, obeyed)
    _, ended = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if received:  # otherwise a second signal while Python exits would kill the process by the system's default action
        signal.pthread_sigmask(signal.SIG_BLOCK, obeyed)
    _kill(family)
    status = os.waitstatus_to_exitcode(ended)
    if received and (status < 0 or status == 128 + received[0]):
        status = stopped(128 + received[0])
    elif status < 0:
        _explain_death(-status)
        status = 128 - status
    return status


def supervised() -> bool:
    """Whether this process is the child of `supervise`."""
    return _supervisor is not None


def stop_command() -> None:
    """Stop the whole command, as SIGTERM to the parent does. Prefect's engine would take one to this process for a crash."""
    if _supervisor is not None and os.getppid() == _supervisor:
        os.kill(_supervisor, signal.SIGTERM)


def stop_requested() -> bool:
    """Whether this process was asked to stop. Errors from then on are consequences of that, and not reported as failures."""
    return bool(_requested)


def check() -> None:
    """
    Raises:
        Stopped: this process was asked to stop.
    """
    if _requested:
        raise Stopped


@contextlib.contextmanager
def stop_postponed() -> Iterator[None]:
    """Raise no `Stopped` in this block, since Prefect's engine would take it for a crash, or swallow it. The caller raises a
    postponed one by calling `check` after the block."""
    with _allow(False):
        yield


@contextlib.contextmanager
def stop_allowed() -> Iterator[None]:
    """Allow `Stopped` again in a block within `stop_postponed`.

    Raises:
        Stopped: this process was asked to stop in the meantime.
    """
    with _allow(True), _own_handler():
        check()
        yield


def before_killed(action: Callable[[], object]) -> None:
    """Register `action` to be called in a thread if the process was asked to stop and does not end by itself."""
    _last_actions.append(action)


@contextlib.contextmanager
def _allow(allowed: bool) -> Iterator[None]:
    global _allowed
    before, _allowed = _allowed, allowed
    try:
        yield
    finally:
        _allowed = before


@contextlib.contextmanager
def _own_handler() -> Iterator[None]:
    """Handle SIGTERM here in this block, even within a flow, where Prefect's engine handles it and would report a crash."""
    if not supervised() or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, _frame: object) -> None:
    if number == signal.SIGTERM:  # sent to this process directly, such as by `kill` with the pid of a lock's holder
        _request(number)
    if _allowed:
        raise Stopped


def _obey(orders: int, grace_seconds: float) -> None:
    """In the child, wait for the parent's request to stop, and end when the parent does."""

    def listen() -> None:
        order = os.read(orders, 1)
        if not order:  # the parent was killed
            _kill(dict.fromkeys(reversed(_descendants(os.getpid()))))
        _request(order[0])
        signal.pthread_kill(main, signal.SIGUSR1)
        time.sleep(0.7 * grace_seconds)
        for action in _last_actions:
            with contextlib.suppress(Exception):
                action()
        os._exit(128 + _requested)

    global _supervisor
    main, _supervisor = threading.get_ident(), os.getppid()
    signal.signal(signal.SIGUSR1, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=listen, name="listen-to-parent", daemon=True).start()


def _request(number: int) -> None:
    global _requested
    _requested = _requested or number
    # Errors from now on are consequences of the stop; reporting them would only be noise.
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None


def _status_of(work: Callable[[], int]) -> int:
    try:
        status = work()
    except BaseException:
        if not _requested:
            raise
        status = 128 + _requested
    return status


def _descendants(child: int) -> list[Any]:
    import psutil

    try:
        process = psutil.Process(child)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(family: dict[Any, None]) -> None:
    import psutil

    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _explain_death(number: int) -> None:
    name = signal.Signals(number).name
    why = " That is what Linux does when memory runs out." if number == signal.SIGKILL else ""
    print(f"The command was ended by {name}.{why} Run it again to go on.", file=sys.stderr)
