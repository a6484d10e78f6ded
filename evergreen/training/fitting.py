"""Fitting a scenario's network: build it, resume from the checkpoint, fit it within its budgets, and take its best weights.

On a CPU, an interrupted training that is resumed ends with the same weights, bit for bit, as an uninterrupted one: the order of
the items and the augmentation depend only on the scenario's seed and the epoch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.energy.meter import Meter
from evergreen.errors import EvergreenError
from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.base.split import Split
from evergreen.planning.budget import training_limit_wh
from evergreen.preparation.arrays import (
    items_at_once,
    network_inputs,
    open_split,
    ordered_batches,
    steps_per_epoch,
    training_batches,
)
from evergreen.progress import Task, task
from evergreen.scenario.settings import Scenario
from evergreen.training.checkpoint import Checkpoint, TrainingState
from evergreen.training.precision import FULL, devices, dtype_policy, training_policy
from evergreen.training.spending import Spending
from evergreen.training.tracking import Tracker

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

log = logging.getLogger("evergreen")

DIVERGED = 20.0  # times the loss of guessing; no epoch of a training that works exceeds it
VALIDATION_BATCH_ITEMS = 512
PREDICTED_AT_ONCE = 256  # items


class Diverged(EvergreenError):
    """A training's loss has become too large or is not finite, so there is no model."""


@dataclass(frozen=True)
class TrainingData:
    """The splits that a training uses; `val` may be empty."""

    train: Split
    val: Split

    @classmethod
    def open(cls, splits: Path) -> TrainingData:
        """Open the splits in `outputs/NAME/splits`; the arrays are memory-mapped, not read.

        Raises:
            EvergreenError: the arrays are missing or damaged.
        """
        return cls(open_split(splits, "train"), open_split(splits, "val"))


