"""What the flow itself costs: the first run, a run that changes nothing (with the server up and without), and the flow's
overhead over its stages' own work."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.report import Row, environment, fresh_checkout, median, report


def evergreen(checkout: Path, *arguments: str) -> tuple[float, dict[str, Any]]:
    """Wall seconds of the whole process and its JSON."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"evergreen {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return wall, json.loads(done.stdout)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rows() -> list[Row]:
    first, again, again_up, overhead = [], [], [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            checkout = fresh_checkout(Path(folder))
            first.append(evergreen(checkout, "run", "quickstart")[0])
            again.append(evergreen(checkout, "run", "quickstart")[0])
    with tempfile.TemporaryDirectory() as folder:
        checkout = fresh_checkout(Path(folder))
        log = checkout / "up.log"
        with open(log, "wb") as output:
            up = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "flows.cli",
                    "up",
                    "--prefect-port",
                    str(_free_port()),
                    "--mlflow-port",
                    str(_free_port()),
                    "--pages-port",
                    str(_free_port()),
                ],
                cwd=checkout,
                env=environment(checkout),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            while b"Ctrl-C" not in log.read_bytes():
                if up.poll() is not None:
                    raise SystemExit(f"evergreen up failed: {log.read_text()}")
                time.sleep(0.2)
            for number in range(3):
                scenario = checkout / "scenarios" / "quickstart.yaml"
                scenario.write_text(
                    scenario.read_text().replace("seed: 7", f"seed: {7 + number}") if number else scenario.read_text()
                )
                started = time.perf_counter()
                _, summary = evergreen(checkout, "run", "quickstart")
                wall = time.perf_counter() - started
                overhead.append(wall - sum(stage["seconds"] for stage in summary["stages"].values()))
                again_up.append(evergreen(checkout, "run", "quickstart")[0])
        finally:
            up.terminate()
            up.wait(60)
    return [
        Row(
            "first evergreen run of the quickstart, no server",
            f"{median(first):.1f} s",
            "",
            f"{median(first):.1f} s",
            "60 s",
            median(first) <= 60,
        ),
        Row(
            "evergreen run again, nothing changed, no server",
            f"{median(again):.1f} s",
            "ZenML 5.1 s, Metaflow 3.5 s, Dagster 2.6 s",
            f"{median(again):.1f} s",
            "5 s",
            median(again) <= 5,
        ),
        Row(
            "the same with the server up",
            f"{median(again_up):.1f} s",
            "Prefect 3.0 s",
            f"{median(again_up):.1f} s",
            "5 s",
            median(again_up) <= 5,
        ),
        Row(
            "flow overhead, server up (wall less stages)",
            f"{median(overhead):.1f} s",
            "",
            f"{median(overhead):.1f} s",
            "3 s",
            median(overhead) <= 3,
        ),
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")
