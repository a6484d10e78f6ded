from __future__ import annotations

import pytest

from tasks import trial as trial_file
from tasks.trial import trial
from tests.evergreen.training.test_selection import scenario


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_file, "TRIAL_SECONDS", 0.2)


@pytest.mark.slow
def test_a_trial_of_one_network_is_proportional_to_the_work() -> None:
    one = scenario(side=8, model="residual")
    little, much = trial(one, work=1_000), trial(one, work=1_000_000)
    assert 0 < little.seconds < much.seconds and little.basis == "a trial of 0 s"
    assert much.energy_wh is not None and much.energy_wh > 0


@pytest.mark.slow
def test_where_several_ways_to_train_are_compared_each_is_tried() -> None:
    one = scenario(side=48, epochs=1)  # fine-tuning has no epoch
    found = trial(one, work=1_000)
    alone = trial(scenario(side=48, epochs=1, model="residual"), work=1_000)
    assert found.basis == "a trial of 0 s"
    assert found.seconds > alone.seconds and found.energy_wh is not None
