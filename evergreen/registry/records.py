"""What was recorded of a model version stays: what is measured later is added beside it, never put in its place.

The record is the MLflow run that made the version: its metrics, `summary.json`, the Data Docs of that day and the model card. Later runs of the
same version (an evaluation done again, a run after a changed setting) leave theirs in the folder `later/MOMENT` of the same run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

SUMMARY, DATA_DOCS, LATER = "summary.json", "data-docs", "later"


QUALITY = ("test_accuracy", "test_f1_macro", "val_accuracy", "val_loss")


def charted(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics, and those of quality once more as `quality/NAME`: MLflow's charts are in sections by the part before a slash, in alphabetical
    order, and names without one come last."""
    return {**metrics, **{f"quality/{name}": metrics[name] for name in QUALITY if name in metrics}}


def record_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float | None]) -> None:
    """Log those that the run has no value of yet, all of them in one transaction; None is no value."""
    from mlflow.entities import Metric

    there, now = client.get_run(run_id).data.metrics, int(1000 * time.time())
    lacking = [Metric(name, value, now, 0) for name, value in metrics.items() if value is not None and name not in there]
    if lacking:
        client.log_batch(run_id, metrics=lacking)


def record_summary(mlflow: Any, run_id: str, summary: dict[str, Any], data_docs: Path) -> dict[str, Any]:
    """Keep a summary and the Data Docs with a version's run.

    Returns:
        The summary that is on record: this one where the run had none, else the one that it had. A run that was killed midway has none,
        as the summary is written last.
    """
    client: MlflowClient = mlflow.MlflowClient()
    recorded = any(file.path == SUMMARY for file in client.list_artifacts(run_id))
    folder = f"{LATER}/{datetime.now(UTC):%Y-%m-%dT%H-%M-%S.%fZ}/" if recorded else ""
    if data_docs.is_dir():
        client.log_artifacts(run_id, str(data_docs), f"{folder}{DATA_DOCS}")
    client.log_dict(run_id, summary, f"{folder}{SUMMARY}")
    return dict(json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{SUMMARY}")))
