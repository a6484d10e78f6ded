"""Retraining from end to end with the tiny model; and through Prefect, by its command, where nothing is to do."""

from __future__ import annotations

import sqlite3
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from evergreen.registry.models import aliases
from evergreen.training.fitting import Diverged
from flows.retraining import retrain_where_due
from tasks.stage import Run, Stage
from tests.evergreen.data.test_versions import change
from tests.flows.conftest import Checkout
from tests.tasks.test_monitor import correct, drop, id_of, other, relax
from tests.tasks.test_preprocess import digit
from tests.tiny import NAME, Tiny


@dataclass
class Unseen(Run):
    """A pass over the real stages that no Prefect hears of."""

    def __call__(self, stage: Stage, *earlier: Any) -> Any:
        outcome = stage.perform(self.scenario, self.workspace, *earlier)
        self.outcomes.append(outcome)
        return outcome.result


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would be emitted to Prefect."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # without a server nobody is notified
    monkeypatch.setattr("prefect.events.emit_event", lambda **event: seen.append(event))
    return seen


def source_of_digits(tiny: Tiny, count: int) -> None:
    """The scenario collects from a folder with so many digits."""
    for number in range(count):
        image, label = digit(number)
        path = tiny.root / "source" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    change(tiny.workspace, "collect", builtin=None, path="source")


@pytest.fixture
def with_champion(registered: Tiny, events: list[dict[str, Any]]) -> Tiny:
    """A champion, and a source of thirty digits that it knows."""
    registered.promote()
    relax(registered.workspace)
    source_of_digits(registered, 30)
    change(registered.workspace, "retraining", min_new_items=60)
    return registered


def retrain(tiny: Tiny) -> dict[str, Any]:
    """What `evergreen retrain --json` would print."""
    return retrain_where_due(Unseen(tiny.scenario, tiny.workspace)).to_dict()


def test_nothing_new_is_nothing_to_do(with_champion: Tiny, events: list[dict[str, Any]]) -> None:
    summary = retrain(with_champion)
    assert summary["retrained"] is False and summary["reasons"] == [] and events == []
    assert "0 new and 0 corrected items" in summary["against"][0]


def test_what_a_person_asks_for_is_trained_without_a_reason(with_champion: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def reached(run: Run, ways: Any) -> None:
        raise Reached(run.force)

    monkeypatch.setattr("flows.retraining.train_until_promoted", reached)
    with pytest.raises(Reached, match="True"):
        retrain_where_due(Unseen(with_champion.scenario, with_champion.workspace, force=True))


def test_new_digits_are_learned_once(with_champion: Tiny) -> None:
    drop(with_champion.workspace, range(500, 570))
    correct(with_champion.workspace, f"{id_of(3)},{other(3)},")
    summary = retrain(with_champion)
    assert summary["retrained"] and "70 new and 1 corrected items" in summary["reasons"][0]
    ran = {name for name, stage in summary["stages"].items() if stage["state"] == "ran"}
    covered = summary["estimate"]["stages"]
    assert {"monitor", "decide", "train"} <= ran <= {*covered, *summary["estimate"]["missing"]}
    assert summary["estimate"]["seconds"] == pytest.approx(sum(stage["seconds"] for stage in covered.values()))
    assert summary["estimate"]["seconds_of_a_second_training"] > 0  # from scratch, where the gate refuses the fine-tuned one
    assert list(summary["stages"])[:3] == ["monitor", "decide", "collect"] and summary["stages"]["train"]["state"] == "ran"
    assert summary["model_version"] == 1 + len(summary["tries"])
    # The gate may keep the champion: the same items are no reason again.
    again = retrain(with_champion)
    assert again["retrained"] is False and "0 new and 0 corrected items" in again["against"][0]


@pytest.fixture
def refused(registered: Tiny) -> Tiny:
    """A first model that the gate has refused, and a source of thirty digits that it knows."""
    registered.register_confused()
    assert not registered.promote().promoted
    relax(registered.workspace)
    source_of_digits(registered, 30)
    change(registered.workspace, "retraining", min_new_items=60)
    return registered


def test_a_refused_first_model_is_not_trained_again_on_the_same_data(refused: Tiny) -> None:
    for _ in range(2):
        summary = retrain(refused)
        assert summary["retrained"] is False and list(summary["reasons"]) == []
        assert any('version 2 was refused: it is not better than always naming "' in why for why in summary["against"])
    assert list(aliases(refused.workspace, NAME)) == ["challenger"]


def test_new_items_or_other_settings_are_a_reason_to_train_where_the_first_model_was_refused(refused: Tiny) -> None:
    change(refused.workspace, "train", epochs=2)
    change(refused.workspace, "promote", floor=0.999)
    summary = retrain(refused)
    assert summary["retrained"] and summary["reasons"] == ["there is no champion yet"]
    assert [one["start"] for one in summary["tries"]] == ["scratch"]
    assert summary["promoted"] is False and summary["champion"] is None and "promote.floor" in summary["reason"]
    assert retrain(refused)["retrained"] is False
    drop(refused.workspace, range(500, 570))
    assert "70 new" in retrain(refused)["reasons"][0]


def test_a_training_that_diverges_fails_once_and_is_not_repeated_by_schedule(registered: Tiny) -> None:
    relax(registered.workspace)
    source_of_digits(registered, 30)
    change(registered.workspace, "train", learning_rate=10.0, weight_decay=1.0)
    with pytest.raises(Diverged):
        retrain(registered)
    again = retrain(registered)
    assert again["retrained"] is False and "has left none" in " ".join(again["against"])


def test_darkened_digits_are_drift_which_is_a_reason_in_words_and_announced_once(
    with_champion: Tiny, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(with_champion.workspace, range(500, 550), darken=0.55)  # fewer than are enough

    def failing(run: Run, ways: Any) -> None:
        raise RuntimeError(str(run.outcomes[-1].result))

    monkeypatch.setattr("flows.retraining.train_until_promoted", failing)
    for _ in range(2):  # a training that fails is tried again, and its drift not announced again
        with pytest.raises(RuntimeError, match="retraining, because drift: brightness.*moved by more than chance"):
            retrain(with_champion)
    assert [event["event"] for event in events] == ["evergreen.drift"]
    resource = events[0]["resource"]
    assert resource["prefect.resource.id"] == f"evergreen.scenario.{NAME}"
    assert resource["evergreen.retraining"] == "under way"  # which starts no other one
    assert "brightness" in events[0]["payload"]["message"]
    assert aliases(with_champion.workspace, NAME) == {"champion": 1, "challenger": 1}


@pytest.mark.slow
def test_the_command_says_nothing_to_do_without_tensorflow_and_for_under_a_watt_hour(checkout: Checkout) -> None:
    program = (
        "import sys; sys.argv[0] = 'evergreen'; from flows.cli import main\n"
        "try: main()\n"
        "finally: print('TensorFlow', 'tensorflow' in sys.modules, file=sys.stderr)"
    )
    done = checkout.run(sys.executable, "-c", program, "retrain", "quickstart", "--json")
    assert done.status == 0, done.err
    assert done.json["retrained"] is False and done.json["reasons"] == []
    assert done.json["energy_wh"] is None or done.json["energy_wh"] < 1
    assert "TensorFlow False" in done.err
    (database,) = checkout.workspace.private.rglob("prefect.db")
    with sqlite3.connect(database) as prefect:
        states = prefect.execute("SELECT state_type, state_name FROM flow_run WHERE name = 'retraining-quickstart'").fetchall()
    assert states == [("COMPLETED", "Nothing to do")]
