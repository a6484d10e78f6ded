"""tune: try other settings of `train`, within a budget of energy.

Reads   the splits *train* and *val* of `outputs/NAME/splits`. The test split stays unseen, for the gate.
Writes  `.evergreen/tuning/NAME/KEY/` (the study, checkpoints, predictions on val), `outputs/NAME/tuning/` (`front.png`, `trials.csv`), runs of
        the MLflow experiment `evergreen-NAME-tuning`.

A study belongs to one version of the splits and settings (KEY). One that was killed goes on: what was finished counts, and the trial in
hand goes on from its last epoch. All energy counts, also of trials that were ended early.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures, progress
from evergreen.energy.meter import Meter, available_methods
from evergreen.errors import EvergreenError
from evergreen.evaluation.energy_ratio import EnergyRatio
from evergreen.evaluation.gate import Paired, decide
from evergreen.kinds.base import kind_of
from evergreen.planning.budget import left_of_month_wh
from evergreen.preparation.arrays import Split, label_names
from evergreen.scenario.settings import Scenario
from evergreen.training.tuning import Range, Tried, as_csv, front, open_study, picture, score, space, tried
from evergreen.workspace import Workspace, replace_file, replace_folder
from tasks.page import Page, plain
from tasks.stage import Stage
from tasks.train import Checkpoint, Fitting, Tracker, fingerprint, tracking

if TYPE_CHECKING:
    import keras
    from optuna import Study, Trial

log = logging.getLogger("evergreen")

MEASURE_SECONDS = 1.0  # of predictions, at least


@dataclass(frozen=True)
class Tuning:
    """What came of a study, with all its earlier sittings.

    Attributes:
        trials: all, in order.
        winner: the number of the one with the highest score.
        better: whether the gate would take it for the scenario's own, on val; with all trials in view, also the pruned ones, since the best of
            many is the best by luck, too.
        reason: the gate's, in a sentence.
        front: numbers of the trials on the front, the cheapest first.
        energy_wh: of the whole study.
        budget_wh: that it was given.
        metric: `accuracy` or `f1_macro`.
        stopped: `budget` or `trials`.
    """

    trials: list[Tried]
    winner: int
    better: bool
    reason: str
    front: list[int]
    energy_wh: float
    budget_wh: float
    metric: str
    stopped: str

    @property
    def own(self) -> Tried:
        """The scenario's own settings."""
        return next(one for one in self.trials if one.own and one.score is not None)

    @property
    def best(self) -> Tried:
        """The winner."""
        return next(one for one in self.trials if one.number == self.winner)

    def __str__(self) -> str:
        states = [one.state for one in self.trials]
        counts = ", ".join(
            f"{states.count(state)} {state}" for state in ("finished", "pruned", "unfinished") if state in states
        )
        found = "the scenario's own settings are the best of them"
        if not self.best.own:
            found = (
                f"the best is trial {self.winner}, {self.metric} {self.best.quality:.2%} on val against {self.own.quality:.2%}"
            )
        return f"trials: {counts}, for {figures.energy(self.energy_wh)}; {found}."


def tune(scenario: Scenario, workspace: Workspace, budget_wh: float, trials: int) -> Tuning:
    """Try settings until the budget or the number of trials is reached.

    Args:
        budget_wh: of the study, with what earlier sittings took.
        trials: that are to end, with those of earlier sittings.

    Raises:
        EvergreenError: there are no splits, or none to check on; the energy can't be measured; the budget did not suffice for the scenario's
            own settings.
    """
    from evergreen.environment import import_tensorflow

    if not available_methods():
        raise EvergreenError(
            "the budget cannot be kept: energy can't be measured here", fix="See what evergreen doctor says of it."
        )
    splits = workspace.splits(scenario.name)
    fit_on, check_on = _open(scenario, splits)
    import_tensorflow()
    folder = workspace.private / "tuning" / scenario.name / fingerprint(scenario, splits, fit_on)
    study = open_study(folder / "study.db", scenario.name, scenario.seed)
    sitting = Sitting(scenario, workspace, study, folder, fit_on, check_on, budget_wh)
    sitting.take_up()
    with progress.task("tune") as report:
        while (ended := sum(one.state != "unfinished" for one in tried(study))) < trials and sitting.left_wh() > 0:
            spent = f"{figures.energy(sitting.spent_wh())} of {figures.energy(budget_wh)}"
            report(
                detail=f"{figures.count(ended, 'trial')} ended, {spent}",
                share=max(ended / trials, sitting.spent_wh() / budget_wh),
            )
            sitting.one_more()
    stopped = "trials" if sitting.left_wh() > 0 else "budget"
    return sitting.conclude(stopped)


def _open(scenario: Scenario, splits: Path) -> tuple[Split, Split]:
    if not (splits / "labels.json").exists():
        raise EvergreenError(
            f"{scenario.name} has no splits to tune on yet", fix=f"Make them with: evergreen run {scenario.name}"
        )
    fit_on, check_on = Split.open(splits, "train"), Split.open(splits, "val")
    if not len(fit_on) or not len(check_on):
        raise EvergreenError("settings are compared on val, which is empty", fix="Raise preprocess.val_share and run again.")
    return fit_on, check_on


