"""Choosing how to train, for a scenario that leaves it open (`train.model: auto`).

The kind's learner lists the candidates. Each is trained on *train* and judged on *val*, never on *test*. If val is small, which
of them is better there is mostly luck: then they are also trained and judged on further folds, in which parts of train take
val's place. A candidate that is behind the best by more than two standard errors after a fold is dropped (a race, Maron and
Moore 1994).

A candidate's *worth* is what it gains over the first one in the scenario's metric, minus `promote.gain_per_doubling` for each
doubling of the energy of its training and of a prediction: the gate's own exchange rate. Energies are compared by counted work
(`evergreen.evaluation.energy_ratio`), so that the same items and settings always lead to the same choice; what was measured
stands beside it. Chosen is the candidate that takes the least energy among those whose worth is within one standard error of
the highest one (the one-standard-error rule, Breiman et al. 1984).

Everything is stored under the scenario's checkpoints as soon as it is known: an interrupted comparison resumes, and the
training of the chosen candidate is not repeated.
"""

from __future__ import annotations

import functools
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.energy.meter import Energy, Meter
from evergreen.evaluation.energy_ratio import counted
from evergreen.evaluation.gate import Gains, bootstrap
from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.base.learner import Candidate
from evergreen.kinds.base.metric import Metric
from evergreen.kinds.base.split import Split
from evergreen.planning.budget import training_limit_wh
from evergreen.preparation.arrays import write_array
from evergreen.preparation.folds import further_folds, labels_and_clusters
from evergreen.progress import task
from evergreen.scenario.settings import Scenario
from evergreen.training.checkpoint import Checkpoint, TrainingState, fingerprint
from evergreen.training.export import export_onnx
from evergreen.training.fitting import Fitting, TrainingData
from evergreen.training.spending import Spending
from evergreen.training.tracking import Tracker, Untracked
from evergreen.workspace import Workspace, replace_file

if TYPE_CHECKING:
    import keras

FOLDS = 3  # with val, if val is small
SMALL = 500  # items of val: with fewer, an accuracy of 90 % has a standard error of over 1.3 points
DROPPED_BEHIND = 2.0  # standard errors
# Why a candidate is not judged any further.
BEHIND = "behind the best by more than two standard errors"
SAME_ANSWERS = "every answer is that of the first, for more energy than the best"
# Names of the files of a candidate in a fold.
ANSWERS, CHECKPOINT, NETWORK, SPENT = "answers.npy", "checkpoint", "network.onnx", "spent.json"


@dataclass(frozen=True)
class Compared:
    """What is known of a candidate. Stored under these names.

    Attributes:
        name, settings: as in `Candidate`.
        left_out: why it was not tried, or not to the end, as a clause; empty if it was.
        items: of validation, in all folds in which it was judged.
        quality: the scenario's metric on them; None if it was not tried.
        gain: over the first candidate on the same items (`Metric.gain`), with its standard error by the paired bootstrap.
        seconds, energy_wh: of one training, measured; None if it was not tried, or energy can't be measured.
        energy_ratio: of a prediction, to the first candidate's, by counted work.
        worth: as defined in the module's docstring; None if it was not tried.
    """

    name: str
    settings: dict[str, Any]
    left_out: str = ""
    items: int = 0
    quality: float | None = None
    gain: float = 0.0
    standard_error: float = 0.0
    seconds: float | None = None
    energy_wh: float | None = None
    energy_ratio: float | None = None
    worth: float | None = None


