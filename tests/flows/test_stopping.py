"""Ctrl-C in the midst of a run, and of `evergreen up`: a line, the right status, no process left, and Prefect says that it was
cancelled."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from evergreen.stopping import STOPPED
from tests.flows.conftest import Checkout, Up, free_port

pytestmark = pytest.mark.slow


def interrupted(checkout: Checkout, moment: Callable[[str], bool], *arguments: str) -> tuple[int, str]:
    """Start a command as a terminal does, and press Ctrl-C when what it has printed says so; its exit status and all that it
    printed."""
    log = checkout.root / "stopped.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments], cwd=checkout.root, env=checkout.environment,
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, process_group=0,
        )  # fmt: skip
    family: list[psutil.Process] = []
    try:
        until = time.monotonic() + 300
        while not moment(log.read_text()):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        status = process.wait(120)
    finally:
        left = [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
        for member in left:
            member.kill()
        process.kill()
    assert not left
    return status, log.read_text()


def states(home: Path) -> list[str]:
    """Of the runs and tasks that have not completed, by what Prefect has stored."""
    with sqlite3.connect(home / "prefect.db") as store:
        runs = store.execute("SELECT state_type FROM flow_run WHERE state_type NOT IN ('COMPLETED', 'SCHEDULED')").fetchall()
        tasks = store.execute("SELECT state_type FROM task_run WHERE state_type != 'COMPLETED'").fetchall()
    return [state for (state,) in [*runs, *tasks]]


def a_run_that_is_stopped_while_it_trains(checkout: Checkout) -> None:
    checkpoints = checkout.workspace.checkpoints("quickstart")
    text = (checkout.root / "scenarios" / "quickstart.yaml").read_text()
    checkout.change("quickstart", "epochs: ", "epochs: 10000 # ")
    status, said = interrupted(checkout, lambda _: bool(list(checkpoints.rglob("state.npz"))), "run")
    (checkout.root / "scenarios" / "quickstart.yaml").write_text(text)
    assert status == 130 and said.strip().endswith(STOPPED), said
    assert "Traceback" not in said and "rash" not in said and "rror" not in said
    assert list(checkpoints.rglob("state.npz"))  # the next run goes on from here


def test_ctrl_c_ends_a_run_without_servers_and_prefect_has_it_as_cancelled(checkout: Checkout) -> None:
    a_run_that_is_stopped_while_it_trains(checkout)
    assert states(checkout.root / ".evergreen" / "prefect")[:1] == ["CANCELLED"]


@pytest.mark.servers
def test_ctrl_c_ends_a_run_with_servers_and_prefect_shows_it_as_cancelled(up: Up) -> None:
    a_run_that_is_stopped_while_it_trains(up.checkout)
    newest = up.ask("flow_runs/filter", {"flows": {"name": {"any_": ["training"]}}, "sort": "START_TIME_DESC", "limit": 1})[0]
    assert newest["state"]["type"] == "CANCELLED"


def test_ctrl_c_before_anything_has_begun_is_no_other(checkout: Checkout) -> None:
    checkout.change("quickstart", "epochs: ", "epochs: 1 # ")
    status, said = interrupted(
        checkout, lambda _: (checkout.root / ".evergreen" / "locks" / "run-quickstart.holder.json").exists(), "run"
    )
    assert status == 130 and said.strip().endswith(STOPPED) and "Traceback" not in said, said


def test_up_that_is_ended_while_it_starts_leaves_nothing_and_has_done_nothing_wrong(checkout: Checkout) -> None:
    ports = ("--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
    status, said = interrupted(checkout, lambda said: "Starting MLflow" in said, "up", *ports)
    assert status == 0 and said.splitlines()[-1] == "Everything is stopped." and "Traceback" not in said, said


@pytest.mark.servers
def test_a_second_up_says_who_is_first_and_not_that_everything_is_stopped(up: Up) -> None:
    done = up.checkout.evergreen("up", "--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
    assert done.status == 2 and "already" in done.err and up.prefect_url in done.err
    assert "stopped" not in done.err
    assert up.ask("health") is True
