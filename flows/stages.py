"""The training flow's stages, in order; and whether any of them would do anything. No Prefect is needed to know either."""

from __future__ import annotations

import contextlib
from typing import Any

from flows.summary import conclude
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


def nothing_changed(scenario: str) -> dict[str, Any] | None:
    """The summary of a run in which no stage would run; None if one would. No flow is started for this."""
    with Rehearsal.of(scenario) as run, contextlib.suppress(WouldRun):
        return stages_in_order(run)
    return None
