"""The gate: a challenger takes the champion's place if it is better on the same items by more than chance, or as good for clearly less energy;
worse for no label and no slice; and worth the energy. Where there is no champion, a first model must be better than no model.

**Better**: by accuracy, McNemar's exact one-sided test (1947): only items on which the two differ tell them apart, and if neither is better, each
of those is as likely a gain as a loss. By macro F1, which no such test knows, the paired bootstrap (Efron and Tibshirani 1993; for classifiers on
the same items Koehn 2004): the items are drawn anew 2,000 times with both models' predictions, and p is the share of draws in which the challenger
is no better. Ties keep the champion.

**Guards**: for no label, and for no value of the columns that the scenario slices by, may the champion be better by McNemar's test, at alpha over
all these guards together (Holm).

**Energy** decides only where the whole interval of its ratio does (`evergreen.evaluation.energy_ratio`). A challenger that surely takes more must gain
`gain_per_doubling` for each doubling, counted from the lower end: it pays for what is known, not for what may be noise. One whose upper end is
`cheaper` or less is promoted where it is not worse: where with a confidence of 1 - alpha it loses less than `margin` (non-inferiority, by the same
bootstrap), and the champion is not better by McNemar's test.

**The first champion** (`decide_first`) is compared in the same way with always naming the test split's commonest label, which is the best that can
be done without seeing an image (the no-information rate). It must have learned from items of every label, and reach `floor` if there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evergreen import figures
from evergreen.evaluation.energy_ratio import EnergyRatio
from evergreen.evaluation.metrics import interval
from evergreen.evaluation.multiple_testing import holm
from evergreen.scenario.settings import Promote

DRAWS = 2_000


@dataclass(frozen=True)
class Paired:
    """What two models make of the same items.

    Attributes:
        labels: int `(items,)`, the right ones' places in `names`.
        champion, challenger: int `(items,)`, the predicted ones' places; -1 for a label that is not in `names`.
        names: of the labels.
        columns: a value for each item, by the column's name: the slices besides the labels.
    """

    labels: np.ndarray
    champion: np.ndarray
    challenger: np.ndarray
    names: Sequence[str]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def champion_right(self) -> np.ndarray:
        """bool `(items,)`."""
        right: np.ndarray = self.champion == self.labels
        return right

    @property
    def challenger_right(self) -> np.ndarray:
        """bool `(items,)`."""
        right: np.ndarray = self.challenger == self.labels
        return right


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        promote: whether the challenger passes.
        reason: in a sentence for people.
        gained: items that only the challenger got right.
        lost: items that only the champion got right.
        p_value: chance of so large a gain or a larger one if neither were better, by the scenario's metric.
        f1_gain, f1_low, f1_high: of macro F1, with its 95 % interval by the paired bootstrap.
        slices: the guards.
    """

    promote: bool
    reason: str
    gained: int
    lost: int
    p_value: float
    f1_gain: float
    f1_low: float
    f1_high: float
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


def decide(paired: Paired, settings: Promote, energy: EnergyRatio | None, *, seed: int = 0, tries: int = 1) -> Verdict:
    """Compare two models on the same items, as the head of this file says.

    Args:
        settings: the scenario's section `promote`.
        energy: of a prediction, challenger to champion; None where it isn't known, and doesn't count.
        seed: of the bootstrap's draws.
        tries: challengers that a retraining may send against the same champion. The chance `alpha` of promoting one that is no better is
            shared out among them (Bonferroni).
    """
    alpha = settings.alpha / tries
    champion, challenger, items = paired.champion_right, paired.challenger_right, len(paired.labels)
    gains = bootstrap(paired, seed)
    by_f1 = settings.metric == "f1_macro"
    gained, lost, p_value = _better(paired, gains, settings)
    of_labels = [
        _slice("label", name, paired.labels == place, champion, challenger, 1) for place, name in enumerate(paired.names)
    ]
    guards = _together(of_labels + _slices(paired.columns, champion, challenger, settings.min_slice_items))

    def verdict(promote: bool, reason: str) -> Verdict:
        return _verdict(promote, reason, gained, lost, p_value, gains, guards)

    gain = gains.f1_gain if by_f1 else (gained - lost) / items
    told = f"{gained:,} of {items:,} test items gained, {lost:,} lost, {figures.probability(p_value)}"
    if by_f1:
        told = f"macro F1 {figures.points(gain)}, {told}"
    is_better = p_value <= alpha
    is_cheaper = energy is not None and settings.cheaper is not None and energy.high <= settings.cheaper
    loses_at_most = -float(np.quantile(gains.f1_macro if by_f1 else gains.accuracy, alpha))
    as_good = loses_at_most < settings.margin and chance(lost, gained) > settings.alpha
    if not is_better and not (is_cheaper and as_good):
        also = f"; it takes {energy}, but may lose {figures.percent(loses_at_most)}" if is_cheaper else ""
        return verdict(False, f"not better than the champion by more than chance ({told}, needed {figures.plain(alpha)}{also})")
    worse = [guard for guard in guards if guard.p_value_worse is not None and guard.p_value_worse <= settings.alpha]
    if worse:
        first = min(worse, key=lambda guard: guard.p_value_worse or 0.0)
        which = f'{first.column} "{first.value}"'
        return verdict(
            False,
            f"{'better' if is_better else 'as good'} over all ({told}), but worse for the {which}: {first.gained} gained, {first.lost} lost",
        )
    if not is_better:
        return verdict(
            True, f"as good as the champion ({told}; it loses less than {figures.percent(settings.margin)}) at {energy}"
        )
    needed = settings.gain_per_doubling * math.log2(energy.low) if energy is not None and energy.low > 1 else 0.0
    if gain < needed:
        return verdict(
            False,
            f"better ({told}), but at {energy} a gain of {figures.points(needed)} is needed, and it is {figures.points(gain)}",
        )
    return verdict(True, f"better than the champion by more than chance ({told}{'' if energy is None else f', at {energy}'})")


