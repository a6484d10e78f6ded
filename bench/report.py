"""What every measurement shares: a row of the performance table, the machine's description, checkouts to run in."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """One line of the table: `ours` and `rival` as text with units, `reached` the figure that counts, `aim` what it should
    reach."""

    what: str
    ours: str
    rival: str
    reached: str
    aim: str
    good: bool | None = None


def samples() -> Path:
    """The folder of real data. Exits with a clear message where it is missing."""
    folder = Path(os.environ.get("EVERGREEN_SAMPLES", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        print(
            f"Skipped: no real data at {folder}. Set EVERGREEN_SAMPLES to the folder that holds cifar10.tar.gz.",
            file=sys.stderr,
        )
        raise SystemExit(0)
    return folder


def machine() -> str:
    names = ("tensorflow", "keras", "onnxruntime", "prefect", "mlflow", "dvc")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    return f"{model or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median(values: list[float]) -> float:
    return statistics.median(values)


def fresh_checkout(folder: Path) -> Path:
    """A copy of this checkout's tracked and new files in `folder`, a repository of its own, with nothing run in it yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    ).stdout.split(b"\0")
    for name in filter(None, listed):
        source = ROOT / os.fsdecode(name)
        if source.is_file():
            target = folder / os.fsdecode(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)  # DVC wants one
    return folder


def environment(checkout: Path) -> dict[str, str]:
    """For commands in that checkout: this process's environment, without the servers that somebody has named."""
    hidden = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME")
    return {k: v for k, v in os.environ.items() if k not in hidden} | {"EVERGREEN_ROOT": str(checkout)}


def peak_bytes(pid: int) -> int:
    """The largest resident set of the process `pid` and its children together, watched until it ends, in bytes.

    Pages that processes share are counted once (proportional set size) where the system tells.
    """
    import psutil

    peak = 0
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for member in [process, *process.children(recursive=True)]:
                try:
                    memory = member.memory_full_info()
                    total += getattr(memory, "pss", memory.rss)
                except psutil.Error:
                    continue
            peak = max(peak, total)
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        pass
    return peak


def report(rows: Callable[[], list[Row]], description: str) -> None:
    """The body of `python -m bench.NAME`: measure and print, as a table or with --json as one list."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    as_json = parser.parse_args().json
    measured = rows()
    if as_json:
        print(json.dumps([asdict(row) for row in measured]))
    else:
        show(measured)


def show(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(caption=machine(), caption_justify="left")
    for heading in ("what", "ours", "rival", "reached", "aim"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        sign = {True: " ✓", False: " ✗", None: ""}[row.good]
        table.add_row(row.what, row.ours, row.rival, row.reached + sign, row.aim)
    Console(width=int(os.environ.get("COLUMNS", 160))).print(table)
