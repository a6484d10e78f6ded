"""The retraining flow: monitor → decide → wait → train. If there is a reason to train again, it runs the training stages: first
from the champion's weights, then, if the gate refuses the result, from scratch.

The same drift must not start one retraining after another. Therefore (1) an item counts as new only until a retraining that
included it has ended, whether or not the model was promoted: what the gate refused is not tried again with the same items; and
(2) drift is announced only once per champion and data version, before the training: if the training fails, the schedule retries
it, not its own event.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from prefect import flow

from evergreen.planning.estimate import Estimate
from evergreen.planning.waiting import provider, saved_gco2e, when
from evergreen.registry.models import connect
from evergreen.registry.origin import LastRetraining, settings_digest
from evergreen.registry.records import record_metrics
from evergreen.scenario.settings import Name
from evergreen.training.fitting import Diverged
from evergreen.workspace import replace_file
from flows.events import emit_drift
from flows.links import run_links
from flows.publishing import failure_shown, publish_retraining
from flows.retention import remove_expired
from flows.stages import planned, with_what_is_done
from flows.stoppable import stoppable
from flows.summary import RetrainingSummary, TrainingSummary, energy_of, seconds_of
from flows.visible import progress_shown
from flows.waiting import can_wait, reason_found_at, start_later
from flows.warm import starts, train_until_promoted
from tasks import decide, monitor
from tasks.decide import Decision
from tasks.monitor import Findings
from tasks.stage import Run

log = logging.getLogger("evergreen")


@flow(name="retraining", flow_run_name="retraining-{scenario}", persist_result=False)
@stoppable
def retraining(scenario: Name, force: bool = False, start: Literal["scenario", "champion", "scratch"] = "scenario") -> Any:
    """Take in what came since, and where there is a reason, train a scenario's model again and promote it if it is better.

    Args:
        scenario: which scenario: the name of a file in scenarios/, without its ending.
        force: train now, even if there is no reason to, and without waiting for a cleaner hour.
        start: what training begins with. champion: it is fine-tuned, and training from scratch is tried only where the gate
            refuses that; scratch: random weights; scenario: as the scenario says (retraining.start_from).
    """
    from prefect.states import Completed

    start_from = None if start == "scenario" else start
    with failure_shown(scenario):
        with progress_shown(scenario), Run.of(scenario, force=force, retraining={"start_from": start_from}) as run:
            remove_expired(run.scenario, run.workspace)
            summary = retrain_where_due(run, reason_found_at())
        publish_retraining(run.workspace, summary)
    if summary.trained:
        last = summary.trained.summary
        shown = replace(last, links=run_links(scenario, last.run_id))
        return replace(summary, trained=replace(summary.trained, summary=shown))
    name = "Waits" if summary.reasons else "Nothing to do"
    return Completed(name=name, message="; ".join(summary.against), data=summary)


def retrain_where_due(run: Run, reason_found_at: datetime | None = None) -> RetrainingSummary:
    """Monitor, decide, wait for a clean hour, and train where there is a reason."""
    seen = run(monitor.stage)
    decision = run(decide.stage, seen)
    announce(run, seen)
    if run.force and not decision.due:
        decision = replace(decision, reasons=("it was requested",))
    if not decision.due:
        return untrained(run, seen, decision)
    ways = starts(run, seen.champion)
    expected, now = planned(run, ways[0]), datetime.now(UTC)
    found_at = reason_found_at or now
    waits = put_off(run, expected, found_at, now)
    if waits is not None:
        return untrained(run, seen, replace(decision, against=(waits,)))
    whole = with_what_is_done(run, expected, ways[1:])
    try:
        trained = train_until_promoted(run, ways)
    except Diverged:  # the same items and settings would diverge again at every schedule
        note(run)
        raise
    note(run)
    trained = replace(trained, summary=replace(trained.summary, estimate=whole))
    saved = saved_by_waiting(run, trained.summary, found_at, now)
    return replace(untrained(run, seen, decision), trained=trained, carbon_gco2e_saved_by_waiting=saved)


def saved_by_waiting(run: Run, summary: TrainingSummary, reason_found_at: datetime, started_at: datetime) -> float | None:
    """The emissions saved by waiting, in gCO2e, which are also logged to the MLflow run; None if the run did not wait or the
    saving is unknown."""
    if reason_found_at == started_at:
        return None
    saved = saved_gco2e(
        provider(run.scenario, run.workspace),
        energy_wh=summary.energy.energy_wh,
        seconds=summary.seconds,
        reason_found_at=reason_found_at,
        started_at=started_at,
    )
    if saved is not None:
        with contextlib.suppress(Exception):  # an unreachable MLflow must not undo a finished run
            client = connect(run.workspace).MlflowClient()
            record_metrics(client, summary.run_id, {"carbon_gco2e_saved_by_waiting": saved})
    return saved


def put_off(run: Run, expected: Estimate | None, reason_found_at: datetime, now: datetime) -> str | None:
    """Postpone the start to a cleaner hour, if there is one before the deadline and the run belongs to a deployment.

    Returns:
        The reason, in words; None if the run starts now.
    """
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


def announce(run: Run, seen: Findings) -> None:
    """Emit an event for drift, once per champion and set of batches."""
    recorded = run.workspace.record(run.scenario.name) / "drift.json"
    sight = json.dumps({"champion": seen.champion, "batches": seen.batches}).encode()
    if seen.drift is None or not seen.drift.drifted or (recorded.exists() and recorded.read_bytes() == sight):
        return
    replace_file(recorded, sight)
    emit_drift(run.scenario.name, seen.drift, acted_upon=True)  # drift is a reason to train, so this run trains


def untrained(run: Run, seen: Findings, decision: Decision) -> RetrainingSummary:
    """The summary of a run that found no reason to train, or that waits."""
    return RetrainingSummary(
        run.scenario.name,
        decision.reasons,
        decision.against,
        str(seen.taken),
        None if seen.drift is None else seen.drift.drifted,
        energy_of(run),
        seconds_of(run),
    )


def note(run: Run) -> None:
    """Record that this retraining has ended, and which batches it included."""
    from evergreen.data.dataset import batches
    from evergreen.registry.models import aliases

    name = run.scenario.name
    champion = aliases(run.workspace, name).get("champion")
    had = tuple(folder.name for folder in batches(run.workspace, name))
    ended_at = datetime.now(UTC).isoformat(timespec="seconds")
    LastRetraining(champion, had, ended_at, settings_digest(run.scenario)).save(
        monitor.last_retraining_file(run.workspace, name)
    )
