"""train: fit a network to the training split, and keep the weights that did best on the validation split.

Reads `outputs/NAME/splits`; writes `outputs/NAME/model` (`model.keras`, `model.onnx`, `history.json`, `settings.json`), the same
bytes whenever the splits and settings are (on one machine). What differs from run to run goes to `outputs/NAME/record/train.json`
and to MLflow. It ends early when the validation loss no longer falls, or when a budget (seconds, watt-hours) is spent.

It fails where it diverges: where the loss of a step is no number any more, or an epoch's is `DIVERGED` times that of guessing. No model is made of the
epochs before: by these settings learning does not work, and how far it came is luck. That it diverged is kept in the checkpoint, so that the
same items and settings fail at once the next time.

A training may begin with the champion's weights, and is shorter then (`evergreen.training.fine_tuning`).

After every epoch all that is needed to go on is put into `.evergreen/checkpoints/NAME`. A training that was killed goes on from
there, and on a CPU ends with the very weights of one that wasn't: the order of the items and the augmentation depend only on the
scenario's seed and the epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import re
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.errors import EvergreenError
from evergreen.kinds.base import kind_of
from evergreen.planning.budget import training_limit_wh
from evergreen.planning.estimate import training_kind
from evergreen.preparation.arrays import Split, label_names, ordered_batches, pixel_range, steps_per_epoch, training_batches
from evergreen.progress import task
from evergreen.registry.records import charted
from evergreen.scenario.settings import Scenario, Train
from evergreen.training.fine_tuning import Start, WarmStart
from evergreen.workspace import Workspace, replace_file, replace_folder
from tasks.page import Page
from tasks.stage import Stage

if TYPE_CHECKING:
    import keras

log = logging.getLogger("evergreen")

DIVERGED = 20.0  # times the loss of naming every label alike, log(labels): no epoch of a training that learns is as bad


class Diverged(EvergreenError):
    """The training's loss has grown beyond all bounds: there is no model."""


@dataclass(frozen=True)
class Training:
    """How a model came about. `val_loss` and `val_accuracy` are of the kept weights; None without a validation split. `start` is what
    it began with; None for random weights."""

    epochs: int
    best_epoch: int
    stopped: str
    train_items: int
    val_items: int
    parameters: int
    precision: str
    val_loss: float | None
    val_accuracy: float | None
    run_id: str | None
    history: list[dict[str, float]]
    start: WarmStart | None = None

    def __str__(self) -> str:
        kept = f", {figures.percent(self.val_accuracy, items=self.val_items)} on val" if self.val_accuracy is not None else ""
        why = "" if self.stopped == "epochs" else f" (stopped: {self.stopped})"
        warm = "" if self.start is None else f" from {self.start}"
        return f"{self.epochs} epochs{warm}{why}, kept epoch {self.best_epoch}{kept}, {self.parameters:,} parameters"


@dataclass
class Progress:
    """Where a training stands. `seconds` and `energy_wh` are those of all attempts; energy is None where unknown."""

    history: list[dict[str, float]] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    energy_wh: float | None = 0.0
    stopped: str = ""
    run_id: str | None = None
    attempts: int = 1


