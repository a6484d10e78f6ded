from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.evaluation.proportions import difference
from evergreen.kinds.classify.judge import ImageJudge
from evergreen.monitoring.drift import Drift
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tasks.decide import decide, page
from tasks.monitor import Findings, Quality, Taken
from tests.tasks.test_preprocess import scenario

CALM = Drift(False, 0.01, 100, 1000, "no drift: nothing moved", ())
MOVED = Drift(True, 0.01, 100, 1000, "drift: brightness moved by more than chance", ())


def seen(
    champion: int | None = 1, age: float | None = 1.0, new: int = 5, quality: Quality | None = None, drift: Drift | None = CALM
) -> Findings:
    return Findings("quickstart", Taken(), champion, age, new, 0, quality, drift, (), ())


def reasons(workspace: Workspace, findings: Findings, **settings: object) -> tuple[str, ...]:
    shipped: Scenario = scenario()
    changed = shipped.retraining.model_copy(update=settings)
    return decide(shipped.model_copy(update={"retraining": changed}), workspace, findings).reasons


def test_without_a_reason_there_is_nothing_to_do_and_it_says_why(workspace: Workspace) -> None:
    decision = decide(scenario(), workspace, seen(quality=Quality({"right": 90, "items": 100}, {"right": 5, "items": 5})))
    assert not decision.due
    for words in ("nothing to do", "5 new and 0 corrected items", "no drift", "100.0% of 5 new items", "1.0 days ago"):
        assert words in str(decision)


def test_the_page_lists_reasons_and_what_is_none(workspace: Workspace) -> None:
    decision = decide(scenario(), workspace, seen(drift=MOVED))
    lists = page(scenario(), workspace, decision).texts
    assert lists["Reasons to train again"] == f"- {MOVED.reason}"
    assert "- 5 new and 0 corrected items" in lists["No reasons"]


def test_without_a_champion_it_trains(workspace: Workspace) -> None:
    assert reasons(workspace, seen(champion=None)) == ("there is no champion yet",)


def test_what_was_refused_as_the_first_champion_is_not_trained_again_without_something_new(workspace: Workspace) -> None:
    refused = replace(seen(champion=None, age=None, drift=None), tried=True, unknown=("there is no champion yet: refused",))
    assert not reasons(workspace, refused)
    assert "there is no champion yet: refused" in decide(scenario(), workspace, refused).against
    assert "100 new" in reasons(workspace, replace(refused, new_items=100), min_new_items=100)[0]


def test_enough_new_items_are_a_reason(workspace: Workspace) -> None:
    assert not reasons(workspace, seen(new=99), min_new_items=100)
    assert "100 new" in reasons(workspace, seen(new=100), min_new_items=100)[0]


def test_drift_is_a_reason_in_its_own_words(workspace: Workspace) -> None:
    assert reasons(workspace, seen(drift=MOVED)) == (MOVED.reason,)


def test_an_old_champion_is_a_reason_only_where_there_is_something_new(workspace: Workspace) -> None:
    assert "31.0 days" in reasons(workspace, seen(age=31.0), max_age_days=30.0)[0]
    assert not reasons(workspace, seen(age=31.0, new=0), max_age_days=30.0)
    assert not reasons(workspace, seen(age=31.0), max_age_days=None)
    assert not reasons(workspace, seen(age=None), max_age_days=30.0)


@pytest.mark.parametrize(
    ("right", "items", "is_worse"), [(95, 100, False), (90, 100, False), (70, 100, True), (4, 5, False), (0, 5, True)]
)
def test_worse_quality_is_a_reason_where_it_is_more_than_chance(right: int, items: int, is_worse: bool) -> None:
    holds, words = ImageJudge().worse({"right": 950, "items": 1000}, {"right": right, "items": items}, 0.01)
    assert holds is is_worse, words
    assert "0.99 interval" in words


def test_the_interval_is_newcombes() -> None:
    # Newcombe 1998, table II, column (a), method 10: 56/70 against 48/80, 95 %: 0.0524 to 0.3339
    apart, low, high = difference(56, 70, 48, 80, level=0.05)
    assert apart == pytest.approx(0.2) and low == pytest.approx(0.0524, abs=5e-5) and high == pytest.approx(0.3339, abs=5e-5)


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_the_interval_holds_the_difference_and_turns_with_its_sides(first: int, second: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, first)), data.draw(st.integers(0, second))
    apart, low, high = difference(a, first, b, second, level=0.05)
    back, back_low, back_high = difference(b, second, a, first, level=0.05)
    assert -1 - 1e-9 <= low <= apart + 1e-9 and apart - 1e-9 <= high <= 1 + 1e-9
    assert (back, back_low, back_high) == pytest.approx((-apart, -high, -low))
