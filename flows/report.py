"""`evergreen report`: writes the report page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evergreen.registry.models import aliases
from evergreen.reporting.history import History, read_history
from evergreen.reporting.report import answer, figures, render
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace, replace_file

log = logging.getLogger("evergreen")


def write_report(workspace: Workspace, names: Sequence[str] = ()) -> tuple[Path, list[History]]:
    """Write the report on the named scenarios, or on all that have a model or data.

    Returns:
        The page, `outputs/NAME/report.html` for one name and `outputs/report.html` otherwise, and the histories that it shows.

    Raises:
        WrongUse: there is no such scenario.
        EvergreenError: MLflow can't be reached.
    """
    scenarios = list(dict.fromkeys(names)) or _in_use(workspace)
    histories = [read_history(load_scenario(workspace.scenarios, name), workspace) for name in scenarios]
    folder = workspace.outputs(scenarios[0]) if len(names) == 1 else workspace.outputs("report").parent
    page = render(histories, made_at=datetime.now(UTC))
    path = folder / "report.html"
    replace_file(path, page.encode())
    return path, histories


def try_to_write(workspace: Workspace, name: str) -> tuple[Path, str] | None:
    """Write a scenario's report at the end of a run.

    Returns:
        The page and its answer; None if it could not be written, which must not undo a finished run.
    """
    try:
        path, histories = write_report(workspace, [name])
    except Exception as error:  # noqa: BLE001 (it must not undo a finished run)
        log.warning("The report of %s could not be written (%s).", name, error)
        return None
    return path, answer(histories[0])


def to_dict(path: Path, histories: Sequence[History]) -> dict[str, Any]:
    """The report as JSON data."""
    return {"file": str(path), "scenarios": {history.scenario: figures(history) for history in histories}}


def _in_use(workspace: Workspace) -> list[str]:
    names = sorted(path.stem for path in workspace.scenarios.glob("*.yaml"))
    return [name for name in names if workspace.data(name).is_dir() or aliases(workspace, name)]
