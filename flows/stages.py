"""The flows' stages, in order; and whether any of them would do anything. No Prefect is needed to know either."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime
from typing import Any

from evergreen.budget import hold, is_limited
from evergreen.estimate import Estimate, NothingKnown, estimate, no_trial
from evergreen.registry import aliases
from evergreen.waiting import provider, when
from flows.events import emit_drift
from flows.summary import conclude, estimated, note_saving, untrained
from flows.waiting import can_wait, start_later
from tasks import collect, decide, evaluate, look, preprocess, promote, receive, register, train, validate, version
from tasks.decide import Decision
from tasks.look import News
from tasks.receive import Arrival
from tasks.stage import Rehearsal, Run, WouldRun
from tasks.trial import trial

log = logging.getLogger("evergreen")


def stages_in_order(run: Run) -> dict[str, Any]:
    collection = run(collect.stage)
    run(validate.stage, collection)
    data_version = run(version.stage, collection)
    run(preprocess.stage)
    run(train.stage)
    evaluation = run(evaluate.stage)
    registration = run(register.stage, data_version, evaluation)
    promotion = run(promote.stage, registration)
    return conclude(run, data_version, evaluation, registration, promotion)


def planned(run: Run) -> Estimate | None:
    """What the stages that will run are estimated to take; None where nothing tells. Without a budget nobody waits for a trial.

    Raises:
        OverBudget: the run would pass a limit of the scenario.
    """
    limited = is_limited(run.scenario)
    try:
        expected = estimate(run.scenario, run.workspace, trial if limited else no_trial, first=first_to_run(run))
    except NothingKnown:
        return None
    if limited:
        hold(run.scenario, run.workspace, expected, now=datetime.now(UTC))
    log.info("%s", expected)
    return expected


def first_to_run(run: Run) -> str:
    """The first stage that is not unchanged."""
    try:
        stages_in_order(Rehearsal(run.scenario, run.workspace))
    except WouldRun as stage:
        return str(stage)
    return "promote"


def retraining_in_order(run: Run, reason_found_at: datetime | None = None) -> dict[str, Any]:
    """Look at what has come in, decide, wait for a clean hour, and train where there is a reason.

    Args:
        reason_found_at: by an earlier run of the flow, which has put the start off until now.
    """
    if "champion" not in aliases(run.workspace, run.scenario.name):
        return untrained(run, "there is no champion yet: train one first")
    take_in(run)
    news: News = run(look.stage)
    decision: Decision = run(decide.stage, news)
    if not decision.reasons:
        return untrained(run, decision.otherwise)
    if news.drift is not None and reason_found_at is None:
        emit_drift(run.scenario.name, news.drift, acted_upon=True)
    expected, now = planned(run), datetime.now(UTC)
    wanted_at = reason_found_at or now
    waits = put_off(run, expected, wanted_at, now)
    if waits is not None:
        return untrained(run, f"{decision}; {waits}")
    summary = stages_in_order(run) | estimated(expected)
    decide.remember_tried(run.scenario, run.workspace, news)
    reasons = {"trained": True, "reasons": list(decision.reasons)}
    return summary | reasons | {"carbon_gco2e_saved_by_waiting": note_saving(run, summary, wanted_at, now)}


def put_off(run: Run, expected: Estimate | None, reason_found_at: datetime, now: datetime) -> str | None:
    """Schedule the start for a cleaner hour, if there is one before the deadline and the run is of a deployment; why, in words."""
    seconds = None if expected is None else expected.cost.seconds
    source = provider(run.scenario, run.workspace)
    start = when(run.scenario, source, seconds=seconds, reason_found_at=reason_found_at, now=now)
    log.info("%s", start.reason)
    if start.now:
        return None
    assert start.ask_again_at is not None
    if not can_wait():
        log.info("Only a run of the deployment retraining/%s can wait for that: it starts now.", run.scenario.name)
        return None
    scheduled = start_later(run.scenario.name, start.ask_again_at, reason_found_at, start.reason)
    return start.reason if scheduled else None


def take_in(run: Run) -> None:
    """From the inbox into the data set: checked as everything is, and out of the inbox only when it is safe."""
    arrival: Arrival = run(receive.stage)
    if arrival.collection.batch is not None:
        run(validate.stage, arrival.collection)
        run(version.stage, arrival.collection)
    receive.clear(run.scenario, run.workspace, arrival)


def nothing_changed(scenario: str) -> dict[str, Any] | None:
    """The summary of a run in which no stage would run; None if one would. No flow is started for this."""
    with Rehearsal.of(scenario) as run, contextlib.suppress(WouldRun):
        return stages_in_order(run)
    return None