def decide_first(
    labels: np.ndarray,
    predicted: np.ndarray,
    names: Sequence[str],
    train_items: Sequence[int],
    settings: Promote,
    *,
    seed: int = 0,
) -> Verdict:
    """Whether a model may be the first champion: whether it is better than none, as the head of this file says.

    Args:
        labels: int `(items,)`, the right ones' places in `names`.
        predicted: int `(items,)`, the predicted ones' places; -1 for a label that is not in `names`.
        train_items: of each label, how many the model learned from.
        settings, seed: as `decide`.

    Returns:
        The verdict, with "always the commonest label" in the champion's place; no slices.
    """
    from sklearn.metrics import f1_score

    commonest = int(np.bincount(labels, minlength=len(names)).argmax())
    paired = Paired(labels, np.full_like(predicted, commonest), predicted, names)
    gains = bootstrap(paired, seed)
    gained, lost, p_value = _better(paired, gains, settings)
    right, by_naming, items = int(paired.challenger_right.sum()), int(paired.champion_right.sum()), len(labels)
    value = right / items
    if settings.metric == "f1_macro":
        value = float(f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0.0))
    than = f'than always naming "{names[commonest]}" by more than chance'
    told = (
        f"{figures.percent(right / items, items=items)} of {items:,} test items are right, against "
        f"{figures.percent(by_naming / items, items=items)}; {figures.probability(p_value)}"
    )
    failures = [
        f'no item of the training split has the label "{name}"'
        for name, count in zip(names, train_items, strict=True)
        if not count
    ]
    if p_value > settings.alpha:
        few = chance(items - by_naming, 0) > settings.alpha
        also = "; with so few test items not even a perfect model would be" if few else ""
        failures.append(f"it is not better {than} ({told}, needed {figures.plain(settings.alpha)}{also})")
    if settings.floor is not None and value < settings.floor:
        metric = "macro F1" if settings.metric == "f1_macro" else "accuracy"
        failures.append(
            f"its {metric} is {figures.percent(value, items=items)}, where promote.floor is {figures.percent(settings.floor)}"
        )
    reason = "; ".join(failures) or f"the first one, better {than} ({told})"
    return _verdict(not failures, reason, gained, lost, p_value, gains, ())


def _better(paired: Paired, gains: Gains, settings: Promote) -> tuple[int, int, float]:
    """Items gained, items lost, and the chance of so large a gain if the challenger were no better, by the scenario's metric."""
    gained = int((paired.challenger_right & ~paired.champion_right).sum())
    lost = int((paired.champion_right & ~paired.challenger_right).sum())
    if settings.metric == "f1_macro":
        return gained, lost, float((1 + (gains.f1_macro <= 0).sum()) / (1 + DRAWS))
    return gained, lost, chance(gained, lost)


def _verdict(
    promote: bool, reason: str, gained: int, lost: int, p_value: float, gains: Gains, guards: Sequence[Slice]
) -> Verdict:
    f1_low, f1_high = (float(edge) for edge in np.quantile(gains.f1_macro, [0.025, 0.975]))
    return Verdict(promote, reason, gained, lost, p_value, gains.f1_gain, f1_low, f1_high, tuple(guards))


@dataclass(frozen=True)
class Gains:
    """Challenger less champion, in draws of the items with replacement.

    Attributes:
        accuracy, f1_macro: float64 `(DRAWS,)`.
        f1_gain: of macro F1 on the items themselves.
    """

    accuracy: np.ndarray
    f1_macro: np.ndarray
    f1_gain: float


def bootstrap(paired: Paired, seed: int) -> Gains:
    """Draw the items anew, each with both predictions. What a draw needs of an item is its label and what the two make of it, so that
    counts of these combinations are drawn, not items."""
    combinations, counts = np.unique(np.stack([paired.labels, paired.champion, paired.challenger]), axis=1, return_counts=True)
    labels, *predicted = combinations
    occurring = np.unique(labels)
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=DRAWS)
    drawn = np.concatenate([counts[None], drawn])  # the first is of the items themselves

    def f1_macro(made: np.ndarray) -> np.ndarray:
        is_label, is_predicted = ((told[:, None] == occurring).astype(float) for told in (labels, made))
        right = drawn @ (is_label * is_predicted)
        total = drawn @ is_label + drawn @ is_predicted
        f1 = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
        mean: np.ndarray = f1.mean(axis=1)
        return mean

    champion, challenger = predicted
    accuracy = drawn @ ((challenger == labels).astype(float) - (champion == labels)) / counts.sum()
    f1 = f1_macro(challenger) - f1_macro(champion)
    return Gains(accuracy[1:], f1[1:], float(f1[0]))


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
