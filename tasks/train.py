"""train: fit a network to the training split, and keep the weights that performed best on the validation split.

Reads   `outputs/NAME/splits`.
Writes  `outputs/NAME/model` (`model.keras`, `model.onnx`, `history.json`, `settings.json`); on one machine, the same splits and
        settings give the same bytes. Whatever differs from run to run goes to `outputs/NAME/record/train.json` and to MLflow.
        After every epoch, it writes a checkpoint to `.evergreen/checkpoints/NAME`, from which an interrupted training resumes.
Stops   early when the validation loss no longer decreases, or when a budget (seconds, watt-hours) is spent. Fails when the loss
        diverges. The earlier epochs do not become a model then: training does not work with these settings, and how far it got
        is luck. The checkpoint records the divergence, so that the same items and settings fail immediately the next time.

A training may start from the champion's weights, and is then shorter (`evergreen.training.fine_tuning`).
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evergreen import figures
from evergreen.energy.meter import Meter
from evergreen.errors import EvergreenError
from evergreen.kinds.base.kind import kind_of
from evergreen.progress import task
from evergreen.scenario.settings import Scenario
from evergreen.training.checkpoint import Checkpoint, fingerprint
from evergreen.training.distillation import taught
from evergreen.training.export import export
from evergreen.training.fine_tuning import Start, WarmStart
from evergreen.training.fitting import Fitting, TrainingData
from evergreen.training.selection import Selection, checkpoint_of, lines_of, reasons_of, select, tables_of
from evergreen.training.tracking import Tracker
from evergreen.workspace import Workspace, replace_file, replace_folder
from tasks.page import Page, bullets
from tasks.stage import Stage

log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class Training:
    """How a model was trained.

    Attributes:
        quality: of the kept weights on val, in words; empty without a validation split.
        start: the initial weights; None for random ones.
        selection: how it was chosen how to train; None if the scenario says so.
    """

    epochs: int
    best_epoch: int
    stopped: str
    train_items: int
    val_items: int
    parameters: int
    precision: str
    quality: str
    run_id: str | None
    history: list[dict[str, float]]
    start: WarmStart | None = None
    selection: Selection | None = None

    def __str__(self) -> str:
        way = "" if self.selection is None else f"{self.selection}: "
        kept = f", {self.quality} on val" if self.quality else ""
        why = "" if self.stopped == "epochs" else f" (stopped: {self.stopped})"
        warm = "" if self.start is None else f" from {self.start}"
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        return f"{way}{epochs}{warm}{why}, kept epoch {self.best_epoch}{kept}, {self.parameters:,} parameters"


def train(scenario: Scenario, workspace: Workspace, start: Start = "any") -> Training:
    """Fit the scenario's network to its training split, and keep the best weights.

    Args:
        start: a `WarmStart` gives the initial weights, and how much shorter the training is; otherwise they are random.

    Raises:
        Diverged: the loss has become too large; `outputs/NAME/model` stays as it was.
        EvergreenError: the splits are missing or empty, the weights of `start` are no longer there or do not fit, or an energy
            budget is set but energy can't be measured.
    """
    from evergreen.environment import import_tensorflow

    import_tensorflow()
    from evergreen.training.callbacks import LogEpochs

    splits = workspace.splits(scenario.name)
    data = TrainingData.open(splits)
    if not len(data.train):
        raise EvergreenError("the train split is empty", fix="Collect more items, or lower val_share and test_share.")
    warm = start if isinstance(start, WarmStart) else None
    checkpoints, selection = workspace.checkpoints(scenario.name), None
    if warm:
        scenario = warm.of(scenario)
    checkpoint = Checkpoint(checkpoints, fingerprint(scenario, splits, data.train, warm))
    if kind_of(scenario).learner.candidates(scenario, len(data.train)):
        selection = select(scenario, workspace, data)
        for line in lines_of(selection, kind_of(scenario).judge.headline(scenario)):
            log.info("train: %s", line)
        checkpoint = checkpoint_of(scenario, workspace, data, selection)
        scenario = scenario.with_train(selection.settings)
    with Meter() as meter, _tracker(scenario, workspace, warm, selection) as tracker:
        initial_weights = warm.weights(workspace, scenario.name) if warm else None
        data = taught(scenario, splits, data, checkpoint.path.parent)
        fitting = Fitting(scenario, data, checkpoint, tracker, meter, initial_weights)
        state = fitting.state
        fitting.run("train", [LogEpochs(state, fitting.learner.metric)])
        if state.stopped == "diverged":
            raise fitting.diverged()
        with task("Saving the model"), replace_folder(workspace.model(scenario.name)) as folder:
            model = fitting.best_model()
            further = fitting.further_outputs(model)
            export(model, folder, fitting.learner, further)
            _write_json(folder / "history.json", state.history)
            _write_json(folder / "settings.json", _settings(fitting, warm) | fitting.answer_rules(model, further))
        state.energy_wh = fitting.spending.energy_wh()
        record = {key: value for key, value in asdict(state).items() if key != "history"}
        replace_file(workspace.record(scenario.name) / "train.json", json.dumps(record, indent=1).encode())
        tracker.log_figure(kind_of(scenario).judge.learning_curve(state.history), "learning_curve.png")
    shutil.rmtree(checkpoints, ignore_errors=True)
    metric, kept = fitting.learner.metric, state.history[state.best_epoch - 1].get(f"val_{fitting.learner.metric.key}")
    return Training(
        epochs=len(state.history),
        best_epoch=state.best_epoch,
        stopped=state.stopped,
        train_items=len(data.train),
        val_items=len(data.val),
        parameters=model.count_params(),
        precision=fitting.policy,
        quality="" if kept is None else metric.text(kept, items=len(data.val)),
        run_id=state.run_id,
        history=state.history,
        start=warm,
        selection=selection,
    )


def _tracker(scenario: Scenario, workspace: Workspace, start: WarmStart | None, selection: Selection | None) -> Tracker:
    chosen = "from scratch" if selection is None else selection.compared[selection.chosen].name
    description = chosen if start is None else f"fine-tuned from {start}"
    return Tracker(scenario, workspace, experiment=f"evergreen-{scenario.name}", description=description)


def _settings(fitting: Fitting, start: WarmStart | None) -> dict[str, Any]:
    """The content of `settings.json`."""
    scenario, state = fitting.scenario, fitting.state
    settings = fitting.learner.settings(fitting.data.train)
    sections = {key: value for key, value in settings.items() if isinstance(value, dict)}
    return {
        "name": scenario.name,
        "kind": scenario.kind,
        "seed": scenario.seed,
        **{key: value for key, value in settings.items() if key not in sections},
        "precision": fitting.policy,
        "best_epoch": state.best_epoch,
        "stopped": state.stopped,
        "train": scenario.train.model_dump(mode="json"),
        **sections,
        **({"start": asdict(start)} if start else {}),
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def page(scenario: Scenario, workspace: Workspace, training: Training) -> Page:
    """The metrics of each epoch, and what was compared."""
    metric = kind_of(scenario).learner.metric
    epochs = [
        {
            "epoch": f"{number}, kept" if number == training.best_epoch else str(number),
            "loss": figures.number(epoch["loss"], digits=3),
            metric.title: metric.text(epoch[metric.key], items=training.train_items),
            "val loss": figures.number(epoch.get("val_loss"), digits=3),
            f"val {metric.title}": metric.text(epoch.get(f"val_{metric.key}"), items=training.val_items),
            "learning rate": figures.number(epoch.get("learning_rate")),
        }
        for number, epoch in enumerate(training.history, start=1)
    ]
    if training.selection is None:
        return Page(tables={"Epochs": epochs})
    compared = tables_of(training.selection, kind_of(scenario).judge.headline(scenario))
    return Page(texts={"": bullets(reasons_of(training.selection))}, tables={**compared, "Epochs": epochs})


def work(scenario: Scenario, training: Training) -> tuple[float, str]:
    """The items times epochs, and what determines the work per item. A comparison counts as the scenario's epochs: it is
    estimated before it is known what will be chosen."""
    learner = kind_of(scenario).learner
    trained = training.start.of(scenario) if training.start else scenario
    if training.selection is None:
        trained = trained.with_train({"epochs": training.epochs})
    return training.train_items * learner.equivalent_epochs(trained), learner.training_work(trained)


def unchanged(scenario: Scenario, workspace: Workspace, start: Start, last: Training) -> bool:
    """True if the existing model was trained from the requested weights with the settings of this run. DVC only knows the
    settings in the file, and an earlier run may have used others."""
    if start != "any" and last.start != (start if isinstance(start, WarmStart) else None):
        return False
    requested = (last.start.of(scenario) if last.start else scenario).train.model_dump(mode="json")
    trained: dict[str, Any] = json.loads((workspace.model(scenario.name) / "settings.json").read_text())["train"]
    trained = last.selection.requested if last.selection else trained
    return all(requested.get(key) == value for key, value in trained.items())


stage = Stage(train, Training, in_dvc=True, unchanged=unchanged, page=page, work=work)

if __name__ == "__main__":
    from tasks.stage import main

    main(stage)
