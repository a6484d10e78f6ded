"""How far a piece of work is."""

import io
import logging
import os
import re
import sys
import threading
from types import SimpleNamespace

import pytest

from evergreen import progress
from evergreen.progress import Task
from tests.support.terminal import in_a_terminal, lines


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock))
    return clock


def work(report: Task, clock: Clock, steps: range, seconds: float = 1.0) -> None:
    for step in steps:
        clock.now += seconds
        report(step + 1)


def test_a_listener_hears_the_beginning_the_way_and_the_end(clock: Clock) -> None:
    heard: list[tuple[float, bool, str]] = []
    listening = progress.listening(lambda task: heard.append((task.done, task.ended, task.detail)))
    with listening, progress.task("train", total=3, unit="steps") as report:
        work(report, clock, range(2), 2.0)
        report(2, "epoch 2 of 2")
    assert heard == [(0, False, ""), (1, False, ""), (2, False, ""), (2, True, "epoch 2 of 2")]
    with progress.task("afterwards"):
        assert len(heard) == 4


def test_a_listener_is_not_called_more_often_than_it_asks(clock: Clock) -> None:
    calls = []
    with (
        progress.listening(lambda task: calls.append(task.done), every_seconds=1.0),
        progress.task("train", total=1000) as report,
    ):
        work(report, clock, range(1000), 0.01)
    assert 10 <= len(calls) <= 12  # 10 seconds, the beginning and the end


def test_a_listener_that_raises_never_disturbs_the_work(clock: Clock) -> None:
    def broken(task: Task) -> None:
        raise OSError("nobody is there")

    heard = []
    with progress.listening(broken), progress.listening(heard.append), progress.task("train", total=10) as report:
        work(report, clock, range(10), 2.0)
    assert report.done == 10
    assert len(heard) > 10


def test_a_task_that_fails_says_so_and_raises() -> None:
    with pytest.raises(KeyError), progress.task("train") as report:
        raise KeyError
    assert report.ended and report.failed


def test_the_time_left_is_not_said_before_it_means_anything(clock: Clock) -> None:
    with progress.task("train", total=100) as report:
        assert report.left == ""
        clock.now += 30  # the first step takes long: it traces the network
        report(1)
        assert report.left == ""
        work(report, clock, range(1, 4))
        assert report.left == "1 min 35 s left"
    assert report.left == ""


def test_the_time_left_follows_the_present_pace(clock: Clock) -> None:
    with progress.task("train", total=2000) as report:
        work(report, clock, range(1000), 0.1)
        assert report.seconds_left == pytest.approx(100, rel=0.02)
        work(report, clock, range(1000, 1500), 1.0)  # the machine has become busy
        assert report.seconds_left == pytest.approx(500, rel=0.02)
        assert report.left == "8 min 20 s left"


def test_work_that_stands_still_is_not_said_to_come_nearer(clock: Clock) -> None:
    with progress.task("train", total=100) as report:
        work(report, clock, range(50))
        clock.now += 1000
        assert report.seconds_left is not None
        assert report.seconds_left >= 0


def test_the_share_may_be_known_where_the_number_of_items_is_not(clock: Clock) -> None:
    with progress.task("collect", unit="items") as report:
        for fraction in (0.1, 0.2, 0.3, 0.4):
            clock.now += 1
            report(1000 * fraction, fraction=fraction)
        assert report.seconds_left == pytest.approx(6, abs=0.5)
        assert str(report) == "collect: 40 %, 400 items, 6 s left"


def test_a_task_knows_what_it_is_a_part_of() -> None:
    with progress.task("train") as outer:
        with progress.task("Starting TensorFlow") as inner:
            assert inner.parent is outer
        with progress.task("fit") as second:
            assert second.parent is outer
    with progress.task("evaluate") as next_one:
        assert next_one.parent is None


def test_what_comes_before_ends_when_the_next_begins() -> None:
    with progress.task("Starting Prefect", until_next=True) as before:
        assert not before.ended
        with progress.task("collect") as collect:
            assert before.ended
            assert collect.parent is None
    assert not before.failed


def test_tasks_of_several_threads_are_heard_apart() -> None:
    heard: dict[str, int] = {}

    def hear(task: Task) -> None:
        heard[task.name] = heard.get(task.name, 0) + 1

    def run(name: str) -> None:
        with progress.task(name, total=1000) as report:
            for step in range(1000):
                report(step)

    with progress.listening(hear, every_seconds=0):
        threads = [threading.Thread(target=run, args=(f"thread {number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(heard) == 8
    assert all(count >= 2 for count in heard.values())


def test_a_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress._Lines, "after_seconds", 0.05)
    said = threading.Event()
    handler = logging.Handler()
    handler.emit = lambda record: said.set()  # type: ignore[method-assign]
    logger = logging.getLogger("evergreen")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "propagate", True)
    try:
        with caplog.at_level(logging.INFO, "evergreen"), progress.shown(io.StringIO()), progress.task("Starting TensorFlow"):
            assert said.wait(60)
    finally:
        logger.removeHandler(handler)
    assert caplog.messages[0].startswith("Starting TensorFlow: ")


TERMINAL = """
import sys, time
from evergreen import progress
progress._Bars.after_seconds = 0.01
pictures, drawn = 0, progress._Bars.drawn
def counted(self):
    global pictures
    pictures += 1
    return drawn(self)
progress._Bars.drawn = counted
def until_drawn():
    before = pictures
    while pictures < before + 3:
        time.sleep(0.01)
with progress.shown(), progress.task("train", total=400, unit="steps") as report:
    with progress.task("Starting TensorFlow and all that belongs to it " * 3):
        until_drawn()
    for step in range(300):
        time.sleep(0.005)
        report(step + 1, "epoch 1 of 20, loss 0.1234, accuracy 98.7 %, and whatever else may be said about it at some length")
    until_drawn()
    print("epoch 1 of 20", file=sys.stderr)
    until_drawn()
"""


@pytest.mark.parametrize("columns", [60, 80])
def test_no_line_of_the_bar_is_wider_than_the_terminal(columns: int) -> None:
    status, text = in_a_terminal([sys.executable, "-c", TERMINAL], columns, {**os.environ, "NO_COLOR": "1"})
    assert status == 0, text
    shown = lines(text)
    assert max(map(len, shown)) < columns
    assert any("Starting TensorFlow" in line for line in shown)
    assert any(re.search(r"train ━+─* +\d+ %.*epoch 1 of 20", line) for line in shown)
    assert "epoch 1 of 20" in shown
    assert not re.search(r"\x1b\[(3|9)[0-7]", text), "colour in spite of NO_COLOR"
    assert "\x1b[?25l" not in text, "a killed process would leave the terminal without its cursor"
