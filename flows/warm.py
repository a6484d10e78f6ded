"""The attempts of a retraining: first from the champion's weights, which is cheaper, then from scratch if the gate refuses the
result."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from evergreen.energy.ledger import device, read
from evergreen.energy.meter import Energy
from evergreen.kinds.base.kind import kind_of
from evergreen.planning.budget import OverBudget
from evergreen.planning.estimate import expected
from evergreen.registry.models import connect
from evergreen.registry.records import record_metrics
from evergreen.training.fine_tuning import NotPossible, Start, warm_start
from evergreen.training.fitting import Diverged
from flows.stages import data_stages, model_stages, planned
from flows.summary import Trained, Try, conclude
from tasks.stage import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.evaluate import Evaluation
    from tasks.promote import Promotion
    from tasks.register import Registration
    from tasks.version import DataVersion

log = logging.getLogger("evergreen")


def starts(run: Run, champion: int | None) -> tuple[Start, ...]:
    """The initial weights to train from, the cheapest first."""
    if champion is None or run.scenario.retraining.start_from == "scratch":
        return ("scratch",)
    try:
        return warm_start(run.scenario, run.workspace, champion), "scratch"
    except NotPossible as why:
        log.info("Training is from scratch: %s", why)
        return ("scratch",)


def train_until_promoted(run: Run, ways: Sequence[Start]) -> Trained:
    """Train from each start in turn until the gate promotes one.

    Raises:
        Diverged: every training diverged.
    """
    data_version = data_stages(run)
    found: tuple[DataVersion, Evaluation, Registration, Promotion] | None = None
    diverged: Diverged | None = None
    tries: list[Try] = []
    spent: list[Energy] = []
    for start in ways:
        if tries and (why := _over_budget(run, start)):
            tries.append(Try(str(start), None, False, why))
            break
        before = len(run.outcomes)
        try:
            found = model_stages(run, data_version, start, tries=len(ways))
        except Diverged as error:
            log.warning("%s", error)
            diverged = error
            tries.append(Try(str(start), None, False, str(error)))
            continue
        _, _, registration, promotion = found
        spent.append(sum((outcome.energy for outcome in run.outcomes[before:]), start=Energy.nothing()))
        tries.append(Try(str(start), registration.model_version, promotion.promoted, promotion.reason, spent[-1].energy_wh))
        if promotion.promoted:
            break
    if found is None:
        assert diverged is not None
        raise diverged
    summary = conclude(run, *found)
    saved = None
    if ways[0] != "scratch" and len(spent) == len(tries):
        saved = _saved_wh(run) if summary.promoted and len(spent) == 1 else _negative(spent[0].energy_wh)
    if saved is not None:
        with contextlib.suppress(Exception):  # an unreachable MLflow must not undo a finished run
            client = connect(run.workspace).MlflowClient()
            record_metrics(client, summary.run_id, {"energy_wh_saved_by_warm_start": saved})
    return Trained(summary, tuple(tries), saved)


def _over_budget(run: Run, start: Start) -> str | None:
    """Why the budget does not allow another attempt; None if it does."""
    try:
        planned(run, start)
    except OverBudget as why:
        log.warning("The champion stays: %s", why)
        return str(why)
    return None


def _saved_wh(run: Run) -> float | None:
    """The energy in Wh that training from scratch on these items would have taken, minus what this run's training took; None if
    unknown.

    It is estimated from earlier trainings on this machine.
    """
    (training,) = (outcome for outcome in run.outcomes if outcome.stage == "train")
    if training.state == "unchanged":
        return None
    learner = kind_of(run.scenario).learner
    kind = learner.training_work(run.scenario)
    entries = [
        entry
        for entry in read(run.workspace, run.scenario.name)
        if (entry.stage, entry.device, entry.work_kind) == ("train", device(), kind) and entry.work
    ]
    scratch = expected(entries, training.result.train_items * learner.equivalent_epochs(run.scenario))
    if scratch is None or scratch.energy_wh is None or training.energy.energy_wh is None:
        return None
    return scratch.energy_wh - training.energy.energy_wh


def _negative(energy_wh: float | None) -> float | None:
    return None if energy_wh is None else -energy_wh
