"""The gate: a challenger replaces the champion if, on the same units of evaluation, it is better by more than chance, or as
good for clearly less energy; if it is not worse in any slice of them; if the kind's judge has no objection, such as a simple
baseline that is better than both; and if its gain is worth its energy. If there is no champion, a first model must be better
than no model.

The gate is independent of the kind of scenario: a kind's judge gives it both models' results on the same units (`Comparison`),
with the metric by which they are compared.

**Better**: if a unit is simply right or wrong and the metric is the fraction of right ones, by McNemar's exact one-sided test
(1947): only units on which the two models differ tell them apart, and if neither is better, each of those is as likely a gain
as a loss. By any other metric, by the paired bootstrap (Efron and Tibshirani 1993; for classifiers on the same items Koehn
2004): the units are resampled 2,000 times with both models' results, and p is the fraction of draws in which the challenger is
no better. In a tie, the champion stays.

**Guards**: the champion must not be better in any slice of the units (a label, a value of a column that the scenario slices
by), by the same tests, at alpha over all these guards together (Holm).

**Energy** counts only as far as its ratio's whole interval supports it (`evergreen.evaluation.energy_ratio`). A challenger that
surely takes more must gain `gain_per_doubling` for each doubling, counted from the lower end, so that it is not charged for
what may be noise. A challenger whose upper end is at most `cheaper` is promoted if it is not worse: if, with a confidence of
1 - alpha, it loses less than `margin` (non-inferiority, by the same bootstrap), and, for units that are right or wrong, the
champion is not better by McNemar's test.

**The first champion** (`decide_first`) is compared in the same way with a baseline that needs no model, named by the kind's
judge. It must reach `floor` if there is one, and meet the judge's other conditions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evergreen import figures
from evergreen.evaluation.bootstrap import percentile_interval, resampled
from evergreen.evaluation.energy_ratio import EnergyRatio
from evergreen.evaluation.multiple_testing import holm
from evergreen.kinds.base.comparison import Baseline, Comparison, Guard
from evergreen.scenario.settings import Promote

DRAWS = 2_000


@dataclass(frozen=True)
class Verdict:
    """The gate's decision.

    Attributes:
        promote: whether the challenger passes.
        reason: a sentence for people.
        gained: the number of units on which the challenger is better.
        lost: the number of units on which the champion is better.
        p_value: the probability of a gain at least as large if neither were better, by the metric.
        gain, gain_low, gain_high: in the metric (`Metric.gain`), with its 95 % interval by the paired bootstrap.
        slices: the guards.
    """

    promote: bool
    reason: str
    gained: int
    lost: int
    p_value: float
    gain: float
    gain_low: float
    gain_high: float
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Slice:
    """The units with one value of a column, under both models.

    Attributes:
        items: the number of units.
        champion, challenger: the figure shown for each (`Comparison.figures`), None without units; `_low` and `_high` are its
            95 % interval.
        p_value_worse: the probability of a loss at least as large if the challenger were no worse here, adjusted for all judged
            slices (Holm); None if there are too few units to judge.
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
    compared: Comparison,
    settings: Promote,
    energy: EnergyRatio | None,
    *,
    columns: Mapping[str, Sequence[str]] | None = None,
    objections: Sequence[str] = (),
    seed: int = 0,
    tries: int = 1,
) -> Verdict:
    """Compare two models on the same units, by the rules in the module's docstring.

    Args:
        settings: the scenario's section `promote`.
        energy: the challenger's energy per prediction relative to the champion's; None if unknown, and ignored then.
        columns: the scenario's own slices, as a value for each unit, by the column's name.
        objections: the judge's reasons against the challenger, whatever the champion (`Judge.objections`).
        seed: of the bootstrap's draws.
        tries: the number of challengers that a retraining may compare with the same champion. The probability `alpha` of
            promoting one that is no better is divided among them (Bonferroni).
    """
    alpha, metric = settings.alpha / tries, compared.metric
    gains = bootstrap(compared, seed)
    gained, lost, p_value = _better(compared, gains)
    guards = _together([_slice(compared, guard, seed) for guard in _guards(compared, columns or {}, settings)])

    def verdict(promote: bool, reason: str) -> Verdict:
        return _verdict(promote, reason, gained, lost, p_value, gains, guards)

    gain = (gained - lost) / compared.units if compared.by_fraction else gains.gain
    words = f"{_counted(compared, gained, lost)}, {figures.probability(p_value)}"
    if not compared.by_fraction:
        words = f"{metric.title} {metric.gain_text(gain)}, {words}"
    is_better = p_value <= alpha
    is_cheaper = energy is not None and settings.cheaper is not None and energy.high <= settings.cheaper
    loses_at_most = -float(np.quantile(gains.drawn, alpha))
    surely_worse = compared.right_or_wrong and chance(lost, gained) <= settings.alpha
    as_good = loses_at_most < settings.margin and not surely_worse
    if not is_better and not (is_cheaper and as_good):
        also = f"; it takes {energy}, but may lose {metric.margin_text(loses_at_most)}" if is_cheaper else ""
        return verdict(
            False, f"not better than the champion by more than chance ({words}, needed {figures.plain(alpha)}{also})"
        )
    if objections:
        return verdict(False, f"{'better' if is_better else 'as good'} over all ({words}), but {'; '.join(objections)}")
    worse = [guard for guard in guards if guard.p_value_worse is not None and guard.p_value_worse <= settings.alpha]
    if worse:
        first = min(worse, key=lambda guard: guard.p_value_worse or 0.0)
        which = f'{first.column} "{first.value}"'
        return verdict(
            False,
            f"{'better' if is_better else 'as good'} over all ({words}), but worse for the {which}: {first.gained} gained, {first.lost} lost",
        )
    if not is_better:
        return verdict(
            True, f"as good as the champion ({words}; it loses less than {metric.margin_text(settings.margin)}) at {energy}"
        )
    needed = settings.gain_per_doubling * math.log2(energy.low) if energy is not None and energy.low > 1 else 0.0
    if gain < needed:
        return verdict(
            False,
            f"better ({words}), but at {energy} a gain of {metric.gain_text(needed)} is needed, and it is {metric.gain_text(gain)}",
        )
    return verdict(True, f"better than the champion by more than chance ({words}{'' if energy is None else f', at {energy}'})")