class Sitting:
    """One call of `tune`: a study, and what may still be spent on it."""

    def __init__(
        self,
        scenario: Scenario,
        workspace: Workspace,
        study: Study,
        folder: Path,
        fit_on: Split,
        check_on: Split,
        budget_wh: float,
    ) -> None:
        self.scenario, self.workspace, self.study, self.folder = scenario, workspace, study, folder
        self.fit_on, self.check_on, self.budget_wh = fit_on, check_on, budget_wh
        self.ranges = space(scenario.train, min(fit_on.images.shape[1:3]))
        self.month_wh, self.spent_before = left_of_month_wh(scenario, workspace), self.spent_wh()

    def spent_wh(self) -> float:
        """By all trials that have ended."""
        return sum(one.energy_wh or 0.0 for one in tried(self.study))

    def left_wh(self) -> float:
        """Of the study's budget and the month's, whichever ends first."""
        left = self.budget_wh - self.spent_wh()
        return left if self.month_wh is None else min(left, self.month_wh - (self.spent_wh() - self.spent_before))

    def take_up(self) -> None:
        """Have a trial that was killed tried again: it goes on from its checkpoint. Begin a new study with the scenario's own settings."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)
            self._again(trial.params, own=trial.user_attrs.get("own", False))
        if not self.study.trials:
            settings = self.scenario.train
            self._again({one.name: min(max(getattr(settings, one.name), one.low), one.high) for one in self.ranges}, own=True)

    def one_more(self) -> None:
        """One trial, from its settings to its figures in the study."""
        from optuna.trial import TrialState

        trial = self.study.ask()
        own = trial.user_attrs.get("own", False)
        settings = {one.name: _plain(one, one.suggest(trial)) for one in self.ranges}
        # The scenario's own are taken as they are, whatever the ranges.
        train = self.scenario.train if own else self.scenario.train.model_copy(update=settings)
        trial.set_user_attr("settings", {one.name: getattr(train, one.name) for one in self.ranges})
        with Meter() as meter:
            told = self._train(self.scenario.model_copy(update={"train": train}), trial, meter)
        trial.set_user_attr("energy_wh", meter.spent().energy_wh)
        if isinstance(told, dict):
            for name, value in told.items():
                trial.set_user_attr(name, value)
            reference = (
                told
                if own
                else next(
                    one.user_attrs for one in self.study.trials if one.user_attrs.get("own") and "quality" in one.user_attrs
                )
            )
            ratio = told["energy_wh_per_1000"] / reference["energy_wh_per_1000"]
            self.study.tell(trial, score(told["quality"], ratio, self.scenario))
            words = (
                f"{figures.percent(told['quality'], items=len(self.check_on))} on val, "
                f"{figures.energy(told['energy_wh_per_1000'])} per 1,000 predictions"
            )
        elif told in ("pruned", "diverged"):
            self.study.tell(trial, state=TrialState.PRUNED)
            words = "pruned, as the others stood better" if told == "pruned" else "pruned, as its training diverged"
        else:
            self.study.tell(trial, state=TrialState.FAIL)
            self._again(trial.params, own=own)
            words = "the budget ended; with a larger one it goes on"
        log.info(
            "trial %d: %s; %s of %s spent (%s)",
            trial.number,
            words,
            figures.energy(self.spent_wh()),
            figures.energy(self.budget_wh),
            _shown(settings),
        )

    def _again(self, settings: dict[str, Any], *, own: bool) -> None:
        self.study.enqueue_trial(settings, user_attrs={"own": own})

    def conclude(self, stopped: str) -> Tuning:
        """Choose, and draw."""
        trials = tried(self.study)
        finished = [one for one in trials if one.score is not None]
        own = next((one for one in finished if one.own), None)
        if own is None:
            raise EvergreenError(
                f"the budget of {figures.plain(self.budget_wh)} Wh is spent before the scenario's own settings were through",
                received=f"{figures.short(self.spent_wh())} Wh spent", fix="Raise --budget-wh: what was begun goes on.",
            )  # fmt: skip
        winner = max(finished, key=lambda one: one.score or 0.0)
        rivals = sum(one.state != "unfinished" for one in trials) - 1
        verdict = self._compare(own, winner, rivals)
        with replace_folder(self.workspace.outputs(self.scenario.name) / "tuning") as writing:
            (writing / "trials.csv").write_bytes(as_csv(trials))
            picture(trials, winner.number, self.scenario.promote.metric).savefig(writing / "front.png", dpi=100)
        return Tuning(
            trials=trials,
            winner=winner.number,
            better=verdict[0],
            reason=verdict[1],
            front=[one.number for one in front(trials)],
            energy_wh=self.spent_wh(),
            budget_wh=self.budget_wh,
            metric=self.scenario.promote.metric,
            stopped=stopped,
        )

    def _train(self, scenario: Scenario, trial: Trial, meter: Meter) -> dict[str, float] | str:
        """Train one; its quality and energy, or why it was ended early."""
        splits = self.workspace.splits(scenario.name)
        checkpoint = Checkpoint(self.folder / "checkpoints", fingerprint(scenario, splits, self.fit_on))

        def spent_wh() -> float | None:
            return meter.spent().energy_wh

        with tracking(Tracker(scenario, self.workspace, kind="tuning")) as tracker:
            fitting = Trying(scenario, label_names(splits), self.fit_on, self.check_on, checkpoint, tracker, spent_wh)
            fitting.trial, fitting.left_wh, fitting.doing = trial, self.left_wh(), f"trial {trial.number}"
            fitting.run()
            if fitting.progress.stopped == "budget":
                return "budget"
            if fitting.progress.stopped not in ("pruned", "diverged"):
                told = self._measure(fitting.finished(), trial.number, scenario.train.filters)
                tracker.log(told, len(fitting.progress.history))
        checkpoint.remove()
        return fitting.progress.stopped if fitting.progress.stopped in ("pruned", "diverged") else told

    def _measure(self, model: keras.Model, number: int, filters: int) -> dict[str, float]:
        """Quality on val, and the energy of predictions, which is that of the network's width: measured once for each. Keeps what was predicted."""
        images, labels = np.asarray(self.check_on.images), self.check_on.labels.astype(int)
        probabilities = model.predict(images, batch_size=256, verbose=0)
        replace_file(self._predictions(number), np.asarray(probabilities.argmax(axis=1), np.int64).tobytes())
        quality = kind_of(self.scenario).measure(labels, probabilities)[self.scenario.promote.metric]
        known = [one.energy_wh_per_1000 for one in tried(self.study) if one.settings.get("filters") == filters]
        energy = next((value for value in known if value is not None), None) or _energy_wh_per_1000(model, images)
        return {"quality": float(quality), "energy_wh_per_1000": energy}

    def _compare(self, own: Tried, winner: Tried, rivals: int) -> tuple[bool, str]:
        """What the gate says of the winner in the place of the scenario's own settings, on val."""
        if winner.number == own.number:
            return False, "the scenario's own settings are the best"
        predicted = [np.frombuffer(self._predictions(one.number).read_bytes(), np.int64) for one in (own, winner)]
        names = label_names(self.workspace.splits(self.scenario.name))
        ratio = (winner.energy_wh_per_1000 or 0.0) / (own.energy_wh_per_1000 or 1.0)
        energy = EnergyRatio(ratio, ratio, ratio)
        paired = Paired(self.check_on.labels.astype(int), predicted[0], predicted[1], names)
        verdict = decide(paired, self.scenario.promote, energy, seed=self.scenario.seed, tries=rivals)
        return verdict.promote, verdict.reason.replace("test items", "val items")

    def _predictions(self, number: int) -> Path:
        return self.folder / "predictions" / f"{number}.int64"


