"""tune: search for better settings of `train`, within an energy budget.

Reads   the splits *train* and *val* of `outputs/NAME/splits`. The test split is not used: it is reserved for the gate.
Writes  `.evergreen/tuning/NAME/KEY/` (the study, checkpoints, predictions on val), `outputs/NAME/tuning/` (`front.png`,
        `trials.csv`), runs in the MLflow experiment `evergreen-NAME-tuning`.

A study belongs to one version of the splits and settings (KEY). A study that was killed is resumed: finished trials count, and
the trial that was running resumes from its last epoch. The energy of all trials counts, including those that were stopped
early.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evergreen import figures, progress
from evergreen.energy.meter import Meter, available_methods
from evergreen.errors import EvergreenError, WrongUse
from evergreen.evaluation.energy_ratio import EnergyRatio
from evergreen.evaluation.gate import decide
from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.base.learner import Range
from evergreen.planning.budget import left_of_month_wh
from evergreen.preparation.arrays import items_at_once, network_inputs, write_array
from evergreen.scenario.settings import Scenario
from evergreen.training.checkpoint import Checkpoint, fingerprint
from evergreen.training.distillation import taught
from evergreen.training.fitting import PREDICTED_AT_ONCE, Fitting, TrainingData
from evergreen.training.tracking import Tracker
from evergreen.training.tuning import TrialResult, as_csv, ended_trials, front, open_study, picture, score, suggest
from evergreen.workspace import Workspace, replace_folder
from tasks.page import Page, plain
from tasks.stage import Stage

if TYPE_CHECKING:
    import keras
    from optuna import Study, Trial

log = logging.getLogger("evergreen")

MEASURE_SECONDS = 1.0  # of predictions, at least


@dataclass(frozen=True)
class Tuning:
    """The result of a study, over all its sessions.

    Attributes:
        trials: all trials, in order.
        winner: the number of the trial with the highest score.
        better: whether the gate, on val, would prefer it to the scenario's own settings. The test is corrected for the number
            of trials, including the pruned ones, since the best of many is partly the best by luck.
        reason: the gate's reason, as a clause.
        front: the numbers of the trials on the Pareto front, the cheapest first.
        energy_wh: energy of the whole study.
        budget_wh: budget of the study.
        metric: the scenario's `promote.metric`.
        stopped: `budget` or `trials`.
        quality: that metric for the winner and for the scenario's own settings, on val, in words.
    """

    trials: list[TrialResult]
    winner: int
    better: bool
    reason: str
    front: list[int]
    energy_wh: float
    budget_wh: float
    metric: str
    stopped: str
    quality: str

    @property
    def own(self) -> TrialResult:
        """The trial with the scenario's own settings."""
        return next(one for one in self.trials if one.own and one.score is not None)

    @property
    def best(self) -> TrialResult:
        """The winning trial."""
        return next(one for one in self.trials if one.number == self.winner)

    def __str__(self) -> str:
        states = [one.state for one in self.trials]
        counts = ", ".join(
            f"{states.count(state)} {state}" for state in ("finished", "pruned", "unfinished") if state in states
        )
        found = "the scenario's own settings are the best of them"
        if not self.best.own:
            found = f"the best is trial {self.winner}, {self.quality}"
        return f"trials: {counts}, for {figures.energy(self.energy_wh)}; {found}."


def tune(scenario: Scenario, workspace: Workspace, budget_wh: float, trials: int) -> Tuning:
    """Run trials until the budget or the number of trials is reached.

    Args:
        budget_wh: energy budget of the study, including earlier sessions.
        trials: number of trials to complete, including earlier sessions.

    Raises:
        EvergreenError: there are no splits, or one of train and val is empty; energy can't be measured; the budget was not
            enough for the scenario's own settings.
    """
    from evergreen.environment import import_tensorflow

    if kind_of(scenario).learner.candidates(scenario, 1):
        raise WrongUse(
            f"{scenario.name} leaves open how to train, so it has no settings to tune",
            expected="a scenario that names a network",
            fix=f"Name the one that the last run chose in the section train of scenarios/{scenario.name}.yaml, and tune that.",
        )
    if not available_methods():
        raise EvergreenError(
            "the budget cannot be kept: energy can't be measured here", fix="See what evergreen doctor says of it."
        )
    splits = workspace.splits(scenario.name)
    data = _open(scenario, splits)
    import_tensorflow()
    folder = workspace.private / "tuning" / scenario.name / fingerprint(scenario, splits, data.train, None)
    study = open_study(folder / "study.db", scenario.name, scenario.seed)
    session = StudySession(scenario, workspace, study, folder, data, budget_wh)
    session.resume()
    with progress.task("tune") as report:
        while (ended := session.trials_ended()) < trials and session.left_wh() > 0:
            spent = f"{figures.energy(session.spent_wh())} of {figures.energy(budget_wh)}"
            report(
                detail=f"{figures.count(ended, 'trial')} ended, {spent}",
                fraction=max(ended / trials, session.spent_wh() / budget_wh),
            )
            session.run_trial()
    return session.conclude("trials" if session.left_wh() > 0 else "budget")


