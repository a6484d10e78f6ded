"""What a dead worker leaves behind: twenty times a worker is killed with -9 in the midst of a run, alone and together with its
run.

Expected each time: the run is marked as crashed within two minutes, its place in the queue is free, the next run of the
scenario ends well, and no run that had ended is marked as crashed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.report import Row, environment, fresh_checkout, median, report

KILLS = int(os.environ.get("EVERGREEN_KILLS", 20))
WANTED_SECONDS = 120.0
SCENARIO = "quickstart"


class Server:
    """`evergreen up` over a fresh checkout, asked as Prefect's page asks it."""

    def __init__(self, checkout: Path) -> None:
        ports = [_free_port() for _ in range(3)]
        self.url = f"http://127.0.0.1:{ports[0]}/api"
        self.log = checkout / "up.log"
        with open(self.log, "wb") as output:
            self.process = psutil.Popen(
                [
                    sys.executable, "-m", "flows.cli", "up",
                    "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1]), "--pages-port", str(ports[2]),
                ],
                cwd=checkout, env=environment(checkout), stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait(lambda: b"Ctrl-C" in self.log.read_bytes(), 240)

    def ask(self, path: str, question: dict[str, Any] | None = None) -> Any:
        data = None if question is None else json.dumps(question).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def start(self) -> str:
        deployment = self.ask(f"deployments/name/training/{SCENARIO}")["id"]
        return str(self.ask(f"deployments/{deployment}/create_flow_run", {})["id"])

    def state(self, run: str) -> str:
        return str(self.ask(f"flow_runs/{run}")["state"]["type"])

    def worker(self) -> psutil.Process:
        found: list[psutil.Process] = wait(
            lambda: [child for child in self.process.children(recursive=True) if "worker" in child.cmdline()], 60
        )
        return found[0]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


def wait(true: Callable[[], Any], seconds: float) -> Any:
    until = time.monotonic() + seconds
    while not (answer := true()):
        if time.monotonic() > until:
            raise SystemExit(f"nothing came of it in {seconds:.0f} s")
        time.sleep(0.2)
    return answer


def change(checkout: Path, seed: int) -> None:
    """So that a run has something to do, and not for long."""
    path, new = checkout / "scenarios" / f"{SCENARIO}.yaml", {"seed": f"seed: {seed}", "epochs": "  epochs: 5"}
    lines = [new.get(line.strip().partition(":")[0], line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kill(server: Server, checkout: Path, number: int, moments: random.Random) -> tuple[bool, float]:
    """Start a run, kill its worker at some moment (every fourth time together with the run itself), wait until it is marked as
    crashed, then until the next run of the scenario has ended well.

    Returns:
        Whether the run was killed too, and the seconds from the kill to the mark.
    """
    change(checkout, 1000 + number)
    run = server.start()
    wait(lambda: server.state(run) in ("PENDING", "RUNNING"), 120)
    time.sleep(moments.uniform(0, 8))
    if server.state(run) == "COMPLETED":
        raise SystemExit("the run had ended before its worker was killed")
    worker, both = server.worker(), number % 4 == 3
    victims = [worker, *(worker.children(recursive=True) if both else [])]
    killed = time.monotonic()
    for victim in victims:
        victim.kill()
    wait(lambda: server.state(run) == "CRASHED", 300)
    seconds = time.monotonic() - killed
    following = server.start()
    wait(lambda: server.state(following) == "COMPLETED", 300)
    print(
        f"kill {number + 1}: {'with its run' if both else 'alone'}, marked after {seconds:.1f} s", file=sys.stderr, flush=True
    )
    return both, seconds


def rows() -> list[Row]:
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        checkout = fresh_checkout(Path(folder))
        server = Server(checkout)
        try:
            found = [kill(server, checkout, number, moments) for number in range(KILLS)]
            runs = server.ask("flow_runs/filter", {})
        finally:
            server.stop()
    ended = {kind: sum(run["state"]["type"] == kind for run in runs) for kind in ("COMPLETED", "CRASHED")}
    alone, both = [seconds for together, seconds in found if not together], [seconds for together, seconds in found if together]

    def marked(name: str, seconds: list[float]) -> Row:
        reported = f"{median(seconds):.0f} s, at most {max(seconds):.0f} s"
        return Row(f"{name}: until its run is marked as crashed, {len(seconds)} times", reported, "", reported,
                   f"{WANTED_SECONDS:.0f} s", max(seconds) <= WANTED_SECONDS)  # fmt: skip

    kept = f"{ended['COMPLETED']} ended well, {ended['CRASHED']} crashed"
    return [
        *([marked("worker killed with -9", alone)] if alone else []),
        *([marked("worker and run killed with -9", both)] if both else []),
        Row(
            "the next run after each kill",
            kept,
            "",
            kept,
            f"{KILLS} and {KILLS}",
            ended == {"COMPLETED": KILLS, "CRASHED": KILLS},
        ),
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")
