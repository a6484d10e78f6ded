"""The gate: against values worked out by hand, and its promises for any two models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.evaluation.energy_ratio import EnergyRatio
from evergreen.evaluation.gate import Verdict, bootstrap, chance, decide, decide_first
from evergreen.kinds.classify.comparison import METRICS, LabelComparison, against_commonest
from evergreen.kinds.classify.metrics import quality
from evergreen.kinds.classify.settings import ImagePromote


def settings(**reported: Any) -> ImagePromote:
    return ImagePromote.model_validate(reported)


def compared(
    champion: np.ndarray,
    challenger: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    energy_ratio: float | None = None,
    **reported: Any,
) -> Verdict:
    """The verdict, given which items (bool) each gets right; the wrong label is always the next one."""
    columns = reported.pop("columns", {})
    predicted = [np.where(right, labels, (labels + 1) % len(names)) if len(names) > 1 else np.where(right, labels, -1)
                 for right in (champion, challenger)]  # fmt: skip
    energy = None if energy_ratio is None else EnergyRatio(energy_ratio, energy_ratio, energy_ratio)
    given = settings(**reported)
    return decide(LabelComparison(labels, *predicted, names, METRICS[given.metric]), given, energy, columns=columns)


def judged(*counts: tuple[int, int], items: int = 1000, alpha: float = 0.05, **settings: Any) -> Verdict:
    """The verdict where for each label so many items are gained and lost; the rest of the items both models get right."""
    names = [f"label-{place}" for place in range(len(counts))]
    champion, challenger = np.ones(items, bool), np.ones(items, bool)
    labels, at = np.zeros(items, int), 0
    for place, (gained, lost) in enumerate(counts):
        labels[at : at + gained + lost] = place
        champion[at : at + gained] = False
        challenger[at + gained : at + gained + lost] = False
        at += gained + lost
    return compared(champion, challenger, labels, names, alpha=alpha, **{"gain_per_doubling": 0.01} | settings)


@pytest.mark.parametrize(
    ("gained", "lost", "by_hand"),
    [
        (0, 0, 1),
        (1, 0, 1 / 2),
        (5, 0, 1 / 32),
        (0, 5, 1),
        (1, 1, 3 / 4),
        (8, 2, (45 + 10 + 1) / 1024),
        (2, 8, (1024 - 10 - 1) / 1024),
        (9, 1, 11 / 1024),
    ],
)
def test_the_chance_is_mcnemars_exact_one(gained: int, lost: int, by_hand: float) -> None:
    assert chance(gained, lost) == pytest.approx(by_hand, rel=1e-12)


def test_a_model_that_is_better_by_more_than_chance_is_promoted() -> None:
    verdict = judged((9, 1))
    assert verdict.promote and (verdict.gained, verdict.lost) == (9, 1) and verdict.p_value == pytest.approx(11 / 1024)
    assert "9 of 1,000 test items gained, 1 lost" in verdict.reason


def test_a_model_that_the_judge_objects_to_is_not_promoted_however_much_better_it_is() -> None:
    labels = np.zeros(1000, int)
    champion, challenger = np.arange(1000) >= 9, np.ones(1000, bool)
    compared = LabelComparison(labels, labels + ~champion, labels + ~challenger, ["a", "b"], METRICS["accuracy"])
    assert decide(compared, settings(), None).promote
    verdict = decide(compared, settings(), None, objections=("a line is better", "so is a tree"))
    assert not verdict.promote and verdict.p_value == decide(compared, settings(), None).p_value
    assert verdict.reason.startswith("better over all (9 of 1,000 test items gained, 0 lost")
    assert verdict.reason.endswith("but a line is better; so is a tree")


@pytest.mark.parametrize("counts", [(0, 0), (1, 1), (300, 300), (1, 0), (4, 0), (8, 2), (0, 50)])
def test_ties_and_what_chance_explains_keep_the_champion(counts: tuple[int, int]) -> None:
    verdict = judged(counts)
    assert not verdict.promote and "not better than the champion by more than chance" in verdict.reason


def test_exactly_as_sure_as_asked_for_is_sure_enough() -> None:
    assert judged((5, 0), alpha=1 / 32).promote
    assert not judged((5, 0), alpha=1 / 32 - 1e-9).promote


def test_a_model_that_is_worse_for_one_label_is_not_promoted_however_good_it_is_over_all() -> None:
    verdict = judged((100, 0), (0, 6))  # 1/64 is less than 0.05 shared by two labels
    assert not verdict.promote and 'worse for the label "label-1": 0 gained, 6 lost' in verdict.reason
    assert judged((100, 0), (0, 5)).promote  # 1/32 is not


def test_a_label_without_test_items_stops_nothing() -> None:
    assert judged((20, 0), (0, 0), (0, 0)).promote


@pytest.mark.parametrize(
    ("gained", "ratio", "promoted"),
    [(10, 2.0, True), (9, 2.0, False), (20, 4.0, True), (19, 4.0, False), (9, 1.0, True), (9, 0.1, True), (9, None, True)],
)
def test_each_doubling_of_the_energy_must_be_earned(gained: int, ratio: float | None, promoted: bool) -> None:
    verdict = judged((gained, 0), energy_ratio=ratio, gain_per_doubling=0.01)
    assert verdict.promote is promoted
    if not promoted:
        assert f"at {ratio:.1f} times the energy a gain of" in verdict.reason


def test_at_equal_quality_the_cheaper_one_wins_and_the_reason_says_so() -> None:
    verdict = judged((3, 3), energy_ratio=0.6, items=10_000)
    assert verdict.promote and "as good as the champion" in verdict.reason and "at 0.60 times the energy" in verdict.reason
    assert not judged((3, 3), energy_ratio=0.8, items=10_000).promote  # not clearly cheaper
    assert not judged((3, 3), energy_ratio=0.6, items=10_000, cheaper=None).promote
    assert not judged((3, 3), energy_ratio=None, items=10_000).promote


def test_energy_decides_only_where_the_whole_interval_does() -> None:
    def judged_at(gained: int, lost: int, low: float, high: float, **reported: Any) -> Verdict:
        labels, champion = np.zeros(10_000, int), np.zeros(10_000, int)
        challenger = champion.copy()
        champion[:gained], challenger[gained : gained + lost] = 1, 1
        paired = LabelComparison(labels, champion, challenger, ["a", "b"])
        return decide(paired, settings(gain_per_doubling=0.01, **reported), EnergyRatio(math.sqrt(low * high), low, high))

    assert judged_at(3, 3, 0.5, 0.7).promote
    assert not judged_at(3, 3, 0.3, 0.71).promote  # the best guess, 0.46, is far below 0.7
    assert judged_at(20, 0, 0.9, 4).promote  # perhaps it takes no more
    assert judged_at(100, 0, 2, 4).promote and not judged_at(99, 0, 2, 2).promote  # 1 % for the one doubling that is sure
    refused = judged_at(99, 0, 2, 4)
    assert "at 2.8 (2.0 to 4.0) times the energy a gain of +1.0 points is needed" in refused.reason


def test_less_energy_makes_up_for_no_quality() -> None:
    few = judged((3, 3), energy_ratio=0.01, items=500)  # of so few it may lose more than half a percent
    assert not few.promote and "it takes 0.010 times the energy, but may lose" in few.reason
    assert not judged((0, 8), energy_ratio=0.01, items=10_000).promote  # little, but surely
    assert not judged((50, 50), (0, 9), energy_ratio=0.01, items=10_000, margin=0.1).promote  # worse for a label


def test_by_macro_f1_a_rare_label_counts_like_a_common_one() -> None:
    """40 of 50 items of a rare label gained, 45 of 5,000 of a common one lost: accuracy knows no difference."""
    labels = np.repeat([0, 1], [5000, 50])
    champion, challenger = np.ones(5050, bool), np.ones(5050, bool)
    champion[5000:5040], challenger[:45] = False, False
    by_accuracy = compared(champion, challenger, labels, ["common", "rare"])
    assert not by_accuracy.promote
    by_f1 = compared(champion, challenger, labels, ["common", "rare"], metric="f1_macro")
    assert by_f1.gain > 0.1 and by_f1.gain_low > 0
    assert by_f1.p_value < 0.01 and not by_f1.promote and 'worse for the label "common"' in by_f1.reason  # the guard holds
    assert compared(champion, np.ones(5050, bool), labels, ["common", "rare"], metric="f1_macro").promote
    assert not compared(np.ones(5050, bool), np.ones(5050, bool), labels, ["common", "rare"], metric="f1_macro").promote


def test_the_bootstraps_macro_f1_is_that_of_the_evaluation() -> None:
    random = np.random.default_rng(0)
    labels, one, other = (random.integers(0, 4, 300) for _ in range(3))
    figures = [quality(labels, np.eye(4)[made])["f1_macro"] for made in (one, other)]
    gains = bootstrap(LabelComparison(labels, one, other, list("abcd"), METRICS["f1_macro"]), seed=1)
    assert gains.gain == pytest.approx(figures[1] - figures[0]) and gains.challenger == pytest.approx(figures[1])
    assert abs(gains.drawn.mean() - gains.gain) < 0.02


PAIRS = st.integers(1, 60).flatmap(
    lambda items: st.tuples(
        *(st.lists(st.booleans(), min_size=items, max_size=items) for _ in range(2)),
        st.lists(st.integers(0, 2), min_size=items, max_size=items),
    )
)
RATIOS = st.none() | st.floats(0.01, 100)


@pytest.mark.slow
@given(PAIRS, st.floats(1e-6, 0.499), RATIOS, st.floats(0, 0.1))
def test_of_two_models_at_most_one_replaces_the_other(pair: Any, alpha: float, ratio: float | None, gain: float) -> None:
    one, other, labels = map(np.array, pair)
    reported: dict[str, Any] = {"alpha": alpha, "gain_per_doubling": gain}
    there = compared(one, other, labels, ["a", "b", "c"], ratio, **reported)
    back = compared(other, one, labels, ["a", "b", "c"], ratio and 1 / ratio, **reported)
    assert not (there.promote and back.promote)
    assert (there.gained, there.lost) == (back.lost, back.gained)


@given(PAIRS, RATIOS)
def test_who_is_promoted_is_better_on_these_items_and_the_reason_is_one_line(pair: Any, ratio: float | None) -> None:
    one, other, labels = map(np.array, pair)
    verdict = compared(one, other, labels, ["a", "b", "c"], ratio, gain_per_doubling=0.01)
    assert not verdict.promote or other.sum() > one.sum() or (ratio is not None and ratio <= 0.7)
    assert 0 <= verdict.p_value <= 1 and "\n" not in verdict.reason


@given(PAIRS)
def test_a_model_never_replaces_itself(pair: Any) -> None:
    one, _, labels = map(np.array, pair)
    assert not compared(one, one, labels, ["a", "b", "c"], 1.0, alpha=0.499, gain_per_doubling=0.0).promote


def sliced(lost: int, items: int = 400, **settings: Any) -> Verdict:
    """60 gained on camera "a"; on camera "b", 40 items, `lost` lost."""
    champion, challenger = np.ones(items, bool), np.ones(items, bool)
    champion[:60] = False
    challenger[items - lost :] = False
    cameras = ["a"] * (items - 40) + ["b"] * 40
    return compared(champion, challenger, np.arange(items) % 2, ["x", "y"], columns={"camera": cameras}, **settings)


def test_a_model_that_is_worse_for_one_slice_is_not_promoted() -> None:
    """Four guards: 4 × 1/2**7 is at most 0.05, 4 × 1/2**6 is not; of the labels, each alone has gained."""
    verdict = sliced(7)
    assert not verdict.promote and 'worse for the camera "b": 0 gained, 7 lost' in verdict.reason
    assert sliced(6).promote


def test_a_slice_with_too_few_items_is_reported_but_not_judged() -> None:
    verdict = sliced(7, min_slice_items=41)
    (b,) = (one for one in verdict.slices if (one.column, one.value) == ("camera", "b"))
    assert verdict.promote and b.p_value_worse is None and (b.items, b.champion, b.challenger) == (40, 1, 33 / 40)
    assert b.challenger_low is not None and b.challenger_low < 33 / 40


@pytest.mark.slow
def test_of_a_thousand_pairs_that_are_equally_good_no_more_than_alpha_are_promoted() -> None:
    random, alpha, promoted = np.random.default_rng(1), 0.05, 0
    labels = np.arange(500) % 2
    for _ in range(1000):
        hard = random.random(500) < 0.2  # the two differ on some of these only, and either way as often
        one, other = (~hard | (random.random(500) < 0.5) for _ in range(2))
        promoted += compared(one, other, labels, ["x", "y"], alpha=alpha).promote
    assert 0 < promoted <= 1000 * alpha


def first(labels: Any, predicted: Any, names: str = "abc", train: tuple[int, ...] = (9, 9, 9), **reported: Any) -> Verdict:
    given = settings(**reported)
    baseline = against_commonest(np.array(labels), np.array(predicted), list(names), train[: len(names)], METRICS[given.metric])
    return decide_first(baseline, given)


EVEN = [0, 1, 2] * 8


def test_a_first_model_must_be_better_than_naming_the_commonest_label() -> None:
    """8 of 24 are right by naming "a": all right gains 16 and loses none, 1/2**16."""
    verdict = first(EVEN, EVEN)
    assert verdict.promote and (verdict.gained, verdict.lost) == (16, 0) and verdict.p_value == pytest.approx(2**-16)
    assert verdict.reason == (
        'the first one, better than always naming "a" by more than chance (100 % of 24 test items are right, against 33 %; p < 0.001)'
    )
    for made in ([0] * 24, [2] * 24, [-1] * 24, [1, 2, 0] * 8):
        assert not first(EVEN, made).promote


def test_a_first_model_at_chance_is_refused_in_words() -> None:
    labels, predicted = [0, 1] * 20, [0, 0, 1, 1] * 10
    verdict = first(labels, predicted, "ab")
    assert not verdict.promote and verdict.reason == (
        'it is not better than always naming "a" by more than chance (50 % of 40 test items are right, against 50 %; p = 0.59, needed 0.05)'
    )


def test_where_one_label_is_nearly_all_naming_it_is_hard_to_beat_by_accuracy_and_not_by_macro_f1() -> None:
    labels = [0] * 95 + [1] * 5
    predicted = [0] * 92 + [1] * 8
    assert not first(labels, predicted, "ab").promote
    by_f1 = first(labels, predicted, "ab", metric="f1_macro")
    assert by_f1.promote and by_f1.reason == (
        'the first one, better than always naming "a" by more than chance (macro F1 is 88 % on 100 test items, against 49 %; p = 0.0055)'
    )
    assert not first(labels, [0] * 100, "ab", metric="f1_macro").promote


def test_of_too_few_test_items_it_is_said_that_nothing_can_be_concluded() -> None:
    verdict = first([0, 1, 2, 0], [0, 1, 2, 0])
    assert not verdict.promote and "with so few test items not even a perfect model would be" in verdict.reason


def test_a_floor_and_a_label_without_training_items_are_reasons_too() -> None:
    predicted = [0, 1, 1] * 8
    assert first(EVEN, predicted, floor=0.66).promote
    low = first(EVEN, predicted, floor=0.67)
    assert not low.promote and low.reason == "its accuracy is 67 %, where promote.floor is 67.0 %"
    both = first(EVEN, predicted, train=(9, 9, 0), floor=0.9)
    assert not both.promote and both.reason.startswith('no item of the training split has the label "c"; its accuracy is')


@pytest.mark.slow
@given(PAIRS)
def test_naming_one_label_is_never_good_enough_for_the_first_champion(pair: Any) -> None:
    _, _, labels = map(np.array, pair)
    for label in range(3):
        for metric in ("accuracy", "f1_macro"):
            assert not first(labels, np.full(len(labels), label), metric=metric, alpha=0.499).promote
