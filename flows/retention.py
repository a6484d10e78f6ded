"""Removes items for good that are older than the scenario allows (`collect.retention_days`), at the beginning of a run or a
retraining, in the same way as `evergreen forget`."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime

from evergreen.data.inbox import inbox_of
from evergreen.data.versions import fetch_data
from evergreen.errors import WrongUse
from evergreen.privacy.forgetting import Asked, Plan, remove_aged
from evergreen.privacy.retention import Expired, expired
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from flows.forget import begin, complete, planned

log = logging.getLogger("evergreen")


def remove_expired(scenario: Scenario, workspace: Workspace, now: datetime | None = None) -> Expired | None:
    """Remove what is too old; the caller holds the lock of the scenario's runs. A removal that was interrupted is completed
    first. While `evergreen review` is open, nothing is removed, as the page would bring ids back: the next run does it.

    Args:
        now: the present; None to ask the clock.

    Returns:
        What was removed; None if nothing was.

    Raises:
        Unreachable: MLflow does not answer.
        EvergreenError: the DVC remote does not answer.
    """
    name = scenario.name
    if scenario.collect.retention_days is None:
        return None
    now = now or datetime.now(UTC)
    with workspace.lock(f"collect-{name}"), contextlib.ExitStack() as review:
        unfinished = Plan.load(workspace, name)
        found = None if unfinished else _fetched(scenario, workspace, now)
        if not unfinished and not found:
            return None
        try:
            review.enter_context(workspace.lock(f"review-{name}", timeout_seconds=0))
        except WrongUse:
            what = f"what was {found}" if found else "a removal that was interrupted"
            log.warning("Not deleted yet, as evergreen review %s is open: %s. Close it, and the next run does it.", name, what)
            return None
        if unfinished:
            log.info("A removal that was interrupted is completed: %s", complete(workspace, unfinished))
            found = _fetched(scenario, workspace, now)
        if found:
            _remove(scenario, workspace, found)
    return found or None


def _fetched(scenario: Scenario, workspace: Workspace, now: datetime) -> Expired | None:
    """What is too old in the scenario's newest data."""
    fetch_data(workspace, scenario.name)
    return expired(scenario, workspace, now)


def _remove(scenario: Scenario, workspace: Workspace, found: Expired) -> None:
    log.info("Deleting permanently what was %s.", found)
    if found.items or found.quarantined:
        plan = planned(workspace, scenario.name, Asked(collected_before=found.before))
        if plan.ids:
            begin(workspace, plan)
            log.info("%s", complete(workspace, plan))
            return
    # Records of what could not be read, and of what the data set has had since, are removed by their age alone.
    remove_aged(workspace, scenario.name, inbox_of(scenario, workspace), found.before)
