"""`make bench`: every measurement, one after the other, as one table."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.report import ROOT, Row, show

MEASUREMENTS = ("training_input", "quickstart", "data_in", "flow", "scoring", "look_alikes", "inspection", "carbon", "cifar10")


def main() -> None:
    rows: list[Row] = []
    for name in MEASUREMENTS:
        print(f"bench.{name} …", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"bench.{name}", "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            rows.append(Row(name, "failed", "", f"exit status {done.returncode}", ""))
        elif done.stdout.strip():
            rows += [Row(**row) for row in json.loads(done.stdout.strip().splitlines()[-1])]
    show(rows)


if __name__ == "__main__":
    main()
