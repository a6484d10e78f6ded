"""The model in use: a scenario's registered model, ready to answer.

model = load(Workspace.find(), "quickstart")
model.predict([Path("digit.png").read_bytes()])[0].label
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

from evergreen.scenario.kinds import load_kind
from evergreen.serving.runtime import Model
from evergreen.workspace import Workspace, replace_folder

log = logging.getLogger("evergreen")


def open_model(folder: Path) -> Model:
    """The model of a folder with `model.onnx` and `settings.json`, as `train` writes it, with the codec of its kind."""
    kind = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["kind"]
    return Model.open(folder, load_kind(kind).codec)


def load(workspace: Workspace, name: str, alias: str = "champion") -> Model:
    """A scenario's registered model.

    The champion is kept on this machine whenever it is loaded: while MLflow is away, the last one that was in use answers.

    Args:
        alias: `champion`, `challenger` or `previous`, or a version's number.

    Raises:
        WrongUse: there is none.
        Unreachable: MLflow does not answer, and no champion was kept.
    """
    from evergreen.errors import Unreachable
    from evergreen.registry.models import download

    kept = workspace.private / "champion" / name
    try:
        folder = download(workspace, name, alias) / "artifacts"
    except Unreachable as error:
        if alias != "champion" or not (kept / "model.onnx").exists():
            raise
        log.warning("%s Meanwhile the champion answers that was in use last.", error)
        return open_model(kept)
    if alias == "champion":
        _keep(folder, kept)
    return open_model(folder)


def _keep(folder: Path, kept: Path) -> None:
    """Copy what a model runs on, unless it is there already. A disk without room is no reason not to answer."""
    files = [(name, (folder / name).read_bytes()) for name in ("model.onnx", "settings.json")]
    with contextlib.suppress(OSError):
        if not all((kept / name).exists() and (kept / name).read_bytes() == content for name, content in files):
            with replace_folder(kept) as writing:
                for name, content in files:
                    (writing / name).write_bytes(content)
