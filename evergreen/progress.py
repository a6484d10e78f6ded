"""How far a piece of work is: any stage reports it here, and whoever shows it listens.

    with progress.task("train", total=1200, unit="steps") as report:
        for step in range(1200):
            ...
            report(step + 1, detail="epoch 3 of 20")

Work of unknown length has no total: `with progress.task("Starting TensorFlow"): import tensorflow`. Reporting costs a microsecond or
two, so that it may be done for every step. Tasks may be nested and run in several threads.

A listener is a function that gets a task when it begins, now and then while it goes on, and when it has ended. One that raises is
removed and never disturbs the work. `shown()` is the listener of the terminal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TextIO

from evergreen import figures

log = logging.getLogger("evergreen")

BAR_CELLS = 20
_SAMPLE_SECONDS = 0.25  # at least so long between two samples of the rate
_SAMPLES = 20  # of the last third of the time, or the last 5 s
_FIRST_ESTIMATE_SECONDS = 2.0  # of reports, before the time left is estimated

_listeners: tuple[_Subscription, ...] = ()
_provisional: tuple[Task, ...] = ()  # tasks that end when the next one begins
_lock = threading.RLock()
_current: ContextVar[Task | None] = ContextVar("evergreen_progress_task", default=None)


class Task:
    """A piece of work under way, and the function that reports on it.

    Attributes:
        name: what is being done.
        total: of `done`, in `unit`s; None if nobody knows.
        detail: a few words on what is being done now.
        share: 0 to 1 of the work is done; None if nobody knows.
        parent: the task that this one is a part of.
        ended, failed: whether it is over, and whether by an exception.
    """

    def __init__(self, name: str, total: float | None, unit: str, detail: str, parent: Task | None) -> None:
        self.name, self.total, self.unit, self.detail, self.parent = name, total, unit, detail, parent
        self.done: float = 0
        self.share: float | None = 0.0 if total else None
        self.ended = self.failed = False
        self.began = time.monotonic()
        self.finished: float | None = None
        self._reported = self.began
        self._due = 0.0  # when listeners or samples next need attention
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SAMPLES + 1)

    def __call__(
        self, done: float | None = None, detail: str | None = None, *, total: float | None = None, share: float | None = None
    ) -> None:
        """Report how far the work is.

        Args:
            done: units done so far.
            detail: what is being done now; kept until the next one.
            total: where it is known only now, or has changed.
            share: 0 to 1, where it is known otherwise than by `done` and `total`.
        """
        if done is not None:
            self.done = done
        if detail is not None:
            self.detail = detail
        if total is not None:
            self.total = total
        if share is not None:
            self.share = min(1.0, max(0.0, share))
        elif self.total:
            self.share = min(1.0, max(0.0, self.done / self.total))
        now = self._reported = time.monotonic()
        if now >= self._due:
            self._sample(now)
            self._due = now + 0.05
            for listener in _listeners:
                listener.update(self, now)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return (self.finished or time.monotonic()) - self.began

    @property
    def seconds_left(self) -> float | None:
        """By the rate of the last third of the time; None before that means anything."""
        if self.ended or self.share is None or not self._samples:
            return None
        since, before = self._samples[0]
        if self._reported - since < _FIRST_ESTIMATE_SECONDS or self.share <= before:
            return None
        pace = (self.share - before) / (self._reported - since)
        return max(0.0, (1 - self.share) / pace - (time.monotonic() - self._reported))

    @property
    def left(self) -> str:
        """The time left, as people read it: "1 min 20 s left"; nothing where it isn't known."""
        seconds = self.seconds_left
        if seconds is None:
            return ""
        step = 1 if seconds < 20 else 5 if seconds < 120 else 10 if seconds < 600 else 60 if seconds < 7200 else 600
        rounded = max(1, step * round(seconds / step))  # to no more digits than an estimate carries
        return f"{rounded} s left" if rounded < 60 else f"{figures.duration(rounded)} left"

    @property
    def amount(self) -> str:
        """What is done: "1,200 of 5,000 steps", "317 items", or nothing."""
        if self.total and self.unit:
            return f"{self.done:,.0f} of {self.total:,.0f} {self.unit}"
        return f"{self.done:,.0f} {self.unit}" if self.unit and self.done else ""

    def __str__(self) -> str:
        """In one line: "train: 24 %, 1,200 of 5,000 steps, 1 min 20 s left (epoch 3 of 20)"."""
        parts = ["" if self.share is None else f"{100 * self.share:.0f} %", self.amount, self.left]
        parts = [part for part in parts if part] or [f"{figures.duration(self.seconds)} so far"]
        return f"{self.name}: {', '.join(parts)}" + (f" ({self.detail})" if self.detail else "")

    def _sample(self, now: float) -> None:
        if self.share is None:
            return
        if not self._samples or now - self._samples[-1][0] >= max(_SAMPLE_SECONDS, (now - self.began) / (3 * _SAMPLES)):
            self._samples.append((now, self.share))

    def _end(self, *, failed: bool) -> None:
        global _provisional
        with _lock:
            if self.ended:
                return
            self.ended, self.failed, self.finished = True, failed, time.monotonic()
            _provisional = tuple(task for task in _provisional if task is not self)
        for listener in _listeners:
            listener.tell(self)