@dataclass(frozen=True)
class Selection:
    """The result of a comparison.

    Attributes:
        requested: the settings of `train` in the scenario.
        compared: all candidates, in the learner's order.
        chosen: the index of the chosen one.
        folds: the number of folds in which they were judged; 0 if only one could be tried.
        metric: the key of the scenario's metric.
    """

    requested: dict[str, Any]
    compared: tuple[Compared, ...]
    chosen: int
    folds: int
    metric: str

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `train` of the chosen candidate."""
        return self.compared[self.chosen].settings

    def __str__(self) -> str:
        one = self.compared[self.chosen]
        others = [other for other in self.compared if other is not one and other.quality is not None]
        if not others:
            return f"{one.name} (nothing to compare it with)"
        return f"{one.name} (of {len(others) + 1} that were compared)"


def lines_of(selection: Selection, metric: Metric) -> list[str]:
    """The comparison in short, a line for each candidate."""
    found = []
    for index, one in enumerate(selection.compared):
        quality = [] if one.quality is None else [f"{metric.text(one.quality, items=one.items)} on val"]
        cost = [] if one.seconds is None else [figures.duration(one.seconds), figures.energy(one.energy_wh)]
        said = [*quality, *cost, "chosen" if index == selection.chosen else f"left out: {one.left_out}" if one.left_out else ""]
        found.append(f"{one.name}: {', '.join(filter(None, said))}")
    return found


def tables_of(selection: Selection, metric: Metric) -> dict[str, list[dict[str, str]]]:
    """The comparison as tables for people, by heading: what the candidates that were tried give, and what they take."""
    gives, takes = [], []
    for index, one in enumerate(selection.compared):
        if one.quality is None:
            continue
        name = {"candidate": f"{one.name}, chosen" if index == selection.chosen else one.name}
        gives.append(
            name
            | {
                f"{metric.title} on val": metric.text(one.quality, items=one.items),
                "gain": metric.gain_text(one.gain),
                "standard error": metric.margin_text(one.standard_error),
                "worth": metric.gain_text(one.worth or 0.0),
            }
        )
        takes.append(
            name
            | {
                "training": figures.duration(one.seconds),
                "its energy": figures.energy(one.energy_wh),
                "a prediction's energy": "unknown" if one.energy_ratio is None else f"{figures.short(one.energy_ratio)} times",
            }
        )
    return {"Candidates": gives, "What they take": takes}


def reasons_of(selection: Selection) -> list[str]:
    """How each candidate is trained, and why it was left out, as sentences."""
    found = []
    for index, one in enumerate(selection.compared):
        settings = ", ".join(f"{name}: {value}" for name, value in one.settings.items())
        why = "chosen" if index == selection.chosen else f"left out, {one.left_out}" if one.left_out else "compared to the end"
        on = f", on {figures.count(one.items, 'val item')}" if one.items else ""
        found.append(f"{one.name} ({settings}): {why}{on}.")
    return found


def folds_of(val_items: int) -> int:
    """The number of folds in which candidates are judged, with a validation split of so many items."""
    return FOLDS if val_items < SMALL else 1


def select(scenario: Scenario, workspace: Workspace, data: TrainingData) -> Selection:
    """Compare the candidates of a scenario that leaves open how to train, and choose one of them.

    Raises:
        Diverged: the training of every candidate diverged.
        EvergreenError: an energy budget is set but energy can't be measured.
    """
    kind = kind_of(scenario)
    candidates = kind.learner.candidates(scenario, len(data.train))
    tried = [index for index, one in enumerate(candidates) if not one.left_out]
    if len(tried) > 1 and len(data.val):
        return Race(scenario, workspace, data, candidates).run()
    nothing = {index: "" if index == tried[0] else "there are no validation items to judge it on" for index in tried}
    compared = [Compared(one.name, dict(one.settings), one.left_out or nothing[index]) for index, one in enumerate(candidates)]
    requested = scenario.train.model_dump(mode="json")
    return Selection(requested, tuple(compared), tried[0], 0, kind.judge.headline(scenario).key)


def checkpoint_of(scenario: Scenario, workspace: Workspace, data: TrainingData, selection: Selection) -> Checkpoint:
    """The checkpoint of the chosen candidate, whose training has ended in the comparison if there was one."""
    folder = _folder(scenario, workspace, data) / f"{selection.chosen}-0" / CHECKPOINT
    chosen = scenario.with_train(selection.settings)
    return Checkpoint(folder, fingerprint(chosen, workspace.splits(scenario.name), data.train, None))


class Race:
    """A comparison, which is begun or resumed.

    Args:
        candidates: of which two or more are to be tried.
    """

    def __init__(self, scenario: Scenario, workspace: Workspace, data: TrainingData, candidates: Sequence[Candidate]) -> None:
        self.scenario, self.workspace, self.data, self.candidates = scenario, workspace, data, candidates
        kind = kind_of(scenario)
        self.learner, self.judge, self.metric = kind.learner, kind.judge, kind.judge.headline(scenario)
        self.folder = _folder(scenario, workspace, data)
        self.compared = [Compared(one.name, dict(one.settings), one.left_out) for one in candidates]
        self.val_items: list[Split] = []  # of each fold, without the network's inputs
        self.answers: dict[int, list[np.ndarray]] = {index: [] for index in self._in_race()}  # by fold
        self.shared: dict[int, Energy] = {}  # what was precomputed for each candidate

    def run(self) -> Selection:
        """Judge the candidates fold by fold, and choose."""
        for other in self.folder.parent.glob("*"):  # of other items or settings
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        with Meter() as meter:
            budget = _Budget(self.scenario, meter, _spent_in(self.folder))
            data = self._with_precomputed()
            for fold, part in enumerate(self._folds(data)):
                if fold and budget.is_spent():
                    break
                self.val_items.append(self._without_inputs(part.val))
                for index in self._in_race():
                    self._try(index, fold, part, budget)
                self._weigh()
        return self._conclude()

    def _in_race(self) -> list[int]:
        return [index for index, one in enumerate(self.compared) if not one.left_out]

    def _scenario(self, index: int) -> Scenario:
        return self.scenario.with_train(self.candidates[index].settings)

    def _folds(self, data: TrainingData) -> Iterator[TrainingData]:
        """The splits, and if val is small further folds, as long as there is something to compare."""
        yield data
        if folds_of(len(data.val)) > 1:
            labels, clusters = labels_and_clusters(self.workspace.splits(self.scenario.name))
            further = further_folds(data.train, data.val, labels, clusters, count=FOLDS - 1, seed=self.scenario.seed)
            while len(self._in_race()) > 1 and (fold := next(further, None)):
                yield TrainingData(*fold)

    def _without_inputs(self, split: Split) -> Split:
        arrays = {name: np.array(values) for name, values in split.arrays.items() if name not in self.learner.inputs}
        return Split(split.name, arrays, split.facts)

    def _with_precomputed(self) -> TrainingData:
        """The splits with what the candidates' trainings share, computed once for each network."""
        splits = {"train": dict(self.data.train.arrays), "val": dict(self.data.val.arrays)}
        known: dict[str, Energy] = {}
        for index in self._in_race():
            network, folder = self.learner.prediction_work(self._scenario(index)), self.folder / f"shared-{index}"
            if network not in known:
                known[network] = self._precompute(index, folder)
                for name, arrays in splits.items():
                    for file in sorted(folder.glob(f"{name}-*.npy")):
                        arrays[file.stem.removeprefix(f"{name}-")] = np.load(file, allow_pickle=False)
            self.shared[index] = known[network]
        train, val = (Split(name, arrays, self.data.train.facts) for name, arrays in splits.items())
        return TrainingData(train, val)

    def _precompute(self, index: int, folder: Path) -> Energy:
        if (folder / SPENT).exists():
            return _read_spent(folder)
        items = len(self.data.train) + len(self.data.val)
        with Meter() as meter, task("Features", total=items, unit="items") as report:
            found = self.learner.precompute(self._scenario(index), self.data.train, self.data.val, report)
        for name, arrays in zip(("train", "val"), found, strict=True):
            for array, values in arrays.items():
                write_array(folder / f"{name}-{array}.npy", values)
        _write_spent(folder, meter.spent())
        return meter.spent()

    def _try(self, index: int, fold: int, data: TrainingData, budget: _Budget) -> None:
        """Have a candidate answer a fold's validation items; it is trained first, unless an earlier attempt did that."""
        folder = self.folder / f"{index}-{fold}"
        if not (folder / SPENT).exists() and not self._train(index, fold, data, budget, folder):
            self.compared[index] = replace(self.compared[index], left_out="its training diverged")
            return
        self.answers[index].append(np.load(folder / ANSWERS, allow_pickle=False))
        if fold == 0:
            spent = _read_spent(folder) + self.shared[index]
            self.compared[index] = replace(self.compared[index], seconds=spent.seconds, energy_wh=spent.energy_wh)

    def _train(self, index: int, fold: int, data: TrainingData, budget: _Budget, folder: Path) -> bool:
        """Train a candidate, and store its answers to the validation items; False if its training diverged."""
        scenario, name = self._scenario(index), self.candidates[index].name
        splits = self.workspace.splits(scenario.name)
        checkpoint = Checkpoint(folder / CHECKPOINT, fingerprint(scenario, splits, self.data.train, None))
        make = Tracker if fold == 0 else Untracked
        with (
            Meter() as meter,
            make(scenario, self.workspace, experiment=f"evergreen-{scenario.name}", description=name) as tracker,
        ):
            fitting = Fitting(scenario, data, checkpoint, tracker, meter, None)
            fitting.run(name if fold == 0 else f"{name}, fold {fold + 1} of {FOLDS}", budget.callbacks(fitting.state))
            if fitting.state.stopped == "diverged":
                if len(self._in_race()) == 1:
                    raise fitting.diverged()
                return False
            model, spent = fitting.best_model(), fitting.spending.total()
        write_array(folder / ANSWERS, fitting.predictions_on_val(model)[0])
        if fold == 0:
            export_onnx(model, folder / NETWORK, self.learner)
        else:
            checkpoint.remove()
        _write_spent(folder, spent)
        return True

    def _weigh(self) -> None:
        """Work out every candidate's worth, and drop those that are behind the best."""
        first, *others = self._in_race()
        for index in (first, *others):
            gains = self._gains(index, over=first)
            energy_ratio = self._energy_ratio(index, first)
            self.compared[index] = replace(
                self.compared[index],
                items=sum(len(answers) for answers in self.answers[index]),
                quality=gains.challenger,
                gain=gains.gain,
                standard_error=float(gains.drawn.std()),
                energy_ratio=energy_ratio,
                worth=gains.gain - self.scenario.promote.gain_per_doubling * self._doublings(index, first, energy_ratio),
            )
        best = max(self.compared[index].worth or 0.0 for index in (first, *others))
        for index in others:
            one = self.compared[index]
            if (one.worth or 0.0) + DROPPED_BEHIND * one.standard_error < best:
                answers_alike = one.gain == 0 and one.standard_error == 0
                self.compared[index] = replace(one, left_out=SAME_ANSWERS if answers_alike else BEHIND)

    def _gains(self, index: int, *, over: int) -> Gains:
        """A candidate's gain over another, on the items that both have answered."""
        folds = min(len(self.answers[index]), len(self.answers[over]))
        items = functools.reduce(Split.followed_by, self.val_items[:folds])
        theirs, ours = (np.concatenate(self.answers[one][:folds]) for one in (over, index))
        return bootstrap(self.judge.compare(self.scenario, items, theirs, ours), self.scenario.seed)

    def _energy_ratio(self, index: int, first: int) -> float | None:
        """The energy of a prediction relative to the first candidate's, by counted work; None if it can't be counted."""
        works = [self.learner.prediction_work(self._scenario(one)) for one in (first, index)]
        if works[0] == works[1]:
            return 1.0
        ratio = counted([self.folder / f"{one}-0" / NETWORK for one in (first, index)])
        return None if ratio is None else ratio.ratio

    def _doublings(self, index: int, first: int, energy_ratio: float | None) -> float:
        """How often the energy of a prediction and that of the training double relative to the first candidate's."""
        ours, theirs = (self.learner.equivalent_epochs(self._scenario(one)) for one in (index, first))
        return math.log2(ours / theirs) + 2 * math.log2(energy_ratio or 1.0)

    def _conclude(self) -> Selection:
        racing = self._in_race()
        first, best = racing[0], max(racing, key=lambda index: self.compared[index].worth or 0.0)

        def is_as_good(index: int) -> bool:
            behind = (self.compared[best].worth or 0.0) - (self.compared[index].worth or 0.0)
            return index == best or behind <= float(self._gains(best, over=index).drawn.std())

        def energy(index: int) -> float:
            return self._doublings(index, first, self.compared[index].energy_ratio)

        chosen = min(filter(is_as_good, racing), key=energy)
        requested = self.scenario.train.model_dump(mode="json")
        return Selection(requested, tuple(self.compared), chosen, len(self.val_items), self.metric.key)