def _open(scenario: Scenario, splits: Path) -> TrainingData:
    if not (splits / "summary.json").exists():
        raise EvergreenError(
            f"{scenario.name} has no splits to tune on yet", fix=f"Make them with: evergreen run {scenario.name}"
        )
    data = TrainingData.open(splits)
    if not len(data.train) or not len(data.val):
        raise EvergreenError("settings are compared on val, which is empty", fix="Raise preprocess.val_share and run again.")
    return data


@dataclass(frozen=True)
class Measured:
    """The measurements of a finished trial, stored in the study under these names.

    Attributes:
        quality: the scenario's metric on val.
        energy_wh_per_1000: energy of 1,000 predictions, in batches, with Keras.
    """

    quality: float
    energy_wh_per_1000: float


# Why a trial ended without being measured.
EndedEarly = Literal["pruned", "diverged", "budget"]


class StudySession:
    """One call of `tune`: a study that it starts or resumes, and the energy that may still be spent on it."""

    def __init__(
        self, scenario: Scenario, workspace: Workspace, study: Study, folder: Path, data: TrainingData, budget_wh: float
    ) -> None:
        self.scenario, self.workspace, self.study, self.folder = scenario, workspace, study, folder
        self.data, self.budget_wh = data, budget_wh
        kind = kind_of(scenario)
        self.learner, self.judge, self.metric = kind.learner, kind.judge, kind.judge.headline(scenario)
        self.ranges = self.learner.search_space(scenario, data.train)
        self.month_wh, self.spent_before = left_of_month_wh(scenario, workspace), self.spent_wh()

    def trials_ended(self) -> int:
        """The number of trials that were finished or pruned."""
        return sum(one.state != "unfinished" for one in ended_trials(self.study))

    def spent_wh(self) -> float:
        """The energy spent by all trials that have ended."""
        return sum(one.energy_wh or 0.0 for one in ended_trials(self.study))

    def left_wh(self) -> float:
        """What is left of the study's budget or of the month's, whichever is less."""
        left = self.budget_wh - self.spent_wh()
        return left if self.month_wh is None else min(left, self.month_wh - (self.spent_wh() - self.spent_before))

    def resume(self) -> None:
        """Enqueue killed trials again, so that each resumes from its checkpoint. A new study starts with the scenario's own
        settings."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)
            self._enqueue(trial.params, own=trial.user_attrs.get("own", False))
        if not self.study.trials:
            settings = self.scenario.train
            self._enqueue({one.name: min(max(getattr(settings, one.name), one.low), one.high) for one in self.ranges}, own=True)

    def run_trial(self) -> None:
        """Run one trial: choose its settings, train, and store its result in the study."""
        trial = self.study.ask()
        suggested = {one.name: _plain(one, suggest(trial, one)) for one in self.ranges}
        # The scenario's own settings are used as they are, even if they lie outside the ranges.
        own = trial.user_attrs.get("own", False)
        scenario = self.scenario if own else self.scenario.with_train(suggested)
        trial.set_user_attr("settings", {one.name: getattr(scenario.train, one.name) for one in self.ranges})
        with Meter() as meter:
            outcome = self._train(scenario, trial, meter)
        trial.set_user_attr("energy_wh", meter.spent().energy_wh)
        described = self._finish(trial, outcome) if isinstance(outcome, Measured) else self._end_early(trial, outcome)
        log.info(
            "trial %d: %s; %s of %s spent (%s)",
            trial.number,
            described,
            figures.energy(self.spent_wh()),
            figures.energy(self.budget_wh),
            _shown(suggested),
        )

    def conclude(self, stopped: str) -> Tuning:
        """Choose the winner, and write `outputs/NAME/tuning`."""
        trials = ended_trials(self.study)
        finished = [one for one in trials if one.score is not None]
        own = next((one for one in finished if one.own), None)
        if own is None:
            raise EvergreenError(
                f"the budget of {figures.plain(self.budget_wh)} Wh is spent before the scenario's own settings were through",
                received=f"{figures.short(self.spent_wh())} Wh spent", fix="Raise --budget-wh: what was begun goes on.",
            )  # fmt: skip
        winner = max(finished, key=lambda one: one.score or 0.0)
        better, reason = self._compare(own, winner, rivals=self.trials_ended() - 1)
        with replace_folder(self.workspace.outputs(self.scenario.name) / "tuning") as writing:
            (writing / "trials.csv").write_bytes(as_csv(trials))
            picture(trials, winner.number, self.metric).savefig(writing / "front.png", dpi=100)
        return Tuning(
            trials=trials,
            winner=winner.number,
            better=better,
            reason=reason,
            front=[one.number for one in front(trials, self.metric)],
            energy_wh=self.spent_wh(),
            budget_wh=self.budget_wh,
            metric=self.scenario.promote.metric,
            stopped=stopped,
            quality=f"{self.metric.title} {self.metric.text(winner.quality)} on val against {self.metric.text(own.quality)}",
        )

    def _enqueue(self, settings: dict[str, Any], *, own: bool) -> None:
        self.study.enqueue_trial(settings, user_attrs={"own": own})

    def _train(self, scenario: Scenario, trial: Trial, meter: Meter) -> Measured | EndedEarly:
        """Train with a trial's settings. The checkpoint is kept if the budget ended the trial."""
        from evergreen.training.callbacks import PruneTrial, RecordTrialEnergy

        splits = self.workspace.splits(scenario.name)
        checkpoint = Checkpoint(self.folder / "checkpoints", fingerprint(scenario, splits, self.data.train, None))
        outcome: Measured | EndedEarly
        with Tracker(scenario, self.workspace, experiment=f"evergreen-{scenario.name}-tuning", description="tuning") as tracker:
            data = taught(self.scenario, splits, self.data, self.folder)
            fitting = Fitting(scenario, data, checkpoint, tracker, meter, initial_weights=None)
            state = fitting.state
            callbacks = [
                PruneTrial(state, trial, self.learner.metric),
                RecordTrialEnergy(state, trial, meter, max_wh=self.left_wh()),
            ]
            fitting.run(f"trial {trial.number}", callbacks)
            if state.stopped == "budget":
                return state.stopped
            if state.stopped == "pruned" or state.stopped == "diverged":
                outcome = state.stopped
            else:
                outcome = self._measure(fitting, trial.number, scenario)
                tracker.log_metrics(asdict(outcome), len(state.history))
        checkpoint.remove()
        return outcome

    def _measure(self, fitting: Fitting, number: int, scenario: Scenario) -> Measured:
        """Measure the quality on val and the energy of predictions, and store the predictions. The energy is measured only once
        for networks with the same amount of work."""
        model = fitting.best_model()
        predictions, quality = fitting.predictions_on_val(model)
        write_array(self._predictions(number), predictions)
        val, inputs = self.data.val, network_inputs(self.data.val, self.learner)
        at_once, work = items_at_once(val, self.learner, PREDICTED_AT_ONCE), self.learner.prediction_work(scenario)
        known = [one.energy_wh_per_1000 for one in ended_trials(self.study) if self._prediction_work(one) == work]
        energy = next((value for value in known if value is not None), None) or _energy_wh_per_1000(
            model, inputs, len(val), at_once
        )
        return Measured(quality, energy)

    def _prediction_work(self, one: TrialResult) -> str:
        return self.learner.prediction_work(self.scenario.with_train(one.settings))

    def _finish(self, trial: Trial, measured: Measured) -> str:
        """Store a finished trial in the study, and return its result in words."""
        for name, value in asdict(measured).items():
            trial.set_user_attr(name, value)
        attributes = [one.user_attrs for one in self.study.trials]
        own = next(one for one in attributes if one.get("own") and "quality" in one)  # it may be this trial
        energy_ratio = measured.energy_wh_per_1000 / own["energy_wh_per_1000"]
        self.study.tell(trial, score(self.metric, own["quality"], measured.quality, energy_ratio, self.scenario))
        return (
            f"{self.metric.text(measured.quality, items=len(self.data.val))} on val, "
            f"{figures.energy(measured.energy_wh_per_1000)} per 1,000 predictions"
        )

    def _end_early(self, trial: Trial, reason: EndedEarly) -> str:
        """Store a trial that was not finished in the study, and return the reason in words."""
        from optuna.trial import TrialState

        if reason == "budget":
            self.study.tell(trial, state=TrialState.FAIL)
            self._enqueue(trial.params, own=trial.user_attrs.get("own", False))
            return "the budget ended; with a larger one it goes on"
        self.study.tell(trial, state=TrialState.PRUNED)
        return "pruned, as the others stood better" if reason == "pruned" else "pruned, as its training diverged"

    def _compare(self, own: TrialResult, winner: TrialResult, rivals: int) -> tuple[bool, str]:
        """Whether the gate, on val, would replace the scenario's own settings with the winner's, and why."""
        if winner.number == own.number:
            return False, "the scenario's own settings are the best"
        predicted = [np.load(self._predictions(one.number), allow_pickle=False) for one in (own, winner)]
        ratio = (winner.energy_wh_per_1000 or 0.0) / (own.energy_wh_per_1000 or 1.0)
        energy = EnergyRatio(ratio, ratio, ratio)
        compared = self.judge.compare(self.scenario, self.data.val, predicted[0], predicted[1])
        verdict = decide(compared, self.scenario.promote, energy, seed=self.scenario.seed, tries=rivals)
        return verdict.promote, verdict.reason

    def _predictions(self, number: int) -> Path:
        return self.folder / "predictions" / f"{number}.npy"


