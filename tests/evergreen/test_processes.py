"""Calls in child processes: results, errors, crashes and hangs, and children that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from evergreen.errors import EvergreenError, WrongUse
from evergreen.processes import Crashed, Hung, ProcessPool
from tests.support.shipped import ROOT


class Odd(Exception):
    """Can't be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def double(number: int) -> int:
    return 2 * number


def process_id() -> int:
    return os.getpid()


def main_module() -> str | None:
    return sys.modules["__main__"].__file__


def fail(error: Exception) -> None:
    raise error


def fail_oddly() -> None:
    raise Odd("one", "two")


def write_and_die(line: str) -> None:
    os.write(2, b"first\n" * 10_000 + f"{line}\n".encode())
    os._exit(3)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    sys.exit(5)


def test_calls_are_spread_over_processes_that_are_used_again() -> None:
    with ProcessPool(2) as pool:
        assert [call.result() for call in [pool.submit(double, number) for number in range(20)]] == list(range(0, 40, 2))
        ids = {call.result() for call in [pool.submit(process_id) for _ in range(20)]}
    assert 1 <= len(ids) <= 2 and os.getpid() not in ids
    assert not any(psutil.pid_exists(id) for id in ids)


def test_a_child_does_not_import_the_callers_main_module() -> None:
    with ProcessPool(1) as pool:
        assert pool.submit(main_module).result() == str(ROOT / "evergreen" / "processes.py")


def test_what_a_call_raises_reaches_the_caller_with_its_text_and_where_it_was_raised() -> None:
    error = WrongUse("no such thing", expected="one", received=3, fix="Take: thing DIR")
    with ProcessPool(1) as pool:
        before = pool.submit(process_id).result()
        with pytest.raises(WrongUse) as raised:
            pool.submit(fail, error).result()
        assert str(raised.value) == str(error) and raised.value.fix == error.fix
        assert any("in fail\n" in note for note in raised.value.__notes__)
        with pytest.raises(OSError, match="disk") as full:
            pool.submit(fail, OSError(28, "disk")).result()
        assert full.value.errno == 28
        with pytest.raises(EvergreenError, match="Odd: onetwo"):
            pool.submit(fail_oddly).result()
        assert pool.submit(process_id).result() == before


def test_a_result_that_cannot_be_pickled_is_an_error() -> None:
    with ProcessPool(1) as pool, pytest.raises(Exception, match="pickle"):
        pool.submit(threading.Lock).result()


def test_a_crash_is_an_error_of_its_call_alone_and_says_the_last_line_of_what_it_wrote() -> None:
    with ProcessPool(1) as pool:
        for crash, message in (
            (pool.submit(write_and_die, "malloc(): corrupted"), r"malloc\(\): corrupted"),
            (pool.submit(kill_itself), "its process ended with status -9"),
            (pool.submit(leave), "its process ended with status 5"),
        ):
            with pytest.raises(Crashed, match=f"^{message}.$"):
                crash.result(60)
            assert pool.submit(double, 4).result() == 8


def test_a_call_that_takes_too_long_is_ended() -> None:
    with ProcessPool(1, patience_seconds=5) as pool:
        with pytest.raises(Hung, match="more than 5 seconds"):
            pool.submit(time.sleep, 600).result(60)
        assert pool.submit(abs, -8).result() == 8  # a built-in function, so that the new child has nothing to import


def test_a_child_that_does_not_start_is_not_the_calls_fault() -> None:
    with ProcessPool(1, initializer=kill_itself) as pool, pytest.raises(EvergreenError, match="does not start") as raised:
        pool.submit(double, 4).result()
    assert not isinstance(raised.value, Crashed)
    with ProcessPool(1, initializer=fail_oddly) as pool, pytest.raises(EvergreenError, match="Odd: onetwo"):
        pool.submit(double, 4).result()


def test_an_error_in_the_block_ends_what_still_runs() -> None:
    started = time.monotonic()
    with pytest.raises(KeyError), ProcessPool(2) as pool:
        calls = [pool.submit(time.sleep, 600) for _ in range(5)]
        while len(pool._children) < 2:
            time.sleep(0.01)
        raise KeyError
    assert time.monotonic() - started < 60
    assert all(call.done() for call in calls) and not any(child.process.poll() is None for child in pool._children)


def test_children_end_when_their_parent_is_killed() -> None:
    code = (
        "import time; from evergreen.processes import ProcessPool; from tests.evergreen.test_processes import process_id\n"
        "with ProcessPool(2) as pool: print(pool.submit(process_id).result(), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        assert not psutil.wait_procs([child], timeout=60)[1]


def test_a_function_of_a_folder_on_the_callers_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kind_elsewhere.py").write_text("def decode(): return 'found'\n")
    monkeypatch.syspath_prepend(tmp_path)
    import kind_elsewhere

    with ProcessPool(1) as pool:
        assert pool.submit(kind_elsewhere.decode).result() == "found"
