"""The gate that a challenger must pass to take the champion's place: better on the same items by more than chance, worse for no
label, and worth the energy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evergreen.metrics import interval
from evergreen.multiple import holm


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
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Slice:
    """The items with one value of a column (or one label), under both models.

    Attributes:
        champion, challenger: accuracy on these items; None without items. `_low` and `_high`: 95 %, Wilson.
        p_value_worse: chance of so many losses or more if the challenger were no worse here, with all judged slices in view
            (Holm); None where there were too few items to judge.
    """

    column: str
    value: str
    items: int
    gained: int
    lost: int
    champion: float | None
    champion_low: float | None
    champion_high: float | None
    challenger: float | None
    challenger_low: float | None
    challenger_high: float | None
    p_value_worse: float | None


def decide(
    champion: np.ndarray,
    challenger: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    alpha: float,
    energy_ratio: float | None,
    gain_per_doubling: float,
    columns: Mapping[str, Sequence[str]] | None = None,
    min_slice_items: int = 1,
) -> Verdict:
    """Compare two models on the same items.

    The test is McNemar's (1947) in its exact, one-sided form: only items on which the two differ tell them apart, and if neither is
    better, each of those is as likely a gain as a loss. Ties keep the champion. For no label may the champion be better by the
    same test, nor for any value of `columns`: at `alpha` over all these guards together (Holm). A challenger that takes more energy must earn it: for each doubling,
    its accuracy must be higher by `gain_per_doubling`. One that takes less gets nothing for it: quality comes first.

    Args:
        champion, challenger: bool `(items,)`: which got the item right.
        labels: int `(items,)`, places in `names`.
        alpha: chance of promoting a model that is no better.
        energy_ratio: of a prediction, challenger to champion; None where it couldn't be measured, and doesn't count.
        gain_per_doubling: share of items.
        columns: a value for each item, by the column's name: the slices besides the labels.
        min_slice_items: slices of `columns` with fewer are in the table, but not judged.
    """
    gained, lost = int((challenger & ~champion).sum()), int((champion & ~challenger).sum())
    p_value = chance(gained, lost)
    items = len(labels)

    of_labels = [_slice("label", name, labels == place, champion, challenger, 1) for place, name in enumerate(names)]
    guards = _together(of_labels + _slices(columns or {}, champion, challenger, min_slice_items))

    def verdict(promote: bool, reason: str) -> Verdict:
        return Verdict(promote, reason, gained, lost, p_value, tuple(guards))

    told = f"{gained} of {items:,} test items gained, {lost} lost, p = {p_value:.3g}"
    if p_value > alpha:
        return verdict(False, f"not better than the champion by more than chance ({told}, needed {alpha:g})")
    worse = [guard for guard in guards if guard.p_value_worse is not None and guard.p_value_worse <= alpha]
    if worse:
        first = min(worse, key=lambda guard: guard.p_value_worse or 0.0)
        which = f'{first.column} "{first.value}"'
        return verdict(False, f"better over all ({told}), but worse for the {which}: {first.gained} gained, {first.lost} lost")
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


def _slices(columns: Mapping[str, Sequence[str]], champion: np.ndarray, challenger: np.ndarray, least: int) -> list[Slice]:
    found = []
    for column, values in columns.items():
        each = np.array(values, object)
        found += [_slice(column, value, each == value, champion, challenger, least) for value in sorted(set(values))]
    return found


def _slice(column: str, value: str, inside: np.ndarray, champion: np.ndarray, challenger: np.ndarray, least: int) -> Slice:
    """Its p-value stands alone yet."""
    items = int(inside.sum())
    gained, lost = int((challenger & ~champion & inside).sum()), int((champion & ~challenger & inside).sum())
    before, after = (_accuracy(int((right & inside).sum()), items) for right in (champion, challenger))
    return Slice(column, value, items, gained, lost, *before, *after, chance(lost, gained) if items >= least else None)


def _accuracy(hits: int, items: int) -> tuple[float | None, float | None, float | None]:
    return (hits / items, *interval(hits, items)) if items else (None, None, None)


def _together(slices: Sequence[Slice]) -> list[Slice]:
    judged = [place for place, one in enumerate(slices) if one.p_value_worse is not None]
    corrected = dict(zip(judged, holm([slices[place].p_value_worse or 0.0 for place in judged]), strict=True))
    return [replace(one, p_value_worse=corrected.get(place)) for place, one in enumerate(slices)]
