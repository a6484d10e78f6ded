"""How often the gate errs and how often it sees a true gain: pairs of models simulated on the same items.

Run: python -m bench.gate [--json]
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from evergreen.gate import decide
from evergreen.metrics import interval

ALPHA = 0.05
LABELS = 10
DIFFER = 0.06  # share of items that just one of two models gets right: an assumption, not a measurement


def promoted(gain: float, items: int, pairs: int, random: np.random.Generator) -> int:
    """Of so many pairs, in how many `decide` promotes a challenger that is truly better by `gain`, without an energy term."""
    labels, names, times = np.arange(items) % LABELS, [str(place) for place in range(LABELS)], 0
    for _ in range(pairs):
        drawn = random.random(items)
        only_challenger, only_champion = drawn < (DIFFER + gain) / 2, drawn > 1 - (DIFFER - gain) / 2
        verdict = decide(~only_challenger, ~only_champion, labels, names, alpha=ALPHA, energy_ratio=None, gain_per_doubling=0.0)
        times += verdict.promote
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pairs", type=int, default=1000)
    arguments = parser.parse_args()
    random, rows = np.random.default_rng(2026), []
    for items in (1000, 10_000):
        for gain in (0.0, 0.01, 0.02):
            times = promoted(gain, items, arguments.pairs, random)
            low, high = interval(times, arguments.pairs)
            rows.append({"items": items, "gain": gain, "pairs": arguments.pairs, "promoted": times, "low": low, "high": high})
    if arguments.json:
        print(json.dumps(rows))
        return
    print("| test items | true gain | promoted (95 %) |\n|---|---|---|")
    for row in rows:
        share = row["promoted"] / row["pairs"]
        print(f"| {row['items']:,} | {row['gain']:.0%} | {share:.1%} ({row['low']:.1%} to {row['high']:.1%}) |")


if __name__ == "__main__":
    main()
