"""The training's stages, in order; what they are expected to take; and whether any of them would do anything. No Prefect is needed to know either."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from evergreen.planning.budget import hold, is_limited
from evergreen.planning.estimate import Estimate, NothingKnown, estimate, no_trial
from flows.summary import conclude, stages_of
from tasks import collect, evaluate, preprocess, promote, register, train, validate, version
from tasks.stage import Rehearsal, Run, WouldRun
from tasks.trial import trial

if TYPE_CHECKING:
    from evergreen.training.fine_tuning import Start
    from tasks.evaluate import Evaluation
    from tasks.promote import Promotion
    from tasks.register import Registration
    from tasks.version import DataVersion

log = logging.getLogger("evergreen")


def stages_in_order(run: Run) -> dict[str, Any]:
    """The whole way from the source to the gate."""
    return conclude(run, *model_stages(run, data_stages(run), "any"))


def data_stages(run: Run) -> DataVersion:
    """From the source to the splits."""
    collection = run(collect.stage)
    run(validate.stage, collection)
    data_version: DataVersion = run(version.stage, collection)
    run(preprocess.stage)
    return data_version


def model_stages(
    run: Run, data_version: DataVersion, start: Start, tries: int = 1
) -> tuple[DataVersion, Evaluation, Registration, Promotion]:
    """From the splits to the gate.

    Args:
        start: what training begins with.
        tries: as `evergreen.evaluation.gate.decide`.
    """
    run(train.stage, start)
    evaluation = run(evaluate.stage)
    registration = run(register.stage, data_version, evaluation)
    promotion = run(promote.stage, registration, tries)
    return data_version, evaluation, registration, promotion


def planned(run: Run, start: Start) -> Estimate | None:
    """What the stages that will run are estimated to take; None where nothing tells. Without a budget nobody waits for a trial.

    Args:
        start: as `model_stages`.

    Raises:
        OverBudget: the run would pass a limit of the scenario, with what it has spent already.
    """
    limited, scenario = is_limited(run.scenario), run.scenario
    if not isinstance(start, str):
        scenario = start.of(scenario)
    try:
        expected = estimate(
            scenario, run.workspace, trial if limited else no_trial, first=first_to_run(run, start) or "promote"
        )
    except NothingKnown:
        return None
    if limited:
        hold(run.scenario, run.workspace, expected, now=datetime.now(UTC), spent=run.cost())
    log.info("%s", expected)
    return expected


def with_what_is_done(run: Run, expected: Estimate | None, others: Sequence[Start] = ()) -> Estimate | None:
    """The estimate of a whole retraining: with the stages that it has done to find a reason, and as far as it may come to that, with the
    training after one that the gate refuses.

    Args:
        others: what further trainings would begin with.
    """
    if expected is None:
        return None
    perhaps = None
    for start in others:
        scenario = run.scenario if isinstance(start, str) else start.of(run.scenario)
        with contextlib.suppress(NothingKnown):
            again = estimate(scenario, run.workspace, no_trial, first="train").cost
            perhaps = again if perhaps is None else perhaps + again
    done = {name: (stage["seconds"], stage["energy_wh"]) for name, stage in stages_of(run).items()}
    return expected.after(done, run.cost(), perhaps)


def first_to_run(run: Run, start: Start) -> str | None:
    """The first stage that is not unchanged; None where all are."""
    rehearsal = Rehearsal(run.scenario, run.workspace, force=run.force)
    try:
        model_stages(rehearsal, data_stages(rehearsal), start)
    except WouldRun as stage:
        return str(stage)
    return None


def nothing_changed(scenario: str, epochs: int | None = None) -> dict[str, Any] | None:
    """The summary of a run in which no stage would run; None if one would. No flow is started for this.

    Args:
        epochs: as the flow `training`.
    """
    with Rehearsal.of(scenario, train={"epochs": epochs}) as run, contextlib.suppress(WouldRun):
        return stages_in_order(run)
    return None
