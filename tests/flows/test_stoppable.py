"""A run that a worker started ends with its worker, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT

WORKER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True, stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline(), flush=True)
child.wait()
"""
RUN = """
import signal, time
from flows import stoppable
stoppable.GRACE_SECONDS = 0.5
def end(*_):
    open({note!r}, "w").write("asked to end")
    if {obeys}: raise SystemExit(1)
signal.signal(signal.SIGTERM, end)
stoppable.begin()
print("running", flush=True)
while True: time.sleep(0.1)
"""


@pytest.mark.parametrize("obeys", [True, False])
def test_a_run_ends_when_its_worker_is_killed_even_if_it_does_not_listen(tmp_path: Path, obeys: bool) -> None:
    note = tmp_path / "note"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EVERGREEN_ROOT": str(ROOT), "PREFECT__FLOW_RUN_ID": "any"}
    run = RUN.format(note=str(note), obeys=obeys)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, run], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    assert worker.stdout
    process = psutil.Process(int(worker.stdout.readline().split()[0]))
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    psutil.wait_procs([process], timeout=60)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert note.read_text() == "asked to end"


def test_a_run_that_a_person_started_outlives_its_parent(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EVERGREEN_ROOT": str(ROOT)}
    environment.pop("PREFECT__FLOW_RUN_ID", None)
    command = "from flows import stoppable; stoppable.begin(); import threading; print([t.name for t in threading.enumerate()])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.strip() == "['MainThread']", done.stderr
