"""A warm start: a shorter training from the champion's weights (fine-tuning), instead of one from random weights with all of
the scenario's epochs.

It is possible if the champion has the same network that the scenario would train: architecture, images and labels. The weights
are used unchanged: shrinking them towards random ones (Ash and Adams 2020, arXiv 1910.08475) was tried, and bench/README.md has
the results.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evergreen.errors import EvergreenError
from evergreen.kinds.base.kind import kind_of
from evergreen.registry.models import download, download_run_file
from evergreen.scenario.settings import Retraining, Scenario
from evergreen.workspace import Workspace, replace_file


class NotPossible(EvergreenError):
    """The champion can't be fine-tuned."""


@dataclass(frozen=True)
class WarmStart:
    """The initial weights of a fine-tuning, and how much shorter it is. Stored under these names.

    Attributes:
        version: of the registered model that the weights are from.
        sha256: of the file with the weights, in hex.
        epochs_share: the fraction of the scenario's epochs.
        rate_share: the fraction of the scenario's learning rate.
        settings: of `train` that the scenario leaves open, as that version was trained with them.
    """

    version: int
    sha256: str
    epochs_share: float
    rate_share: float
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"version {self.version}"

    def of(self, scenario: Scenario) -> Scenario:
        """The scenario with the settings of the fine-tuning."""
        begun = scenario.with_train(self.settings)
        shorter = {
            "epochs": max(1, round(begun.train.epochs * self.epochs_share)),
            "learning_rate": begun.train.learning_rate * self.rate_share,
        }
        return begun.with_train(shorter)

    def weights(self, workspace: Workspace, name: str) -> list[np.ndarray]:
        """The weights, in the network's order.

        Raises:
            EvergreenError: the file no longer exists, or has changed.
        """
        from evergreen.models.cnn import load

        path = _file(workspace, name)
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise EvergreenError(
                f"the weights of version {self.version}, to begin with, are not there any more",
                fix=f"Fetch them anew with: evergreen retrain {name}",
            )
        return [np.asarray(weight.value) for weight in load(path).weights]


# The initial weights of a training: a registered version's, or random ones ("scratch"). "any": an existing model is kept,
# whatever its initial weights were; if one has to be trained, they are random.
Start = WarmStart | Literal["scratch", "any"]


def warm_start(scenario: Scenario, workspace: Workspace, version: int) -> WarmStart:
    """Download a registered version's weights, to continue training from them.

    Raises:
        NotPossible: its network differs from the scenario's, or its Keras file can't be downloaded.
    """
    settings: Retraining = scenario.retraining
    registered = json.loads((download(workspace, scenario.name, str(version)) / "artifacts" / "settings.json").read_text())
    learner = kind_of(scenario).learner
    other = learner.different_networks(scenario, registered)
    if other:
        raise NotPossible(f"version {version} has another network than the scenario (other {', '.join(other)})")
    try:
        content = download_run_file(workspace, scenario.name, version, "keras/model.keras")
    except EvergreenError as error:
        raise NotPossible(f"the weights of version {version} can't be had: {error}") from None
    replace_file(_file(workspace, scenario.name), content)
    sha256 = hashlib.sha256(content).hexdigest()
    begun = learner.open_settings(scenario, registered)
    return WarmStart(version, sha256, settings.fine_tune_epochs, settings.fine_tune_rate, begun)


def _file(workspace: Workspace, name: str) -> Path:
    return workspace.private / "warm" / name / "model.keras"
