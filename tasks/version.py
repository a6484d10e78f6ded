"""version: move the staged batch into the data set, and record the new version with DVC.

Reads   the staged batch.
Writes  `data/NAME`, by one rename; `data.dvc`; DVC's cache and the default remote.
Stops   when DVC can't add the data. An unreachable remote only causes a warning: the next run pushes to it.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from evergreen.data.dataset import batches, staged
from evergreen.data.versions import add_data, current_version, fetch_data, push_data
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tasks.collect import Collection
from tasks.page import Page
from tasks.stage import Stage

log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class DataVersion:
    """The version of the data set that all later stages work on.

    Attributes:
        name: the scenario's name.
        data_version: the hash of the scenario's own items; `data.dvc` covers all scenarios.
        batches: names of the scenario's batch folders in it.
        pushed: whether the default remote has a copy.
    """

    name: str
    data_version: str
    batches: tuple[str, ...]
    pushed: bool

    def __str__(self) -> str:
        kept = "" if self.pushed else "; not copied to the remote yet"
        return f"data version {self.data_version}, {len(self.batches)} batch{'es' * (len(self.batches) != 1)}{kept}."


def version(scenario: Scenario, workspace: Workspace, collection: Collection) -> DataVersion:
    """Move the staged batch into the data set and record a new version.

    Raises:
        EvergreenError: DVC can't add the data. The batch is already in the data set then, and the next run continues from
            there.
    """
    fetch_data(workspace, scenario.name)
    for batch in staged(workspace, scenario.name):
        target = workspace.data(scenario.name) / batch.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(batch, target)
    named = current_version(workspace, scenario.name) or add_data(workspace, scenario.name)
    problem = push_data(workspace, scenario.name)
    if problem:
        log.warning("The data set was not copied to the DVC remote (%s). It is safe here; the next run tries again.", problem)
    return DataVersion(scenario.name, named, _names(scenario, workspace), not problem)


def unchanged(scenario: Scenario, workspace: Workspace, collection: Collection, last: DataVersion) -> bool:
    """True if the scenario's items are those of its last version. Items that other scenarios have added since don't matter."""
    return (
        last.pushed
        and not staged(workspace, scenario.name)
        and last.batches == _names(scenario, workspace)
        and last.data_version == current_version(workspace, scenario.name)
    )


def _names(scenario: Scenario, workspace: Workspace) -> tuple[str, ...]:
    return tuple(folder.name for folder in batches(workspace, scenario.name))


def page(scenario: Scenario, workspace: Workspace, data_version: DataVersion) -> Page:
    """The batches of the data set, newest first."""
    newest_first = [{"batch": batch} for batch in reversed(data_version.batches)]
    return Page(tables={"Batches, the newest first": newest_first})


stage = Stage(version, DataVersion, unchanged=unchanged, page=page, retries=2)
