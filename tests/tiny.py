"""A small real model: 500 digits, a network of eight filters, through the real stages. The fixtures are in conftest.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tasks import evaluate, preprocess, train, version
from tasks.evaluate import Evaluation
from tasks.promote import Promotion, promote_version
from tasks.register import Registration, register
from tasks.stage import Stage
from tasks.version import DataVersion

NAME = "quickstart"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Tiny:
    """A checkout with a trained and evaluated model of the quickstart."""

    root: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root)

    @property
    def scenario(self) -> Scenario:
        return load_scenario(self.workspace.scenarios, NAME)

    @property
    def data_version(self) -> DataVersion:
        return self._result(version.stage, DataVersion)

    @property
    def evaluation(self) -> Evaluation:
        return self._result(evaluate.stage, Evaluation)

    @property
    def images(self) -> list[bytes]:
        """The encoded test images."""
        from evergreen.data.dataset import batches, iter_images

        requested = evaluate.test_ids(self.workspace, NAME)
        found = dict(iter_images(batches(self.workspace, NAME), requested))
        return [found[id] for id in requested]

    def register(self) -> Registration:
        return register(self.scenario, self.workspace, self.data_version, self.evaluation)

    def change_settings(self, **changed: Any) -> None:
        """Change the model's `settings.json`."""
        path = self.workspace.model(NAME) / "settings.json"
        settings = json.loads(path.read_text()) | changed
        path.unlink()  # it may be a link into DVC's cache
        path.write_text(json.dumps(settings))

    def register_confused(self, by: int = 1) -> Registration:
        """Another version: the same network with its labels' names moved on by so many places, and so hardly ever right."""
        path = self.workspace.model(NAME) / "settings.json"
        reported = path.read_bytes()
        labels = json.loads(reported)["labels"]
        self.change_settings(labels=labels[by:] + labels[:by])
        try:
            return self.register()
        finally:
            path.write_bytes(reported)

    def promote(self, version: int | str = "challenger", *, force: bool = False) -> Promotion:
        return promote_version(self.scenario, self.workspace, str(version), force=force)

    def client(self) -> Any:
        from evergreen.registry.models import connect

        return connect(self.workspace).MlflowClient()

    def _result(self, stage: Stage, kind: type[Result]) -> Result:
        memory = json.loads((self.workspace.record(NAME) / f"stage-{stage.name}.json").read_text())
        return TypeAdapter(kind).validate_python(memory["result"])


def make(folder: Path) -> Path:
    """Everything up to evaluate, in a repository of its own."""
    from tests.evergreen.data.test_versions import change, repository
    from tests.tasks.test_preprocess import add_batch, digit

    workspace = repository(folder)
    change(workspace, "train", epochs=8, filters=8)
    change(workspace, "evaluate", latency_items=10)
    add_batch(workspace, ((*digit(number), None, None) for number in range(500)))
    scenario = load_scenario(workspace.scenarios, NAME)
    version.stage.perform(scenario, workspace, None)
    for module in (preprocess, train, evaluate):
        module.stage.perform(scenario, workspace)
    return folder