def train(scenario: Scenario, workspace: Workspace, start: Start = "any") -> Training:
    """Fit the scenario's network to its training split, and keep the best weights.

    Args:
        start: weights to begin with, and how much shorter it is then; random ones otherwise.

    Raises:
        Diverged: the loss has grown beyond all bounds; what stood in `outputs/NAME/model` is as it was.
        EvergreenError: the splits are missing or empty, `start` is no longer there or does not fit, or an energy budget is set where
            energy can't be measured.
    """
    from evergreen.energy.meter import Meter
    from evergreen.environment import import_tensorflow

    import_tensorflow()
    splits = workspace.splits(scenario.name)
    labels = label_names(splits)
    fit_on, check_on = Split.open(splits, "train"), Split.open(splits, "val")
    if not len(fit_on):
        raise EvergreenError("the train split is empty", fix="Collect more images, or lower val_share and test_share.")

    warm = start if isinstance(start, WarmStart) else None
    scenario = warm.of(scenario) if warm else scenario
    checkpoint = Checkpoint(workspace.checkpoints(scenario.name), fingerprint(scenario, splits, fit_on, warm))
    with Meter() as meter, tracking(Tracker(scenario, workspace, begins_with=warm)) as tracker:
        weights = warm.weights(workspace, scenario.name) if warm else None
        fitting = Fitting(scenario, labels, fit_on, check_on, checkpoint, tracker, lambda: meter.spent().energy_wh, weights)
        fitting.run()
        progress = fitting.progress
        if progress.stopped == "diverged":
            raise fitting.diverged()
        with task("Saving the model"), replace_folder(workspace.model(scenario.name)) as folder:
            model = fitting.finished()
            save(model, folder)
            _write_json(folder / "history.json", progress.history)
            _write_json(folder / "settings.json", fitting.settings() | more_settings(splits, warm))
        progress.energy_wh = fitting.energy_wh()
        record = {key: value for key, value in asdict(progress).items() if key != "history"}
        replace_file(workspace.record(scenario.name) / "train.json", json.dumps(record, indent=1).encode())
        tracker.picture(kind_of(scenario).learning_curve(progress.history), "learning_curve.png")
    checkpoint.remove()
    kept = progress.history[progress.best_epoch - 1]
    return Training(
        epochs=len(progress.history),
        best_epoch=progress.best_epoch,
        stopped=progress.stopped,
        train_items=len(fit_on),
        val_items=len(check_on),
        parameters=model.count_params(),
        precision=fitting.precision,
        val_loss=kept.get("val_loss"),
        val_accuracy=kept.get("val_accuracy"),
        run_id=progress.run_id,
        history=progress.history,
        start=warm,
    )


def more_settings(splits: Path, start: WarmStart | None) -> dict[str, Any]:
    """What only some models carry: the range with which deep images are read, and the weights that training began with."""
    read_with = pixel_range(splits)
    return ({"range": read_with._asdict()} if read_with else {}) | ({"start": asdict(start)} if start else {})


