"""The stages of a training in order, the estimate of their cost, and the check whether any of them has to run. The latter two
work without Prefect."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from evergreen.planning.budget import check_budget, is_limited
from evergreen.planning.estimate import Estimate, NothingKnown, estimate, no_trial
from evergreen.privacy.retention import expired
from flows.summary import TrainingSummary, conclude, stages_of
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


def stages_in_order(run: Run) -> TrainingSummary:
    """Run all stages, from the source to the gate."""
    return conclude(run, *model_stages(run, data_stages(run), "any"))


def data_stages(run: Run) -> DataVersion:
    """Run the stages from the source to the splits."""
    collection = run(collect.stage)
    run(validate.stage, collection)
    data_version: DataVersion = run(version.stage, collection)
    run(preprocess.stage)
    return data_version


def model_stages(
    run: Run, data_version: DataVersion, start: Start, tries: int = 1
) -> tuple[DataVersion, Evaluation, Registration, Promotion]:
    """Run the stages from the splits to the gate.

    Args:
        start: the initial weights.
        tries: as in `evergreen.evaluation.gate.decide`.
    """
    run(train.stage, start)
    evaluation = run(evaluate.stage)
    registration = run(register.stage, data_version, evaluation)
    promotion = run(promote.stage, registration, tries)
    return data_version, evaluation, registration, promotion


def planned(run: Run, start: Start) -> Estimate | None:
    """Estimate the cost of the stages that will run; None if there is nothing to estimate from. Without a budget, no trial is
    run for it.

    Args:
        start: as in `model_stages`.

    Raises:
        OverBudget: including what it has already spent, the run would exceed a limit of the scenario.
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
        check_budget(run.scenario, run.workspace, expected, now=datetime.now(UTC), spent=run.cost())
    log.info("%s", expected)
    return expected


def with_what_is_done(run: Run, expected: Estimate | None, others: Sequence[Start] = ()) -> Estimate | None:
    """The estimate of a whole retraining: it includes the stages already run to find a reason, and, as an upper bound, the
    further trainings that follow if the gate refuses a model.

    Args:
        others: the initial weights of the further trainings.
    """
    if expected is None:
        return None
    perhaps = None
    for start in others:
        scenario = run.scenario if isinstance(start, str) else start.of(run.scenario)
        with contextlib.suppress(NothingKnown):
            again = estimate(scenario, run.workspace, no_trial, first="train").cost
            perhaps = again if perhaps is None else perhaps + again
    done = {name: (stage.seconds, stage.energy_wh) for name, stage in stages_of(run).items()}
    return expected.after(done, run.cost(), perhaps)


def first_to_run(run: Run, start: Start) -> str | None:
    """The name of the first stage that has to run; None if all are unchanged."""
    rehearsal = Rehearsal(run.scenario, run.workspace, force=run.force)
    try:
        model_stages(rehearsal, data_stages(rehearsal), start)
    except WouldRun as stage:
        return str(stage)
    return None


def nothing_changed(scenario: str, epochs: int | None = None) -> TrainingSummary | None:
    """The summary if no stage would have to run; None otherwise. No flow is started to find out.

    Args:
        epochs: as in the flow `training`.
    """
    with Rehearsal.of(scenario, train={"epochs": epochs}) as run, contextlib.suppress(WouldRun):
        if expired(run.scenario, run.workspace, datetime.now(UTC)):
            return None  # a run begins by removing what is too old
        return stages_in_order(run)
    return None
