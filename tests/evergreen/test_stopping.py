"""Ctrl-C and its kin end a command within seconds, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from evergreen.workspace import Workspace
from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # starts processes and waits for their end

FRAME = """
import ctypes, subprocess, sys, threading, time
from pathlib import Path
from evergreen.stopping import *

def ready():
    Path("ready").touch()

def work():
    {work}
    return 0

def stopped(status):
    print("stopped")
    return status

sys.exit(supervise(work, stopped, grace_seconds={grace}))
"""
SLEEP = "ready(); time.sleep(600)"
FOR_EVER = "lock, it = ctypes.{}(None).pthread_mutex_lock, ctypes.create_string_buffer(64); lock(it); ready(); lock(it)"
DEAF = {
    "in a C library that holds Python's lock": FOR_EVER.format("PyDLL"),
    "in a C library that does not": FOR_EVER.format("CDLL"),
    "in code that swallows every exception": "ready()\n    while True:\n        try: time.sleep(0.01)\n        except BaseException: pass",
    "where it must not be interrupted": "ready()\n    with stop_postponed(): time.sleep(600)",
    "waiting for a thread at its end": "threading.Thread(target=time.sleep, args=(600,)).start(); ready(); time.sleep(600)",
}


@contextmanager
def running(folder: Path, work: str, grace: float = 2.6, **more: object) -> Iterator[subprocess.Popen[str]]:
    """A command that does `work`, once it is at it; it is the leader of a process group, as in a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-c", FRAME.format(work=work, grace=grace)], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0, **more,
    )  # fmt: skip
    family: list[psutil.Process] = []
    try:
        until = time.monotonic() + 60
        while not (folder / "ready").exists():
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.01)
        family = psutil.Process(process.pid).children(recursive=True)
        yield process
        left = [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
        assert not left
    finally:
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_each_signal_ends_the_command_with_its_status_and_its_words(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with running(tmp_path, SLEEP) as process:
        process.send_signal(number)
        assert process.communicate(timeout=60) == ("stopped\n", "") and process.returncode == status


def test_what_has_to_be_put_in_order_is(tmp_path: Path) -> None:
    with running(tmp_path, "ready()\n    try: time.sleep(600)\n    finally: Path('tidy').touch()") as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("stopped\n", "")
    assert (tmp_path / "tidy").exists()


@pytest.mark.parametrize("work", DEAF.values(), ids=DEAF.keys())
def test_it_ends_in_time_wherever_it_is_and_says_nothing_else(tmp_path: Path, work: str) -> None:
    with running(tmp_path, work, grace=0.3) as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=60) == ("stopped\n", "") and process.returncode == 130


def test_processes_that_it_started_are_not_disturbed_by_the_terminal_and_end_with_it(tmp_path: Path) -> None:
    """The one that is started here would say that it was interrupted, and then go on: as Prefect's server would die before it
    has heard that its run is cancelled."""
    other = "import signal, time, sys; signal.signal(signal.SIGINT, lambda *_: print('noise', flush=True)); time.sleep(600)"
    with running(tmp_path, f"subprocess.Popen([sys.executable, '-c', {other!r}]); time.sleep(0.5); {SLEEP}") as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=60) == ("stopped\n", "")


def test_a_second_signal_while_it_ends_changes_nothing(tmp_path: Path) -> None:
    slow = "ready()\n    try: time.sleep(600)\n    finally: Path('first').touch(); time.sleep(0.3); Path('tidy').touch()"
    with running(tmp_path, slow) as process:
        os.killpg(process.pid, signal.SIGINT)
        while not (tmp_path / "first").exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60) == ("stopped\n", "") and process.returncode == 130
    assert (tmp_path / "tidy").exists()


def test_what_must_not_be_interrupted_is_done_first_and_what_follows_is_not_begun(tmp_path: Path) -> None:
    work = (
        "with stop_postponed():\n        ready()\n        while not stop_requested(): time.sleep(0.01)\n"
        "        Path('whole').touch()\n        with stop_allowed(): Path('begun').touch()"
    )
    with running(tmp_path, work) as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("stopped\n", "") and process.returncode == 130
    assert (tmp_path / "whole").exists() and not (tmp_path / "begun").exists()


def test_where_it_has_to_be_killed_its_last_actions_are_done_before(tmp_path: Path) -> None:
    with running(
        tmp_path, f"before_killed(lambda: Path('reported').touch())\n    {DEAF['in a C library that does not']}"
    ) as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("stopped\n", "") and process.returncode == 130
    assert (tmp_path / "reported").exists()


def test_a_signal_to_the_process_that_works_is_obeyed_too(tmp_path: Path) -> None:
    with running(tmp_path, SLEEP) as process:
        (worker,) = psutil.Process(process.pid).children()
        worker.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 143


def test_a_signal_to_the_process_that_works_is_obeyed_where_a_library_has_taken_it_over(tmp_path: Path) -> None:
    work = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: Path('theirs').touch())\n    with stop_postponed(), stop_allowed(): "
        + SLEEP
    )
    with running(tmp_path, work) as process:
        (worker,) = psutil.Process(process.pid).children()
        worker.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 143
    assert not (tmp_path / "theirs").exists()


def test_when_the_parent_is_killed_nothing_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, f"subprocess.Popen(['sleep', '600']); {SLEEP}") as process:
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 2
        process.kill()
        assert not psutil.wait_procs(family, timeout=60)[1]


def test_when_the_work_is_killed_it_is_said_by_what(tmp_path: Path) -> None:
    with running(tmp_path, SLEEP) as process:
        (worker,) = psutil.Process(process.pid).children()
        worker.kill()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 137 and "SIGKILL" in err and "memory" in err


def test_under_nohup_a_closed_terminal_changes_nothing(tmp_path: Path) -> None:
    work = "ready()\n    while not Path('go').exists(): time.sleep(0.01)"
    with running(tmp_path, work, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        os.killpg(process.pid, signal.SIGHUP)
        (tmp_path / "go").touch()
        assert process.communicate(timeout=60) == ("", "") and process.returncode == 0


def test_work_that_nobody_stops_gives_its_own_status(tmp_path: Path) -> None:
    script = "import sys; from evergreen.stopping import supervise; sys.exit(supervise(lambda: 3, lambda status: 9))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 3


def test_it_ends_while_it_waits_for_a_lock(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "dvc.yaml").touch()
    wait = "from evergreen.workspace import Workspace; ready()\n    with Workspace.find(Path('.')).lock('run-parts'): pass"
    with Workspace(tmp_path).lock("run-parts"), running(tmp_path, wait) as process:
        assert process.stderr is not None and "Waiting for the lock" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("stopped\n", "") and process.returncode == 130


def test_it_ends_with_the_processes_that_inspect_images(tmp_path: Path) -> None:
    inspect = (
        "from evergreen.media.isolated import Inspectors\n    with Inspectors(10**6, processes=2) as pool:\n"
        "        [one.result() for one in [pool.submit([b'no image']) for _ in range(4)]]; ready(); time.sleep(600)"
    )
    with running(tmp_path, inspect) as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=60) == ("stopped\n", "") and process.returncode == 130
