"""Addresses of a run's pages, where servers show them."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from typing import Any

from evergreen.environment import pages_url


def run_links(summary: dict[str, Any]) -> dict[str, str]:
    """Where the run is seen in Prefect and MLflow, and its reports and pictures, by name; nothing for a server that isn't there."""
    pages = pages_url()
    found = {
        "Prefect": flow_run_url(),
        "MLflow": mlflow_run_url(summary.get("run_id")),
        "Pages": f"{pages}/{summary['scenario']}/" if pages else None,
    }
    return {name: url for name, url in found.items() if url}


def flow_run_url() -> str | None:
    """The page of the flow run that this is called in, on the server that PREFECT_API_URL names; Prefect's own temporary server has
    none."""
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        return None
    from prefect.runtime import flow_run

    ui = (os.environ.get("PREFECT_UI_URL") or api.rstrip("/").removesuffix("/api")).rstrip("/")
    return f"{ui}/runs/flow-run/{flow_run.id}" if flow_run.id else None


def mlflow_run_url(run_id: str | None) -> str | None:
    """The page of a run in MLflow's view of model training, if a server has it."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not run_id or not server.startswith(("http://", "https://")):
        return None
    try:
        query = urllib.parse.urlencode({"run_id": run_id})
        with urllib.request.urlopen(f"{server}/api/2.0/mlflow/runs/get?{query}", timeout=5) as response:
            experiment = json.load(response)["run"]["info"]["experiment_id"]
    except (OSError, ValueError, KeyError):
        return None
    return f"{server}/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"
