"""`evergreen look`: writes the page of a scenario's data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evergreen.data.dataset import batches
from evergreen.data.versions import fetch_data
from evergreen.errors import WrongUse
from evergreen.kinds.base.kind import kind_of
from evergreen.progress import task
from evergreen.reporting.data_counts import count_items
from evergreen.reporting.data_page import render, summary, verdict
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file


@dataclass(frozen=True)
class Look:
    """A page that was written.

    Attributes:
        path: of the page.
        conclusions: what matters most, in sentences.
        content: of the page, for programs.
    """

    path: Path
    conclusions: tuple[str, ...]
    content: dict[str, Any]


def write_look(workspace: Workspace, name: str) -> Look:
    """Write `outputs/NAME/look.html` of the current data set.

    Raises:
        WrongUse: there is no such scenario, or nothing has been collected for it.
        EvergreenError: an item cannot be read.
    """
    scenario = load_scenario(workspace.scenarios, name)
    kind = kind_of(scenario)
    with workspace.lock(f"run-{name}"):  # not while a run changes the data set
        fetch_data(workspace, name)
        folders = batches(workspace, name)
        if not folders:
            raise WrongUse(
                f"nothing has been collected for {name} yet",
                fix=f"Collect its {kind.contract.noun}s with: evergreen run {name}",
            )
        counts = count_items(scenario, workspace, kind.contract)
        found = kind.explorer.explore(scenario, workspace) if kind.explorer else None

        def thumbnails(ids: Sequence[str]) -> Mapping[str, str | None]:
            return _thumbnails(scenario, folders, ids)

        noun = kind.contract.noun
        page = render(name, noun, counts, found, thumbnails, made_at=datetime.now(UTC))
        path = workspace.data_page(name)
        replace_file(path, page.encode())
    content = {"scenario": name, "file": str(path), **summary(counts, found, noun)}
    return Look(path, tuple(verdict(counts, found, noun)), content)


def _thumbnails(scenario: Scenario, folders: Sequence[Path], ids: Sequence[str]) -> dict[str, str | None]:
    contract, found = kind_of(scenario).contract, {}
    with task("Thumbnails", total=len(ids), unit=f"{contract.noun}s") as report:
        for id, item in contract.items(scenario, folders, ids):
            found[id] = contract.thumbnail(item)
            report(len(found))
    return found