def _energy_wh_per_1000(model: keras.Model, inputs: Any, items: int, at_once: int) -> float:
    """The energy of 1,000 predictions in Wh, measured for at least `MEASURE_SECONDS`."""
    predicted = 0
    with Meter() as meter:
        while predicted == 0 or meter.spent().seconds < MEASURE_SECONDS:
            model.predict(inputs, batch_size=at_once, verbose=0)
            predicted += items
    spent = meter.spent().energy_wh
    assert spent is not None  # `tune` has checked that it can be measured
    return max(1e-12, 1000 * spent / predicted)


def _plain(one: Range, value: float) -> float:
    """Round a value so that it is short enough to be written into a scenario."""
    return int(value) if one.step is not None else float(f"{value:.3g}")


def _shown(settings: dict[str, float]) -> str:
    return ", ".join(f"{name} {figures.plain(value)}" for name, value in settings.items())


def page(scenario: Scenario, workspace: Workspace, tuning: Tuning) -> Page:
    """All trials, and the picture."""
    metric = kind_of(scenario).judge.headline(scenario)
    trials = [
        {
            "trial": f"{one.number}{', own settings' if one.own else ''}{', the winner' if one.number == tuning.winner else ''}",
            "state": one.state,
            f"{metric.title}, val": metric.text(one.quality) if one.quality is not None else "–",
            "1,000 predictions": figures.energy(one.energy_wh_per_1000) if one.energy_wh_per_1000 is not None else "–",
            "trial's energy": figures.energy(one.energy_wh),
        }
        for one in tuning.trials
    ]
    settings = [
        {"trial": str(one.number), **{name.replace("_", " "): figures.plain(value) for name, value in one.settings.items()}}
        for one in tuning.trials
    ]
    front = workspace.outputs(scenario.name) / "tuning" / "front.png"
    return Page(
        texts={"": plain(tuning.reason)},
        tables={"Trials": trials, "Their settings": settings},
        links={"Quality against energy": front, "All trials as a table": front.with_name("trials.csv")},
        pictures={"Quality against energy": front},
    )


stage = Stage(tune, Tuning, page=page)