class _Budget:
    """The limits of time and energy of the whole comparison, which are those of a training."""

    def __init__(self, scenario: Scenario, meter: Meter, before: Energy) -> None:
        self.spending = Spending(meter, before.seconds, before.energy_wh)
        self.max_seconds, self.max_wh = scenario.train.max_seconds, training_limit_wh(scenario)

    def is_spent(self) -> bool:
        in_time = self.max_seconds is None or self.spending.seconds() < self.max_seconds
        return not (in_time and (self.max_wh is None or (self.spending.energy_wh() or 0.0) < self.max_wh))

    def callbacks(self, state: TrainingState) -> list[keras.callbacks.Callback]:
        """End a training where the budget of the whole comparison is spent."""
        from evergreen.training.callbacks import StopAfterEnergy, StopAfterSeconds

        chosen: list[keras.callbacks.Callback] = []
        if self.max_seconds is not None:
            chosen.append(StopAfterSeconds(state, self.spending, self.max_seconds))
        if self.max_wh is not None:
            chosen.append(StopAfterEnergy(state, self.spending, self.max_wh))
        return chosen


def _folder(scenario: Scenario, workspace: Workspace, data: TrainingData) -> Path:
    """Where the comparison is stored: the scenario's checkpoints, by its splits and settings."""
    key = fingerprint(scenario, workspace.splits(scenario.name), data.train, None)
    return workspace.checkpoints(scenario.name) / key


def _spent_in(folder: Path) -> Energy:
    """What earlier attempts at a comparison took, as far as they ended something."""
    return sum((_read_spent(file.parent) for file in sorted(folder.glob(f"*/{SPENT}"))), start=Energy.nothing())


def _read_spent(folder: Path) -> Energy:
    return Energy(**json.loads((folder / SPENT).read_text()))


def _write_spent(folder: Path, spent: Energy) -> None:
    """Written last, it also says that what stands beside it is complete."""
    replace_file(folder / SPENT, json.dumps(asdict(spent)).encode())
