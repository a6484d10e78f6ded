"""collect: read the scenario's source into a batch of new items, beside the data set.

Reads   the source, and the ids that `data/NAME` holds.
Writes  `.evergreen/staging/NAME/00000-HASH/`, which appears whole or not at all; `quarantine/NAME/`.
Stops   when the source is missing, no item is found in it, it is a trap, more than `max_bad` of its items are bad, or more than
        `max_damaged` of them damaged.

`collect_inbox` does the same with what lies in the scenario's inbox, where labels are known and nothing may be in the way of the rest.

Every item ends in the batch, is already known, is an exact copy of another, or is in quarantine with its reason.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evergreen import progress
from evergreen.dataset import Item, PartWriter, Quarantine, batches, corrections, iter_parts, known_ids, staged
from evergreen.errors import DataRefused, WrongUse
from evergreen.images import Inspection
from evergreen.inbox import PATTERN, Inbox
from evergreen.isolated import Inspectors, Verdict
from evergreen.scenario import Collect, Scenario
from evergreen.sources import BUILTINS, SPLITS, Found, Source, fingerprint, locate, stream
from evergreen.versions import fetch_data
from evergreen.workspace import Workspace, room_for
from tasks.stage import Page, Stage

log = logging.getLogger("evergreen")

CHUNK_ITEMS = 256
CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Collection:
    """What became of a source's items: seen = added + known + duplicates + all that are quarantined.

    Attributes:
        name: the scenario's.
        source: where the items came from.
        fingerprint: `evergreen.sources.fingerprint` of it, taken before reading.
        seen: items in the source.
        added: new items, now in the batch.
        known: items that the data set holds already.
        duplicates: exact copies of other items of this source.
        conflicts: items seen under two labels; they are among the quarantined.
        quarantined: how many items for each reason.
        passed_over: entries that the pattern does not take for items.
        batch: name of the staged folder, or None where nothing is new.
        bytes: of the new items, encoded.
        seconds: that it took.
        batches: names of the data set's batch folders, the staged one included.
        settings: the scenario's section `collect`.
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

    def __str__(self) -> str:
        bad = sum(self.quarantined.values())
        parts = [f"{self.added:,} new", f"{self.known:,} known"]
        parts += [f"{self.duplicates:,} copies"] if self.duplicates else []
        parts += [f"{bad:,} in quarantine"] if bad else []
        return f"{self.seen:,} items seen: {', '.join(parts)}."


def collect(scenario: Scenario, workspace: Workspace) -> Collection:
    """Collect what is new in the scenario's source.

    Raises:
        WrongUse: the source is missing, or holds no item.
        DataRefused: it is damaged or a trap, or too much of it is bad; then nothing is staged, and quarantine tells why.
        EvergreenError: the disk is full, or a public file cannot be fetched.
    """
    return _collect(scenario, workspace, lambda: locate(scenario, workspace))


def collect_inbox(scenario: Scenario, workspace: Workspace, inbox: Inbox) -> Collection:
    """Collect what is new among the images and archives of an inbox. A label that the scenario doesn't know is a reason for
    quarantine, and however much is bad, the rest is taken.

    Raises:
        EvergreenError: the disk is full.
    """
    section = scenario.collect.model_copy(update={"pattern": PATTERN, "max_bad": 1.0, "max_damaged": 1.0})
    return _collect(scenario.model_copy(update={"collect": section}), workspace, lambda: inbox)


