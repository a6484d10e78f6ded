"""From a fresh clone to a first champion: `make run`, beside the same at an earlier commit, in turn.

    python -m bench.first_champion --before 7dd3018 --runs 3

Each run starts from an empty folder, with package caches of its own that the first run of each commit fills: `--cold` empties
them each time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bench.report import ROOT, median


def clone_to_champion(commit: str, caches: Path) -> float:
    """Seconds from `git clone` to the end of `make run`.

    Raises:
        subprocess.CalledProcessError: the run failed.
    """
    hidden = ("VIRTUAL_ENV", "PREFECT_API_URL", "MLFLOW_TRACKING_URI", "EVERGREEN_ROOT")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PIP_CACHE_DIR": str(caches / "pip"), "UV_CACHE_DIR": str(caches / "uv")}
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "evergreen"
        started = time.monotonic()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
        subprocess.run(["git", "checkout", "-q", commit], cwd=checkout, check=True)
        subprocess.run(
            ["make", "run"], cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", required=True, help="the commit to compare with")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="fetch every package in every run")
    arguments = parser.parse_args()
    now = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    seconds: dict[str, list[float]] = {"before": [], "now": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.runs):
            for name, commit in (("before", arguments.before), ("now", now)):
                caches = Path(folder) / name
                if arguments.cold:
                    shutil.rmtree(caches, ignore_errors=True)
                seconds[name].append(clone_to_champion(commit, caches))
                print(f"{name}: {seconds[name][-1]:.0f} s", flush=True)
    print(json.dumps({name: {"median": median(values), "runs": values} for name, values in seconds.items()}))


if __name__ == "__main__":
    main()
