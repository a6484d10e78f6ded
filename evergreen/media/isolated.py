"""Inspects images in processes of their own, on all cores: a decoder that crashes or hangs takes one image along, not the run.

`multiprocessing`'s pools would import the caller's main module into each worker (seconds, where that is a flow), or fork a
process in which TensorFlow's threads are running; and one crash breaks such a pool for all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any

from evergreen.errors import EvergreenError
from evergreen.media.images import BadImage, Inspection, PixelRange

PATIENCE_SECONDS = 120.0  # for one answer; a chunk takes well under one second

Verdict = Inspection | BadImage


class Inspectors:
    """A pool of inspecting processes; each starts when it is first needed. Use as a context manager."""

    def __init__(self, max_pixels: int, processes: int | None = None, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """
        Args:
            max_pixels: images of more are `too-large`.
            processes: default, one for each core that this process may use.
        """
        self.processes = processes or len(os.sched_getaffinity(0))
        self._max_pixels = max_pixels
        self._patience_seconds = patience_seconds
        self._own = threading.local()
        self._workers: list[_Worker] = []
        self._ended = False
        self._threads = ThreadPoolExecutor(self.processes, thread_name_prefix="inspector")

    def __enter__(self) -> Inspectors:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown(wait=kind is None, cancel_futures=True)
        self._ended = True
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(wait=True)

    def submit(self, images: Sequence[bytes], pixel_range: PixelRange | None = None) -> Future[list[Verdict]]:
        """Inspect a chunk of encoded images; the answers come in its order. A crash or a hang is a `BadImage` as well,
        `crashes-decoder` or `hangs-decoder`.

        Args:
            pixel_range: as `evergreen.media.images.inspect`.
        """
        return self._threads.submit(self._answers, "inspect", images, pixel_range)

    def extremes(self, images: Sequence[bytes]) -> Future[list[tuple[float, float] | BadImage | None]]:
        """As `evergreen.media.depth.extremes` of each."""
        return self._threads.submit(self._answers, "extremes", images, None)

    def _answers(self, question: str, images: Sequence[bytes], pixel_range: PixelRange | None) -> list[Any]:
        if not images:
            return []
        answer = self._ask(question, images, pixel_range)
        if isinstance(answer, list):
            return answer
        if len(images) == 1:
            return [answer]
        return [found for image in images for found in self._answers(question, [image], pixel_range)]  # which of them was it?

    def _ask(self, question: str, images: Sequence[bytes], pixel_range: PixelRange | None) -> list[Any] | BadImage:
        if self._ended:  # what ended the worker was not an image
            raise EvergreenError("the inspection was ended before its end")
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None:
            worker = self._own.worker = _Worker(self._max_pixels)
            self._workers.append(worker)
        try:
            worker.connection.send((question, list(images), pixel_range))
            if worker.connection.poll(self._patience_seconds):
                answer: list[Any] = worker.connection.recv()
                return answer
            trouble = BadImage("hangs-decoder", f"decoding took more than {self._patience_seconds:.0f} seconds")
        except (EOFError, OSError):
            trouble = BadImage("crashes-decoder", "decoding ended the process that did it")
        worker.stop()
        self._workers.remove(worker)
        self._own.worker = None
        return trouble


class _Worker:
    def __init__(self, max_pixels: int) -> None:
        self.connection, theirs = Pipe()
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "evergreen.media.isolated", str(theirs.fileno()), str(max_pixels)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # the worker replaces it, to read what decoders write there
            env=environment,
        )
        theirs.close()
        try:
            ready = self.connection.poll(PATIENCE_SECONDS) and self.connection.recv()
        except (EOFError, OSError):
            ready = False
        if not ready:  # else every image would look as if it were the cause
            self.stop()
            raise EvergreenError(
                "the process that inspects images does not start", fix=f"Try: {sys.executable} -m evergreen.media.isolated"
            )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


def _work(connection: Connection, max_pixels: int) -> None:
    """Answer chunks until the other end is gone, however it went."""
    from evergreen.media.damage import StandardError, refuse_damaged
    from evergreen.media.depth import extremes
    from evergreen.media.images import inspect, quiet_cv2

    cv2, errors = quiet_cv2(), StandardError()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)  # written to standard error, and read there
    cv2.setNumThreads(1)
    connection.send(True)
    while True:
        try:
            question, images, pixel_range = connection.recv()
        except (EOFError, OSError):
            return
        answers: list[Any] = []
        for image in images:
            errors.read()
            try:
                if question == "extremes":
                    answers.append(extremes(image, max_pixels))
                    continue
                found = inspect(image, max_pixels, pixel_range)
                refuse_damaged(image, found.header.format, errors)
                answers.append(found)
            except BadImage as bad:
                answers.append(bad)
            except Exception as error:
                answers.append(BadImage("undecodable", f"{type(error).__name__}: {error}"[:500]))
        connection.send(answers)


if __name__ == "__main__":
    _work(Connection(int(sys.argv[1])), int(sys.argv[2]))