def _collect(scenario: Scenario, workspace: Workspace, find: Callable[[], Source | Inbox]) -> Collection:
    started = time.monotonic()
    staging = workspace.staging(scenario.name)
    with room_for("to collect into"), workspace.lock(f"collect-{scenario.name}"):
        try:
            shutil.rmtree(staging, ignore_errors=True)
            fetch_data(workspace, scenario.name)
            source = find()
            mark = source.fingerprint if isinstance(source, Inbox) else fingerprint(source)
            with Quarantine(workspace, scenario.name) as quarantine:
                collecting = _Collecting(scenario, workspace, source, quarantine)
                batch = collecting.run(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    count = collecting.count
    return Collection(
        scenario.name, str(source), mark, count["seen"], count["added"], count["known"], count["duplicates"],
        collecting.quarantined["label-conflict"], dict(sorted(collecting.quarantined.items())), count["passed over"], batch,
        count["bytes"], time.monotonic() - started, _batches(scenario, workspace), scenario.collect.model_dump(mode="json"),
    )  # fmt: skip


def _batches(scenario: Scenario, workspace: Workspace) -> tuple[str, ...]:
    return tuple(folder.name for folder in [*batches(workspace, scenario.name), *staged(workspace, scenario.name)])


def unchanged(scenario: Scenario, workspace: Workspace, last: Collection) -> bool:
    """Whether the source, the settings and what they gave are as they were."""
    return (
        last.settings == scenario.collect.model_dump(mode="json")
        and set(last.batches) <= set(_batches(scenario, workspace))  # more may have come in by the inbox
        and last.fingerprint == fingerprint(locate(scenario, workspace))
    )


def page(scenario: Scenario, workspace: Workspace, collection: Collection) -> Page:
    """What became of the items."""
    rows = [
        {"items": what, "count": count}
        for what, count in {
            "seen": collection.seen, "new": collection.added, "known": collection.known, "copies": collection.duplicates,
            **{f"in quarantine: {reason}": count for reason, count in collection.quarantined.items()},
        }.items()
    ]  # fmt: skip
    return Page(tables={"collected": rows})


@dataclass(slots=True)
class _Sighting:
    """An item of the source on its way to its verdict."""

    found: Found
    id: bytes | None
    label: str
    group: str | None
    split: str | None
    asked: bool = False  # whether its bytes are in the chunk's question


class _Collecting:
    """One collection under way."""

    def __init__(self, scenario: Scenario, workspace: Workspace, source: Source | Inbox, quarantine: Quarantine) -> None:
        self.settings: Collect = scenario.collect
        self.scenario, self.workspace, self.source, self.quarantine = scenario, workspace, source, quarantine
        self.pattern = re.compile(self.settings.pattern, re.DOTALL)
        self.collected_at = BUILTINS[source] if isinstance(source, str) else datetime.now(UTC).replace(microsecond=0)
        self.known = known_ids(workspace, scenario.name)  # label by id
        # A source goes on saying what was corrected here.
        self.former = {(bytes.fromhex(c.id), c.old_label) for c in corrections(batches(workspace, scenario.name))}
        self.pending: set[bytes] = set()  # ids that inspectors are asked about
        self.labels: dict[bytes, str] = {}  # the good ones
        self.bad: dict[bytes, tuple[str, str]] = {}  # the others: reason and detail
        self.conflicting: set[bytes] = set()
        self.count: Counter[str] = Counter()
        self.quarantined: Counter[str] = Counter()
        self.example = ""

    def run(self, staging: Path) -> str | None:
        """Returns the name of the staged folder, or None."""
        writing = staging / ".writing"
        writing.mkdir(parents=True)
        with PartWriter(writing) as writer:
            self._read(writer)
        name_hash = writer.hash
        if self.conflicting:
            writing, name_hash = self._without_conflicts(writing)
        self._refuse_where_due()
        if self.count["added"] == 0:
            shutil.rmtree(staging)
            return None
        target = staging / f"{len(batches(self.workspace, self.scenario.name)):05d}-{name_hash}"
        writing.rename(target)
        return target.name

    def _read(self, writer: PartWriter) -> None:
        waiting: deque[tuple[list[_Sighting], Future[list[Verdict]]]] = deque()
        with Inspectors(self.settings.max_pixels) as inspectors, progress.task("collect", unit="items") as report:
            for chunk in self._chunks():
                waiting.append(
                    (chunk, inspectors.submit([s.found.data for s in chunk if s.asked and s.found.data is not None]))
                )
                if len(waiting) > 2 * inspectors.processes:
                    self._settle(*waiting.popleft(), writer)
                report(self.count["seen"], share=chunk[-1].found.share)
            while waiting:
                self._settle(*waiting.popleft(), writer)

    def _chunks(self) -> Iterator[list[_Sighting]]:
        chunk: list[_Sighting] = []
        size_bytes = 0
        for found in self.source.stream() if isinstance(self.source, Inbox) else stream(self.source):
            sighting = self._recognise(found)
            if sighting is None:
                continue
            self.count["seen"] += 1
            if sighting.id is not None and self._settled_by_the_data_set(sighting):
                continue
            sighting.asked = found.problem is None and not self._met(sighting.id)
            if sighting.asked and sighting.id is not None:
                self.pending.add(sighting.id)
            chunk.append(sighting)
            size_bytes += len(found.data or b"")
            if len(chunk) >= CHUNK_ITEMS or size_bytes >= CHUNK_BYTES:
                yield chunk
                chunk, size_bytes = [], 0
        if chunk:
            yield chunk

    def _met(self, id: bytes | None) -> bool:
        return id in self.pending or id in self.labels or id in self.bad

    def _recognise(self, found: Found) -> _Sighting | None:
        """The item that an entry is, or None where the pattern does not match."""
        match = self.pattern.fullmatch(found.name)
        given = match.groupdict() if match else {}
        label, split = given.get("label"), given.get("split")
        if isinstance(self.source, Inbox):
            label = label or ""  # nothing is passed over there
        elif not label:
            self.count["passed over"] += 1
            self.example = self.example or found.name
            return None
        if split is not None:
            split = SPLITS.get(split.lower())
            if split is None:
                raise WrongUse(
                    f"collect.pattern of scenario {self.scenario.name} gives a split that there is not",
                    expected=f"one of {', '.join(SPLITS)}", received=given["split"], fix="Let the group `split` match these only.",
                )  # fmt: skip
        id = hashlib.sha256(found.data).digest() if found.data is not None else None
        return _Sighting(found, id, self.settings.rename.get(label, label), given.get("group"), split)

    def _settled_by_the_data_set(self, sighting: _Sighting) -> bool:
        assert sighting.id is not None
        stored = self.known.get(sighting.id)
        if stored is None or sighting.found.problem is not None:
            return False
        if stored == sighting.label or (sighting.id, sighting.label) in self.former:
            self.count["known"] += 1
        else:
            self._refuse(sighting, "label-conflict", f"the data set holds the same image as {stored!r}")
        return True

    def _settle(self, chunk: list[_Sighting], answer: Future[list[Verdict]], writer: PartWriter) -> None:
        verdicts = iter(answer.result())
        for sighting in chunk:
            if sighting.asked:
                self._note(sighting, next(verdicts), writer)
            else:
                self._note(sighting, None, writer)

    def _note(self, sighting: _Sighting, verdict: Verdict | None, writer: PartWriter) -> None:
        """Settle one item; items come in the order of the source, so that a copy finds its first sighting settled."""
        id, found = sighting.id, sighting.found
        if id is not None and verdict is not None:
            self.pending.discard(id)
            if not isinstance(verdict, Inspection):
                self.bad[id] = (verdict.reason, verdict.detail)
        if found.problem is not None:
            self._refuse(sighting, found.problem, found.detail)
        elif id in self.bad:
            self._refuse(sighting, *self.bad[id])
        elif isinstance(self.source, Inbox) and sighting.label not in self.scenario.validation.labels:
            self._refuse(
                sighting, "unknown-label", f"{sighting.label!r} is not in validate.labels" if sighting.label else "no label"
            )
        elif id in self.conflicting:
            self._refuse(sighting, "label-conflict", "the same image has several labels")
        elif id in self.labels:
            if self.labels[id] == sighting.label:
                self.count["duplicates"] += 1
            else:
                self.conflicting.add(id)
                self._refuse(sighting, "label-conflict", f"the same image has the label {self.labels[id]!r} too")
        else:
            assert id is not None and found.data is not None and isinstance(verdict, Inspection)
            self.labels[id] = sighting.label
            self.count["added"] += 1
            self.count["bytes"] += len(found.data)
            writer.add(
                Item(
                    id.hex(), found.data, sighting.label, sighting.group, sighting.split, found.name, self.collected_at, verdict
                )
            )

    def _refuse(self, sighting: _Sighting, reason: str, detail: str) -> None:
        self.quarantined[reason] += 1
        self.quarantine.add(
            sighting.found.name, reason, detail, id=sighting.id.hex() if sighting.id else None, data=sighting.found.data,
            label=sighting.label, size_bytes=sighting.found.size_bytes, collected_at=self.collected_at,
        )  # fmt: skip

    def _without_conflicts(self, writing: Path) -> tuple[Path, str]:
        """Write the batch again without the images that turned out to have several labels: which is right, we can't know."""
        again = writing.with_name(".writing-again")
        again.mkdir()
        with PartWriter(again) as writer:
            for rows in iter_parts([writing]):
                for row in rows.to_pylist():
                    id = bytes.fromhex(row["id"])
                    if id not in self.conflicting:
                        writer.add_row(tuple(row.values()))
                        continue
                    found = Found(row["source"], row["image"], len(row["image"]))
                    self.count["added"] -= 1
                    self.count["bytes"] -= len(row["image"])
                    self._refuse(
                        _Sighting(found, id, row["label"], None, None), "label-conflict", "the same image has another label too"
                    )
        shutil.rmtree(writing)
        return again, writer.hash

    def _refuse_where_due(self) -> None:
        seen, bad = self.count["seen"], self.quarantined.total() - self.quarantined["damaged"]
        if isinstance(self.source, Inbox):
            return
        if seen == 0:
            raise WrongUse(
                f"there is no item in the source of scenario {self.scenario.name}: {self.count['passed over']:,} entries, none of "
                f"which matches collect.pattern", expected=self.settings.pattern, received=self.example or "nothing at all",
                fix=f"Correct collect.pattern in scenarios/{self.scenario.name}.yaml, or the source.",
            )  # fmt: skip
        if bad > self.settings.max_bad * seen:
            reasons = ", ".join(
                f"{number:,} {reason}" for reason, number in self.quarantined.most_common() if reason != "damaged"
            )
            raise DataRefused(
                f"{bad:,} of {seen:,} items are bad: {reasons}", expected=f"at most {self.settings.max_bad:.1%} (collect.max_bad)",
                fix=f"See {self.quarantine.folder / 'records.jsonl'}, and mend the source.",
            )  # fmt: skip
        damaged = self.quarantined["damaged"]
        if damaged > self.settings.max_damaged * seen:
            raise DataRefused(
                f"{damaged:,} of {seen:,} items are damaged: they can be decoded, but part of their pixels is wrong",
                expected=f"at most {self.settings.max_damaged:.1%} (collect.max_damaged)",
                fix=f"Get intact copies of the files named in {self.quarantine.folder / 'records.jsonl'}, or raise collect.max_damaged.",
            )


def work(scenario: Scenario, collection: Collection) -> tuple[float, str]:
    return float(collection.seen), "items"


stage = Stage(collect, Collection, unchanged=unchanged, page=page, work=work, retries=2)
