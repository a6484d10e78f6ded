"""register: store the exported model with its model card and lineage in MLflow's registry, as the challenger.

Reads   the model, the evaluation, the test split, `data.dvc`, `dvc.lock`.
Writes  metrics, pictures, card and lineage into the training's MLflow run; a version of the model `evergreen-NAME`;
        `@challenger`.
Stops   when the predictions of the exported model differ from those of the Keras model.

A version that is already registered, for example by a run that was killed afterwards, is found by its fingerprint and reused.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import math
import subprocess
import tempfile
import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen import figures
from evergreen.energy.meter import Energy
from evergreen.energy.sci import footprint
from evergreen.errors import EvergreenError, Unreachable
from evergreen.kinds.base.kind import kind_of
from evergreen.preparation.arrays import open_split
from evergreen.registry.card import CARD, CardCost, ModelCard, trained_from
from evergreen.registry.models import connect, look_up, model_name, set_alias
from evergreen.registry.origin import ORIGIN, REFERENCE, Origin
from evergreen.registry.records import charted
from evergreen.scenario.settings import Scenario
from evergreen.serving.code import importable, write_served_code
from evergreen.training.export import compare
from evergreen.workspace import Workspace
from tasks.evaluate import Evaluation, of_1000_predictions
from tasks.evaluate import stage as evaluate_stage
from tasks.page import Page
from tasks.preprocess import Preparation, preparation_file, read_preparation
from tasks.preprocess import stage as preprocess_stage
from tasks.stage import Stage
from tasks.train import stage as train_stage
from tasks.version import DataVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

log = logging.getLogger("evergreen")

TRAINING_VIEW = "?workflowType=machine_learning"  # otherwise MLflow's page opens in its GenAI view
OF_THE_MODEL = (
    "test_items",
    "model_bytes",
    "latency_ms",
    "latency_p95_ms",
    "items_per_second",
    "energy_wh_per_1000",
    "energy_uncertainty_wh_per_1000",
    "seconds_per_1000",
)
RUNS_ON = ("mlflow-skinny", "pandas", "numpy", "onnxruntime")  # in addition to what the codec needs


@dataclass(frozen=True)
class Registration:
    """A model version.

    Attributes:
        model: the model's name in MLflow.
        model_version: the version number.
        run_id: of the MLflow run.
        fingerprint: of the model's files and the data set's batches.
        largest_difference: the largest difference of an output between the Keras model and the exported one, on the test split.
        created_at_ms: when the version was created in MLflow (`evergreen.registry.models.Held`); 0 if unknown.
        output: the name of that output.
    """

    model: str
    model_version: int
    run_id: str
    fingerprint: str
    largest_difference: float
    created_at_ms: int = 0
    output: str = "probabilities"

    def __str__(self) -> str:
        return (
            f"{self.model} version {self.model_version}; both forms agree on every test item ({self.output} "
            f"{_within(self.largest_difference)})."
        )


def _within(difference: float) -> str:
    """A small difference in words, rounded up to a power of ten."""
    return "are the same" if difference <= 0 else f"within 1 in {10 ** math.floor(-math.log10(difference)):,}"


def register(scenario: Scenario, workspace: Workspace, data_version: DataVersion, evaluation: Evaluation) -> Registration:
    """Register the model, unless it is already registered.

    Raises:
        EvergreenError: the exported model differs from the Keras model, or MLflow can't be reached.
    """
    learner = kind_of(scenario).learner
    difference = compare(workspace.model(scenario.name), open_split(workspace.splits(scenario.name), "test"), learner)
    digest = fingerprint(scenario, workspace, data_version)
    mlflow = connect(workspace)
    try:
        client: MlflowClient = mlflow.MlflowClient()
        found = _registered(client, scenario.name, digest)
        if found is None:
            run_id = _run_id(mlflow, scenario, workspace)
            _complete_run(client, run_id, scenario, workspace, data_version, evaluation)
            found = _store(mlflow, run_id, scenario, workspace, data_version, evaluation, digest)
        version, run_id = found
        set_alias(workspace, scenario.name, "challenger", version)
    except mlflow.MlflowException as error:
        raise Unreachable(
            f"the model could not be registered in MLflow: {error}",
            fix="See that MLflow answers, and run the same again: nothing is trained twice.",
        ) from None
    created_at_ms = look_up(workspace, scenario.name, digest).created_at_ms
    return Registration(model_name(scenario.name), version, run_id, digest, difference, created_at_ms, learner.outputs[0])


def recalled(
    scenario: Scenario, workspace: Workspace, data_version: DataVersion, evaluation: Evaluation, last: Registration
) -> Registration | None:
    """The registration of this model in the current store, which may differ from that of the last run; None if it is not
    registered there."""
    if last.fingerprint != fingerprint(scenario, workspace, data_version):
        return None
    held = look_up(workspace, scenario.name, last.fingerprint)
    if held.version is None:
        return None
    return replace(last, model_version=held.version, run_id=held.run_id or last.run_id, created_at_ms=held.created_at_ms)


def fingerprint(scenario: Scenario, workspace: Workspace, data_version: DataVersion) -> str:
    """A digest that identifies this model and its data: of the served files, and the names of the data set's batches."""
    digest = hashlib.sha256(json.dumps([scenario.name, data_version.batches]).encode())
    for file in ("model.onnx", "settings.json"):
        digest.update((workspace.model(scenario.name) / file).read_bytes())
    return digest.hexdigest()[:16]


