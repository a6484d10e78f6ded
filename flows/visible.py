"""Shows the progress of a flow's long tasks on Prefect's page."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from evergreen import figures, progress
from evergreen.environment import prefect_answers
from tasks.page import key, plain

log = logging.getLogger("evergreen")

EVERY_SECONDS = 3.0
LAST_WORDS_SECONDS = 2.0  # the longest that finished work waits for a slow server
SHOWN_AFTER_SECONDS = 3.0  # work that ends sooner shows no progress


@contextlib.contextmanager
def progress_shown(name: str) -> Iterator[None]:
    """Within a flow: every long task whose size is known gets a progress artifact, with the time left.

    A separate thread sends only the latest state to Prefect's server, so that a slow or unreachable server never delays the
    work.

    Args:
        name: the scenario's name.
    """
    if not prefect_answers():
        yield
        return
    reporter = _Reporter(name)
    thread = threading.Thread(target=reporter.run, name="progress-on-prefect", daemon=True)
    thread.start()
    try:
        with progress.listening(reporter.hear, every_seconds=EVERY_SECONDS):
            yield
    finally:
        reporter.news.put(None)
        thread.join(LAST_WORDS_SECONDS)


@dataclass(frozen=True)
class _News:
    """The state of a task at one moment, and the context from which Prefect knows the run that it belongs to."""

    task: progress.Task
    percent: float
    words: str
    ended: bool
    context: contextvars.Context


class _Reporter:
    def __init__(self, name: str) -> None:
        self.name = name
        self.news: queue.Queue[_News | None] = queue.Queue()
        self.artifacts: dict[int, UUID] = {}  # by the id of an open task
        self.finished = False

    def hear(self, task: progress.Task) -> None:
        """Queue a task's state; called in the thread that does the work."""
        if task.fraction is None or task.seconds < SHOWN_AFTER_SECONDS:
            return
        done = task.ended and not task.failed
        words = f"{task.name}: done in {figures.duration(task.seconds)}" if done else str(task)
        percent = 100.0 if done else 100 * task.fraction
        self.news.put(_News(task, percent, words, task.ended, contextvars.copy_context()))

    def run(self) -> None:
        """Send the latest state of each task until the work ends."""
        while (latest := self._latest()) is not None:
            for news in latest.values():
                try:
                    news.context.run(self._show, news)
                except Exception as error:  # noqa: BLE001 (showing progress must not end the work)
                    log.debug("Progress could not be shown on Prefect's page (%s).", error)
            if self.finished:
                return

    def _latest(self) -> dict[int, _News] | None:
        """Wait for queued states, and return the latest of each task; None at the end."""
        waiting = [self.news.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self.news.get_nowait())
        self.finished = None in waiting
        latest = {id(news.task): news for news in waiting if news is not None}
        return None if self.finished and not latest else latest

    def _show(self, news: _News) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if id(news.task) in self.artifacts:
            update_progress_artifact(self.artifacts[id(news.task)], news.percent, description=plain(news.words))
        else:
            made: Any = create_progress_artifact(
                news.percent, key=key(self.name, f"{news.task.name} progress"), description=plain(news.words)
            )
            self.artifacts[id(news.task)] = made
        if news.ended:
            self.artifacts.pop(id(news.task), None)