class Fitting:
    """One attempt at a training, which starts it or resumes it from the checkpoint.

    Args:
        meter: measures this attempt.
        initial_weights: of a fine-tuning, in the network's order; None for random ones.

    Attributes:
        state: of the training, over all its attempts.
        spending: time and energy of the training, over all its attempts.
        policy: the Keras dtype policy of the network in training.
        model: the network in training.
    """

    def __init__(
        self,
        scenario: Scenario,
        data: TrainingData,
        checkpoint: Checkpoint,
        tracker: Tracker,
        meter: Meter,
        initial_weights: list[np.ndarray] | None,
    ) -> None:
        from evergreen.training.callbacks import KeepBestWeights

        self.scenario, self.data, self.checkpoint, self.tracker = scenario, data, checkpoint, tracker
        self.learner = kind_of(scenario).learner
        saved = checkpoint.read()
        self.state = saved.state if saved else TrainingState()
        self.spending = Spending(meter, self.state.seconds, self.state.energy_wh)
        self.diverged_before = self.state.stopped == "diverged"  # in an earlier attempt
        self.max_wh = training_limit_wh(scenario)
        self.policy = training_policy(scenario.train)
        self.steps = steps_per_epoch(len(data.train), scenario.train.batch_size)
        with devices().scope():
            self.model = self._build(self.policy, self.steps)
        if initial_weights is not None:
            _assign(self.model.weights, initial_weights)
        self.model.optimizer.build(self.model.trainable_variables)
        if saved:
            _assign([*self.model.variables, *self.model.optimizer.variables], saved.variables)
        if saved and not self.state.stopped:
            self.state.attempts += 1
            log.info("train: going on after epoch %d of an earlier attempt", len(self.state.history))
        self._best = KeepBestWeights(self.state, saved.best_weights if saved else [])

    def run(self, name: str, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Fit until a callback ends the training, at the latest after the last epoch; `state.stopped` has the reason. If an
        earlier attempt has ended the training, there is nothing left to do.

        Args:
            name: under which the progress is shown.
            callbacks: called after those of every training.

        Raises:
            EvergreenError: an energy budget is set, but energy can't be measured.
        """
        self.state.run_id = self.tracker.start_run(self.state.run_id, self._parameters())
        if self.max_wh is not None and self.spending.energy_wh() is None:
            raise EvergreenError(
                "the energy budget cannot be kept: energy can't be measured here",
                fix="Take train.max_wh and budget.run out; train.max_seconds works.",
            )
        if self.state.stopped:
            return
        settings, data = self.scenario.train, self.data
        with task(name, total=self.steps * settings.epochs, unit="steps", detail="preparing the network") as report:
            every = [*self._callbacks(report), *callbacks]
            if not self.state.history:
                self._first_epoch(report, every)
            if self.state.stopped:
                return
            first_epoch = len(self.state.history)
            self.model.fit(
                training_batches(self.scenario, data.train, self.learner, first_epoch=first_epoch),
                steps_per_epoch=self.steps,
                initial_epoch=first_epoch,
                epochs=settings.epochs,
                validation_data=self._validation_batches() if len(data.val) else None,
                class_weight=self.learner.class_weight(self.scenario, data.train),
                callbacks=every,
                shuffle=False,  # the batches are shuffled already
                verbose=0,
            )

    def _validation_batches(self) -> tf.data.Dataset:
        val, learner = self.data.val, self.learner
        return ordered_batches(val, learner, items_at_once(val, learner, VALIDATION_BATCH_ITEMS))

    def _first_epoch(self, report: Task, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Train the first epoch in the way of the kind's own, if it has one."""
        import keras

        items = len(self.data.train) + len(self.data.val)
        around = keras.callbacks.CallbackList(
            [*callbacks], model=self.model, epochs=self.scenario.train.epochs, steps=self.steps
        )
        around.on_epoch_begin(0)
        found = self.learner.first_epoch(
            self.scenario, self.model, self.data.train, self.data.val, lambda done: report(self.steps * done // items)
        )
        if found is not None:
            around.on_epoch_end(0, found)

    def best_model(self) -> keras.Model:
        """A calibrated model with the weights of the best epoch, in full precision, as it is exported and served."""
        model = self._build(FULL, 1)
        _assign(model.weights, self._best.weights)
        if len(self.data.val):
            self.learner.calibrate(self.scenario, model, self.data.val)
        return model

    def further_outputs(self, model: keras.Model) -> dict[str, keras.KerasTensor]:
        """What the exported form of `best_model` gives besides its own output (`Learner.further_outputs`)."""
        return self.learner.further_outputs(self.scenario, model, self.data.train)

    def answer_rules(self, model: keras.Model, further: Mapping[str, keras.KerasTensor]) -> dict[str, Any]:
        """When the model answers, chosen on val (`Learner.answer_rules`)."""
        return self.learner.answer_rules(self.scenario, model, further, self.data.val)

    def predictions_on_val(self, model: keras.Model) -> tuple[np.ndarray, float]:
        """The model's predictions for the validation items (`Judge.predictions`), and the scenario's metric on them."""
        val, learner, judge = self.data.val, self.learner, kind_of(self.scenario).judge
        at_once = items_at_once(val, learner, PREDICTED_AT_ONCE)
        outputs = {learner.outputs[0]: model.predict(network_inputs(val, learner), batch_size=at_once, verbose=0)}
        predictions = judge.predictions(outputs, learner.settings(self.data.train), val.facts)
        return predictions, float(judge.measure(val, outputs)[judge.headline(self.scenario).key])

    def diverged(self) -> Diverged:
        """The error to raise for a training that has diverged."""
        state, loss = self.state, self.state.history[-1]["loss"]
        metric, key = self.learner.metric, f"val_{self.learner.metric.key}"
        before = [entry[key] for entry in state.history[:-1] if key in entry]
        best = (max if metric.higher_is_better else min)(before, default=None)
        came = f" (before that, val {metric.title} was {metric.text(best)} at best)" if best is not None else ""
        again = ", as it did before with the same items and settings" if self.diverged_before else ""
        value = figures.number(loss) if math.isfinite(loss) else "no number any more"
        return Diverged(
            f"the training diverged in epoch {len(state.history)}{again}: the loss is {value}{came}; no model is made of it",
            expected=f"at most {figures.number(self._largest_loss())}",
            fix=f"Lower train.learning_rate (it is {figures.plain(self.scenario.train.learning_rate)}), and run again.",
        )

    def _callbacks(self, report: Task) -> list[keras.callbacks.Callback]:
        """The callbacks of every training. Their order matters: those that fill the state come first, then those that may end
        the training, then those that store the state."""
        from evergreen.training import callbacks

        settings, state, spending = self.scenario.train, self.state, self.spending
        chosen = [
            callbacks.RestartLayers(self.scenario.seed),
            callbacks.ValidateAverages(),
            callbacks.ReportProgress(state, report, self.learner.metric, len(self.data.val)),
            callbacks.RecordHistory(state, self.learner.metric),
            callbacks.StopOnDivergence(state, self._largest_loss()),
        ]
        if settings.max_seconds is not None:
            chosen.append(callbacks.StopAfterSeconds(state, spending, settings.max_seconds))
        if self.max_wh is not None:
            chosen.append(callbacks.StopAfterEnergy(state, spending, self.max_wh))
        chosen.append(self._best)
        if settings.patience is not None:
            chosen.append(callbacks.StopWithoutProgress(state, settings.patience))
        return [
            *chosen,
            callbacks.StopAfterEpochs(state, settings.epochs),
            callbacks.SaveCheckpoint(state, self.checkpoint, self._best, spending),
            callbacks.LogToMLflow(state, self.tracker),
        ]

    def _largest_loss(self) -> float:
        """The largest loss of an epoch that doesn't count as diverged."""
        return DIVERGED * self.learner.loss_of_guessing(self.data.train)

    def _parameters(self) -> dict[str, Any]:
        """The parameters of the MLflow run."""
        return {
            **{f"train.{key}": value for key, value in self.scenario.train.model_dump(mode="json").items()},
            "seed": self.scenario.seed,
            "precision": self.policy,
            "train_items": len(self.data.train),
            "val_items": len(self.data.val),
            "parameters": self.model.count_params(),
        }

    def _build(self, policy: str, steps: int) -> keras.Model:
        """Build and compile the network from the scenario's seed, for `steps` steps per epoch."""
        import keras

        keras.backend.clear_session(free_memory=False)  # otherwise the layers' names continue an earlier model's count
        keras.utils.set_random_seed(self.scenario.seed)
        with dtype_policy(policy):
            return self.learner.build(self.scenario, self.data.train, steps=steps * self.scenario.train.epochs)


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