def _registered(client: MlflowClient, name: str, digest: str) -> tuple[int, str] | None:
    for version in client.search_model_versions(f"name='{model_name(name)}'"):
        if version.tags.get("fingerprint") == digest and version.run_id:
            return int(version.version), version.run_id
    return None


def _run_id(mlflow: Any, scenario: Scenario, workspace: Workspace) -> str:
    """The MLflow run of the training.

    A new run is created if MLflow was unreachable during the training, the model was trained on another machine, or the run
    already belongs to another version: one training can result in two versions if its data set changed without affecting it.
    """
    client: MlflowClient = mlflow.MlflowClient()
    try:
        run_id = str(json.loads((workspace.record(scenario.name) / "train.json").read_text())["run_id"] or "")
        if run_id and client.get_run(run_id) and not client.search_model_versions(f"run_id='{run_id}'"):
            return run_id
    except (OSError, ValueError, KeyError, mlflow.MlflowException):
        pass
    mlflow.set_experiment(f"evergreen-{scenario.name}")
    with mlflow.start_run(
        run_name=f"{scenario.name}, registered without the run of its training", log_system_metrics=False
    ) as run:
        mlflow.set_tag("scenario", scenario.name)
        trained: dict[str, Any] = json.loads((workspace.model(scenario.name) / "settings.json").read_text())["train"]
        mlflow.log_params({f"train.{key}": value for key, value in trained.items()})
        for epoch, entry in enumerate(json.loads((workspace.model(scenario.name) / "history.json").read_text()), start=1):
            mlflow.log_metrics(charted(entry, kind_of(scenario)), step=epoch)
    return str(run.info.run_id)


def _complete_run(
    client: MlflowClient,
    run_id: str,
    scenario: Scenario,
    workspace: Workspace,
    data_version: DataVersion,
    evaluation: Evaluation,
) -> None:
    """Log the quality, pictures, model card and lineage to the run."""
    from mlflow.entities import Metric, RunTag

    name = scenario.name
    now = client.get_run(run_id).info.start_time
    # The training has already logged its own metrics, epoch by epoch.
    named = {key if key in OF_THE_MODEL else f"test_{key}": value for key, value in evaluation.metrics.items()}
    known = {key: value for key, value in named.items() if value is not None}
    metrics = [Metric(key, value, now, 0) for key, value in charted(known, kind_of(scenario)).items()]
    commit = git_commit(workspace)
    described = scenario.description or kind_of(scenario).contract.description
    tags = {
        "data_version": data_version.data_version,
        "git_commit": commit or "none",
        "mlflow.note.content": f"{described}\n\n{evaluation}\n\nThe model card is the file `{CARD}` among the artifacts.",
        **_prefect_run(),
    }
    client.log_batch(run_id, metrics=metrics, tags=[RunTag(key, value) for key, value in tags.items()])
    client.log_artifacts(run_id, str(workspace.evaluation(name)), "evaluation")
    preparation = read_preparation(workspace, name)
    client.log_inputs(run_id, datasets=[_dataset(scenario, data_version, preparation)])
    card = ModelCard(
        metrics=evaluation.metrics,
        breakdown=evaluation.breakdown,
        answer_rules=evaluation.answer_rules,
        slices=evaluation.slices,
        gap=None if evaluation.gap is None else evaluation.gap.sentence,
        splits=preparation.splits,
        left_out=sum(preparation.left_out.values()),
        data_version=data_version.data_version,
        git_commit=commit,
        training=json.loads((workspace.model(name) / "settings.json").read_text()),
        costs=_costs(scenario, workspace, evaluation),
    )
    client.log_text(run_id, card.markdown(scenario), CARD)
    for file in (
        workspace.root / "data.dvc",
        workspace.root / "dvc.lock",
        workspace.scenarios / f"{name}.yaml",
        preparation_file(workspace, name),
    ):
        client.log_artifact(run_id, str(file), "lineage")
    for record in sorted(workspace.record(name).glob("*.json")):
        client.log_artifact(run_id, str(record), "lineage/record")


