"""`evergreen checkout NAME@VERSION`: restores the exact data behind a registered model; other scenarios are not changed."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from evergreen.data.versions import data_version, restore, restore_data
from evergreen.errors import EvergreenError
from evergreen.registry.models import connect, find_version, model_name
from evergreen.workspace import Workspace, replace_file


@dataclass(frozen=True)
class Checkout:
    """What was restored.

    Attributes:
        scenario: the scenario's name.
        model_version: the version whose data were restored; None if a data version was requested.
        data_version: the current version of `data/NAME`.
        previous_data_version: its version before; None if there was none.
    """

    scenario: str
    model_version: int | None
    data_version: str
    previous_data_version: str | None

    def __str__(self) -> str:
        name = self.scenario
        if self.model_version is None:
            sentence = f"data/{name} has data version {self.data_version}; the next run makes outputs/{name} anew."
        else:
            sentence = (
                f"data/{name} and outputs/{name} are as version {self.model_version} of evergreen-{name} was trained on: data version "
                f"{self.data_version}. Other scenarios are as they were."
            )
        if self.previous_data_version in (None, self.data_version):
            return sentence
        return f"{sentence} The data that were there come back with: evergreen checkout {name}@{self.previous_data_version}"


def checkout_model(workspace: Workspace, name: str, requested: str) -> Checkout:
    """Restore the data of a registered model and the stages' outputs, or only a data version (32 hex digits).

    The scenario's file is not changed: the version that the model was trained with is in the run's `lineage/`. Other scenarios'
    data are not touched.

    Raises:
        WrongUse: there is no such version.
        EvergreenError: its lineage, or the data, are not available.
    """
    if re.fullmatch(r"[0-9a-f]{32}", requested):
        with workspace.lock(f"run-{name}"):
            return Checkout(name, None, requested, restore_data(workspace, name, requested))
    version = find_version(workspace, name, requested)
    mlflow = connect(workspace)
    run_id = mlflow.MlflowClient().get_model_version(model_name(name), str(version)).run_id
    try:
        with tempfile.TemporaryDirectory() as folder:
            lineage = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="lineage", dst_path=folder))
            data_dvc, dvc_lock = (lineage / "data.dvc").read_bytes(), (lineage / "dvc.lock").read_bytes()
            records = {record.name: record.read_bytes() for record in sorted((lineage / "record").glob("*.json"))}
    except (OSError, mlflow.MlflowException) as error:
        raise EvergreenError(
            f"what version {version} of {model_name(name)} was made of can't be read: {error}",
            fix="Its run's lineage/ in MLflow is needed: bring it back, or name another version.",
        ) from None
    with workspace.lock(f"run-{name}"):
        before = restore(workspace, name, data_dvc, dvc_lock)
        for record, content in records.items():
            replace_file(workspace.record(name) / record, content)
        found = data_version(workspace, name)
    assert found is not None
    return Checkout(name, version, found, before)