class Fitting:
    """One attempt at a training: builds the model, takes up the checkpoint, fits within the budgets.

    `spent_wh` tells the energy of this attempt so far in Wh, None where it can't be known. `weights` are what a warm start begins with.
    `doing` is its name where its progress is shown.
    """

    doing = "train"

    def __init__(
        self,
        scenario: Scenario,
        labels: list[str],
        fit_on: Split,
        check_on: Split,
        checkpoint: Checkpoint,
        tracker: Tracker,
        spent_wh: Callable[[], float | None],
        weights: list[np.ndarray] | None = None,
    ) -> None:
        self.scenario, self.labels, self.fit_on, self.check_on = scenario, labels, fit_on, check_on
        self.checkpoint, self.tracker, self.spent_wh, self.weights = checkpoint, tracker, spent_wh, weights
        self.started, self.looked_at_energy = time.monotonic(), 0.0
        self.progress, self.best = Progress(), []  # type: Progress, list[np.ndarray]
        self.precision, self.limit_wh = precision(scenario.train), training_limit_wh(scenario)
        self.found_diverged = False  # by an earlier attempt

    def run(self) -> None:

        settings = self.scenario.train
        steps = steps_per_epoch(len(self.fit_on), settings.batch_size)
        with _devices().scope():
            self.model = self._build(self.precision, steps)
        if self.weights is not None:
            _assign(self.model.weights, self.weights)
        self.model.optimizer.build(self.model.trainable_variables)
        if found := self.checkpoint.read():
            progress, variables, self.best = found
            _assign(self._variables(), variables)
            self.progress = progress
            progress.attempts += 1
            log.info("train: going on after epoch %d of an earlier attempt", len(progress.history))
        self.before = (self.progress.seconds, self.progress.energy_wh)
        self.progress.run_id = self.tracker.begin(self.progress.run_id, self.parameters())
        if self.limit_wh is not None and self.energy_wh() is None:
            raise EvergreenError(
                "the energy budget cannot be kept: energy can't be measured here",
                fix="Take train.max_wh and budget.run out; train.max_seconds works.",
            )
        if self.progress.stopped:  # killed after its last epoch, or diverged
            self.found_diverged = self.progress.stopped == "diverged"
            return
        with task(self.doing, total=steps * settings.epochs, unit="steps", detail="preparing the network") as self.report:
            self._fit(steps)

    def _fit(self, steps: int) -> None:
        import keras

        settings = self.scenario.train
        self.model.fit(
            training_batches(
                self.fit_on,
                len(self.labels),
                settings.batch_size,
                seed=self.scenario.seed,
                first_epoch=len(self.progress.history),
                epochs=settings.epochs,
            ),
            steps_per_epoch=steps,
            initial_epoch=len(self.progress.history),
            epochs=settings.epochs,
            validation_data=ordered_batches(self.check_on, len(self.labels), 512) if len(self.check_on) else None,
            class_weight=class_weights(self.fit_on.labels, len(self.labels)) if settings.class_weights == "balanced" else None,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_epoch_begin=self._epoch_begins, on_train_batch_end=self._step_ends, on_epoch_end=self._epoch_ends
                )
            ],
            shuffle=False,  # the batches are
            verbose=0,
        )

    def finished(self) -> keras.Model:
        """The model with the kept weights, in full precision, as it is saved and served."""
        model = self._build("float32", 1)
        _assign(model.weights, self.best)
        return model

    def diverged(self) -> Diverged:
        """The error, with what led to it."""
        progress, last = self.progress, self.progress.history[-1]
        before = [entry for entry in progress.history[:-1] if "val_accuracy" in entry]
        best = max(before, key=lambda entry: entry["val_accuracy"], default=None)
        came = f" (before that, val accuracy was {figures.percent(best['val_accuracy'])} at best)" if best else ""
        again = ", as it did before with the same items and settings" if self.found_diverged else ""
        return Diverged(
            f"the training diverged in epoch {len(progress.history)}{again}: the loss is {_loss(last)}{came}; no model is made of it",
            expected=f"at most {figures.number(self._largest_loss())}",
            fix=f"Lower train.learning_rate (it is {figures.plain(self.scenario.train.learning_rate)}), and run again.",
        )

    def settings(self) -> dict[str, Any]:
        return {
            "name": self.scenario.name,
            "kind": self.scenario.kind,
            "seed": self.scenario.seed,
            "labels": self.labels,
            "shape": list(self.fit_on.images.shape[1:]),
            "precision": self.precision,
            "best_epoch": self.progress.best_epoch,
            "stopped": self.progress.stopped,
            "train": self.scenario.train.model_dump(mode="json"),
        }

    def parameters(self) -> dict[str, Any]:
        """What MLflow lists as the run's parameters."""
        return {
            **{f"train.{key}": value for key, value in self.scenario.train.model_dump(mode="json").items()},
            "seed": self.scenario.seed,
            "precision": self.precision,
            "train_items": len(self.fit_on),
            "val_items": len(self.check_on),
            "parameters": self.model.count_params(),
        }

    def seconds(self) -> float:
        return self.before[0] + time.monotonic() - self.started

    def energy_wh(self) -> float | None:
        now, before = self.spent_wh(), self.before[1]
        return None if now is None or before is None else before + now

    def _build(self, policy: str, steps: int) -> keras.Model:
        import keras

        keras.backend.clear_session(free_memory=False)  # or the layers' names would count on from an earlier model's
        keras.utils.set_random_seed(self.scenario.seed)
        usual = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            shape = self.fit_on.images.shape[1:]
            return kind_of(self.scenario).build(
                self.scenario.train, shape, len(self.labels), steps=steps * self.scenario.train.epochs
            )
        finally:
            keras.config.set_dtype_policy(usual)

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]

    def _epoch_begins(self, epoch: int, logs: Any) -> None:
        steps = steps_per_epoch(len(self.fit_on), self.scenario.train.batch_size)
        self.epoch_started, self.steps_before = time.monotonic(), epoch * steps
        checked = self.progress.history[-1].get("val_accuracy") if self.progress.history else None
        told = "" if checked is None else f", {figures.percent(checked, items=len(self.check_on))} on val"
        self.report.detail = f"epoch {epoch + 1} of {self.scenario.train.epochs}{told}"
        for layer in self.model.layers:
            if hasattr(layer, "restart"):
                layer.restart(self.scenario.seed, epoch)

    def _step_ends(self, step: int, logs: Any) -> None:
        settings, now = self.scenario.train, time.monotonic()
        self.report(self.steps_before + step + 1)
        if not math.isfinite(logs["loss"]):
            self._stop("diverged")
        if settings.max_seconds is not None and self.seconds() >= settings.max_seconds:
            self._stop("seconds")
        if self.limit_wh is not None and now - self.looked_at_energy >= 1:
            self.looked_at_energy = now
            if (self.energy_wh() or 0) >= self.limit_wh:
                self._stop("energy")

    def _epoch_ends(self, epoch: int, logs: dict[str, float]) -> None:
        settings, progress = self.scenario.train, self.progress
        entry: dict[str, float] = {
            key: float(logs[key]) for key in ("loss", "accuracy", "val_loss", "val_accuracy") if key in logs
        }
        entry["learning_rate"] = float(self.model.optimizer.learning_rate)
        progress.history.append(entry)
        progress.epoch_seconds.append(time.monotonic() - self.epoch_started)
        if not entry["loss"] <= self._largest_loss():
            self._stop("diverged")
        best = progress.history[progress.best_epoch - 1].get("val_loss", np.inf) if progress.best_epoch else np.inf
        best = best if math.isfinite(best) else np.inf
        if progress.best_epoch == 0 or "val_loss" not in entry or entry["val_loss"] < best:
            progress.best_epoch = epoch + 1
            self.best = _values(self.model.weights)
        if settings.patience is not None and "val_loss" in entry and epoch + 1 - progress.best_epoch >= settings.patience:
            self._stop("patience")
        if epoch + 1 == settings.epochs and not progress.stopped:
            progress.stopped = "epochs"
        progress.seconds, progress.energy_wh = self.seconds(), self.energy_wh()
        self.checkpoint.write(progress, _values(self._variables()), self.best)
        self.tracker.log({**entry, "epoch_seconds": progress.epoch_seconds[-1]}, epoch + 1)
        self._say(epoch, entry)

    def _say(self, epoch: int, entry: dict[str, float]) -> None:
        def told(loss: str, accuracy: str) -> str:
            return f"loss {entry[loss]:.3f}, {figures.percent(entry[accuracy])}"

        checked = f"; val {told('val_loss', 'val_accuracy')}" if "val_loss" in entry else ""
        seconds = figures.duration(self.progress.epoch_seconds[-1])
        log.info("epoch %d/%d: %s%s; %s", epoch + 1, self.scenario.train.epochs, told("loss", "accuracy"), checked, seconds)

    def _largest_loss(self) -> float:
        """Of an epoch that is not taken for diverged."""
        return DIVERGED * math.log(max(2, len(self.labels)))

    def _stop(self, reason: str) -> None:
        self.model.stop_training = True
        self.progress.stopped = self.progress.stopped or reason