@contextlib.contextmanager
def task(
    name: str, total: float | None = None, unit: str = "", detail: str = "", *, until_next: bool = False
) -> Iterator[Task]:
    """Report the work in the block.

    Args:
        name: what is being done, as people read it.
        total: how much there is to do, in `unit`s; None if nobody knows.
        unit: what is counted, in the plural.
        detail: a few words on what is being done now.
        until_next: it is over as soon as another task begins, for what another program does before it calls us.
    """
    global _provisional
    one = Task(name, total, unit, detail, _current.get())
    with _lock:
        waiting = _provisional
        _provisional = (one,) if until_next else ()
    for other in waiting:
        other._end(failed=False)
    for listener in _listeners:
        listener.tell(one)
    token = None if until_next else _current.set(one)
    try:
        yield one
    except BaseException:
        one._end(failed=True)
        raise
    else:
        one._end(failed=False)
    finally:
        if token is not None:
            with contextlib.suppress(ValueError):  # the block ended in another context than it began in
                _current.reset(token)


Listener = Callable[[Task], None]


@contextlib.contextmanager
def listening(listener: Listener, every_seconds: float = 1.0) -> Iterator[None]:
    """Call `listener` with each task, from any thread of this process, within the block.

    Args:
        listener: gets the task as it begins, at most once in `every_seconds` while it goes on, and when it has ended. Calls don't
            overlap.
    """
    global _listeners
    mine = _Subscription(listener, every_seconds)
    with _lock:
        _listeners = (*_listeners, mine)
    try:
        yield
    finally:
        with _lock:
            _listeners = tuple(one for one in _listeners if one is not mine)


@dataclass
class _Subscription:
    listener: Listener
    every_seconds: float
    told: dict[int, float] = field(default_factory=dict)  # when, by the open task's id
    lock: Any = field(default_factory=threading.RLock)
    broken: bool = False

    def update(self, task: Task, now: float) -> None:
        if now - self.told.get(id(task), 0.0) >= self.every_seconds and self.lock.acquire(blocking=False):
            try:
                self.tell(task)
            finally:
                self.lock.release()

    def tell(self, task: Task) -> None:
        if self.broken:
            return
        with self.lock:
            if task.ended:
                self.told.pop(id(task), None)
            else:
                self.told[id(task)] = time.monotonic()
            try:
                self.listener(task)
            except Exception as error:  # noqa: BLE001 (showing progress must not end the work)
                self.broken = True
                log.debug("Progress is no longer shown by %r: %s: %s", self.listener, type(error).__name__, error)


