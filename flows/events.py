"""Events that Prefect's automations listen for. Without a server they are only logged."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evergreen.monitoring.drift import Drift

log = logging.getLogger("evergreen")

RETRAINING = (
    "evergreen.retraining"  # a label of the drift's event: whether a retraining is requested because of it, or under way
)


def emit_drift(scenario: str, drift: Drift, *, acted_upon: bool = False) -> bool:
    """Report that new items of a scenario differ from what its champion was trained on, which starts its retraining deployment.

    Args:
        acted_upon: a retraining is already under way because of this drift, so none is started; only users are notified.

    Returns:
        True if a server was notified. Nothing is emitted if no drift was found.
    """
    if not drift.drifted:
        return False
    features = [feature.name for feature in drift.features if feature.drifted]
    labels = {RETRAINING: "under way" if acted_upon else "requested"}
    payload = {"message": drift.reason, "features": features, "items": drift.items, "alpha": drift.alpha}
    return _emit("evergreen.drift", scenario, payload, labels)


def emit_promotion(scenario: str, version: int, reason: str) -> bool:
    """Report that a model version has become a scenario's champion.

    Returns:
        True if a server was notified.
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
    except Exception as error:  # noqa: BLE001 (a message that can't be sent must not undo finished work)
        log.warning("%s of %s: %s (Prefect's server could not be notified: %s)", event, scenario, payload["message"], error)
        return False