def _loss(entry: dict[str, float]) -> str:
    return figures.number(entry["loss"]) if math.isfinite(entry["loss"]) else "no number any more"


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _values(variables: list[Any]) -> list[np.ndarray]:
    """Copies, which further training leaves alone."""
    import keras

    return [np.asarray(keras.ops.convert_to_tensor(variable)).copy() for variable in variables]


class Checkpoint:
    """What a killed training goes on from: one file, replaced after every epoch, for these very splits and settings."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.path = folder, folder / key / "state.npz"

    def write(self, progress: Progress, variables: list[np.ndarray], best: list[np.ndarray]) -> None:
        content = io.BytesIO()
        arrays = {
            f"{group}-{i:05}": array for group, many in (("now", variables), ("best", best)) for i, array in enumerate(many)
        }
        np.savez(content, progress=np.array(json.dumps(asdict(progress))), **arrays)  # type: ignore[arg-type]
        replace_file(self.path, content.getvalue())
        for other in self.folder.iterdir():  # of splits or settings that are no more
            if other != self.path.parent:
                shutil.rmtree(other, ignore_errors=True)

    def read(self) -> tuple[Progress, list[np.ndarray], list[np.ndarray]] | None:
        """The progress, all variables of model and optimizer, and the best weights so far; None where nothing usable is."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in sorted(file.files)}
            progress = Progress(**json.loads(str(arrays.pop("progress"))))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            log.warning("The checkpoint %s can't be read (%s): training starts anew.", self.path, error)
            return None
        return progress, *(  # type: ignore[return-value]
            [array for name, array in arrays.items() if name.startswith(group)] for group in ("now-", "best-")
        )

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Tracker:
    """The training's MLflow run. MLflow may be away at any moment: then one warning is logged, and the training goes on.

    Args:
        kind: of training, where it is not the scenario's own: such runs have an experiment apart.
        begins_with: the weights that a fine-tuning begins with.
    """

    def __init__(self, scenario: Scenario, workspace: Workspace, kind: str = "", begins_with: WarmStart | None = None) -> None:
        self.scenario, self.workspace, self.here = scenario, workspace, True
        begins = kind or ("from scratch" if begins_with is None else f"fine-tuned from {begins_with}")
        self.name = f"{scenario.name}, {begins}, {datetime.now():%Y-%m-%d %H:%M}"
        self.experiment = f"evergreen-{scenario.name}" + (f"-{kind}" if kind else "")
        self.mlflow: Any = None

    def begin(self, run_id: str | None, parameters: dict[str, Any]) -> str | None:
        """Open the run, or the one of an earlier attempt again. Returns its id, or None where there is no MLflow."""

        def open_run() -> None:
            from evergreen.environment import threads
            from evergreen.registry.models import connect

            self.mlflow = connect(self.workspace)
            self.mlflow.set_experiment(self.experiment)
            try:
                self.run = self.mlflow.start_run(run_id=run_id, run_name=self.name, log_system_metrics=True)
            except self.mlflow.MlflowException:
                if run_id is None:
                    raise
                self.run = self.mlflow.start_run(run_name=self.name, log_system_metrics=True)
            self.mlflow.log_params(parameters)
            self.mlflow.set_tags({"scenario": self.scenario.name, **threads()})

        self._try(open_run)
        return self.run.info.run_id if self.here else run_id

    def log(self, metrics: dict[str, float], epoch: int) -> None:
        self._try(lambda: self.mlflow.log_metrics(charted(metrics), step=epoch))

    def picture(self, figure: Any, name: str) -> None:
        self._try(lambda: self.mlflow.log_figure(figure, name))

    def end(self, status: str) -> None:
        if self.mlflow is not None:
            with contextlib.suppress(Exception):
                self.mlflow.end_run(status)

    def _try(self, work: Callable[[], Any]) -> None:
        if not self.here:
            return
        try:
            work()
        except Exception as error:
            self.here = False
            log.warning("MLflow can't be reached (%s): the training goes on, without its figures there.", error)


