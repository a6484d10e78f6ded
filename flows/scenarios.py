"""Adding a scenario: its file, its inbox, and its deployments in `prefect.yaml`."""

from __future__ import annotations

from pathlib import Path

from evergreen.workspace import Workspace, replace_file
from flows.deploy import declare


def add_scenario(workspace: Workspace, name: str, text: str) -> Path:
    """Write `scenarios/NAME.yaml` and the scenario's deployments in `prefect.yaml`, and make its inbox. Its first run adds it to `dvc.yaml`.

    Returns:
        The scenario's file.
    """
    path = workspace.scenarios / f"{name}.yaml"
    replace_file(path, text.encode())
    (workspace.root / "inbox" / name).mkdir(parents=True, exist_ok=True)
    declare(workspace)
    return path
