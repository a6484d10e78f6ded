"""URLs of a run's pages on the servers that are up."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request

from evergreen.environment import pages_url


def run_links(scenario: str, run_id: str) -> dict[str, str]:
    """The URLs of a run in Prefect and MLflow, and of the scenario's reports and pictures, by name; servers that aren't there
    are left out.

    Args:
        run_id: of the MLflow run.
    """
    pages = pages_url()
    found = {
        "Prefect": flow_run_url(),
        "MLflow": mlflow_run_url(run_id),
        "Pages": f"{pages}/{scenario}/" if pages else None,
    }
    return {name: url for name, url in found.items() if url}


def flow_run_url() -> str | None:
    """The URL of the current flow run, on the server at PREFECT_API_URL; None without it, as Prefect's temporary server has no
    pages."""
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        return None
    from prefect.runtime import flow_run

    ui = (os.environ.get("PREFECT_UI_URL") or api.rstrip("/").removesuffix("/api")).rstrip("/")
    return f"{ui}/runs/flow-run/{flow_run.id}" if flow_run.id else None


def mlflow_run_url(run_id: str) -> str | None:
    """The URL of a run in MLflow's model training view; None if no server has the run."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not server.startswith(("http://", "https://")):
        return None
    try:
        query = urllib.parse.urlencode({"run_id": run_id})
        with urllib.request.urlopen(f"{server}/api/2.0/mlflow/runs/get?{query}", timeout=5) as response:
            experiment = json.load(response)["run"]["info"]["experiment_id"]
    except (OSError, ValueError, KeyError):
        return None
    return f"{server}/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"