@contextlib.contextmanager
def shown(stream: TextIO | None = None) -> Iterator[None]:
    """Show progress to people within the block: a live bar where standard error is a terminal, else a line of the log now and then.

    Args:
        stream: in place of standard error.
    """
    with contextlib.ExitStack() as stack:
        if stream is None:
            if sys.__stderr__ is None or sys.__stderr__.closed:
                yield
                return
            # A descriptor of its own: standard error is held back while some libraries load.
            encoding = sys.__stderr__.encoding
            stream = stack.enter_context(os.fdopen(os.dup(2), "w", encoding=encoding, errors="replace"))
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        display = _Bars(stream) if terminal else _Lines()
        stack.callback(display.close)
        stack.enter_context(listening(display, every_seconds=3600))  # it looks for itself in between
        yield


class _Display:
    """Shows the open tasks for as long as there are any, if they last."""

    after_seconds: float  # work that is done sooner is not shown

    def __init__(self) -> None:
        self.open: list[Task] = []
        self.timer: threading.Timer | None = None
        self.lock = threading.RLock()

    def __call__(self, task: Task) -> None:
        with self.lock:
            if task.ended:
                self.open = [one for one in self.open if one is not task]
            elif task not in self.open:
                self.open = [*self.open, task]
            if not self.open:
                self.close()
            elif self.timer is None:
                self._wait(self.after_seconds)

    def close(self) -> None:
        with self.lock:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    def visible(self) -> list[Task]:
        """The tasks that say something: what is being done now, and what is known to be a share of a larger work."""
        tasks = self.open
        parents = {id(task.parent) for task in tasks}
        return [task for task in tasks if task.share is not None or id(task) not in parents]

    def show(self) -> None:
        raise NotImplementedError

    def _wait(self, seconds: float) -> None:
        self.timer = threading.Timer(seconds, self._due)
        self.timer.daemon = True
        self.timer.start()

    def _due(self) -> None:
        with self.lock:
            if self.timer is threading.current_thread() and self.open:
                try:
                    self.show()
                except Exception as error:  # noqa: BLE001 (showing progress must not end the work)
                    log.debug("Progress can't be shown: %s: %s", type(error).__name__, error)


class _Lines(_Display):
    """A line of the log every so often, for files and other programs."""

    after_seconds = 10.0

    def show(self) -> None:
        for task in self.visible():
            log.info("%s", task)
        self._wait(self.after_seconds)


class _Bars(_Display):
    """A line for each open task at the bottom of the terminal; what is printed meanwhile appears above it."""

    after_seconds = 0.3

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.live: Any = None

    def show(self) -> None:
        from rich.console import Console
        from rich.live import Live

        class SteadyConsole(Console):
            def show_cursor(self, show: bool = True) -> bool:
                return False  # a process that is killed would leave the terminal without one

        if self.live is None:
            self.console = SteadyConsole(file=self.stream)
            self.live = Live(console=self.console, get_renderable=self.drawn, refresh_per_second=8, transient=True)
            self.live.start()

    def close(self) -> None:
        with self.lock:
            super().close()
            if self.live is not None:
                live, self.live = self.live, None
                with contextlib.suppress(Exception):
                    live.stop()

    def drawn(self) -> Any:
        """A line for each task that never exceeds the terminal's width."""
        from rich.text import Text

        plain = not (self.stream.encoding or "").lower().startswith("utf")
        full, empty, spinner = ("#", "-", "|/-\\") if plain else ("━", "─", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
        lines = []
        for task in self.visible():
            line = Text(no_wrap=True)
            line.append(spinner[int(8 * time.monotonic()) % len(spinner)], "green")
            line.append(f" {task.name} ", "bold")
            if task.share is not None:
                filled = round(BAR_CELLS * task.share)
                line.append(full * filled, "green").append(empty * (BAR_CELLS - filled), "bright_black")
                line.append(f" {100 * task.share:3.0f} % ")
            elapsed = f"{task.seconds:.0f} s" if task.share is None and task.seconds >= 2 else ""
            words = [task.left, elapsed, task.amount if task.share is None else "", task.detail]
            line.append(" · ".join(word for word in words if word), "dim")
            line.truncate(self.console.width - 1, overflow="ellipsis")
            lines.append(line)
        return Text("\n").join(lines)
