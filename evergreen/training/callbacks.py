"""The Keras callbacks of a training, each with a single task.

Keras calls them in the order of their list, which `evergreen.training.fitting` composes. They share the `TrainingState`: the
first reason to stop is kept, and an interrupted training resumes from the state at the time of `SaveCheckpoint`'s call.

This module imports Keras at its top, since its classes derive from Keras's; import it late.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from evergreen import figures
from evergreen.energy.meter import Meter
from evergreen.kinds.base.metric import Metric
from evergreen.models.cnn import restarted
from evergreen.progress import Task
from evergreen.training.checkpoint import Checkpoint, StopReason, TrainingState
from evergreen.training.spending import Spending
from evergreen.training.tracking import Tracker

if TYPE_CHECKING:
    from optuna import Trial

log = logging.getLogger("evergreen")

ENERGY_READ_EVERY_SECONDS = 1.0

Logs = dict[str, Any]


def values(variables: list[Any]) -> list[np.ndarray]:
    """Copies of the variables' values, which further training does not change."""
    return [np.asarray(keras.ops.convert_to_tensor(variable)).copy() for variable in variables]


def averages_of(model: keras.Model) -> list[tuple[Any, Any]]:
    """Each trained variable with its moving average over the steps; empty if the optimizer keeps none, or has taken no step."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # of one that scales losses
    if not optimizer.use_ema or not int(optimizer.iterations):
        return []
    return list(zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True))


class TrainingCallback(keras.callbacks.Callback):
    """A callback that reads and changes the state of the training."""

    def __init__(self, state: TrainingState) -> None:
        super().__init__()
        self.state = state

    def stop(self, reason: StopReason) -> None:
        """End the training; Keras skips the remaining steps of the current epoch."""
        self.model.stop_training = True
        self.state.stopped = self.state.stopped or reason


class RestartLayers(keras.callbacks.Callback):
    """Sets the random state of layers that have one from seed and epoch alone, so that a resumed epoch is the same as an
    uninterrupted one."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        for number, layer in enumerate(self.model.layers):
            if hasattr(layer, "restart"):  # `evergreen.models.cnn.Augment`
                layer.restart(self.seed, epoch)
            elif isinstance(generator := getattr(layer, "generator", None), keras.random.SeedGenerator):  # Keras's own
                generator.state.assign(restarted(self.seed + number, epoch))


class ValidateAverages(keras.callbacks.Callback):
    """Has the moving averages of the weights validated, where the optimizer keeps them, as they are what is kept.

    Keras's own callback exchanges both by additions, which does not give the same weights back to the last bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[np.ndarray] = []

    def on_test_begin(self, logs: Logs | None = None) -> None:
        averages = averages_of(self.model)
        self.trained = values([variable for variable, _ in averages])
        for variable, average in averages:
            variable.assign(average)

    def on_test_end(self, logs: Logs | None = None) -> None:
        for (variable, _), trained in zip(averages_of(self.model), self.trained, strict=True):
            variable.assign(trained)


class RecordHistory(TrainingCallback):
    """Adds each epoch's metrics, learning rate and seconds to the state."""

    def __init__(self, state: TrainingState, metric: Metric) -> None:
        super().__init__(state)
        self.keys = [f"{split}{key}" for split in ("", "val_") for key in ("loss", metric.key)]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch_started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        entry = {key: float(logs[key]) for key in self.keys if logs and key in logs}
        entry["learning_rate"] = float(self.model.optimizer.learning_rate)
        self.state.history.append(entry)
        self.state.epoch_seconds.append(time.monotonic() - self.epoch_started)


class StopOnDivergence(TrainingCallback):
    """Ends the training if the loss of a step is not finite, or that of an epoch exceeds `largest_loss`."""

    def __init__(self, state: TrainingState, largest_loss: float) -> None:
        super().__init__(state)
        self.largest_loss = largest_loss

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if logs and not math.isfinite(logs["loss"]):
            self.stop("diverged")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if not self.state.history[-1]["loss"] <= self.largest_loss:  # also true for NaN
            self.stop("diverged")


class StopAfterSeconds(TrainingCallback):
    """Ends the training when its budget of time is spent."""

    def __init__(self, state: TrainingState, spending: Spending, max_seconds: float) -> None:
        super().__init__(state)
        self.spending, self.max_seconds = spending, max_seconds

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.spending.seconds() >= self.max_seconds:
            self.stop("seconds")


class StopAfterEnergy(TrainingCallback):
    """Ends the training when its energy budget, in Wh, is spent. The meter is read every `ENERGY_READ_EVERY_SECONDS`."""

    def __init__(self, state: TrainingState, spending: Spending, max_wh: float) -> None:
        super().__init__(state)
        self.spending, self.max_wh = spending, max_wh
        self.last_read = -math.inf

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        now = time.monotonic()
        if now - self.last_read >= ENERGY_READ_EVERY_SECONDS:
            self.last_read = now
            if (self.spending.energy_wh() or 0) >= self.max_wh:
                self.stop("energy")


