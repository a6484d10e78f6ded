"""Progress reporting: stages report the progress of their work, and listeners show it.

    with progress.task("train", total=1200, unit="steps") as report:
        for step in range(1200):
            ...
            report(step + 1, detail="epoch 3 of 20")

Work of unknown length has no total: `with progress.task("Starting TensorFlow"): import tensorflow`. A report takes only one or
two microseconds, so that every step can report. Tasks may be nested and run in several threads.

A listener is a function that is called with a task when it begins, from time to time while it runs, and when it has ended. A
listener that raises is not called again, and the work continues. `shown()` shows progress in the terminal.
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
_SAMPLE_SECONDS = 0.25  # minimum time between two samples of the rate
_SAMPLES = 20  # they cover the last third of the time, or the last 5 s
_FIRST_ESTIMATE_SECONDS = 2.0  # time span of reports before the time left is estimated

_listeners: tuple[_Subscription, ...] = ()
_provisional: tuple[Task, ...] = ()  # tasks that end when the next one begins
_lock = threading.RLock()
_current: ContextVar[Task | None] = ContextVar("evergreen_progress_task", default=None)


class Task:
    """A piece of work in progress; calling it reports the progress.

    Attributes:
        name: what is being done.
        total: the final value of `done`, in `unit`s; None if unknown.
        detail: a few words on what is being done now.
        fraction: the fraction of the work that is done, 0 to 1; None if unknown.
        parent: the task of which this one is a part, or None.
        ended, failed: whether the task has ended, and whether by an exception.
    """

    def __init__(self, name: str, total: float | None, unit: str, detail: str, parent: Task | None) -> None:
        self.name, self.total, self.unit, self.detail, self.parent = name, total, unit, detail, parent
        self.done: float = 0
        self.fraction: float | None = 0.0 if total else None
        self.ended = self.failed = False
        self.began = time.monotonic()
        self.finished: float | None = None
        self._reported = self.began
        self._due = 0.0  # when to take the next sample and call the listeners
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SAMPLES + 1)

    def __call__(
        self, done: float | None = None, detail: str | None = None, *, total: float | None = None, fraction: float | None = None
    ) -> None:
        """Report the progress of the work.

        Args:
            done: units done so far.
            detail: what is being done now; remains until the next one.
            total: if it is known only now, or has changed.
            fraction: 0 to 1, if it does not follow from `done` and `total`.
        """
        if done is not None:
            self.done = done
        if detail is not None:
            self.detail = detail
        if total is not None:
            self.total = total
        if fraction is not None:
            self.fraction = min(1.0, max(0.0, fraction))
        elif self.total:
            self.fraction = min(1.0, max(0.0, self.done / self.total))
        now = self._reported = time.monotonic()
        if now >= self._due:
            self._sample(now)
            self._due = now + 0.05
            for listener in _listeners:
                listener.update(self, now)

    @property
    def seconds(self) -> float:
        """The task's duration so far, or until its end."""
        return (self.finished or time.monotonic()) - self.began

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the rate in the last third of the time; None as long as there is too little data."""
        if self.ended or self.fraction is None or not self._samples:
            return None
        since, before = self._samples[0]
        if self._reported - since < _FIRST_ESTIMATE_SECONDS or self.fraction <= before:
            return None
        pace = (self.fraction - before) / (self._reported - since)
        return max(0.0, (1 - self.fraction) / pace - (time.monotonic() - self._reported))

    @property
    def left(self) -> str:
        """The time left in readable form, such as "1 min 20 s left"; empty if unknown."""
        seconds = self.seconds_left
        if seconds is None:
            return ""
        step = 1 if seconds < 20 else 5 if seconds < 120 else 10 if seconds < 600 else 60 if seconds < 7200 else 600
        rounded = max(1, step * round(seconds / step))  # to the precision of an estimate
        return f"{rounded} s left" if rounded < 60 else f"{figures.duration(rounded)} left"

    @property
    def amount(self) -> str:
        """The amount done, such as "1,200 of 5,000 steps" or "317 items"; empty if unknown."""
        if self.total and self.unit:
            return f"{self.done:,.0f} of {self.total:,.0f} {self.unit}"
        return f"{self.done:,.0f} {self.unit}" if self.unit and self.done else ""

    def __str__(self) -> str:
        """The progress in one line: "train: 24 %, 1,200 of 5,000 steps, 1 min 20 s left (epoch 3 of 20)"."""
        parts = ["" if self.fraction is None else f"{100 * self.fraction:.0f} %", self.amount, self.left]
        parts = [part for part in parts if part] or [f"{figures.duration(self.seconds)} so far"]
        return f"{self.name}: {', '.join(parts)}" + (f" ({self.detail})" if self.detail else "")

    def _sample(self, now: float) -> None:
        if self.fraction is None:
            return
        if not self._samples or now - self._samples[-1][0] >= max(_SAMPLE_SECONDS, (now - self.began) / (3 * _SAMPLES)):
            self._samples.append((now, self.fraction))

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
    """Report the progress of the work in the block.

    Args:
        name: what is being done, as shown to users.
        total: the total amount of work, in `unit`s; None if unknown.
        unit: what is counted, in the plural.
        detail: a few words on what is being done now.
        until_next: the task ends as soon as another one begins; for work that another program does before it calls us.
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
            with contextlib.suppress(ValueError):  # the block ended in a different context than it began in
                _current.reset(token)


