"""Waiting for a cleaner hour by scheduling another run for later, so that no process sleeps."""

from __future__ import annotations

import logging
import os
from datetime import datetime
from typing import Any

log = logging.getLogger("evergreen")


REASON_FOUND_AT = "evergreen.reason-found-at"  # a label of a run that has waited


def can_wait() -> bool:
    """True if this run belongs to a deployment on a server, which can start another run later."""
    return _deployment_id() is not None and "PREFECT_API_URL" in os.environ


def start_later(scenario: str, when: datetime, reason_found_at: datetime, reason: str) -> str | None:
    """Schedule another run of this run's deployment, which will look, decide and plan again.

    Args:
        when: start time of the new run.
        reason_found_at: the time from which its deadline is counted.

    Returns:
        The new run's name; None if the server can't be reached, so that the training must start now.
    """
    from prefect import get_client
    from prefect.states import Scheduled

    deployment_id = _deployment_id()
    assert deployment_id is not None
    try:
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(
                deployment_id,
                parameters={"scenario": scenario},
                labels={REASON_FOUND_AT: reason_found_at.isoformat()},  # not a parameter, as users would not set it
                state=Scheduled(scheduled_time=when, message=reason),
                name=f"retraining-{scenario}-waits",
                idempotency_key=f"{scenario}-{when.isoformat(timespec='minutes')}",  # a retry must not schedule a second run
            )
    except Exception as error:  # noqa: BLE001 (whatever the error, the training must not be lost)
        log.warning("The start could not be put off (%s): it starts now.", error)
        return None
    return str(run.name)


def reason_found_at() -> datetime | None:
    """When the reason to retrain was found, if this run has waited; None otherwise."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    found = context.flow_run.labels.get(REASON_FOUND_AT) if context and context.flow_run else None
    return datetime.fromisoformat(str(found)) if found else None


def _deployment_id() -> Any:
    from prefect.runtime import deployment

    return deployment.id
