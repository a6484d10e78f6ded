"""How far estimates are from what runs really take: ten runs of the quickstart in one checkout, each estimated beforehand. The
first of each size of network has nothing but a trial of some seconds to go by; the number of epochs differs from run to run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.report import Row, environment, fresh_checkout, median, report

# epochs and filters; the first run has its data collected, and is trained from the start
RUNS = ((10, 8), (20, 8), (40, 8), (15, 8), (30, 8), (20, 16), (40, 16), (10, 16), (30, 16), (20, 12))


@dataclass(frozen=True)
class Guess:
    """Of one run: fractions by which it took more than was expected (below 0: less), and whether its time lay within the
    interval."""

    by_trial: bool
    seconds_off: float
    energy_off: float
    within: bool


def run(checkout: Path, epochs: int, filters: int, *, estimated: bool) -> Guess | None:
    """A run with these settings, and how far off its estimate was; None where it is not estimated."""
    import json

    from ruamel.yaml import YAML

    path, yaml = checkout / "scenarios" / "quickstart.yaml", YAML()
    document = yaml.load(path.read_text())
    document["train"] |= {"epochs": epochs, "filters": filters}
    with open(path, "w") as file:
        yaml.dump(document, file)
    done = subprocess.run(
        [sys.executable, "-m", "bench.estimated_run", *(["--estimate"] if estimated else [])],
        cwd=checkout,
        env=environment(checkout),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    expected, seconds, energy_wh = json.loads(done.stdout.strip().splitlines()[-1])
    if expected is None:
        return None
    return Guess(
        "trial" in expected["basis"],
        seconds / expected["seconds"] - 1,
        energy_wh / expected["energy_wh"] - 1,
        expected["seconds_least"] <= seconds <= expected["seconds_most"],
    )


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        checkout = fresh_checkout(Path(folder))
        run(checkout, 5, 8, estimated=False)  # collects the data, with another number of epochs
        guesses = [guess for epochs, filters in RUNS if (guess := run(checkout, epochs, filters, estimated=True))]

    def row(name: str, those: list[Guess]) -> Row:
        offs = [f"{guess.seconds_off:+.0%}" for guess in those]
        seconds, energy = median([abs(one.seconds_off) for one in those]), median([abs(one.energy_off) for one in those])
        within = sum(guess.within for guess in those)
        return Row(f"estimate of a run, {name}", f"off by {', '.join(offs)}", "",
                   f"time off by {seconds:.0%}, energy by {energy:.0%} (medians); {within} of {len(those)} within the interval", "")  # fmt: skip

    known, tried = [guess for guess in guesses if not guess.by_trial], [guess for guess in guesses if guess.by_trial]
    return [row("from earlier ones", known), row("from a trial of seconds", tried)]


if __name__ == "__main__":
    report(rows, __doc__ or "")
