"""How often the gate errs and how often it sees a true gain: pairs of models simulated on the same items.

Pairs that are equally good (A/A) are drawn ten times as many: of them, a promotion is an error. Every row has draws of its own,
seeded.

Run: python -m bench.gate [--json] [--pairs 1000]
"""

from __future__ import annotations

import argparse
import itertools
import json

import numpy as np

from evergreen.evaluation.gate import decide
from evergreen.evaluation.proportions import interval
from evergreen.kinds.classify.comparison import METRICS, LabelComparison
from evergreen.kinds.classify.settings import ImagePromote

ALPHA = 0.05
LABELS = 10
DIFFER = 0.06  # share of items that just one of two models gets right: an assumption, not a measurement


def promoted(metric: str, gain: float, items: int, pairs: int, random: np.random.Generator) -> int:
    """Of so many pairs, in how many `decide` promotes a challenger that is truly better by `gain`, without an energy term. Who
    is wrong names any other label."""
    settings = ImagePromote.model_validate({"metric": metric, "alpha": ALPHA})
    labels, names, times = np.arange(items) % LABELS, [str(place) for place in range(LABELS)], 0
    for number in range(pairs):
        drawn = random.random(items)
        only_challenger, only_champion = drawn < (DIFFER + gain) / 2, drawn > 1 - (DIFFER - gain) / 2
        wrong = (labels + random.integers(1, LABELS, items)) % LABELS
        champion, challenger = (np.where(missed, wrong, labels) for missed in (only_challenger, only_champion))
        times += decide(
            LabelComparison(labels, champion, challenger, names, METRICS[metric]), settings, None, seed=number
        ).promote
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pairs", type=int, default=1000)
    arguments = parser.parse_args()
    rows = []
    for place, (metric, items, gain) in enumerate(
        itertools.product(("accuracy", "f1_macro"), (1000, 10_000), (0.0, 0.01, 0.02))
    ):
        pairs = arguments.pairs * (1 if gain else 10)
        times = promoted(metric, gain, items, pairs, np.random.default_rng([2026, place]))
        low, high = interval(times, pairs)
        rows.append(
            {
                "metric": metric,
                "items": items,
                "gain": gain,
                "pairs": pairs,
                "promoted": times,
                "low": low,
                "high": high,
            }
        )
    if arguments.json:
        print(json.dumps(rows))
        return
    print("| metric | test items | true gain | pairs | promoted (95 %) |\n|---|---|---|---|---|")
    for row in rows:
        share = row["promoted"] / row["pairs"]
        print(
            f"| {row['metric']} | {row['items']:,} | {row['gain']:.0%} | {row['pairs']:,} | {share:.1%} ({row['low']:.1%} to {row['high']:.1%}) |"
        )


if __name__ == "__main__":
    main()
