"""The version in use and its metrics on its test split, read from MLflow's store without importing MLflow, which takes seconds.

A local store is read by the two queries below, and a server by its REST API; if neither is possible (credentials, another
version of MLflow), MLflow's own client is used.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sqlite3
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.registry.models import connect, model_name, tracking_uri
from evergreen.workspace import Workspace

IN_USE = """
SELECT versions.version, versions.run_id FROM registered_model_aliases AS aliases
JOIN model_versions AS versions ON versions.name = aliases.name AND versions.version = aliases.version
WHERE aliases.name = ? AND aliases.alias = 'champion'
"""
MEASURED = "SELECT key, value FROM latest_metrics WHERE run_uuid = ? AND key LIKE 'test_%'"
ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Champion:
    """The version in use, with the `metrics` measured in its evaluation (`test_accuracy`, `test_accuracy_low`, …)."""

    version: int
    run_id: str
    metrics: dict[str, float]


def champion(workspace: Workspace, name: str) -> Champion | None:
    """The champion of a scenario; None if no version is in use.

    Raises:
        Unreachable: the store does not answer.
    """
    uri, model = os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri(workspace), model_name(name)
    if uri.startswith("sqlite:///") and "?" not in uri:
        with contextlib.suppress(sqlite3.Error):
            return _from_file(Path(uri.removeprefix("sqlite:///")), model)
    if uri.startswith(("http://", "https://")):
        with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
            return _from_server(uri.rstrip("/"), model)
    return _from_client(workspace, model)


def _from_file(path: Path, model: str) -> Champion | None:
    if not path.exists():
        return None
    with contextlib.closing(sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True)) as store:
        found = store.execute(IN_USE, (model,)).fetchone()
        if found is None:
            return None
        version, run_id = found
        return Champion(int(version), run_id or "", dict(store.execute(MEASURED, (run_id,)).fetchall()))


def _from_server(url: str, model: str) -> Champion | None:
    def ask(method: str, **question: str) -> Any:
        address = f"{url}/api/2.0/mlflow/{method}?{urllib.parse.urlencode(question)}"
        try:
            with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if json.load(error).get("error_code") != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}

    found = ask("registered-models/get", name=model).get("registered_model", {})
    versions = {one["alias"]: one["version"] for one in found.get("aliases", [])}
    if "champion" not in versions:
        return None
    run_id = ask("model-versions/get", name=model, version=versions["champion"])["model_version"].get("run_id", "")
    measured = ask("runs/get", run_id=run_id).get("run", {}).get("data", {}).get("metrics", []) if run_id else []
    return Champion(
        int(versions["champion"]),
        run_id,
        {one["key"]: float(one["value"]) for one in measured if one["key"].startswith("test_")},
    )


def _from_client(workspace: Workspace, model: str) -> Champion | None:
    from evergreen.registry.models import unreachable

    mlflow = connect(workspace)
    client = mlflow.MlflowClient()
    try:
        found = client.get_model_version_by_alias(model, "champion")
        measured = client.get_run(found.run_id).data.metrics
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise unreachable(workspace, error) from None
    return Champion(
        int(found.version), found.run_id, {key: value for key, value in measured.items() if key.startswith("test_")}
    )