class Trying(Fitting):
    """A training that ends where earlier trials stood better, and with the epoch in which the budget ends.

    Attributes:
        trial: that its epochs are reported to.
        left_wh: that it may spend in this attempt.
    """

    trial: Trial
    left_wh: float

    def _epoch_ends(self, epoch: int, logs: dict[str, float]) -> None:
        super()._epoch_ends(epoch, logs)
        spent, epochs = self.spent_wh() or 0.0, self.scenario.train.epochs
        self.trial.set_user_attr("energy_wh", spent)  # so that it counts if the process is killed
        tenth = 10 * (epoch + 1) // epochs
        if self.progress.stopped:
            return
        if tenth > 10 * epoch // epochs:
            self.trial.report(logs["val_accuracy"], tenth)
            if self.trial.should_prune():
                self._stop("pruned")
        if spent >= self.left_wh:
            self._stop("budget")

    def _say(self, epoch: int, entry: dict[str, float]) -> None:
        """Nothing: a line a trial is enough."""


def _energy_wh_per_1000(model: keras.Model, images: np.ndarray) -> float:
    predicted = 0
    with Meter() as meter:
        while predicted == 0 or meter.spent().seconds < MEASURE_SECONDS:
            model.predict(images, batch_size=256, verbose=0)
            predicted += len(images)
    spent = meter.spent().energy_wh
    assert spent is not None  # it could be measured at the start
    return max(1e-12, 1000 * spent / predicted)


def _plain(one: Range, value: float) -> float:
    """Short enough to be written into a scenario."""
    return int(value) if one.step is not None else float(f"{value:.3g}")


def _shown(settings: dict[str, float]) -> str:
    return ", ".join(f"{name} {figures.plain(value)}" for name, value in settings.items())


def page(scenario: Scenario, workspace: Workspace, tuning: Tuning) -> Page:
    """All trials, and the picture."""
    trials = [
        {
            "trial": f"{one.number}{', own settings' if one.own else ''}{', the winner' if one.number == tuning.winner else ''}",
            "state": one.state,
            f"{tuning.metric.replace('_', ' ')}, val": figures.percent(one.quality) if one.quality is not None else "–",
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