def _dataset(scenario: Scenario, data_version: DataVersion, preparation: Preparation) -> DatasetInput:
    """The scenario's data as an MLflow dataset input: the name, the version, and the number of items in each split."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        scenario.name,
        data_version.data_version,
        source_type="dvc",
        source=json.dumps({"path": f"data/{scenario.name}", "file": "data.dvc"}),
        profile=json.dumps({f"{split}_items": items for split, items in preparation.splits.items()}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _origin(scenario: Scenario, data_version: DataVersion, evaluation: Evaluation) -> Origin:
    """The record with which later items will be compared."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    quality = kind_of(scenario).judge.recorded_tally(evaluation.metrics)
    return Origin(data_version.data_version, tuple(data_version.batches), at, quality)


def _reference(scenario: Scenario, workspace: Workspace, path: Path) -> bool:
    """Write the reference for drift: the held-out items as the model sees them.

    Returns:
        False if that is not possible; the model is registered anyway.
    """
    from evergreen.monitoring.drift import reference
    from evergreen.serving.embedding import EmbeddingModel

    try:
        reference(scenario, workspace, EmbeddingModel.open(workspace.model(scenario.name))).save(path)
    except EvergreenError as error:
        log.warning("Drift will not be looked for with this model: %s", error)
        return False
    return True


def _store(
    mlflow: Any,
    run_id: str,
    scenario: Scenario,
    workspace: Workspace,
    data_version: DataVersion,
    evaluation: Evaluation,
    digest: str,
) -> tuple[int, str]:
    """Log the pyfunc model and create a version of it."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    client: MlflowClient = mlflow.MlflowClient()
    folder, codec_type = workspace.model(scenario.name), kind_of(scenario).codec
    codec = codec_type(json.loads((folder / "settings.json").read_text(encoding="utf-8")))
    signature = ModelSignature(
        inputs=Schema([ColSpec(kind, name) for name, kind in codec.inputs.items()]),
        outputs=Schema([ColSpec(kind, name) for name, kind in codec.columns().items()]),
    )
    origin = _origin(scenario, data_version, evaluation)
    with (
        tempfile.TemporaryDirectory() as scratch,
        mlflow.start_run(run_id=run_id, log_system_metrics=False),
        warnings.catch_warnings(),
    ):
        (Path(scratch) / "code").mkdir()
        code, script = write_served_code(codec_type, Path(scratch) / "code")
        artifacts = {"network": str(folder / "model.onnx"), "settings": str(folder / "settings.json")}
        artifacts["origin"] = str(Path(scratch) / ORIGIN)
        origin.save(Path(scratch) / ORIGIN)
        if _reference(scenario, workspace, Path(scratch) / REFERENCE):
            artifacts["reference"] = str(Path(scratch) / REFERENCE)
        warnings.filterwarnings("ignore", message=".*input example was not provided")  # the signature is explicit, see above
        with importable(code):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(script),
                artifacts=artifacts,
                code_paths=[str(code)],
                signature=signature,
                pip_requirements=[
                    f"{package}=={importlib.metadata.version(package)}" for package in (*RUNS_ON, *codec_type.requirements)
                ],
            )
    client.log_artifact(run_id, str(folder / "model.keras"), "keras")
    _describe_model(client, scenario)
    spent = _spent(scenario, workspace)
    tags = {
        "fingerprint": digest,
        "scenario": scenario.name,
        "data_version": data_version.data_version,
        "git_commit": git_commit(workspace) or "none",
        "energy_wh": "unknown" if spent.energy_wh is None else f"{spent.energy_wh:.4g}",
        "trained_from": trained_from(json.loads((folder / "settings.json").read_text())),
        **_prefect_run(),
    }
    card = mlflow.artifacts.load_text(f"runs:/{run_id}/{CARD}")
    made = client.create_model_version(
        model_name(scenario.name), logged.model_uri, run_id, tags=tags, description=card, model_id=logged.model_id
    )
    begins = tags["trained_from"]
    begins = "from scratch" if begins == "scratch" else f"fine-tuned from {begins}"
    client.update_run(run_id, name=f"{scenario.name} version {made.version}, {begins}")
    return int(made.version), run_id


def _describe_model(client: MlflowClient, scenario: Scenario) -> None:
    """Create the registered model if it does not exist, and set its description to the scenario's current one."""
    found = client.search_registered_models(f"name='{model_name(scenario.name)}'")
    described = scenario.description or kind_of(scenario).contract.description
    if not found:
        client.create_registered_model(model_name(scenario.name), description=described)
    elif found[0].description != described:
        client.update_registered_model(model_name(scenario.name), description=described)


