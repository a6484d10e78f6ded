"""receive: read what newly labelled images the inbox holds into a batch of new items, beside the data set.

Reads   `inbox/NAME`, and the ids that `data/NAME` holds.
Writes  `.evergreen/staging/NAME/00000-HASH/`, which appears whole or not at all; `quarantine/NAME/`.
Stops   for no bad item: each goes to quarantine with its reason, a label that the scenario doesn't know too.

`clear`, called once the batch is in the data set, moves the files out of the inbox. Killed before that, the next run finds the same
files, knows their items, and moves them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from evergreen import inbox
from evergreen.dataset import Quarantine
from evergreen.inbox import PATTERN, Waiting
from evergreen.scenario import Scenario
from evergreen.workspace import Workspace
from tasks.collect import Collecting, Collection, empty_staging, now
from tasks.collect import page as collection_page
from tasks.stage import Page, Stage


@dataclass(frozen=True)
class Arrival:
    """What the inbox held.

    Attributes:
        collection: what became of the items.
        taken: the files they came in.
        unfinished: files that are left for the next time, as somebody may still be writing them.
        passed_over: files that are neither in a label's folder nor an archive.
    """

    collection: Collection
    taken: tuple[Waiting, ...]
    unfinished: int
    passed_over: tuple[str, ...]

    def __str__(self) -> str:
        told = f"the inbox: {self.collection}" if self.taken else "the inbox: nothing to take in."
        if self.unfinished:
            told += f" {self.unfinished:,} files may still be being written: next time."
        if self.passed_over:
            first = ", ".join(self.passed_over[:3]) + (" …" if len(self.passed_over) > 3 else "")
            told += f" {len(self.passed_over):,} files are in no label's folder, and stay: {first}."
        return told


def receive(scenario: Scenario, workspace: Workspace) -> Arrival:
    """Take in what is new in the scenario's inbox.

    Raises:
        WrongUse: the inbox is no folder that can be listed.
        EvergreenError: the disk is full; nothing was half done.
    """
    started, folder = time.monotonic(), inbox.folder(scenario, workspace)
    found = inbox.look_into(folder)
    with empty_staging(scenario, workspace) as staging, Quarantine(workspace, scenario.name) as quarantine:
        collecting = Collecting(scenario, workspace, PATTERN, now(), quarantine)
        batch = collecting.keep(collecting.read(inbox.entries(folder, found.ready, scenario), staging))
    collection = collecting.told(str(folder), "", batch, time.monotonic() - started)
    return Arrival(collection, found.ready, found.unfinished, found.passed_over)


def clear(scenario: Scenario, workspace: Workspace, arrival: Arrival) -> int:
    """Move what was taken in out of the inbox; its items must be in the data set. Returns the number of files."""
    return inbox.clear(inbox.folder(scenario, workspace), arrival.taken, now())


def page(scenario: Scenario, workspace: Workspace, arrival: Arrival) -> Page:
    """What became of the items."""
    return collection_page(scenario, workspace, arrival.collection)


stage = Stage(receive, Arrival, page=page)
