"""Estimates from what earlier runs took, and budgets held against them."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.energy.ledger import Cost, Entry, device, note, read
from evergreen.kinds.base.kind import kind_of
from evergreen.planning.budget import OverBudget, check_budget, is_limited, training_limit_wh
from evergreen.planning.estimate import (
    SPREAD_OF_FEW,
    Estimate,
    Expected,
    NothingKnown,
    estimate,
    expected,
    item_counts,
    no_trial,
)
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tasks.trial import count_items
from tests.evergreen.data.test_versions import change
from tests.tiny import NAME, Tiny

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def took(seconds: float, work: float, energy_wh: float | None = None, stage: str = "train", kind: str = "") -> Entry:
    doubt = None if energy_wh is None else 0.4 * energy_wh
    return Entry(stage, NOW.isoformat(), device(), work, kind, Cost(seconds, energy_wh, doubt, energy_wh, None))


def test_one_earlier_run_is_taken_to_be_in_proportion() -> None:
    found = expected([took(10, 100, 5)], 200)
    assert found is not None and (found.seconds, found.energy_wh, found.spread) == (20, 10, SPREAD_OF_FEW)


@given(start=st.floats(0, 100), pace=st.floats(0.01, 10), work=st.floats(1, 1e4))
def test_runs_of_different_amounts_tell_the_start_from_the_pace(start: float, pace: float, work: float) -> None:
    found = expected([took(start + pace * done, done) for done in (50, 200, 1000)], work)
    assert found is not None and found.seconds == pytest.approx(start + pace * work, rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0.1, 1e4), st.floats(1, 1e6)), min_size=1, max_size=20), st.floats(1, 1e6))
def test_no_expectation_is_negative(runs: list[tuple[float, float]], work: float) -> None:
    found = expected([took(seconds, done, seconds) for seconds, done in runs], work)
    assert found is not None and found.seconds >= 0 and found.spread > 0 and (found.energy_wh or 0) >= 0


def test_runs_that_scatter_make_a_wide_interval() -> None:
    calm, wild = ([took(seconds, 100) for seconds in those] for those in ((10, 10.1, 9.9, 10), (10, 20, 5, 12)))
    narrow, wide = expected(calm, 100), expected(wild, 100)
    assert narrow is not None and wide is not None and narrow.spread < 0.2 < wide.spread


def test_unknown_energy_stays_unknown() -> None:
    found = expected([took(10, 100, None), took(10, 100, 5)], 100)
    assert found is not None and found.energy_wh is None


def test_without_data_nothing_is_known(workspace: Workspace) -> None:
    with pytest.raises(NothingKnown, match="nothing was collected for quickstart yet"):
        estimate(load_scenario(workspace.scenarios, "quickstart"), workspace, no_trial)


def test_a_first_run_is_estimated_from_the_items_of_its_source(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("images")
    for label in ("good", "bad"):
        (folder / label).mkdir()
        for number in range(60):
            (folder / label / f"{number}.png").write_bytes(b"never read")
    (folder / "readme.txt").write_bytes(b"no item")
    scenario = load_scenario(workspace.scenarios, "quickstart")
    scenario = scenario.model_copy(
        update={"collect": scenario.collect.model_copy(update={"builtin": None, "path": str(folder)})}
    )
    asked: list[float] = []

    def trial(scenario: Scenario, work: float) -> Expected:
        asked.append(work)
        return Expected(60, 6, 3, 0.5, "a trial of 5 s")

    found = estimate(scenario, workspace, trial, count=count_items)
    shares = scenario.preprocess
    assert asked == [round(120 * (1 - shares.val_share - shares.test_share)) * scenario.train.epochs]
    assert list(found.stages) == ["collect", "validate", "version", "preprocess", "train", "evaluate", "register", "promote"]
    assert found.missing == ()
    assert found.basis == (
        "training by a trial of 5 s; 120 items counted in the source; the other stages by what they usually take"
    )
    assert found.cost.energy_wh is not None and found.cost.energy_wh > 6
    assert found.least.seconds < found.cost.seconds < found.most.seconds
    assert not workspace.data("quickstart").exists() and not workspace.outputs("quickstart").exists()

    quick = Cost(2.0, 0.002, 0.001, 0.001, None)
    note(workspace, "cifar10", Entry("validate", NOW.isoformat(), device(), 60.0, "items", quick))
    assert estimate(scenario, workspace, trial, count=count_items).stages["validate"] == (4.0, 0.004)


def test_the_items_of_an_archive_and_of_the_shipped_digits_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    quickstart = load_scenario(workspace.scenarios, "quickstart")
    assert count_items(quickstart, workspace)[0] == 1797
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for number in range(30):
            archive.writestr(f"images/cat/{number}.png", b"x")
        archive.writestr("images/cat.png", b"x")
    own = quickstart.collect.model_copy(
        update={"builtin": None, "path": str(tmp_path / "images.zip"), "pattern": r"images/(?P<label>[^/]+)/[^/]+"}
    )
    assert count_items(quickstart.model_copy(update={"collect": own}), workspace)[0] == 30


def test_a_source_that_is_not_here_is_not_downloaded_for_an_estimate(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("evergreen.data.sources.public_file._sample_folders", lambda workspace: [tmp_path])
    with pytest.raises(NothingKnown, match="nobody knows how many items cifar10 has"):
        estimate(load_scenario(workspace.scenarios, "cifar10"), workspace, no_trial, count=count_items)


def test_the_estimate_of_a_retraining_covers_what_it_has_done_and_a_second_training() -> None:
    one = Estimate(Cost(10, 1, 0.4, 0.5, None), 0.2, {"train": (10, 1)}, "training by a trial", (), None)
    whole = one.after({"monitor": (4.0, 0.2), "decide": (1.0, 0.1)}, Cost(5, 0.3, 0.1, 0.1, None), Cost(8, 0.8, 0.3, 0.4, None))
    assert list(whole.stages) == ["monitor", "decide", "train"]
    assert whole.cost.seconds == 15 and whole.cost.energy_wh == pytest.approx(1.3)
    assert whole.least.seconds == pytest.approx(13) and whole.most.seconds == pytest.approx(17 + 8)
    assert whole.to_dict()["seconds_of_a_second_training"] == 8


def test_every_stage_that_ran_is_in_the_ledger_and_the_next_run_is_estimated_from_it(tiny: Tiny) -> None:
    counts = item_counts(tiny.scenario, tiny.workspace)
    assert counts["all"] == 500 and 300 < counts["train"] < 450
    entries = {entry.stage: entry for entry in read(tiny.workspace, NAME)}
    assert entries["train"].work == 8 * counts["train"] and entries["train"].work_kind == kind_of(
        tiny.scenario
    ).learner.training_work(tiny.scenario)
    found = estimate(tiny.scenario, tiny.workspace, no_trial)
    assert found.stages["train"][0] == pytest.approx(entries["train"].cost.seconds)
    assert found.missing == ("collect", "validate", "register", "promote")
    assert found.least.seconds < found.cost.seconds < found.most.seconds
    assert str(found).startswith("estimated: ") and "training by the last one like it on this machine" in str(found)
    assert estimate(tiny.scenario, tiny.workspace, no_trial, first="evaluate").stages.keys() == {"evaluate"}


def test_another_network_or_machine_is_no_guide(tiny: Tiny) -> None:
    change(tiny.workspace, "train", filters=16)
    with pytest.raises(NothingKnown, match="no run of quickstart with these settings"):
        estimate(tiny.scenario, tiny.workspace, no_trial)
    asked: list[float] = []

    def trial(scenario: Scenario, work: float) -> Expected:
        asked.append(work)
        return Expected(60, 6, 3, 0.5, "a trial of 5 s")

    found = estimate(tiny.scenario, tiny.workspace, trial)
    assert asked == [8 * item_counts(tiny.scenario, tiny.workspace)["train"]]
    assert found.stages["train"] == (60, 6) and "training by a trial of 5 s" in str(found)


@pytest.fixture
def spender(tiny: Tiny) -> Tiny:
    """Training is expected to take 2 Wh, the rest next to nothing; 3 Wh were spent this month, and 50 in October."""
    note(tiny.workspace, NAME, Entry("x", "2026-10-31T12:00:00+00:00", device(), None, "", Cost(1, 50, 1, 50, None)))
    note(tiny.workspace, NAME, Entry("x", "2026-11-01T12:00:00+00:00", device(), None, "", Cost(1, 3, 1, 3, None)))
    change(tiny.workspace, "train", filters=16)
    return tiny


def held(tiny: Tiny, **budget: Any) -> None:
    change(tiny.workspace, "budget", **budget)
    scenario = tiny.scenario
    assert is_limited(scenario)
    found = estimate(scenario, tiny.workspace, lambda *_: Expected(60, 2, 1, 0.5, "a trial"), first="train")
    check_budget(scenario, tiny.workspace, found, now=NOW)


def test_within_the_budgets_a_run_may_start(spender: Tiny) -> None:
    held(spender, run={"wh": 2.5}, month={"wh": 1e3, "gco2e": 1e3})


def test_a_run_over_its_own_budget_is_refused_in_numbers(spender: Tiny) -> None:
    with pytest.raises(OverBudget, match=r"would pass the run's budget of 1.5 Wh: it is estimated to take 2 Wh"):
        held(spender, run={"wh": 1.5})


def test_a_run_over_what_is_left_of_the_month_is_refused_in_numbers(spender: Tiny) -> None:
    reported = r"would pass the month's budget of 4 Wh: 3(\.\d+)? Wh are spent this month, and it is estimated to take 2 Wh"
    with pytest.raises(OverBudget, match=reported):
        held(spender, month={"wh": 4})


def test_what_nobody_knows_is_said_and_not_taken_for_nothing(spender: Tiny) -> None:
    note(spender.workspace, NAME, Entry("y", "2026-11-02T12:00:00+00:00", device(), None, "", Cost(1, None, None, None, None)))
    with pytest.raises(OverBudget, match="are spent this month, and 1 stages took nobody knows what"):
        held(spender, month={"wh": 4})
    change(spender.workspace, "budget", month={"wh": 100})
    found = estimate(spender.scenario, spender.workspace, lambda *_: Expected(60, None, None, 0.5, "a trial"), first="train")
    with pytest.raises(OverBudget, match="the month's budget of 100 Wh cannot be kept"):
        check_budget(spender.scenario, spender.workspace, found, now=NOW)


def test_training_stops_at_the_tightest_of_its_limits(workspace: Workspace) -> None:
    def limit(**sections: dict[str, Any]) -> float | None:
        for section, settings in sections.items():
            change(workspace, section, **settings)
        return training_limit_wh(load_scenario(workspace.scenarios, "quickstart"))

    assert limit() is None
    assert limit(budget={"run": {"wh": 3}}) == 3
    assert limit(train={"max_wh": 2}) == 2
    assert limit(budget={"run": {"wh": 3, "gco2e": 0.38095}}) == pytest.approx(1)  # at 380.95 g/kWh


def test_a_training_over_budget_does_not_start(spender: Tiny) -> None:
    from flows.stages import planned
    from tasks.stage import Run

    run = Run(spender.scenario, spender.workspace)
    assert planned(run, "any") is None  # without a budget nobody waits for a trial
    change(spender.workspace, "budget", month={"wh": 3.0001})
    with pytest.raises(OverBudget, match="would pass the month's budget"):
        planned(Run(spender.scenario, spender.workspace), "any")
    assert run.outcomes == []
