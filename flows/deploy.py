"""Deployments: generates `prefect.yaml` from the scenarios, and deploys it to Prefect's server.

The scenarios are the single source of truth: `evergreen new`, `evergreen deploy` and `evergreen up` generate `prefect.yaml`
from them, and `prefect deploy --all` reads it, on this machine or any other. Deployments of other flows that users add to that
file are kept.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from evergreen.errors import EvergreenError, WrongUse
from evergreen.scenario.loading import parse_scenario
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
    """All scenarios of the checkout, and a sentence for each invalid file: it must not keep the other scenarios from
    running."""
    found: list[Scenario] = []
    lines: list[str] = []
    for path in sorted(workspace.scenarios.glob("*.yaml")):
        try:
            found.append(parse_scenario(path))
        except WrongUse as error:
            lines.append(f"Not deployed: {error}")
    return found, lines


def deployment(scenario: Scenario, flow: str) -> dict[str, Any]:
    """One entry of `prefect.yaml`: the deployment `FLOW/SCENARIO`.

    The runs of a scenario share one work queue, which allows one run at a time (`_limit_queues`). The deployment's own limit
    does the same on a server whose queues have no limit, and the lock `run-NAME` covers runs started in any other way.
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
                "match": {"prefect.resource.id": f"evergreen.scenario.{scenario.name}", RETRAINING: "requested"},
                "parameters": {"scenario": scenario.name},
            }
        ]
    return entry


def declare(workspace: Workspace) -> list[str]:
    """Write `prefect.yaml` if it does not match the scenarios.

    Returns:
        Messages for the user, as sentences.

    Raises:
        WrongUse: the existing file can't be parsed.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, yaml = workspace.root / "prefect.yaml", YAML(typ="safe")
    found, lines = scenarios(workspace)
    before = path.read_bytes() if path.exists() else b""
    try:
        kept = yaml.load(before) or {}
        theirs = [entry for entry in kept.pop("deployments", None) or [] if entry.get("entrypoint") not in ENTRYPOINTS.values()]
    except (YAMLError, AttributeError, TypeError) as error:
        text = " ".join(str(error).split())
        raise WrongUse(
            f"prefect.yaml is not what Prefect reads: {text}", fix="Correct it, or remove it: it is written anew."
        ) from None
    ours = [deployment(scenario, flow) for scenario in found for flow in ENTRYPOINTS]
    content = HEADER.encode() + _as_yaml(kept | {"deployments": [*ours, *theirs]})
    if content != before:
        replace_file(path, content)
        lines.append("Written from the scenarios: prefect.yaml.")
    return lines


def deploy(workspace: Workspace) -> list[str]:
    """Deploy everything in `prefect.yaml` to the Prefect server at PREFECT_API_URL, with the work pools, each scenario's queue,
    and the automations of `flows.automations`. Repeating it changes nothing.

    Returns:
        Messages for the user, as sentences.

    Raises:
        WrongUse: no server is configured, or `prefect.yaml` can't be read.
        EvergreenError: the server refuses.
    """
    if "PREFECT_API_URL" not in os.environ:
        raise WrongUse("there is no Prefect server to deploy to", fix="Start one with evergreen up, or set PREFECT_API_URL.")
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    from flows.automations import create_automations

    lines = declare(workspace)
    found, _ = scenarios(workspace)
    with get_client(sync_client=True) as client:
        for name in sorted({scenario.pool for scenario in found}):
            pool = WorkPoolCreate(name=name, type="process", description=POOLS[name])
            client.create_work_pool(pool, overwrite=True)
        refused = _prefect_deploy(workspace)
        lines += refused.values()
        deployed = [scenario for scenario in found if scenario.name not in refused]
        _limit_queues(client, deployed)
        lines += put_schedules(client, workspace, deployed)
        lines += create_automations(client)
    return lines


def _prefect_deploy(workspace: Workspace) -> dict[str, str]:
    """Deploy everything in `prefect.yaml`, except the scenarios' schedules, which `flows.schedules` manages.

    If Prefect refuses something, the entries are deployed one by one, so that an invalid one does not keep the others from
    running.

    Returns:
        By name, a sentence about each entry that Prefect refused.

    Raises:
        EvergreenError: Prefect refused all entries.
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
    """Deploy a document; returns Prefect's message if it refuses, else None."""
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
    """Allow one run of a scenario at a time, across its deployments: the next one waits in the queue, in state Late."""
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
    """The body of `python -m flows.deploy`, which `evergreen up` runs in a child process whose environment names the server."""
    try:
        for sentence in deploy(Workspace.find()):
            print(sentence)
    except EvergreenError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_status) from None


if __name__ == "__main__":
    main()
