"""Events that Prefect's automations listen for. Without a server they are only logged: nobody would hear them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evergreen.monitoring.drift import Drift

log = logging.getLogger("evergreen")

RETRAINING = "evergreen.retraining"  # a label of the drift's event: whether a retraining is wanted because of it, or under way


def emit_drift(scenario: str, drift: Drift, *, acted_upon: bool = False) -> bool:
    """Say that new items of a scenario are unlike what its champion was trained on: its retraining deployment starts.

    Args:
        acted_upon: a retraining is under way because of it, and no other is to start: people alone are told.

    Returns:
        Whether a server was told. A comparison that found no drift is no news.
    """
    if not drift.drifted:
        return False
    features = [feature.name for feature in drift.features if feature.drifted]
    wanted = {RETRAINING: "under way" if acted_upon else "wanted"}
    payload = {"message": drift.reason, "features": features, "items": drift.items, "alpha": drift.alpha}
    return _emit("evergreen.drift", scenario, payload, wanted)


def emit_promotion(scenario: str, version: int, reason: str) -> bool:
    """Say that a model version is a scenario's champion now.

    Returns:
        Whether a server was told.
    """
    return _emit(
        "evergreen.promotion", scenario, {"message": f"version {version} is the champion: {reason}", "version": version}, {}
    )


def _emit(event: str, scenario: str, payload: dict[str, Any], labels: dict[str, str]) -> bool:
    if "PREFECT_API_URL" not in os.environ:
        log.info("%s of %s: %s (no Prefect server is up to act on it)", event, scenario, payload["message"])
        return False
    from prefect.events import emit_event

    resource = {"prefect.resource.id": f"evergreen.scenario.{scenario}", "prefect.resource.name": scenario} | labels
    try:
        return emit_event(event=event, resource=resource, payload=payload) is not None
    except Exception as error:  # noqa: BLE001 (a message that cannot be sent must not undo what has been done)
        log.warning("%s of %s: %s (Prefect's server could not be told: %s)", event, scenario, payload["message"], error)
        return False
