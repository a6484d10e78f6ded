"""What came of a run: the sentence it opens with, and what programs read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evergreen.energy.carbon import intensity
from evergreen.energy.meter import Energy
from evergreen.energy.sci import Footprint
from flows.summary import RetrainingSummary, StageTotals, Trained, TrainingSummary, Try

NOTHING = Footprint(None, None, None, None, None)
TRAINING = TrainingSummary(
    scenario="quickstart", run_id="1f", model_version=2, promoted=True, reason="because", champion=2, champion_changed=True,
    data_version="0a", metrics={"accuracy": 0.9}, gap=None, energy=Energy.nothing(), grid=intensity("DEU"), training=NOTHING,
    predictions=NOTHING, seconds=1.0, stages={"train": StageTotals("ran", 1.0, None)}, requested={},
)  # fmt: skip
RETRAINING = RetrainingSummary("quickstart", ("x",), (), "empty", None, Energy.nothing(), 1.0)
TRIES = (Try("version 1", 2, False, "not better"), Try("scratch", 3, True, "better"))
KEYS = [
    "scenario",
    "run_id",
    "model_version",
    "promoted",
    "reason",
    "champion",
    "champion_changed",
    "data_version",
    "metrics",
    "validation_and_test",
    "energy_wh",
    "energy_uncertainty_wh",
    "energy_methods",
    "carbon_gco2e",
    "embodied_gco2e",
    "sci_gco2e_per_training",
    "energy_wh_per_1000_predictions",
    "energy_uncertainty_wh_per_1000_predictions",
    "carbon_gco2e_per_1000_predictions",
    "sci_gco2e_per_1000_predictions",
    "intensity_gco2e_per_kwh",
    "intensity_source",
    "seconds",
    "stages",
    "requested",
    "estimate",
    "links",
]


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        (TRAINING, "Version 2 was promoted: because."),
        (replace(TRAINING, champion_changed=False), "Version 2 stays the champion: because."),
        (replace(TRAINING, champion_changed=False, promoted=False), "Version 2 was not promoted: because."),
        (
            replace(TRAINING, stages={"train": StageTotals("unchanged", 0.0, None)}),
            "Nothing has changed since the last run: nothing was done.",
        ),
        (replace(RETRAINING, trained=Trained(TRAINING, TRIES, None)), "Version 2 was promoted: because."),
        (replace(RETRAINING, reasons=(), against=("a", "b")), "Nothing to do: a; b."),
        (replace(RETRAINING, against=("a cleaner hour is ahead",)), "Waits: a cleaner hour is ahead."),
    ],
)
def test_a_run_opens_with_what_came_of_it(summary: TrainingSummary | RetrainingSummary, sentence: str) -> None:
    assert summary.headline == sentence


def test_programs_find_a_runs_figures_by_the_same_keys_as_ever() -> None:
    found = TRAINING.to_dict()
    assert list(found) == KEYS
    assert found["stages"] == {"train": {"state": "ran", "seconds": 1.0, "energy_wh": None}}


def test_of_a_retraining_they_find_those_of_its_training_beside_what_it_decided() -> None:
    decided = ["reasons", "against", "inbox", "drift", "retrained"]
    assert list(RETRAINING.to_dict()) == ["scenario", "energy_wh", "energy_methods", "seconds", *decided]
    found = replace(RETRAINING, trained=Trained(TRAINING, TRIES, -1.5), carbon_gco2e_saved_by_waiting=2.5).to_dict()
    assert list(found) == [*KEYS, "tries", "energy_wh_saved_by_warm_start", *decided, "carbon_gco2e_saved_by_waiting"]
    assert found["retrained"] and (found["energy_wh_saved_by_warm_start"], found["carbon_gco2e_saved_by_waiting"]) == (
        -1.5,
        2.5,
    )
    assert found["tries"][1] == {"start": "scratch", "version": 3, "promoted": True, "reason": "better", "energy_wh": None}


def test_a_try_says_what_became_of_it() -> None:
    assert [str(one) for one in TRIES] == ["from version 1: was not promoted, not better", "from scratch: was promoted, better"]
