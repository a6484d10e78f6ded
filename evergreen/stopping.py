"""Ctrl-C, SIGTERM and SIGHUP: a command ends within three seconds wherever it is, with one line and with no process left.

The command works in a forked child, and its parent waits: Python runs no signal handler while a C library (an import, a training step) is at
work, and a library may swallow the exception. The parent tells the child to stop, waits for it to clean up, and kills it and its children after
`grace_seconds`. Nothing is lost by a kill: every stage's work becomes visible by one rename.
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

_requested = 0  # the signal by which this process was asked to stop
_supervisor: int | None = None  # the process that waits for this one
_allowed = True  # whether `Stopped` may be raised where the process is now
_last_actions: list[Callable[[], object]] = []


class Stopped(BaseException):
    """A person, or the system, has ended the command. No `except Exception` takes it for a failure of the work."""


def supervise(work: Callable[[], int], stopped: Callable[[int], int], *, grace_seconds: float = GRACE_SECONDS) -> int:
    """Do `work` in a child process that ends when it is asked to.

    Args:
        work: gives its exit status. Where `Stopped` ends it, the status is 128 and the signal's number, as shells have it.
        stopped: is called with that status when nothing runs any more, to say so; gives the status that the command ends with.
        grace_seconds: after a signal, until what still runs is killed.

    Returns:
        The exit status.
    """
    obeyed = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup, or in the background
    orders, telling = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, obeyed)
    child = os.fork()
    if child == 0:
        # A terminal sends these to every process that was started here: only the parent listens.
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
    if received:  # Python would let a second one end it by the system's default, in the midst of its own end
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
    """Whether this process works for `supervise`."""
    return _supervisor is not None


def stop_command() -> None:
    """Stop the whole command, as SIGTERM does. Prefect's engine takes one that is sent to this very process for a crash."""
    if _supervisor is not None and os.getppid() == _supervisor:
        os.kill(_supervisor, signal.SIGTERM)


def stop_requested() -> bool:
    """Whether this process was asked to stop: whatever fails from then on is no failure, and is not reported as one."""
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
    """In this block no `Stopped` is raised: Prefect's engine would take it for a crash, or swallow it. At its end it is made up for, by `check`, which
    whoever enters the block calls."""
    with _allow(False):
        yield


@contextlib.contextmanager
def stop_allowed() -> Iterator[None]:
    """Within `stop_postponed`, a block in which `Stopped` may be raised again.

    Raises:
        Stopped: this process was asked to stop meanwhile.
    """
    with _allow(True), _own_handler():
        check()
        yield


def before_killed(action: Callable[[], object]) -> None:
    """Have `action` called, in a thread, where the process was asked to stop and does not come to an end by itself."""
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
    """In this block SIGTERM is handled here also within a flow: Prefect's engine takes it over, and would show a crash."""
    if not supervised() or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, _frame: object) -> None:
    if number == signal.SIGTERM:  # sent to this very process, as by `kill` with the number that a lock's holder has
        _request(number)
    if _allowed:
        raise Stopped


def _obey(orders: int, grace_seconds: float) -> None:
    """In the child: listen to the parent, and end with it."""

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
    # What fails now, fails because everything ends: it would only be noise.
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
