"""The training's stages, in order; what they are expected to take; and whether any of them would do anything. No Prefect is needed to know either."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime
from typing import Any

from evergreen.budget import hold, is_limited
from evergreen.estimate import Estimate, NothingKnown, estimate, no_trial
from flows.summary import conclude
from tasks import collect, evaluate, preprocess, promote, register, train, validate, version
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


def nothing_changed(scenario: str) -> dict[str, Any] | None:
    """The summary of a run in which no stage would run; None if one would. No flow is started for this."""
    with Rehearsal.of(scenario) as run, contextlib.suppress(WouldRun):
        return stages_in_order(run)
    return None
