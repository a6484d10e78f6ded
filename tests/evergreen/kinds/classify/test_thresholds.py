"""The rules for answers that are chosen on val."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.kinds.classify.answers import Answering
from evergreen.kinds.classify.settings import Answers
from evergreen.kinds.classify.thresholds import least_items, rules

NAMES = ["fire", "normal"]


def probabilities(of_fire: Any) -> np.ndarray:
    found = np.asarray(of_fire, float)
    return np.stack([found, 1 - found], axis=1)


def chosen(settings: dict[str, Any], fire: list[float], normal: list[float], distance: np.ndarray | None = None) -> Any:
    labels = np.array([0] * len(fire) + [1] * len(normal))
    return rules(Answers.model_validate(settings), labels, probabilities([*fire, *normal]), distance, NAMES)


def test_the_threshold_for_a_recall_is_the_highest_that_reaches_it_with_one_more_item_missed() -> None:
    fire = [0.99, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    (one,) = chosen({"thresholds": {"fire": {"recall": 0.8}}}, fire, [0.05] * 5)["thresholds"]
    # 9 of 10 + 1 are 82 %, 8 are 73 %: the ninth score, a little lower for rounding.
    assert one["threshold"] == pytest.approx(0.2, abs=2e-4) and one["threshold"] < 0.2
    found = chosen({"thresholds": {"fire": {"recall": 0.8}}}, fire, [0.05] * 5)["val"]
    assert found == {
        "items": 15, "answered": 15, "right": 14, "unsure": 0, "unlike": 0, "labels": {"fire": {"items": 10, "answers": 9, "hits": 9}}
    }  # fmt: skip


def test_the_threshold_for_a_precision_is_the_lowest_that_reaches_it_with_one_more_answer_wrong() -> None:
    (one,) = chosen({"thresholds": {"fire": {"precision": 0.75}}}, [0.95, 0.9, 0.85, 0.8, 0.7], [0.75, 0.6, 0.1])["thresholds"]
    # By score: right, right, right (3 of 3 + 1), right (4 of 5), wrong (4 of 6), right (5 of 7), wrong: the fourth.
    assert 0.75 < one["threshold"] < 0.8


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ({"recall": 0.9}, "val has 8 items with the label, and a recall of 90.0 % needs at least 9"),
        (
            {"precision": 0.9},
            "the label is the most probable one of 8 items of val, and a precision of 90.0 % needs at least 9",
        ),
    ],
)
def test_what_val_has_too_few_items_for_is_not_chosen_and_said(target: dict[str, float], why: str) -> None:
    section = chosen({"thresholds": {"fire": target}}, [0.9] * 8, [0.1] * 50)
    assert section["thresholds"][0]["threshold"] is None and section["thresholds"][0]["why"] == why
    assert Answering.of({"labels": NAMES, "answers": section}).thresholds == ()
    enough = chosen({"thresholds": {"fire": target}}, [0.9] * 9, [0.1] * 50)
    assert enough["thresholds"][0]["threshold"] == pytest.approx(0.9, abs=2e-4)


def test_a_precision_that_no_probability_reaches_is_said() -> None:
    section = chosen({"thresholds": {"fire": {"precision": 0.9}}}, [0.6] * 20, [0.9] * 20)
    assert "from no probability on" in section["thresholds"][0]["why"]


def test_without_validation_items_nothing_is_chosen() -> None:
    settings = {"unlike": 0.1, "thresholds": {"fire": {"recall": 0.5}}}
    section = chosen(settings, [], [], np.empty(0))
    assert section["thresholds"][0]["threshold"] is None and section["unlike"]["distance"] is None
    assert "0 items" in section["unlike"]["why"]


def test_at_most_the_requested_fraction_of_items_like_those_of_val_is_called_unlike() -> None:
    distance = np.arange(1.0, 100.0)  # 99 items
    limit = chosen({"unlike": 0.01}, [0.9] * 99, [], distance)["unlike"]["distance"]
    assert limit == pytest.approx(99, rel=2e-3) and limit > 99
    limit = chosen({"unlike": 0.05}, [0.9] * 99, [], distance)["unlike"]["distance"]
    assert 95 < limit < 96  # four of 99 are beyond, five of 100 with one more
    few = chosen({"unlike": 0.01}, [0.9] * 98, [], distance[:98])["unlike"]
    assert (
        few["distance"] is None and few["why"] == "val has 98 items, and calling at most 1.0 % of them unlike needs at least 99"
    )


def test_what_is_called_unlike_is_not_found() -> None:
    distance = np.ones(100)
    distance[0] = 9.0
    section = chosen({"unlike": 0.02, "thresholds": {"fire": {"recall": 0.9}}}, [0.99] + [0.9] * 9, [0.1] * 90, distance)
    assert section["unlike"]["distance"] < 9 and "1 of the 10 items of val" in section["thresholds"][0]["why"]


@given(st.integers(1, 60), st.floats(0.05, 0.99))
def test_so_many_items_are_just_enough(more: int, fraction: float) -> None:
    least = least_items(fraction)
    scores = list(np.linspace(0.5, 0.9, least + more))
    assert chosen({"thresholds": {"fire": {"recall": fraction}}}, scores[:least], [0.1])["thresholds"][0]["threshold"]
    if least > 1:
        assert (
            chosen({"thresholds": {"fire": {"recall": fraction}}}, scores[: least - 1], [0.1])["thresholds"][0]["threshold"]
            is None
        )


def test_of_new_items_the_requested_fraction_is_found_on_average() -> None:
    random, found = np.random.default_rng(0), []
    for _ in range(300):
        val, new = random.beta(4, 2, 20), random.beta(4, 2, 200)
        (one,) = chosen({"thresholds": {"fire": {"recall": 0.9}}}, list(val), [0.0] * 20)["thresholds"]
        found.append((new >= one["threshold"]).mean())
    assert 0.9 <= np.mean(found) < 0.93
