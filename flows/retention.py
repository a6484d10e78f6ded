"""Removes items for good that are older than the scenario allows (`collect.retention_days`), at the beginning of a run or a
retraining, in the same way as `evergreen forget`."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from evergreen.data.inbox import inbox_of
from evergreen.data.versions import fetch_data
from evergreen.privacy.forgetting import Asked, Plan, remove_aged
from evergreen.privacy.retention import Expired, expired
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from flows.forget import begin, complete, planned

log = logging.getLogger("evergreen")


def remove_expired(scenario: Scenario, workspace: Workspace, now: datetime | None = None) -> Expired | None:
    """Remove what is too old; the caller holds the lock of the scenario's runs. A removal that was interrupted is completed
    first.

    Args:
        now: the present; None to ask the clock.

    Returns:
        What was too old; None if nothing was, or if the scenario keeps items for ever.

    Raises:
        Unreachable: MLflow does not answer.
        EvergreenError: the DVC remote does not answer.
    """
    name = scenario.name
    if scenario.collect.retention_days is None:
        return None
    with workspace.lock(f"collect-{name}"):
        if (unfinished := Plan.load(workspace, name)) is not None:
            log.info("A removal that was interrupted is completed: %s", complete(workspace, unfinished))
        fetch_data(workspace, name)
        found = expired(scenario, workspace, now or datetime.now(UTC))
        if not found:
            return None
        log.info("Deleting permanently what was %s.", found)
        asked = Asked(collected_before=found.before)
        if found.items or found.quarantined:
            plan = planned(workspace, name, asked)
            begin(workspace, plan)
            log.info("%s", complete(workspace, plan))
        else:
            remove_aged(workspace, name, inbox_of(scenario, workspace), found.before)
    return found
