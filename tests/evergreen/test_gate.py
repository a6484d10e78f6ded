"""The gate: against values worked out by hand, and its promises for any two models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.gate import Verdict, chance, decide


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
    settings = {"energy_ratio": None, "gain_per_doubling": 0.01} | settings
    return decide(champion, challenger, labels, names, alpha=alpha, **settings)


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
        assert f"at {ratio:.2g} times the energy a gain of" in verdict.reason


def test_less_energy_makes_up_for_no_quality() -> None:
    assert not judged((3, 3), energy_ratio=0.01).promote


PAIRS = st.integers(1, 60).flatmap(
    lambda items: st.tuples(
        *(st.lists(st.booleans(), min_size=items, max_size=items) for _ in range(2)),
        st.lists(st.integers(0, 2), min_size=items, max_size=items),
    )
)
RATIOS = st.none() | st.floats(0.01, 100)


@given(PAIRS, st.floats(1e-6, 0.499), RATIOS, st.floats(0, 0.1))
def test_of_two_models_at_most_one_replaces_the_other(pair: Any, alpha: float, ratio: float | None, gain: float) -> None:
    one, other, labels = map(np.array, pair)
    settings: dict[str, Any] = {"alpha": alpha, "gain_per_doubling": gain}
    there = decide(one, other, labels, ["a", "b", "c"], energy_ratio=ratio, **settings)
    back = decide(other, one, labels, ["a", "b", "c"], energy_ratio=ratio and 1 / ratio, **settings)
    assert not (there.promote and back.promote)
    assert (there.gained, there.lost) == (back.lost, back.gained)


@given(PAIRS, RATIOS)
def test_who_is_promoted_is_better_on_these_items_and_the_reason_is_one_line(pair: Any, ratio: float | None) -> None:
    one, other, labels = map(np.array, pair)
    verdict = decide(one, other, labels, ["a", "b", "c"], alpha=0.05, energy_ratio=ratio, gain_per_doubling=0.01)
    assert not verdict.promote or other.sum() > one.sum()
    assert 0 <= verdict.p_value <= 1 and "\n" not in verdict.reason


@given(PAIRS)
def test_a_model_never_replaces_itself(pair: Any) -> None:
    one, _, labels = map(np.array, pair)
    settings: dict[str, Any] = {"alpha": 0.499, "energy_ratio": 1.0, "gain_per_doubling": 0.0}
    assert not decide(one, one, labels, ["a", "b", "c"], **settings).promote


def sliced(lost: int, items: int = 400, **settings: Any) -> Verdict:
    """60 gained on camera "a"; on camera "b", 40 items, `lost` lost."""
    champion, challenger = np.ones(items, bool), np.ones(items, bool)
    champion[:60] = False
    challenger[items - lost :] = False
    cameras = ["a"] * (items - 40) + ["b"] * 40
    settings = {"alpha": 0.05, "energy_ratio": None, "gain_per_doubling": 0.0, "columns": {"camera": cameras}} | settings
    return decide(champion, challenger, np.arange(items) % 2, ["x", "y"], **settings)


def test_a_model_that_is_worse_for_one_slice_is_not_promoted() -> None:
    """Four guards: 4 × 1/2**7 is at most 0.05, 4 × 1/2**6 is not; of the labels, each alone has gained."""
    verdict = sliced(7)
    assert not verdict.promote and 'worse for the camera "b": 0 gained, 7 lost' in verdict.reason
    assert sliced(6).promote


def test_a_slice_with_too_few_items_is_told_but_not_judged() -> None:
    verdict = sliced(7, min_slice_items=41)
    (b,) = (one for one in verdict.slices if (one.column, one.value) == ("camera", "b"))
    assert verdict.promote and b.p_value_worse is None and (b.items, b.champion, b.challenger) == (40, 1, 33 / 40)
    assert b.challenger_low is not None and b.challenger_low < 33 / 40


def test_of_a_thousand_pairs_that_are_equally_good_no_more_than_alpha_are_promoted() -> None:
    random, alpha, promoted = np.random.default_rng(1), 0.05, 0
    labels = np.arange(500) % 2
    for _ in range(1000):
        hard = random.random(500) < 0.2  # the two differ on some of these only, and either way as often
        one, other = (~hard | (random.random(500) < 0.5) for _ in range(2))
        settings: dict[str, Any] = {"alpha": alpha, "energy_ratio": None, "gain_per_doubling": 0.0}
        promoted += decide(one, other, labels, ["x", "y"], **settings).promote
    assert 0 < promoted <= 1000 * alpha
