"""collect: read new items from the scenario's source into a staged batch, next to the data set.

Reads   the source, and the ids of the items in `data/NAME`.
Writes  `.evergreen/staging/NAME/00000-HASH/`, which appears complete or not at all; `quarantine/NAME/`.
Stops   when the source is missing, contains no item, or is malicious (such as an archive bomb); when more than `max_bad` of its
        items are bad, or more than `max_damaged` of them are damaged.

`collect_inbox` does the same with the scenario's inbox. There, files with an unknown label stay in the inbox, and the rest is
taken no matter how much is bad. The implementation is in `evergreen/data/collecting/`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from evergreen import figures
from evergreen.data.collecting.base import Policy, Recogniser
from evergreen.data.collecting.bookkeeping import Collecting
from evergreen.data.collecting.known_items import KnownItems
from evergreen.data.dataset import Quarantine, batches, staged
from evergreen.data.inbox import Inbox, inbox_of
from evergreen.data.sources.base import Source
from evergreen.data.versions import fetch_data
from evergreen.kinds.base.kind import kind_of, source_of
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, room_for
from tasks.page import Page, Rows, bullets, plain
from tasks.stage import Stage

WORDS = {
    "gone": "no longer in the source",
    "relabelled": "labelled otherwise in the source",
    "reinstated": "withdrawn, and back",
}
KEPT = {"gone": "stay in the data set", "relabelled": "keep their label", "reinstated": "in use again"}


@dataclass(frozen=True)
class Collection:
    """What happened to the items of a source: seen = added + known + duplicates + the sum of quarantined.

    Attributes:
        name: the scenario's name.
        source: where the items came from.
        fingerprint: of the source, taken before reading.
        seen: number of items in the source.
        added: new items, now in the batch.
        known: items that are already in the data set.
        duplicates: exact copies of other items of this source.
        conflicts: items found under two labels, which are among the quarantined ones, plus those of `relabelled` that keep
            their label.
        quarantined: number of items by reason.
        passed_over: total number of files in the source that are not items.
        batch: name of the staged folder; None if nothing is new.
        bytes: total size of the new items, encoded.
        seconds: duration of the collection.
        batches: names of the data set's batch folders, including the staged one.
        settings: the scenario's section `collect`.
        gone: items of the data set that are no longer in the source; withdrawn if `collect.mirror` is set.
        relabelled: known items that now have another label in the source; relabelled in the data set too if `collect.mirror` is
            set.
        reinstated: withdrawn items that are back in the source.
        forgotten: items removed by `evergreen forget` that are still in the source; not included in `seen`.
        differences: some examples for each of `gone`, `relabelled` and `reinstated`, by that name.
        skipped: number of files in the source that are not items, by reason.
        note: further remarks on the new items, as sentences.
    """

    name: str
    source: str
    fingerprint: str
    seen: int
    added: int
    known: int
    duplicates: int
    conflicts: int
    quarantined: dict[str, int]
    passed_over: int
    batch: str | None
    bytes: int
    seconds: float
    batches: tuple[str, ...]
    settings: dict[str, Any]
    gone: int = 0
    relabelled: int = 0
    reinstated: int = 0
    forgotten: int = 0
    differences: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        bad = sum(self.quarantined.values())
        parts = [f"{self.added:,} new", f"{self.known:,} known"]
        parts += [f"{self.duplicates:,} copies"] if self.duplicates else []
        parts += [f"{bad:,} in quarantine"] if bad else []
        skipped = "; ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
        text = f"{self.seen:,} items seen: {', '.join(parts)}.{f' {self.note}' if self.note else ''}{self._differences()}"
        return f"{text} Skipped: {skipped}." if skipped else text

    def _differences(self) -> str:
        """How the data set and its source differ, and what was done about it."""

        def some(what: str) -> str:
            shown = self.differences.get(what, ())
            return f" ({', '.join(shown)}{', …' if getattr(self, what) > len(shown) else ''})" if shown else ""

        mirrored, text = bool(self.settings.get("mirror")), ""
        if self.gone:
            then = "withdrawn from the data set" if mirrored else "kept in the data set"
            text += f" No longer in the source: {self.gone:,}{some('gone')}, {then}."
        if self.relabelled:
            then = "and now in the data set too" if mirrored else "not in the data set"
            text += f" With another label in the source: {self.relabelled:,}{some('relabelled')}, {then}."
        if (self.gone or self.relabelled) and not mirrored:
            text += " collect.mirror: true follows the source in both."
        if self.reinstated:
            text += f" Withdrawn, and back in the source and in use: {self.reinstated:,}{some('reinstated')}."
        if self.forgotten:
            text += f" Forgotten, and not taken again: {self.forgotten:,}."
        return text


def collect(scenario: Scenario, workspace: Workspace) -> Collection:
    """Collect new items from the scenario's source.

    Raises:
        WrongUse: the source is missing, or contains no item.
        DataRefused: it is damaged or malicious, or too much of it is bad; then nothing is staged, and quarantine lists the
            reasons.
        EvergreenError: the disk is full, or a public file cannot be fetched.
    """
    if scenario.retraining.inbox is None:  # users are asked to copy files into it
        inbox_of(scenario, workspace).mkdir(parents=True, exist_ok=True)

    def find() -> tuple[Source, Recogniser]:
        source = source_of(scenario, workspace)
        return source, kind_of(scenario).contract.recogniser(scenario, source)

    return _collect(scenario, workspace, find, Policy.of_source(scenario.collect))


def collect_inbox(scenario: Scenario, workspace: Workspace, inbox: Inbox) -> Collection:
    """Collect new items from the loose files and archives of an inbox. Files with a label that the scenario doesn't know stay
    there; the rest is taken, no matter how much is bad.

    Raises:
        EvergreenError: the disk is full.
    """
    return _collect(
        scenario, workspace, lambda: (inbox, kind_of(scenario).contract.inbox_recogniser(scenario, inbox)), Policy.of_inbox()
    )


def _collect(
    scenario: Scenario, workspace: Workspace, find: Callable[[], tuple[Source, Recogniser]], policy: Policy
) -> Collection:
    started = time.monotonic()
    staging = workspace.staging(scenario.name)
    with room_for("to collect into"), workspace.lock(f"collect-{scenario.name}"):
        try:
            shutil.rmtree(staging, ignore_errors=True)
            fetch_data(workspace, scenario.name)
            source, files = find()
            fingerprint = source.fingerprint()
            with Quarantine(workspace, scenario.name) as quarantine:
                contract = kind_of(scenario).contract
                known = KnownItems(workspace, scenario.name, policy, contract.noun)
                inspection = contract.inspector(scenario, known.folders, source, files)
                collecting = Collecting(source, files, inspection, known, quarantine, policy)
                batch = collecting.run(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    count, quarantined = collecting.count, collecting.quarantined
    unresolved = 0 if scenario.collect.mirror else known.count["relabelled"]
    return Collection(
        name=scenario.name,
        source=source.describe(),
        fingerprint=fingerprint,
        seen=count["seen"],
        added=count["added"],
        known=count["known"],
        duplicates=count["duplicates"],
        conflicts=quarantined["label-conflict"] + unresolved,
        quarantined=dict(sorted(quarantined.items())),
        passed_over=files.skipped.counts.total(),
        batch=batch,
        bytes=count["bytes"],
        seconds=time.monotonic() - started,
        batches=_batches(scenario, workspace),
        settings=scenario.collect.model_dump(mode="json"),
        gone=known.count["gone"],
        relabelled=known.count["relabelled"],
        reinstated=known.count["reinstated"],
        forgotten=count["forgotten"],
        differences={what: tuple(shown) for what, shown in known.differences.items()},
        skipped=dict(files.skipped.counts.most_common()),
        note=inspection.summary(),
    )


def _batches(scenario: Scenario, workspace: Workspace) -> tuple[str, ...]:
    return tuple(folder.name for folder in [*batches(workspace, scenario.name), *staged(workspace, scenario.name)])


def unchanged(scenario: Scenario, workspace: Workspace, last: Collection) -> bool:
    """True if the source and the settings are the same as last time, and all batches of that time are still there."""
    return (
        last.settings == scenario.collect.model_dump(mode="json")
        and set(last.batches) <= set(_batches(scenario, workspace))  # the inbox may have added more
        and last.fingerprint == source_of(scenario, workspace).fingerprint()
    )


def page(scenario: Scenario, workspace: Workspace, collection: Collection) -> Page:
    """What happened to the source's items, and how the source differs from the data set."""
    counts = {
        "seen": collection.seen, "new": collection.added, "known already": collection.known, "copies": collection.duplicates,
        **{f"in quarantine: {reason}": count for reason, count in collection.quarantined.items()},
        **{f"skipped: {reason}": count for reason, count in collection.skipped.items()},
    }  # fmt: skip
    done = {"gone": "withdrawn", "relabelled": "relabelled here too"} if collection.settings.get("mirror") else {}
    differing: Rows = [
        {"items": WORDS[what], "count": getattr(collection, what), "then": done.get(what, KEPT[what])}
        for what in collection.differences
    ]
    examples = [f"{WORDS[what]}: {', '.join(shown)}" for what, shown in collection.differences.items() if shown]
    source = (
        f"Source: {plain(collection.source)}. {figures.size(collection.bytes)} new, in {figures.duration(collection.seconds)}."
    )
    return Page(
        texts={"": source} | ({"For example": bullets(examples)} if examples else {}),
        tables={
            "Items": [{"items": what, "count": count} for what, count in counts.items()],
            "Source against data set": differing,
        },
    )


def work(scenario: Scenario, collection: Collection) -> tuple[float, str]:
    return float(collection.seen), "items"


stage = Stage(collect, Collection, unchanged=unchanged, page=page, work=work, retries=2)
