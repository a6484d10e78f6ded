"""The training flow: from labelled images to a model that has earned its place."""

from __future__ import annotations

import contextlib
from typing import Any

from prefect import flow

from flows.summary import conclude, publish
from tasks import collect, evaluate, preprocess, promote, register, train, validate, version
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


@flow(name="training", flow_run_name="training-{scenario}", persist_result=False)
def training(scenario: str) -> dict[str, Any]:
    """Collect, check and version a scenario's images, train and evaluate a model on them, and promote it if it is better.

    Args:
        scenario: the name of a file in scenarios/, without its ending.
    """
    with Run.of(scenario) as run:
        summary = stages_in_order(run)
    publish(summary)
    return summary


def nothing_changed(scenario: str) -> dict[str, Any] | None:
    """The summary of a run in which no stage would run; None if one would. No flow is started for this."""
    with Rehearsal.of(scenario) as run, contextlib.suppress(WouldRun):
        return stages_in_order(run)
    return None
