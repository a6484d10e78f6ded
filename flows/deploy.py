"""Deployments: `prefect.yaml`, written from the scenarios, and what Prefect's server is told by it.

The scenarios are the one place where anything is said: `prefect.yaml` is written from them (`evergreen new`, `evergreen deploy` and
`evergreen up` do), and `prefect deploy --all` reads it, here as on any other machine. Deployments of somebody's own in that file stay.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from evergreen.errors import EvergreenError, WrongUse
from evergreen.scenario import Scenario
from evergreen.workspace import Workspace, replace_file
from flows.events import RETRAINING

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ENTRYPOINTS = {"training": "flows/training.py:training", "retraining": "flows/retraining.py:retraining"}
PURPOSES = {
    "training": "Collect, check and version the images, train and evaluate a model on them, and promote it if it is better.",
    "retraining": "Train again if there is a reason to, and promote the new model if it is better.",
}
POOLS = {"cpu": "Runs on the processors of the worker's machine.", "gpu": "Runs on the graphics card of the worker's machine."}
SCHEDULE = "cron"  # its slug: by it, a schedule that was paused on Prefect's page stays paused when it is deployed again
HEARTBEAT_SECONDS = 30  # Prefect allows no less
HEADER = """\
# Written from scenarios/ by `evergreen deploy` (and `evergreen new`, `evergreen up`): change the scenarios, not this file. Only
# deployments of other flows than these, which you may add, stay as you write them. `prefect deploy --all` puts it on your server, after
# `prefect work-pool create cpu --type process`, and `prefect worker start --pool cpu` runs what is asked for.
"""


def scenarios(workspace: Workspace) -> tuple[list[Scenario], list[str]]:
    """Every scenario of the checkout, and a sentence on each file that holds none: it must not keep the others from running."""
    found: list[Scenario] = []
    told: list[str] = []
    for path in sorted(workspace.scenarios.glob("*.yaml")):
        try:
            found.append(Scenario.parse(path))
        except WrongUse as error:
            told.append(f"Not deployed: {error}")
    return found, told


def deployment(scenario: Scenario, flow: str) -> dict[str, Any]:
    """One entry of `prefect.yaml`: the deployment `FLOW/SCENARIO`.

    Runs of a scenario share a work queue of its own, which lets one run at a time (`limit_queues`); the deployment's own limit says
    the same to a server that knows of no queue's, and the lock `run-NAME` holds wherever a run comes from.
    """
    cron = scenario.retraining.cron if flow == "retraining" else None
    entry: dict[str, Any] = {
        "name": scenario.name,
        "entrypoint": ENTRYPOINTS[flow],
        "description": f"{PURPOSES[flow]} {scenario.description}".strip(),
        "tags": ["evergreen", flow, scenario.kind],
        "parameters": {"scenario": scenario.name},
        "enforce_parameter_schema": True,
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": {
            "name": scenario.pool,
            "work_queue_name": scenario.name,
            "job_variables": {
                "env": {
                    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
                    "PREFECT_LOGGING_EXTRA_LOGGERS": "evergreen",
                    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
                }
            },
        },
        "schedules": [{"slug": SCHEDULE, "cron": cron, "timezone": scenario.retraining.timezone}] if cron else [],
    }
    if flow == "retraining":
        entry["triggers"] = [
            {
                "type": "event",
                "name": f"evergreen: drift retrains {scenario.name}",
                "description": "A drift that was seen anywhere (the event evergreen.drift) starts this deployment.",
                "expect": ["evergreen.drift"],
                "match": {"prefect.resource.id": f"evergreen.scenario.{scenario.name}", RETRAINING: "wanted"},
                "parameters": {"scenario": scenario.name},
            }
        ]
    return entry


def declare(workspace: Workspace) -> list[str]:
    """Write `prefect.yaml` if the scenarios ask for another one than there is.

    Returns:
        What people should know, in sentences.

    Raises:
        WrongUse: the file that is there is not YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, yaml = workspace.root / "prefect.yaml", YAML(typ="safe")
    found, told = scenarios(workspace)
    before = path.read_bytes() if path.exists() else b""
    try:
        kept = yaml.load(before) or {}
        theirs = [entry for entry in kept.pop("deployments", None) or [] if entry.get("entrypoint") not in ENTRYPOINTS.values()]
    except (YAMLError, AttributeError, TypeError) as error:
        text = " ".join(str(error).split())
        raise WrongUse(
            f"prefect.yaml is not what Prefect reads: {text}", fix="Mend it, or remove it: it is written anew."
        ) from None
    ours = [deployment(scenario, flow) for scenario in found for flow in ENTRYPOINTS]
    content = HEADER.encode() + _as_yaml(kept | {"deployments": [*ours, *theirs]})
    if content != before:
        replace_file(path, content)
        told.append("Written from the scenarios: prefect.yaml.")
    return told


def deploy(workspace: Workspace) -> list[str]:
    """Put all that `prefect.yaml` declares on the Prefect server that PREFECT_API_URL names, with the work pools, each scenario's
    queue, and the automations of `flows.automations`. A second time changes nothing.

    Returns:
        What people should know, in sentences.

    Raises:
        WrongUse: no server is named, or `prefect.yaml` can't be read.
        EvergreenError: the server refuses.
    """
    if "PREFECT_API_URL" not in os.environ:
        raise WrongUse("there is no Prefect server to deploy to", fix="Start one with evergreen up, or set PREFECT_API_URL.")
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    from flows.automations import create_automations

    told = declare(workspace)
    found, _ = scenarios(workspace)
    with get_client(sync_client=True) as client:
        for name, description in POOLS.items():
            client.create_work_pool(WorkPoolCreate(name=name, type="process", description=description), overwrite=True)
        _prefect_deploy(workspace)
        _limit_queues(client, found)
        _end_schedules(client, found)
        told += create_automations(client)
    return told


def _prefect_deploy(workspace: Workspace) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=workspace.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        last = " ".join(" ".join(done.stdout.split())[-500:].split())
        raise EvergreenError(f"prefect deploy --all failed: {last}", fix="Run it by hand to see all that it says.")


def _limit_queues(client: SyncPrefectClient, found: list[Scenario]) -> None:
    """One run of a scenario at a time, whichever of its deployments it is of: the next one waits in the queue, as Late."""
    for scenario in found:
        queue = client.read_work_queue_by_name(scenario.name, work_pool_name=scenario.pool)
        if queue.concurrency_limit != 1:
            client.update_work_queue(queue.id, concurrency_limit=1)


def _end_schedules(client: SyncPrefectClient, found: list[Scenario]) -> None:
    """Prefect leaves a schedule where it was when none is declared any more."""
    for scenario in found:
        if scenario.retraining.cron is None:
            there = client.read_deployment_by_name(f"retraining/{scenario.name}")
            for schedule in there.schedules:
                if schedule.slug == SCHEDULE:
                    client.delete_deployment_schedule(there.id, schedule.id)


def _as_yaml(document: dict[str, Any]) -> bytes:
    from ruamel.yaml import YAML

    yaml, buffer = YAML(), io.BytesIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 128
    yaml.dump(document, buffer)
    return buffer.getvalue()


def main() -> None:
    """`python -m flows.deploy`: what `evergreen up` runs in a process of its own, which names the server."""
    try:
        for sentence in deploy(Workspace.find()):
            print(sentence)
    except EvergreenError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_status) from None


if __name__ == "__main__":
    main()
