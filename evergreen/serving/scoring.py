"""The model in use: a scenario's registered model, ready to predict.

model = load(Workspace.find(), "quickstart")
model.predict([Path("digit.png").read_bytes()])[0].label
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

from evergreen.scenario.kinds import load_kind
from evergreen.serving.runtime import OnnxModel
from evergreen.workspace import Workspace, replace_folder

log = logging.getLogger("evergreen")


class Model(OnnxModel):
    """A network with the codec of its kind, as written by `train` and stored by MLflow.

    Models that were registered before the kinds had codecs contain a script that opens this class and reads its `labels`.
    """

    @classmethod
    def open(cls, folder: Path) -> Model:
        """Open the model in a folder with `model.onnx` and `settings.json`."""
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        return cls(folder / "model.onnx", load_kind(settings["kind"]).codec(settings))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels between which the network chooses, in the order of its output; empty if it predicts numbers."""
        return self.codec.categories


def load(workspace: Workspace, name: str, alias: str = "champion") -> Model:
    """Load a scenario's registered model. Arguments and errors as for `model_folder`."""
    return Model.open(model_folder(workspace, name, alias))


def model_folder(workspace: Workspace, name: str, alias: str) -> Path:
    """A folder with `model.onnx` and `settings.json` of a scenario's registered model.

    The champion is copied to this machine whenever it is loaded: while MLflow is unreachable, the last copy is used.

    Args:
        alias: `champion`, `challenger` or `previous`, or a version's number.

    Raises:
        WrongUse: there is no such version.
        Unreachable: MLflow does not answer, and there is no copy of the champion.
    """
    from evergreen.environment import short_patience
    from evergreen.errors import Unreachable
    from evergreen.registry.models import download

    kept = workspace.champion(name)
    try:
        with short_patience():
            folder = download(workspace, name, alias) / "artifacts"
    except Unreachable as error:
        if alias != "champion" or not (kept / "model.onnx").exists():
            raise
        log.warning("%s Meanwhile the champion answers that was in use last.", error)
        return kept
    if alias == "champion":
        _keep(folder, kept)
    return folder


def _keep(folder: Path, kept: Path) -> None:
    """Copy the files that a model needs, unless the copy is up to date. Errors such as a full disk are ignored, since the model
    can be used without the copy."""
    files = [(name, (folder / name).read_bytes()) for name in ("model.onnx", "settings.json")]
    with contextlib.suppress(OSError):
        if not all((kept / name).exists() and (kept / name).read_bytes() == content for name, content in files):
            with replace_folder(kept) as writing:
                for name, content in files:
                    (writing / name).write_bytes(content)
