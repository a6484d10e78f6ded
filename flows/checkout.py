"""`evergreen checkout NAME@VERSION`: the very data behind a registered model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evergreen.errors import EvergreenError
from evergreen.registry import connect, find_version, model_name
from evergreen.versions import data_version, restore
from evergreen.workspace import Workspace, replace_file


@dataclass(frozen=True)
class Checkout:
    scenario: str
    model_version: int
    data_version: str

    def __str__(self) -> str:
        return (
            f"data/ and outputs/{self.scenario} are as version {self.model_version} of evergreen-{self.scenario} was trained on: "
            f"data version {self.data_version}. Back to the newest: evergreen checkout {self.scenario}@LATER, or git checkout."
        )


def checkout_model(workspace: Workspace, name: str, wanted: str) -> Checkout:
    """Bring back the data, and what the stages made of it, of a registered model. The scenario's file stays as it is: what it was
    lies beside, in the run's `lineage/`.

    Raises:
        WrongUse: there is no such version.
        EvergreenError: its lineage, or the data, can't be had.
    """
    version = find_version(workspace, name, wanted)
    mlflow = connect(workspace)
    run_id = mlflow.MlflowClient().get_model_version(model_name(name), str(version)).run_id
    try:
        lineage = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="lineage"))
        data_dvc, dvc_lock = (lineage / "data.dvc").read_bytes(), (lineage / "dvc.lock").read_bytes()
    except (OSError, mlflow.MlflowException) as error:
        raise EvergreenError(
            f"what version {version} of {model_name(name)} was made of can't be read: {error}",
            fix="Its run's lineage/ in MLflow is needed: bring it back, or name another version.",
        ) from None
    with workspace.lock(f"run-{name}"):
        restore(workspace, name, data_dvc, dvc_lock)
        for record in sorted((lineage / "record").glob("*.json")):
            replace_file(workspace.record(name) / record.name, record.read_bytes())
    found = data_version(workspace)
    assert found is not None
    return Checkout(name, version, found)
