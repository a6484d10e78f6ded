"""The checkpoint from which an interrupted training resumes: one file, replaced atomically after every epoch.

It contains every variable of the model and the optimizer, the best weights so far, and the state of the training. Keras's own
backup callback saves neither the best weights nor the state, and uses several files.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from evergreen.kinds.base.split import Split
from evergreen.scenario.settings import Scenario
from evergreen.training.fine_tuning import WarmStart
from evergreen.workspace import replace_file

log = logging.getLogger("evergreen")

StopReason = Literal["epochs", "patience", "diverged", "seconds", "energy", "pruned", "budget"]


@dataclass
class TrainingState:
    """The progress of a training, over all its attempts. Stored in the checkpoint under these names.

    Attributes:
        history: for each epoch its loss, accuracy, learning rate and, with a validation split, val_loss and val_accuracy.
        epoch_seconds: the duration of each epoch.
        best_epoch: counted from 1; 0 before the first epoch has ended.
        seconds, energy_wh: spent up to the last checkpoint; energy is None if unknown.
        stopped: a `StopReason`; empty while the training goes on.
        run_id: of the MLflow run; None without one.
        attempts: how often the training was started or resumed.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    energy_wh: float | None = 0.0
    stopped: StopReason | Literal[""] = ""
    run_id: str | None = None
    attempts: int = 1


class Saved(NamedTuple):
    """The content of a checkpoint: the state, all variables of model and optimizer, and the best weights so far, in the
    network's order."""

    state: TrainingState
    variables: list[np.ndarray]
    best_weights: list[np.ndarray]


class Checkpoint:
    """The checkpoint of one training.

    Args:
        folder: the scenario's checkpoints; those of other trainings are removed.
        key: the training's `fingerprint`.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.path = folder, folder / key / "state.npz"

    def write(self, state: TrainingState, variables: list[np.ndarray], best_weights: list[np.ndarray]) -> None:
        content = io.BytesIO()
        arrays = {
            f"{group}-{i:05}": array
            for group, many in (("now", variables), ("best", best_weights))
            for i, array in enumerate(many)
        }
        np.savez(content, progress=np.array(json.dumps(asdict(state))), **arrays)  # type: ignore[arg-type]
        replace_file(self.path, content.getvalue())
        for other in self.folder.iterdir():  # checkpoints of other splits or settings
            if other != self.path.parent:
                shutil.rmtree(other, ignore_errors=True)

    def read(self) -> Saved | None:
        """Read what was written last; None if there is no checkpoint or it can't be used, the latter with a warning."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in sorted(file.files)}
            state = TrainingState(**json.loads(str(arrays.pop("progress"))))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            log.warning("The checkpoint %s can't be read (%s): training starts anew.", self.path, error)
            return None
        now, best = ([array for name, array in arrays.items() if name.startswith(group)] for group in ("now-", "best-"))
        return Saved(state, now, best)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(scenario: Scenario, splits: Path, train_split: Split, start: WarmStart | None) -> str:
    """A digest of splits, settings and initial weights: a training resumes only from a checkpoint with the same digest.

    Args:
        splits: the folder `outputs/NAME/splits`.
        start: a fine-tuning's initial weights; None for random ones.
    """
    settings = {"seed": scenario.seed, "kind": scenario.kind, "train": scenario.train.model_dump(mode="json")}
    begins: list[Any] = [asdict(start)] if start else []
    shapes = {name: array.shape for name, array in train_split.arrays.items()}
    digest = hashlib.sha256(json.dumps([settings, shapes, train_split.facts, *begins], sort_keys=True).encode())
    # The items' ids and splits; the arrays are determined by them and the facts.
    digest.update((splits / "items.parquet").read_bytes())
    return digest.hexdigest()[:16]
