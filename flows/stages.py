"""The flows' stages, in order; and whether any of them would do anything. No Prefect is needed to know either."""

from __future__ import annotations

import contextlib
from typing import Any

from evergreen.registry import aliases
from flows.events import emit_drift
from flows.summary import conclude, untrained
from tasks import collect, decide, evaluate, look, preprocess, promote, receive, register, train, validate, version
from tasks.decide import Decision
from tasks.look import News
from tasks.receive import Arrival
from tasks.stage import Rehearsal, Run, WouldRun


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


def retraining_in_order(run: Run) -> dict[str, Any]:
    """Look at what has come in, decide, and train where there is a reason."""
    if "champion" not in aliases(run.workspace, run.scenario.name):
        return untrained(run, "there is no champion yet: train one first")
    take_in(run)
    news: News = run(look.stage)
    decision: Decision = run(decide.stage, news)
    if not decision.reasons:
        return untrained(run, decision.otherwise)
    if news.drift is not None:
        emit_drift(run.scenario.name, news.drift, acted_upon=True)
    summary = stages_in_order(run)
    decide.remember_tried(run.scenario, run.workspace, news)
    return summary | {"trained": True, "reasons": list(decision.reasons)}


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
