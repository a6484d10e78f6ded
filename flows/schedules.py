"""The retraining schedules on Prefect's server. The scenario defines the schedule; changes made on Prefect's page are kept
until the scenario changes.

The schedule last deployed is stored in `.evergreen/schedules.json`, by the deployment's id. Only changes of the scenario since
then are sent: a schedule that was edited, paused, removed or added on the page is left as it is. A scenario that was never run
is not retrained by schedule: its schedule is created inactive, and activated after the first run.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

SLUG = "cron"  # identifies the scenario's schedule among those that users have added
log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class Deployed:
    """A deployment's schedule as last sent; `waits`: it is inactive until the scenario has been run."""

    cron: str | None
    timezone: str
    waits: bool = False


def put_schedules(client: SyncPrefectClient, workspace: Workspace, found: list[Scenario]) -> list[str]:
    """Update the server's schedules from the scenarios.

    Returns:
        Messages for the user, as sentences.
    """
    remembered = _read(workspace)
    waiting = []
    for scenario in found:
        there = client.read_deployment_by_name(f"retraining/{scenario.name}")
        now = _put(client, there, scenario, remembered.get(str(there.id)), has_run(workspace, scenario.name))
        remembered[str(there.id)] = now
        if now.waits:
            waiting.append(scenario.name)
    _write(workspace, remembered)
    if waiting:
        return [f"Retrained by schedule only after their first run (evergreen run NAME): {', '.join(waiting)}."]
    return []


def activate_schedule(workspace: Workspace, name: str) -> None:
    """Activate a scenario's schedule, if it waited for the first run. An error does not fail that run: the next deployment
    activates it."""
    if "PREFECT_API_URL" not in os.environ or not any(one.waits for one in _read(workspace).values()):
        return
    from prefect import get_client

    try:
        with get_client(sync_client=True) as client:
            put_schedules(client, workspace, [load_scenario(workspace.scenarios, name)])
    except Exception as error:  # noqa: BLE001 (the next evergreen deploy does it)
        log.warning(
            "The schedule of %s could not be activated (%s): the next evergreen deploy or evergreen up does it.", name, error
        )


def has_run(workspace: Workspace, name: str) -> bool:
    """True if the scenario has completed all stages in this checkout."""
    return (workspace.record(name) / "summary.json").exists()


def _put(client: SyncPrefectClient, there: Any, scenario: Scenario, before: Deployed | None, ran: bool) -> Deployed:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    cron, timezone = scenario.retraining.cron, scenario.retraining.timezone
    own = next((schedule for schedule in there.schedules if schedule.slug == SLUG), None)
    if cron is None:
        if own is not None and (before is None or before.cron is not None):
            client.delete_deployment_schedule(there.id, own.id)
        return Deployed(None, timezone)
    if before is not None and (before.cron, before.timezone) == (cron, timezone):
        if before.waits and ran and own is not None:
            client.update_deployment_schedule(there.id, own.id, active=True)
        return Deployed(cron, timezone, waits=before.waits and not ran)
    schedule = CronSchedule(cron=cron, timezone=timezone)
    if own is None:
        new = DeploymentScheduleCreate(schedule=schedule, active=ran, slug=SLUG)
        client.create_deployment_schedules(there.id, [new])
        return Deployed(cron, timezone, waits=not ran)
    first = before is None  # deployed by hand, or by a version that did not wait for the first run
    waits = (first or (before is not None and before.waits)) and not ran
    active = False if first and waits else True if before is not None and before.waits and ran else None
    client.update_deployment_schedule(there.id, own.id, schedule=schedule, active=active)
    return Deployed(cron, timezone, waits)


def _file(workspace: Workspace) -> Path:
    return workspace.private / "schedules.json"


def _read(workspace: Workspace) -> dict[str, Deployed]:
    try:
        return {key: Deployed(**value) for key, value in json.loads(_file(workspace).read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(workspace: Workspace, deployed: dict[str, Deployed]) -> None:
    content = {key: asdict(value) for key, value in deployed.items()}
    replace_file(_file(workspace), json.dumps(content, indent=1).encode())
