"""Records of model versions. They are never replaced: later measurements are added beside them.

The record is the MLflow run that made the version: its metrics, `summary.json`, the Data Docs at that time and the model card.
Later runs with the same version (a repeated evaluation, a run after a changed setting) write theirs to the folder
`later/MOMENT` of the same MLflow run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.kinds.base.kind import Kind

if TYPE_CHECKING:
    from mlflow import MlflowClient

SUMMARY, DATA_DOCS, LATER = "summary.json", "data-docs", "later"


def charted(metrics: Mapping[str, float], kind: Kind) -> dict[str, float]:
    """Metrics, with the kind's quality metrics repeated as `quality/NAME`. MLflow groups charts into sections by the part of
    the name before a slash, in alphabetical order, and shows names without a slash last."""
    quality = [*(f"test_{metric.key}" for metric in kind.judge.metrics), f"val_{kind.learner.metric.key}", "val_loss"]
    return {**metrics, **{f"quality/{name}": metrics[name] for name in quality if name in metrics}}


def record_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float | None]) -> None:
    """Log the metrics of which the run has no value yet, in one transaction; None values are not logged."""
    from mlflow.entities import Metric

    there, now = client.get_run(run_id).data.metrics, int(1000 * time.time())
    lacking = [Metric(name, value, now, 0) for name, value in metrics.items() if value is not None and name not in there]
    if lacking:
        client.log_batch(run_id, metrics=lacking)


def record_summary(mlflow: Any, run_id: str, summary: dict[str, Any], data_docs: Path) -> dict[str, Any]:
    """Store a summary and the Data Docs with a version's run.

    Returns:
        The summary on record: the earlier one if the run has one, else this one. A run that was killed midway has none, as the
        summary is written last.
    """
    client: MlflowClient = mlflow.MlflowClient()
    recorded = any(file.path == SUMMARY for file in client.list_artifacts(run_id))
    folder = f"{LATER}/{datetime.now(UTC):%Y-%m-%dT%H-%M-%S.%fZ}/" if recorded else ""
    if data_docs.is_dir():
        client.log_artifacts(run_id, str(data_docs), f"{folder}{DATA_DOCS}")
    client.log_dict(run_id, summary, f"{folder}{SUMMARY}")
    return dict(json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{SUMMARY}")))