def git_commit(workspace: Workspace) -> str | None:
    """The checkout's commit, with the suffix `+changes` if tracked files differ from it; None outside git."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=workspace.root, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None if said.returncode == 0 else None


def _prefect_run() -> dict[str, str]:
    import sys

    if "prefect" not in sys.modules:
        return {}
    from prefect.runtime import flow_run

    return {"prefect_run": str(flow_run.id)} if flow_run.id else {}


def _spent(scenario: Scenario, workspace: Workspace) -> Energy:
    """The energy used for this model's preprocessing, training and evaluation, even if earlier runs did them."""
    spent = [stage.cost(scenario, workspace) for stage in (preprocess_stage, train_stage, evaluate_stage)]
    return sum((cost or Energy(None, None, (), 0.0) for cost in spent), start=Energy.nothing())


def _costs(scenario: Scenario, workspace: Workspace, evaluation: Evaluation) -> list[CardCost]:
    took = [
        (stage.name, stage.cost(scenario, workspace) or Energy(None, None, (), 0.0))
        for stage in (preprocess_stage, train_stage, evaluate_stage)
    ]
    return [
        _row(name, scenario, energy) for name, energy in [*took, ("1,000 predictions", of_1000_predictions(evaluation.metrics))]
    ]


def _row(name: str, scenario: Scenario, energy: Energy) -> CardCost:
    cost = footprint(scenario, energy)
    methods = f" ({', '.join(energy.methods)})" if energy.methods else ""
    return CardCost(
        name,
        figures.duration(energy.seconds),
        f"{figures.energy(cost.energy_wh, cost.energy_uncertainty_wh)}{methods}",
        figures.carbon(cost.carbon_gco2e, cost.carbon_uncertainty_gco2e),
        figures.carbon(cost.sci_gco2e),
    )


def page(scenario: Scenario, workspace: Workspace, registration: Registration) -> Page:
    """Links to the version and its run."""
    seen = seen_in_mlflow(workspace, registration.run_id, scenario.name, registration.model_version)
    return Page(texts={} if seen else {"": "MLflow's page shows it while `evergreen up` runs."}, links=seen)


def seen_in_mlflow(workspace: Workspace, run_id: str, name: str, version: int) -> dict[str, str]:
    """The URLs of a run and a model version on MLflow's page, by name; empty if MLflow has no server."""
    import os

    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith("http"):
        return {}
    experiment = connect(workspace).MlflowClient().get_run(run_id).info.experiment_id
    return {
        "MLflow: the run": f"{uri}/#/experiments/{experiment}/runs/{run_id}{TRAINING_VIEW}",
        f"MLflow: {model_name(name)} version {version}": f"{uri}/#/models/{model_name(name)}/versions/{version}{TRAINING_VIEW}",
    }


stage = Stage(register, Registration, recalled=recalled, page=page, retries=2)
