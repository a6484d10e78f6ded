"""Adding a scenario: its file, its name in `dvc.yaml`, and its deployments in `prefect.yaml`."""

from __future__ import annotations

import io
from pathlib import Path

from evergreen.workspace import Workspace, replace_file
from flows.deploy import declare


def add_scenario(workspace: Workspace, name: str, text: str) -> Path:
    """Write `scenarios/NAME.yaml` and add NAME to the matrix of `dvc.yaml`, whose comments and order stay;
    `prefect.yaml` is written anew.

    Returns:
        The scenario's file.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 1000
    pipeline = yaml.load((workspace.root / "dvc.yaml").read_text(encoding="utf-8"))
    names = next(variables["names"] for variables in pipeline["vars"] if "names" in variables)
    if name not in names:
        names.append(name)
        buffer = io.BytesIO()
        yaml.dump(pipeline, buffer)
        replace_file(workspace.root / "dvc.yaml", buffer.getvalue())
    path = workspace.scenarios / f"{name}.yaml"
    replace_file(path, text.encode())
    declare(workspace)
    return path
