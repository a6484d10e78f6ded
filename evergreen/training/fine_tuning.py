"""A warm start: training begins with the champion's weights and is shorter (fine-tuning), in place of random weights and the scenario's epochs.

It is possible where the champion is the very network that the scenario would train: architecture, images and labels. Weights are kept whole:
shrinking them towards random ones (Ash and Adams 2020, arXiv 1910.08475) was tried, and bench/README.md says what it gave.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    """The weights with which a fine-tuning begins, and how much shorter it is. Stored under these names.

    Attributes:
        version: of the registered model whose weights they are.
        sha256: of the file that holds them, in hex.
        epochs_share: the fraction of the scenario's epochs.
        rate_share: the fraction of the scenario's learning rate.
    """

    version: int
    sha256: str
    epochs_share: float
    rate_share: float

    def __str__(self) -> str:
        return f"version {self.version}"

    def of(self, scenario: Scenario) -> Scenario:
        """The scenario with the settings of the fine-tuning."""
        settings = scenario.train
        shorter = {
            "epochs": max(1, round(settings.epochs * self.epochs_share)),
            "learning_rate": settings.learning_rate * self.rate_share,
        }
        return scenario.model_copy(update={"train": settings.model_copy(update=shorter)})

    def weights(self, workspace: Workspace, name: str) -> list[np.ndarray]:
        """The weights, in the network's order.

        Raises:
            EvergreenError: the file is not there any more, or is another one.
        """
        from evergreen.models.cnn import load

        path = _file(workspace, name)
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise EvergreenError(
                f"the weights of version {self.version}, to begin with, are not there any more",
                fix=f"Fetch them anew with: evergreen retrain {name}",
            )
        return [np.asarray(weight.value) for weight in load(path).weights]


# What a training begins with: a registered version's weights, or random ones ("scratch"). "any": a model that exists is kept, whatever it began
# with; if one has to be trained, it begins with random weights.
Start = WarmStart | Literal["scratch", "any"]


def warm_start(scenario: Scenario, workspace: Workspace, version: int) -> WarmStart:
    """Bring a registered version's weights here, to train on from them.

    Raises:
        NotPossible: it is another network than the scenario's, or its Keras file can't be had.
    """
    settings: Retraining = scenario.retraining
    registered = json.loads((download(workspace, scenario.name, str(version)) / "artifacts" / "settings.json").read_text())
    other = kind_of(scenario).learner.different_networks(scenario, registered)
    if other:
        raise NotPossible(f"version {version} has another network than the scenario (other {', '.join(other)})")
    try:
        content = download_run_file(workspace, scenario.name, version, "keras/model.keras")
    except EvergreenError as error:
        raise NotPossible(f"the weights of version {version} can't be had: {error}") from None
    replace_file(_file(workspace, scenario.name), content)
    sha256 = hashlib.sha256(content).hexdigest()
    return WarmStart(version, sha256, settings.fine_tune_epochs, settings.fine_tune_rate)


def _file(workspace: Workspace, name: str) -> Path:
    return workspace.private / "warm" / name / "model.keras"