Listener = Callable[[Task], None]


@contextlib.contextmanager
def listening(listener: Listener, every_seconds: float = 1.0) -> Iterator[None]:
    """Call `listener` with each task, from any thread of this process, within the block.

    Args:
        listener: called with the task when it begins, at most once per `every_seconds` while it runs, and when it has ended.
            Calls don't overlap.
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
    shown_at: dict[int, float] = field(default_factory=dict)  # time of the last call, by the open task's id
    lock: Any = field(default_factory=threading.RLock)
    broken: bool = False

    def update(self, task: Task, now: float) -> None:
        if now - self.shown_at.get(id(task), 0.0) >= self.every_seconds and self.lock.acquire(blocking=False):
            try:
                self.tell(task)
            finally:
                self.lock.release()

    def tell(self, task: Task) -> None:
        if self.broken:
            return
        with self.lock:
            if task.ended:
                self.shown_at.pop(id(task), None)
            else:
                self.shown_at[id(task)] = time.monotonic()
            try:
                self.listener(task)
            except Exception as error:  # noqa: BLE001 (showing progress must not end the work)
                self.broken = True
                log.debug("Progress is no longer shown by %r: %s: %s", self.listener, type(error).__name__, error)


@contextlib.contextmanager
def shown(stream: TextIO | None = None) -> Iterator[None]:
    """Show progress to users within the block: a live bar if standard error is a terminal, else log lines from time to time.

    Args:
        stream: the stream to use instead of standard error.
    """
    with contextlib.ExitStack() as stack:
        if stream is None:
            if sys.__stderr__ is None or sys.__stderr__.closed:
                yield
                return
            # A duplicate file descriptor, because standard error is redirected while some libraries load.
            encoding = sys.__stderr__.encoding
            stream = stack.enter_context(os.fdopen(os.dup(2), "w", encoding=encoding, errors="replace"))
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        display = _Bars(stream) if terminal else _Lines()
        stack.callback(display.close)
        stack.enter_context(listening(display, every_seconds=3600))  # the display refreshes itself in between
        yield


class _Display:
    """Shows the open tasks, if any are open for long enough."""

    after_seconds: float  # delay before tasks are shown; shorter work is not shown

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
        """The informative tasks: those of known fraction, and those without open subtasks."""
        tasks = self.open
        parents = {id(task.parent) for task in tasks}
        return [task for task in tasks if task.fraction is not None or id(task) not in parents]

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
    """Log lines at regular intervals, for files and other programs."""

    after_seconds = 10.0

    def show(self) -> None:
        for task in self.visible():
            log.info("%s", task)
        self._wait(self.after_seconds)


class _Bars(_Display):
    """A line for each open task at the bottom of the terminal; other output appears above them."""

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
                return False  # do not hide it: a killed process would leave the terminal without a cursor

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
        """A line for each task, cut to the terminal's width."""
        from rich.text import Text

        plain = not (self.stream.encoding or "").lower().startswith("utf")
        full, empty, spinner = ("#", "-", "|/-\\") if plain else ("━", "─", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
        lines = []
        for task in self.visible():
            line = Text(no_wrap=True)
            line.append(spinner[int(8 * time.monotonic()) % len(spinner)], "green")
            line.append(f" {task.name} ", "bold")
            if task.fraction is not None:
                filled = round(BAR_CELLS * task.fraction)
                line.append(full * filled, "green").append(empty * (BAR_CELLS - filled), "bright_black")
                line.append(f" {100 * task.fraction:3.0f} % ")
            elapsed = f"{task.seconds:.0f} s" if task.fraction is None and task.seconds >= 2 else ""
            words = [task.left, elapsed, task.amount if task.fraction is None else "", task.detail]
            line.append(" · ".join(word for word in words if word), "dim")
            line.truncate(self.console.width - 1, overflow="ellipsis")
            lines.append(line)
        return Text("\n").join(lines)
