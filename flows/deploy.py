"""Deployments: `prefect.yaml`, written from the scenarios, and what Prefect's server is told by it.

The scenarios are the one place where anything is said: `prefect.yaml` is written from them (`evergreen new`, `evergreen deploy` and
`evergreen up` do), and `prefect deploy --all` reads it, here as on any other machine. Deployments of somebody's own in that file stay.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from evergreen.errors import EvergreenError, WrongUse
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file
from flows.events import RETRAINING
from flows.schedules import SLUG, put_schedules

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ENTRYPOINTS = {"training": "flows/training.py:training", "retraining": "flows/retraining.py:retraining"}
PURPOSES = {
    "training": "Collect, check and version the images, train and evaluate a model on them, and promote it if it is better.",
    "retraining": "Train again if there is a reason to, and promote the new model if it is better. By schedule only once the scenario has been run.",
}
POOLS = {"cpu": "Runs on the processors of the worker's machine.", "gpu": "Runs on the graphics card of the worker's machine."}
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
        "schedules": [{"slug": SLUG, "cron": cron, "timezone": scenario.retraining.timezone}] if cron else [],
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
        for name in sorted({scenario.pool for scenario in found}):
            pool = WorkPoolCreate(name=name, type="process", description=POOLS[name])
            client.create_work_pool(pool, overwrite=True)
        refused = _prefect_deploy(workspace)
        told += refused.values()
        deployed = [scenario for scenario in found if scenario.name not in refused]
        _limit_queues(client, deployed)
        told += put_schedules(client, workspace, deployed)
        told += create_automations(client)
    return told


def _prefect_deploy(workspace: Workspace) -> dict[str, str]:
    """Deploy all that `prefect.yaml` declares; the scenarios' schedules are put by `flows.schedules`. Where something is refused, each by itself, so
    that one that is wrong keeps no other one from running.

    Returns:
        By name, a sentence on what Prefect has refused.

    Raises:
        EvergreenError: it has refused everything.
    """
    from ruamel.yaml import YAML

    document = YAML(typ="safe").load((workspace.root / "prefect.yaml").read_bytes())
    entries = [
        {**entry, "schedules": []} if entry["entrypoint"] in ENTRYPOINTS.values() else entry
        for entry in document["deployments"]
    ]
    if _refusal(workspace, document | {"deployments": entries}) is None:
        return {}
    refusals = {entry["name"]: why for entry in entries if (why := _refusal(workspace, document | {"deployments": [entry]}))}
    if len(refusals) == len({entry["name"] for entry in entries}):
        raise EvergreenError(
            f"prefect deploy --all failed: {next(iter(refusals.values()))}", fix="Run it by hand to see all that it says."
        )
    return {name: f"Not deployed: {name}, which Prefect refuses ({why})." for name, why in refusals.items()}


def _refusal(workspace: Workspace, document: dict[str, Any]) -> str | None:
    """Deploy what the document declares; what Prefect says where it refuses."""
    path = workspace.private / "prefect.yaml"
    replace_file(path, _as_yaml(document))
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)],
        cwd=workspace.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        env=os.environ | {"COLUMNS": "1000"}, check=False,
    )  # fmt: skip
    if not done.returncode:
        return None
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]  # the last of a traceback
    return " ".join((named or lines or ["it says nothing"])[-1].split())[:300]


def _limit_queues(client: SyncPrefectClient, found: list[Scenario]) -> None:
    """One run of a scenario at a time, whichever of its deployments it is of: the next one waits in the queue, as Late."""
    for scenario in found:
        queue = client.read_work_queue_by_name(scenario.name, work_pool_name=scenario.pool)
        if queue.concurrency_limit != 1:
            client.update_work_queue(queue.id, concurrency_limit=1)


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