@contextlib.contextmanager
def tracking(tracker: Tracker) -> Iterator[Tracker]:
    """Ends the tracker's run as what happens in the block."""
    try:
        yield tracker
    except BaseException as error:
        tracker.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.end("FINISHED")


def fingerprint(scenario: Scenario, splits: Path, fit_on: Split, start: WarmStart | None = None) -> str:
    """A name for these splits, settings and first weights: a training goes on only from a checkpoint of the same ones."""
    told = hashlib.sha256()
    settings = {"seed": scenario.seed, "kind": scenario.kind, "train": scenario.train.model_dump(mode="json")}
    begins: list[Any] = [asdict(start)] if start else []
    if read_with := pixel_range(splits):
        begins.append(read_with._asdict())
    told.update(json.dumps([settings, fit_on.images.shape, *begins], sort_keys=True).encode())
    for name in ("labels.json", "items.parquet"):  # the items' ids and places; pixels follow from them, the shape and the range
        told.update((splits / name).read_bytes())
    return told.hexdigest()[:16]


def class_weights(labels: np.ndarray, label_count: int) -> dict[int, float]:
    """For each label the weight with which its items count, so that all labels weigh the same together."""
    counts = np.bincount(labels, minlength=label_count)
    return {label: len(labels) / (label_count * max(int(count), 1)) for label, count in enumerate(counts)}