class KeepBestWeights(TrainingCallback):
    """Keeps the weights of the epoch with the lowest validation loss; without a validation split, of the last epoch. If the
    optimizer keeps moving averages of the weights, they are what is kept.

    Attributes:
        weights: of the state's `best_epoch`, in the network's order; empty before the first epoch has ended.
    """

    def __init__(self, state: TrainingState, weights: list[np.ndarray]) -> None:
        super().__init__(state)
        self.weights = weights

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        state = self.state
        best = state.history[state.best_epoch - 1].get("val_loss", math.inf) if state.best_epoch else math.inf
        best = best if math.isfinite(best) else math.inf
        if state.best_epoch == 0 or state.history[-1].get("val_loss", -math.inf) < best:
            state.best_epoch = epoch + 1
            averages = {id(variable): average for variable, average in averages_of(self.model)}
            self.weights = values([averages.get(id(weight), weight) for weight in self.model.weights])


class StopWithoutProgress(TrainingCallback):
    """Ends the training when none of the last `patience` epochs was the best so far."""

    def __init__(self, state: TrainingState, patience: int) -> None:
        super().__init__(state)
        self.patience = patience

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if "val_loss" in self.state.history[-1] and epoch + 1 - self.state.best_epoch >= self.patience:
            self.stop("patience")


class StopAfterEpochs(TrainingCallback):
    """Records that the training ended with its last epoch, so that it is not resumed."""

    def __init__(self, state: TrainingState, epochs: int) -> None:
        super().__init__(state)
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if epoch + 1 == self.epochs:
            self.stop("epochs")


class SaveCheckpoint(TrainingCallback):
    """Writes everything needed to resume, after every epoch."""

    def __init__(self, state: TrainingState, checkpoint: Checkpoint, best: KeepBestWeights, spending: Spending) -> None:
        super().__init__(state)
        self.checkpoint, self.best, self.spending = checkpoint, best, spending

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.state.seconds, self.state.energy_wh = self.spending.seconds(), self.spending.energy_wh()
        variables = values([*self.model.variables, *self.model.optimizer.variables])
        self.checkpoint.write(self.state, variables, self.best.weights)


class LogToMLflow(TrainingCallback):
    """Logs each epoch's metrics and seconds."""

    def __init__(self, state: TrainingState, tracker: Tracker) -> None:
        super().__init__(state)
        self.tracker = tracker

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        state = self.state
        self.tracker.log_metrics({**state.history[-1], "epoch_seconds": state.epoch_seconds[-1]}, epoch + 1)


class ReportProgress(TrainingCallback):
    """Reports every step to a progress task, with the epoch and the latest value of the metric on val as its detail."""

    def __init__(self, state: TrainingState, report: Task, metric: Metric, val_items: int) -> None:
        super().__init__(state)
        self.report, self.metric, self.val_items = report, metric, val_items
        self.steps_before = 0  # of the epochs before this one

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.steps_before = epoch * self.params["steps"]
        value = self.state.history[-1].get(f"val_{self.metric.key}") if self.state.history else None
        quality = "" if value is None else f", {self.metric.text(value, items=self.val_items)} on val"
        self.report.detail = f"epoch {epoch + 1} of {self.params['epochs']}{quality}"

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.report(self.steps_before + batch + 1)


class LogEpochs(TrainingCallback):
    """Logs a line for each epoch."""

    def __init__(self, state: TrainingState, metric: Metric) -> None:
        super().__init__(state)
        self.metric = metric

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        entry = self.state.history[-1]

        def quality(split: str) -> str:
            return f"loss {entry[f'{split}loss']:.3f}, {self.metric.text(entry[split + self.metric.key])}"

        on_val = f"; val {quality('val_')}" if "val_loss" in entry else ""
        seconds = figures.duration(self.state.epoch_seconds[-1])
        log.info("epoch %d/%d: %s%s; %s", epoch + 1, self.params["epochs"], quality(""), on_val, seconds)


class RecordTrialEnergy(TrainingCallback):
    """Records the energy that a trial has spent so far in the study after every epoch, so that it counts even if the process is
    killed; ends the trial's training when it reaches `max_wh`.

    Args:
        meter: measures this attempt at the trial.
        max_wh: the energy that the attempt may spend.
    """

    def __init__(self, state: TrainingState, trial: Trial, meter: Meter, max_wh: float) -> None:
        super().__init__(state)
        self.trial, self.meter, self.max_wh = trial, meter, max_wh

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        spent_wh = self.meter.spent().energy_wh or 0.0
        self.trial.set_user_attr("energy_wh", spent_wh)
        if spent_wh >= self.max_wh:
            self.stop("budget")


class PruneTrial(TrainingCallback):
    """Reports the metric on val (negated if lower is better) at every tenth of a trial's epochs, and ends its training if the
    study's pruner decides so."""

    def __init__(self, state: TrainingState, trial: Trial, metric: Metric) -> None:
        super().__init__(state)
        self.trial, self.metric = trial, metric

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        epochs = self.params["epochs"]
        tenth = 10 * (epoch + 1) // epochs
        if not self.state.stopped and tenth > 10 * epoch // epochs:
            value = self.state.history[-1][f"val_{self.metric.key}"]
            self.trial.report(value if self.metric.higher_is_better else -value, tenth)
            if self.trial.should_prune():
                self.stop("pruned")
