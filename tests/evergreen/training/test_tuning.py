"""What is tried, how it is judged, and the front."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.kinds.classify.comparison import ACCURACY
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.kinds.classify.settings import ImageScenario, ImageTrain
from evergreen.scenario.loading import load_scenario, parse_scenario
from evergreen.training.tuning import TrialResult, as_csv, ended_trials, front, open_study, picture, score
from tests.support.shipped import shipped

QUICKSTART = load_scenario(shipped() / "scenarios", "quickstart")

some = st.floats(1e-6, 1.0)
finished = st.builds(
    TrialResult, st.integers(0, 99), st.booleans(), st.just("finished"), st.just({"epochs": 3.0}), some, some, some, some
)
pruned = st.builds(
    TrialResult,
    st.integers(0, 99),
    st.just(False),
    st.just("pruned"),
    st.just({"epochs": 3.0}),
    st.none(),
    st.none(),
    some,
    st.none(),
)


SHIPPED = sorted((shipped() / "scenarios").glob("*.yaml"))
OF_IMAGES = [path for path in SHIPPED if "kind: classify" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("model", ["residual", "efficientnet_lite0"])
@pytest.mark.parametrize("path", OF_IMAGES, ids=lambda path: path.stem)
def test_every_setting_that_is_tried_is_allowed_and_the_scenarios_own_are_within(path: Path, model: str) -> None:
    scenario, learner = parse_scenario(path), ImageLearner()
    assert isinstance(scenario, ImageScenario)
    scenario = scenario.model_copy(update={"train": scenario.train.model_copy(update={"model": model})})
    train, ranges = scenario.train, learner.search_space(scenario, learner.random_split(scenario, 1, np.random.default_rng(0)))
    for end in ("low", "high"):
        settings = {one.name: int(getattr(one, end)) if one.step else getattr(one, end) for one in ranges}
        ImageTrain.model_validate(train.model_dump() | settings)
    assert {one.name for one in ranges} & {"filters", "learning_rate", "fine_tuning_rate"} == (
        {"filters", "learning_rate"} if model == "residual" else {"fine_tuning_rate"}
    )
    for one in ranges:
        assert one.low < one.high and one.low <= getattr(train, one.name) <= one.high
        assert not one.step or (one.high - one.low) % one.step == 0  # or Optuna would cut the range


@given(st.floats(0, 1), st.floats(1e-3, 1e3))
def test_a_doubling_of_energy_costs_what_the_gate_asks_for_it(quality: float, ratio: float) -> None:
    once, twice = (score(ACCURACY, quality, quality, times * ratio, QUICKSTART) for times in (1, 2))
    assert once - twice == pytest.approx(QUICKSTART.promote.gain_per_doubling)
    assert score(ACCURACY, quality, quality, 1.0, QUICKSTART) == quality


@given(st.lists(finished | pruned, max_size=12))
def test_no_trial_beats_one_of_the_front_for_no_more_energy(trials: list[TrialResult]) -> None:
    best = front(trials, ACCURACY)
    known = [one for one in trials if one.quality is not None]
    assert bool(best) == bool(known)
    for one in best:
        assert not any(
            (other.quality or 0) >= (one.quality or 0)
            and (other.energy_wh_per_1000 or 0) <= (one.energy_wh_per_1000 or 0)
            and (other.quality, other.energy_wh_per_1000) != (one.quality, one.energy_wh_per_1000)
            for other in known
        )
    assert [one.energy_wh_per_1000 for one in best] == sorted(one.energy_wh_per_1000 or 0 for one in best)


def test_the_table_has_a_row_a_trial() -> None:
    trials = [
        TrialResult(0, True, "finished", {"epochs": 3, "filters": 8}, 0.9, 0.1, 0.2, 0.9),
        TrialResult(1, False, "pruned", {"epochs": 4, "filters": 8}, None, None, 0.1, None),
    ]
    rows = list(csv.DictReader(io.StringIO(as_csv(trials).decode())))
    assert [row["state"] for row in rows] == ["finished", "pruned"]
    assert (rows[0]["quality"], rows[1]["quality"], rows[1]["energy_wh"], rows[1]["epochs"]) == ("0.9", "", "0.1", "4")


def test_the_picture_names_the_scenarios_own_and_the_winner() -> None:
    trials = [
        TrialResult(0, True, "finished", {}, 0.90, 0.2, 0.2, 0.90),
        TrialResult(1, False, "pruned", {}, None, None, 0.1, None),
        TrialResult(2, False, "finished", {}, 0.95, 0.3, 0.2, 0.95),
    ]
    (axes,) = picture(trials, 2, ACCURACY).axes
    legend = axes.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} >= {"2 finished trials", "the scenario's own", "winner"}
    assert "1 more" in axes.get_title()


def test_a_study_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "study.db"
    first = open_study(path, "mine", seed=1)
    first.tell(first.ask(), 0.5)
    again = open_study(path, "mine", seed=1)
    assert [one.score for one in ended_trials(again)] == [0.5]
    proposed = [study.ask().suggest_float("x", 0, 1) for study in (open_study(tmp_path / "new.db", "mine", seed=1), again)]
    assert proposed[0] != proposed[1]  # what goes on does not repeat the first proposals
