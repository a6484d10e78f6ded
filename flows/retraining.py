"""The retraining flow: is there a reason to train again, and if so, the training's stages.

A drift must not start retrainings again and again. So (1) an item is new until one retraining that had it has ended, promoted or
not: what the gate refused is not tried again with the same items; and (2) a drift is announced once for one champion and one data
version, before the training: a training that fails is tried again by the schedule, not by its own event.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from prefect import flow

from evergreen.energy import Energy
from evergreen.origin import Attempt
from evergreen.workspace import replace_file
from flows.stages import stages_in_order
from flows.summary import publish
from tasks import decide, look
from tasks.decide import Decision
from tasks.look import Look
from tasks.stage import Run

log = logging.getLogger("evergreen")


@flow(name="retraining", flow_run_name="retraining-{scenario}", persist_result=False)
def retraining(scenario: str) -> Any:
    """Take in what came since, and where there is a reason, train a scenario's model again and promote it if it is better.

    Args:
        scenario: the name of a file in scenarios/, without its ending.
    """
    from prefect.states import Completed

    with Run.of(scenario) as run:
        summary = retrain_where_due(run)
    if summary["retrained"]:
        publish(summary)
        return summary
    return Completed(name="Nothing to do", message="; ".join(summary["against"]), data=summary)


def retrain_where_due(run: Run) -> dict[str, Any]:
    """Look, decide, and train where there is a reason; the summary, with `retrained`, `reasons` and `against` in it."""
    seen = run(look.stage)
    decision = run(decide.stage, seen)
    announce(run, seen)
    if not decision.due:
        return nothing_to_do(run, seen, decision)
    summary = stages_in_order(run)
    note(run)
    return {**summary, **_told(seen, decision)}


def announce(run: Run, seen: Look) -> None:
    """Emit the event of a drift, once for what was seen."""
    told = run.workspace.record(run.scenario.name) / "drift.json"
    sight = json.dumps({"champion": seen.champion, "batches": seen.batches}).encode()
    if seen.drift is None or not seen.drift.drifted or (told.exists() and told.read_bytes() == sight):
        return
    replace_file(told, sight)
    from prefect.events import emit_event

    emit_event(
        event="evergreen.drift",
        resource={"prefect.resource.id": f"evergreen.scenario.{run.scenario.name}"},
        payload={"reason": seen.drift.reason, "items": seen.drift.items, "champion": seen.champion},
    )


def nothing_to_do(run: Run, seen: Look, decision: Decision) -> dict[str, Any]:
    """The summary of a run that found no reason."""
    spent = sum((outcome.energy for outcome in run.outcomes), start=Energy.nothing())
    return {
        "scenario": run.scenario.name,
        "energy_wh": spent.energy_wh,
        "energy_methods": list(spent.methods),
        "seconds": sum(outcome.seconds for outcome in run.outcomes),
        **_told(seen, decision),
    }


def note(run: Run) -> None:
    """Write down that this retraining has ended, and what it had."""
    from evergreen.dataset import batches
    from evergreen.registry import aliases

    name = run.scenario.name
    champion = aliases(run.workspace, name)["champion"]
    had = tuple(folder.name for folder in batches(run.workspace, name))
    Attempt(champion, had, datetime.now(UTC).isoformat(timespec="seconds")).save(look.attempt_file(run.workspace, name))


def _told(seen: Look, decision: Decision) -> dict[str, Any]:
    return {
        "retrained": decision.due,
        "reasons": list(decision.reasons),
        "against": list(decision.against),
        "inbox": str(seen.taken),
        "drift": None if seen.drift is None else seen.drift.drifted,
    }