def precision(settings: Train) -> str:
    """The Keras dtype policy: mixed where asked, or where the processor is made for 16-bit arithmetic and the user left it open."""
    import tensorflow as tf

    if settings.precision == "full":
        return "float32"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        newest = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        if settings.precision == "mixed" or newest >= (7, 0):
            return "mixed_bfloat16" if newest >= (8, 0) else "mixed_float16"
        return "float32"
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        if settings.precision == "mixed" or "avx512_bf16" in flags or "amx_bf16" in flags:
            return "mixed_bfloat16"
    return "mixed_bfloat16" if settings.precision == "mixed" else "float32"


def _devices() -> Any:
    """The strategy over this machine's devices: all GPUs where there are several, else the one device."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy() if len(tf.config.list_physical_devices("GPU")) > 1 else tf.distribute.get_strategy()


def save(model: keras.Model, folder: Path) -> None:
    """Write `model.keras` and `model.onnx` into `folder`: the same bytes for the same weights."""
    import onnx

    model.save(folder / "model.keras")
    _without_times(folder / "model.keras")
    model(np.zeros((1, *model.input_shape[1:]), np.uint8))  # export wants a model that was called
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of numpy's, about tf2onnx
        model.export(folder / "model.onnx", format="onnx", verbose=False)
    network = onnx.load(folder / "model.onnx")
    _name_by_place(network.graph)
    onnx.checker.check_model(network)
    (folder / "model.onnx").write_bytes(network.SerializeToString(deterministic=True))


def _name_by_place(graph: Any) -> None:
    """Call the input `images`, the output `probabilities`, the batch `n`, and the rest by their places: the converter's own names
    differ from run to run."""
    names = {"": "", graph.input[0].name: "images", graph.output[0].name: "probabilities"}
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"
        for number, name in enumerate(node.input):
            names.setdefault(name, f"{node.name}_input_{number}")
        for number, name in enumerate(node.output):
            names.setdefault(name, f"{node.name}_output_{number}")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for value in (graph.input[0], graph.output[0]):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    for constant in graph.initializer:
        constant.name = names[constant.name]
    graph.initializer.sort(key=lambda constant: constant.name)
    graph.name, graph.doc_string = "network", ""
    del graph.value_info[:]


def _without_times(path: Path) -> None:
    """Take the moment of saving and memory addresses out of a .keras file, which is a zip archive."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(content["metadata.json"])
    content["metadata.json"] = json.dumps(metadata | {"date_saved": ""}).encode()
    places: dict[bytes, bytes] = {}
    content["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda found: places.setdefault(found[0], str(len(places)).encode()),
        content["config.json"],
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def page(scenario: Scenario, workspace: Workspace, training: Training) -> Page:
    """Each epoch's figures."""
    epochs = [
        {
            "epoch": f"{number}, kept" if number == training.best_epoch else str(number),
            "loss": figures.number(epoch["loss"], digits=3),
            "accuracy": figures.percent(epoch["accuracy"], items=training.train_items),
            "val loss": figures.number(epoch.get("val_loss"), digits=3),
            "val accuracy": figures.percent(epoch.get("val_accuracy"), items=training.val_items),
            "learning rate": figures.number(epoch.get("learning_rate")),
        }
        for number, epoch in enumerate(training.history, start=1)
    ]
    return Page(tables={"Epochs": epochs})


def work(scenario: Scenario, training: Training) -> tuple[float, str]:
    return float(training.epochs * training.train_items), training_kind(scenario)


def unchanged(scenario: Scenario, workspace: Workspace, start: Start, last: Training) -> bool:
    """Whether the model that is there began as requested and was trained by the settings of this run: DVC knows those of the file alone, and
    an earlier run may have been given others."""
    if start != "any" and last.start != (start if isinstance(start, WarmStart) else None):
        return False
    requested = (last.start.of(scenario) if last.start else scenario).train.model_dump(mode="json")
    trained: dict[str, Any] = json.loads((workspace.model(scenario.name) / "settings.json").read_text())["train"]
    return all(requested.get(key) == value for key, value in trained.items())


stage = Stage(train, Training, in_dvc=True, unchanged=unchanged, page=page, work=work)

if __name__ == "__main__":
    from tasks.stage import main

    main(stage)
