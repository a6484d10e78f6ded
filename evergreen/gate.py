"""The gate that a challenger must pass to take the champion's place: better on the same items by more than chance, worse for no
label, and worth the energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        promote: whether the challenger passes.
        reason: in a sentence for people.
        gained: items that only the challenger got right.
        lost: items that only the champion got right.
        p_value: chance of so many gains or more among these items if neither were better.
    """

    promote: bool
    reason: str
    gained: int
    lost: int
    p_value: float


def decide(
    champion: np.ndarray,
    challenger: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    alpha: float,
    energy_ratio: float | None,
    gain_per_doubling: float,
) -> Verdict:
    """Compare two models on the same items.

    The test is McNemar's (1947) in its exact, one-sided form: only items on which the two differ tell them apart, and if neither is
    better, each of those is as likely a gain as a loss. Ties keep the champion. For no label may the champion be better by the
    same test, at `alpha` shared among the labels (Bonferroni). A challenger that takes more energy must earn it: for each doubling,
    its accuracy must be higher by `gain_per_doubling`. One that takes less gets nothing for it: quality comes first.

    Args:
        champion, challenger: bool `(items,)`: which got the item right.
        labels: int `(items,)`, places in `names`.
        alpha: chance of promoting a model that is no better.
        energy_ratio: of a prediction, challenger to champion; None where it couldn't be measured, and doesn't count.
        gain_per_doubling: share of items.
    """
    gained, lost = int((challenger & ~champion).sum()), int((champion & ~challenger).sum())
    p_value = chance(gained, lost)
    items = len(labels)

    def verdict(promote: bool, reason: str) -> Verdict:
        return Verdict(promote, reason, gained, lost, p_value)

    told = f"{gained} of {items:,} test items gained, {lost} lost, p = {p_value:.3g}"
    if p_value > alpha:
        return verdict(False, f"not better than the champion by more than chance ({told}, needed {alpha:g})")
    for place, name in enumerate(names):
        of_label = labels == place
        won, given_up = (
            int((challenger & ~champion & of_label).sum()),
            int((champion & ~challenger & of_label).sum()),
        )
        if chance(given_up, won) <= alpha / len(names):
            return verdict(False, f'better over all ({told}), but worse for the label "{name}": {won} gained, {given_up} lost')
    needed = gain_per_doubling * math.log2(energy_ratio) if energy_ratio is not None and energy_ratio > 1 else 0.0
    gain = (gained - lost) / items
    if gain < needed:
        return verdict(
            False,
            f"better ({told}), but at {energy_ratio:.2g} times the energy a gain of {needed:.2%} is needed and it is {gain:.2%}",
        )
    energy = "" if energy_ratio is None else f", at {energy_ratio:.2g} times the energy"
    return verdict(True, f"better than the champion by more than chance ({told}{energy})")


def chance(gained: int, lost: int) -> float:
    """Of `gained` or more among all these differences if either way were as likely: the exact one-sided McNemar test."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue) if gained + lost else 1.0
