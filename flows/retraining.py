"""The retraining flow: look → decide → wait → train. Is there a reason to train again, and if so, the training's stages: from the champion's
weights, and from scratch where the gate refuses that.

A drift must not start retrainings again and again. So (1) an item is new until one retraining that had it has ended, promoted or
not: what the gate refused is not tried again with the same items; and (2) a drift is announced once for one champion and one data
version, before the training: a training that fails is tried again by the schedule, not by its own event.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from prefect import flow

from evergreen.energy.meter import Energy
from evergreen.planning.estimate import Estimate
from evergreen.planning.waiting import provider, when
from evergreen.registry.origin import Attempt, settings_digest
from evergreen.scenario.settings import Name
from evergreen.training.fitting import Diverged
from evergreen.workspace import replace_file
from flows.attempt import attempt
from flows.events import emit_drift
from flows.links import run_links
from flows.stages import planned, with_what_is_done
from flows.summary import estimated, failure_shown, note_saving, publish
from flows.visible import progress_shown
from flows.waiting import can_wait, reason_found_at, start_later
from flows.warm import starts, train_until_promoted
from tasks import decide, look
from tasks.decide import Decision
from tasks.look import Look
from tasks.stage import Run

log = logging.getLogger("evergreen")


@flow(name="retraining", flow_run_name="retraining-{scenario}", persist_result=False)
@attempt
def retraining(scenario: Name, force: bool = False, start: Literal["scenario", "champion", "scratch"] = "scenario") -> Any:
    """Take in what came since, and where there is a reason, train a scenario's model again and promote it if it is better.

    Args:
        scenario: which scenario: the name of a file in scenarios/, without its ending.
        force: train now, even if there is no reason to, and without waiting for a cleaner hour.
        start: what training begins with. champion: it is fine-tuned, and training from scratch is tried only where the gate refuses that;
            scratch: random weights; scenario: as the scenario says (retraining.start_from).
    """
    from prefect.states import Completed

    start_from = None if start == "scenario" else start
    with failure_shown(scenario):
        with progress_shown(scenario), Run.of(scenario, force=force, retraining={"start_from": start_from}) as run:
            summary = retrain_where_due(run, reason_found_at())
        publish(run.workspace, summary)
    if summary["retrained"]:
        return summary | {"links": run_links(summary)}
    name = "Waits" if summary["reasons"] else "Nothing to do"
    return Completed(name=name, message="; ".join(summary["against"]), data=summary)


def retrain_where_due(run: Run, reason_found_at: datetime | None = None) -> dict[str, Any]:
    """Look, decide, wait for a clean hour, and train where there is a reason; the summary, with `retrained`, `reasons`, `against` in it."""
    seen = run(look.stage)
    decision = run(decide.stage, seen)
    announce(run, seen)
    if run.force and not decision.due:
        decision = replace(decision, reasons=("it was requested",))
    if not decision.due:
        return untrained(run, seen, decision)
    ways = starts(run, seen.champion)
    expected, now = planned(run, ways[0]), datetime.now(UTC)
    wanted_at = reason_found_at or now
    waits = put_off(run, expected, wanted_at, now)
    if waits is not None:
        return untrained(run, seen, replace(decision, against=(waits,)))
    whole = with_what_is_done(run, expected, ways[1:])
    try:
        summary = train_until_promoted(run, ways) | estimated(whole)
    except Diverged:  # the same items and settings would diverge again at every schedule
        note(run)
        raise
    note(run)
    saved = note_saving(run, summary, wanted_at, now)
    return {**summary, **_told(seen, decision), "retrained": True, "carbon_gco2e_saved_by_waiting": saved}


def put_off(run: Run, expected: Estimate | None, reason_found_at: datetime, now: datetime) -> str | None:
    """Schedule the start for a cleaner hour, if there is one before the deadline and the run is of a deployment; why, in words."""
    seconds = None if expected is None else expected.cost.seconds
    source = provider(run.scenario, run.workspace)
    start = when(run.scenario, source, seconds=seconds, reason_found_at=reason_found_at, now=now)
    log.info("%s", start.reason)
    if start.now or run.force:
        return None
    assert start.ask_again_at is not None
    if not can_wait():
        log.info("Only a run of the deployment retraining/%s can wait for that: it starts now.", run.scenario.name)
        return None
    scheduled = start_later(run.scenario.name, start.ask_again_at, reason_found_at, start.reason)
    return start.reason if scheduled else None


def announce(run: Run, seen: Look) -> None:
    """Emit the event of a drift, once for what was seen."""
    told = run.workspace.record(run.scenario.name) / "drift.json"
    sight = json.dumps({"champion": seen.champion, "batches": seen.batches}).encode()
    if seen.drift is None or not seen.drift.drifted or (told.exists() and told.read_bytes() == sight):
        return
    replace_file(told, sight)
    emit_drift(run.scenario.name, seen.drift, acted_upon=True)  # drift is a reason: this very run trains


def untrained(run: Run, seen: Look, decision: Decision) -> dict[str, Any]:
    """The summary of a run that found no reason, or waits."""
    spent = sum((outcome.energy for outcome in run.outcomes), start=Energy.nothing())
    return {
        "scenario": run.scenario.name,
        "energy_wh": spent.energy_wh,
        "energy_methods": list(spent.methods),
        "seconds": sum(outcome.seconds for outcome in run.outcomes),
        **_told(seen, decision),
        "retrained": False,
    }


def note(run: Run) -> None:
    """Write down that this retraining has ended, and what it had."""
    from evergreen.data.dataset import batches
    from evergreen.registry.models import aliases

    name = run.scenario.name
    champion = aliases(run.workspace, name).get("champion")
    had = tuple(folder.name for folder in batches(run.workspace, name))
    ended_at = datetime.now(UTC).isoformat(timespec="seconds")
    Attempt(champion, had, ended_at, settings_digest(run.scenario)).save(look.attempt_file(run.workspace, name))


def _told(seen: Look, decision: Decision) -> dict[str, Any]:
    return {
        "reasons": list(decision.reasons),
        "against": list(decision.against),
        "inbox": str(seen.taken),
        "drift": None if seen.drift is None else seen.drift.drifted,
    }
