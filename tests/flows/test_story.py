"""The whole of it on real servers, by schedule: two scenarios are looked at every minute. One drifts, is trained again and
promoted, and is rolled back by a person; of the other there is nothing to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ruamel.yaml import YAML

from evergreen.registry.models import aliases
from evergreen.serving.scoring import load
from tests.flows.conftest import Checkout, Up, end_up, free_port, start_up
from tests.flows.receivers import Receivers
from tests.flows.test_deployments import until
from tests.tasks.test_preprocess import digit

pytestmark = [pytest.mark.slow, pytest.mark.servers]

DRIFTS, CALM = "night", "quickstart"


def write(folder: Path, numbers: range, darken: float = 0.0) -> None:
    """Digits as images, a folder a label."""
    for number in numbers:
        image, label = digit(number)
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)
        path = folder / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", (pixels * (1 - darken)).astype(np.uint8))[1].tobytes())


def settings(checkout: Checkout, name: str, **sections: dict[str, Any]) -> None:
    path, yaml = checkout.root / "scenarios" / f"{name}.yaml", YAML()
    document = yaml.load(path.read_text())
    for section, values in sections.items():
        document.setdefault(section, {}).update(values)
    with open(path, "w") as file:
        yaml.dump(document, file)


@pytest.fixture
def checkout(checkout: Checkout) -> Checkout:
    return replace(checkout, hands_over=True)


@pytest.fixture
def watched(checkout: Checkout, receivers: Receivers) -> Iterator[Up]:
    """`evergreen up` over two scenarios with champions, both looked at every minute: one has learned little, the other is the
    quickstart."""
    write(checkout.root / "images", range(600))
    done = checkout.evergreen("new", DRIFTS, "--images", str(checkout.root / "images"))
    assert done.status == 0, done.err
    every_minute = {"cron": "* * * * *", "settle_seconds": 0, "min_new_items": 10_000}
    settings(
        checkout, DRIFTS,
        train={"epochs": 4, "filters": 8},
        validate={"max_brightness_shift": 1.0, "max_sharpness_ratio": 1e6},
        retraining=every_minute,
    )  # fmt: skip
    done = checkout.evergreen("run", DRIFTS)
    assert done.status == 0, done.err
    settings(checkout, CALM, retraining=every_minute)
    settings(checkout, DRIFTS, train={"epochs": 40})
    write(checkout.root / "inbox" / DRIFTS, range(600, 800), darken=0.5)
    up = start_up(checkout, free_port(), free_port(), **receivers.environment)
    yield up
    end_up(up)


def scheduled(up: Up, name: str, *states: str) -> list[str]:
    """Names of the runs' final states that the schedule has started for a scenario, the oldest first."""
    runs = up.ask("flow_runs/filter", {"sort": "START_TIME_ASC", "flow_runs": {"name": {"any_": [f"retraining-{name}"]}}})
    return [
        run["state"]["name"]
        for run in runs
        if run["auto_scheduled"] and run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")
    ]


def events(up: Up, event: str) -> list[dict[str, Any]]:
    found = up.ask("events/filter", {"filter": {"event": {"name": [event]}}, "limit": 50})["events"]
    return [one for one in found if one["resource"]["prefect.resource.id"] == f"evergreen.scenario.{DRIFTS}"]


def champion_answers(checkout: Checkout) -> bool:
    found = load(checkout.workspace, DRIFTS).predict([digit(1)[0]])
    return len(found) == 1 and len(found[0].probabilities) == 10


def test_drift_is_seen_trained_on_promoted_and_rolled_back_while_the_other_scenario_rests(
    watched: Up, receivers: Receivers
) -> None:
    checkout = watched.checkout
    os.environ["MLFLOW_TRACKING_URI"] = watched.mlflow_url  # the fixture `own_servers` takes it away again
    assert aliases(checkout.workspace, DRIFTS)["champion"] == 1

    until(lambda: scheduled(watched, DRIFTS), 300)
    assert scheduled(watched, DRIFTS)[0] == "Completed"
    (drift,) = events(watched, "evergreen.drift")
    assert "brightness" in drift["payload"]["message"] and drift["resource"]["evergreen.retraining"] == "under way"
    assert aliases(checkout.workspace, DRIFTS) | {"challenger": 0} == {"champion": 2, "previous": 1, "challenger": 0}
    assert champion_answers(checkout)
    promotion = until(lambda: events(watched, "evergreen.promotion"))[0]
    assert "better than the champion by more than chance" in promotion["payload"]["message"]
    until(lambda: any("better than the champion" in reported["text"] for reported in receivers.received.webhooks))
    assert any("brightness" in reported["text"] for reported in receivers.received.webhooks)

    until(lambda: scheduled(watched, CALM), 300)
    assert set(scheduled(watched, CALM)) == {"Nothing to do"} and aliases(checkout.workspace, CALM)["champion"] == 1

    back = checkout.evergreen("rollback", DRIFTS)
    assert back.status == 0 and "version 1 is the champion again" in back.out
    before = len(scheduled(watched, DRIFTS))
    until(lambda: len(scheduled(watched, DRIFTS)) > before + 1, 300)  # one may have begun before the rollback
    assert aliases(checkout.workspace, DRIFTS) | {"challenger": 0} == {"champion": 1, "previous": 2, "challenger": 0}
    assert champion_answers(checkout)

    reported = checkout.evergreen("report", DRIFTS, "--json")
    assert reported.status == 0, reported.err
    page = Path(json.loads(reported.out)["file"]).read_text()
    assert "Version 1 was put back in place of version 2" in page