def decide_first(baseline: Baseline, settings: Promote, *, seed: int = 0) -> Verdict:
    """Decide whether a model may be the first champion, by the rules in the module's docstring.

    Args:
        settings, seed: as in `decide`.

    Returns:
        The verdict, with the baseline as the champion; without slices.
    """
    compared, metric, units = baseline.comparison, baseline.comparison.metric, baseline.comparison.units
    gains = bootstrap(compared, seed)
    gained, lost, p_value = _better(compared, gains)
    than, words = f"than {baseline.name} by more than chance", f"{baseline.words}; {figures.probability(p_value)}"
    failures = list(baseline.failures)
    if p_value > settings.alpha:
        few = baseline.best_p_value > settings.alpha
        also = f"; with so few {compared.unit}s not even a perfect model would be" if few else ""
        failures.append(f"it is not better {than} ({words}, needed {figures.plain(settings.alpha)}{also})")
    if settings.floor is not None and metric.gain(settings.floor, gains.challenger) < 0:
        reached, floor = metric.text(gains.challenger, items=units), metric.text(settings.floor)
        failures.append(f"its {metric.title} is {reached}, where promote.floor is {floor}")
    reason = "; ".join(failures) or f"the first one, better {than} ({words})"
    return _verdict(not failures, reason, gained, lost, p_value, gains, ())


@dataclass(frozen=True)
class Gains:
    """How much better the challenger is, by the metric (`Metric.gain`).

    Attributes:
        gain: on the original units.
        challenger: the challenger's value on them.
        drawn: float64 `(DRAWS,)`, the gain in draws of the units with replacement.
    """

    gain: float
    challenger: float
    drawn: np.ndarray


def bootstrap(compared: Comparison, seed: int) -> Gains:
    """Resample the units, each with both models' results."""
    values: list[float] = []

    def gain(weights: np.ndarray) -> np.ndarray:
        champion, challenger = compared.values(weights)
        values.append(float(challenger[0]))
        better: np.ndarray = compared.metric.gain(champion, challenger)
        return better

    found, drawn = resampled(gain, compared.counts, draws=DRAWS, seed=seed, blocks=compared.blocks)
    return Gains(found, values[0], drawn)


def chance(gained: int, lost: int) -> float:
    """The probability of at least `gained` among all these differences if both directions were equally likely: McNemar's exact
    one-sided test."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue) if gained + lost else 1.0


def _better(compared: Comparison, gains: Gains) -> tuple[int, int, float]:
    """The numbers of units gained and lost, and the p-value of the gain in the metric."""
    gained, lost = int(compared.gained.sum()), int(compared.lost.sum())
    if compared.by_fraction:
        return gained, lost, chance(gained, lost)
    return gained, lost, float((1 + (gains.drawn <= 0).sum()) / (1 + DRAWS))


def _counted(compared: Comparison, gained: int, lost: int) -> str:
    ways = ("gained", "lost") if compared.right_or_wrong else ("better", "worse")
    return f"{gained:,} of {compared.units:,} {compared.unit}s {ways[0]}, {lost:,} {ways[1]}"


def _verdict(
    promote: bool, reason: str, gained: int, lost: int, p_value: float, gains: Gains, guards: Sequence[Slice]
) -> Verdict:
    return Verdict(promote, reason, gained, lost, p_value, gains.gain, *percentile_interval(gains.drawn), tuple(guards))


def _guards(compared: Comparison, columns: Mapping[str, Sequence[str]], settings: Promote) -> list[Guard]:
    found = list(compared.guards())
    for column, values in columns.items():
        each = np.array(values, object)
        found += [Guard(column, value, each == value, settings.min_slice_items) for value in sorted(set(values))]
    return found


def _slice(compared: Comparison, guard: Guard, seed: int) -> Slice:
    """Compare both models on a guard's units; the p-value is not yet adjusted for the other slices."""
    inside = compared.within(guard.inside)
    gained, lost, p_value = int(inside.gained.sum()), int(inside.lost.sum()), None
    if inside.units >= guard.least_units:
        p_value = chance(lost, gained)
        if not compared.right_or_wrong:
            p_value = float((1 + (bootstrap(inside, seed).drawn >= 0).sum()) / (1 + DRAWS))
    champion, challenger = inside.figures()
    return Slice(guard.column, guard.value, inside.units, gained, lost, *champion, *challenger, p_value)


def _together(slices: Sequence[Slice]) -> list[Slice]:
    judged = [number for number, one in enumerate(slices) if one.p_value_worse is not None]
    corrected = dict(zip(judged, holm([slices[number].p_value_worse or 0.0 for number in judged]), strict=True))
    return [replace(one, p_value_worse=corrected.get(number)) for number, one in enumerate(slices)]
