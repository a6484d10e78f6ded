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
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evergreen import figures, progress
from evergreen.data.dataset import (
    SOURCE,
    Correction,
    Item,
    PartWriter,
    Quarantine,
    Withdrawal,
    batches,
    corrections,
    forgotten,
    id_digest,
    iter_deep,
    iter_parts,
    known_ids,
    origin,
    parts,
    record_range,
    recorded_range,
    records,
    stage_records,
    staged,
    withdrawals,
)
from evergreen.data.inbox import PATTERN, Inbox, inbox_of
from evergreen.data.skipped import Skipped
from evergreen.data.sources import BUILTINS, SPLITS, Found, Source, fingerprint, is_leftover, locate, split_of, stream
from evergreen.data.versions import fetch_data
from evergreen.errors import DataRefused, WrongUse
from evergreen.media.depth import MIN_LEVELS, Sample, levels, may_be_deep, no_contrast
from evergreen.media.images import BadImage, Inspection, PixelRange
from evergreen.media.isolated import Inspectors, Verdict
from evergreen.names import tidy
from evergreen.scenario.settings import Collect, Scenario
from evergreen.workspace import Workspace, room_for
from tasks.page import Page, Rows, bullets, plain
from tasks.stage import Stage

log = logging.getLogger("evergreen")

CHUNK_ITEMS = 256
CHUNK_BYTES = 4 * 2**20
EXAMPLES = 5
WORDS = {
    "gone": "no longer in the source",
    "relabelled": "labelled otherwise in the source",
    "reinstated": "withdrawn, and back",
}
KEPT = {"gone": "stay in the data set", "relabelled": "keep their label", "reinstated": "in use again"}


@dataclass(frozen=True)
class Collection:
    """What became of a source's items: seen = added + known + duplicates + all that are quarantined.

    Attributes:
        name: the scenario's.
        source: where the items came from.
        fingerprint: `evergreen.data.sources.fingerprint` of it, taken before reading.
        seen: items in the source.
        added: new items, now in the batch.
        known: items that the data set holds already.
        duplicates: exact copies of other items of this source.
        conflicts: items seen under two labels, which are among the quarantined; and those of `relabelled` that keep their label.
        quarantined: how many items for each reason.
        passed_over: files of the source that are no items, in all.
        batch: name of the staged folder, or None where nothing is new.
        bytes: of the new items, encoded.
        seconds: that it took.
        batches: names of the data set's batch folders, the staged one included.
        settings: the scenario's section `collect`.
        gone: items of the data set that the source had and no longer has; withdrawn where `collect.mirror` says so.
        relabelled: known items that the source labels otherwise now; relabelled in the data set too where `collect.mirror` says so.
        reinstated: withdrawn items that came back.
        forgotten: items that `evergreen forget` took out and that are still in the source; they are not among those seen.
        differences: some examples of each of the three, by its name.
        skipped: files of the source that are no items: how many for each reason.
        deep: new items of more than 8 bits a value.
        range: with which those are read (`evergreen.media.images.PixelRange`); None where there are none.
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
    deep: int = 0
    range: dict[str, float] | None = None

    def __str__(self) -> str:
        bad = sum(self.quarantined.values())
        parts = [f"{self.added:,} new", f"{self.known:,} known"]
        parts += [f"{self.duplicates:,} copies"] if self.duplicates else []
        parts += [f"{bad:,} in quarantine"] if bad else []
        skipped = "; ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
        told = f"{self.seen:,} items seen: {', '.join(parts)}.{self._depth()}{self._differences()}"
        return f"{told} Skipped: {skipped}." if skipped else told

    def _differences(self) -> str:
        """How the data set and its source differ, or what was done about that."""

        def some(what: str) -> str:
            shown = self.differences.get(what, ())
            return f" ({', '.join(shown)}{', …' if getattr(self, what) > len(shown) else ''})" if shown else ""

        mirrored, told = bool(self.settings.get("mirror")), ""
        if self.gone:
            then = "withdrawn from the data set" if mirrored else "kept in the data set"
            told += f" No longer in the source: {self.gone:,}{some('gone')}, {then}."
        if self.relabelled:
            then = "and now in the data set too" if mirrored else "not in the data set"
            told += f" With another label in the source: {self.relabelled:,}{some('relabelled')}, {then}."
        if (self.gone or self.relabelled) and not mirrored:
            told += " collect.mirror: true follows the source in both."
        if self.reinstated:
            told += f" Withdrawn, and back in the source and in use: {self.reinstated:,}{some('reinstated')}."
        if self.forgotten:
            told += f" Forgotten, and not taken again: {self.forgotten:,}."
        return told

    def _depth(self) -> str:
        if not self.deep or self.range is None:
            return ""
        mixed = (
            ""
            if self.deep == self.added
            else f" of {self.deep:,} new items; the other {self.added - self.deep:,} have 8 bits and stay as they are"
        )
        return f" Values from {self.range['low']:.10g} (black) to {self.range['high']:.10g} (white) are read{mixed}."


def collect(scenario: Scenario, workspace: Workspace) -> Collection:
    """Collect what is new in the scenario's source.

    Raises:
        WrongUse: the source is missing, or holds no item.
        DataRefused: it is damaged or a trap, or too much of it is bad; then nothing is staged, and quarantine tells why.
        EvergreenError: the disk is full, or a public file cannot be fetched.
    """
    if scenario.retraining.inbox is None:  # people are told to copy into it
        inbox_of(scenario, workspace).mkdir(parents=True, exist_ok=True)
    return _collect(scenario, workspace, lambda: locate(scenario, workspace))


def collect_inbox(scenario: Scenario, workspace: Workspace, inbox: Inbox) -> Collection:
    """Collect what is new among the images and archives of an inbox. Files whose label the scenario
    doesn't know stay there, and however much is bad, the rest is taken.

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
            links = scenario.collect.follow_links
            mark = source.fingerprint if isinstance(source, Inbox) else fingerprint(source, follow_links=links)
            with Quarantine(workspace, scenario.name) as quarantine:
                collecting = _Collecting(scenario, workspace, source, quarantine)
                batch = collecting.run(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    count, settings = collecting.count, scenario.collect
    kept = 0 if settings.mirror else count["relabelled"]
    return Collection(
        scenario.name, str(source), mark, count["seen"], count["added"], count["known"], count["duplicates"],
        collecting.quarantined["label-conflict"] + kept, dict(sorted(collecting.quarantined.items())), collecting.skipped.counts.total(), batch,
        count["bytes"], time.monotonic() - started, _batches(scenario, workspace), settings.model_dump(mode="json"),
        count["gone"], count["relabelled"], count["reinstated"], count["forgotten"],
        {what: tuple(shown) for what, shown in collecting.differences.items()},
        dict(collecting.skipped.counts.most_common()),
        count["deep"], collecting.pixel_range._asdict() if collecting.pixel_range and count["deep"] else None,
    )  # fmt: skip


def _batches(scenario: Scenario, workspace: Workspace) -> tuple[str, ...]:
    return tuple(folder.name for folder in [*batches(workspace, scenario.name), *staged(workspace, scenario.name)])


def unchanged(scenario: Scenario, workspace: Workspace, last: Collection) -> bool:
    """Whether the source, the settings and what they gave are as they were."""
    return (
        last.settings == scenario.collect.model_dump(mode="json")
        and set(last.batches) <= set(_batches(scenario, workspace))  # more may have come in by the inbox
        and last.fingerprint == fingerprint(locate(scenario, workspace), follow_links=scenario.collect.follow_links)
    )


def page(scenario: Scenario, workspace: Workspace, collection: Collection) -> Page:
    """What became of the source's items, and how it differs from the data set."""
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
        self.pattern = re.compile(unicodedata.normalize("NFC", self.settings.pattern), re.DOTALL)
        self.collected_at = BUILTINS[source] if isinstance(source, str) else datetime.now(UTC).replace(microsecond=0)
        self.folders = batches(workspace, scenario.name)
        self.known = known_ids(workspace, scenario.name)  # label by id
        # A source goes on saying what a person corrected here, and an inbox may bring what it said once.
        people = [one for one in corrections(self.folders) if one.by != SOURCE]
        self.former = {(bytes.fromhex(one.id), one.old_label) for one in people}
        self.corrected = {bytes.fromhex(one.id) for one in people}
        self.withdrawn = {bytes.fromhex(id) for id in records(self.folders).withdrawn}
        # What a person has brought back, or withdrawn, is no longer the source's to say.
        self.decided = {bytes.fromhex(one.id) for one in withdrawals(self.folders) if one.by != SOURCE}
        self.forgotten = forgotten(self.folders)
        self.present: set[bytes] = set()  # known ones that the source has
        self.confirmed: set[bytes] = set()  # under the label that they have here
        self.otherwise: dict[bytes, dict[str, _Sighting]] = {}  # under others
        self.unread: set[str] = set()  # names of what the source has and could not give
        self.differences: dict[str, list[str]] = {}
        self.pixel_range = recorded_range(self.folders)
        self.range_is_chosen = self.pixel_range is not None
        self.pending: set[bytes] = set()  # ids that inspectors are asked about
        self.labels: dict[bytes, str] = {}  # the good ones
        self.bad: dict[bytes, tuple[str, str]] = {}  # the others: reason and detail
        self.conflicting: set[bytes] = set()
        self.count: Counter[str] = Counter()
        self.quarantined: Counter[str] = Counter()
        self.skipped = Skipped()
        self.example = ""
        self.encoding = ""  # that was assumed for names

    @property
    def origin(self) -> str:
        return "inbox" if isinstance(self.source, Inbox) else "source"

    def run(self, staging: Path) -> str | None:
        """Returns the name of the staged folder, or None."""
        writing = staging / ".writing"
        writing.mkdir(parents=True)
        with PartWriter(writing, self.origin) as writer:
            self._read(writer)
        name_hash = writer.hash
        if self.conflicting:
            writing, name_hash = self._without_conflicts(writing)
        self._settle_known()
        self._refuse_where_due()
        for sentence in self.skipped.sentences():
            log.log(logging.WARNING if self.skipped.lost or self.skipped.links else logging.INFO, "%s", sentence)
        said = self._said_of_known()
        number, name = len(self.folders), None
        if self.count["added"]:
            if self.count["deep"] and self.pixel_range and not recorded_range(self.folders):
                record_range(writing, self.pixel_range)
            target = staging / f"{number:05d}-{name_hash}"
            writing.rename(target)
            number, name = number + 1, target.name
        else:
            shutil.rmtree(writing)
        said_in = stage_records(staging, number, *said)
        if name is None and said_in is None:
            shutil.rmtree(staging)
        return name or said_in

    def _read(self, writer: PartWriter) -> None:
        waiting: deque[tuple[list[_Sighting], Future[list[Verdict]]]] = deque()
        with Inspectors(self.settings.max_pixels) as inspectors, progress.task("collect", unit="items") as report:
            for chunk in self._chunks():
                images = [s.found.data for s in chunk if s.asked and s.found.data is not None]
                if not self.range_is_chosen and any(may_be_deep(image) for image in images):
                    self._choose_range(inspectors)
                waiting.append((chunk, inspectors.submit(images, self.pixel_range)))
                if len(waiting) > 2 * inspectors.processes:
                    self._settle(*waiting.popleft(), writer)
                report(self.count["seen"], share=chunk[-1].found.share)
            while waiting:
                self._settle(*waiting.popleft(), writer)

    def _choose_range(self, inspectors: Inspectors) -> None:
        """The range of deep images, once for the data set: the scenario's, else as suits a sample of all that the source holds.

        Raises:
            DataRefused: with the scenario's range images reach too few levels.
        """
        self.range_is_chosen = True
        if next(iter_deep(self.folders), None) is not None:
            return  # begun before there were ranges: new items are read as the old ones were
        sample = Sample()
        for images in self._candidates(sample):
            for image, found in zip(images, inspectors.extremes(images).result(), strict=True):
                if found is not None and not isinstance(found, BadImage):
                    sample.add(image, found)
        suits, asked = sample.range(), self.scenario.preprocess.range
        if suits is None:
            return
        if asked is None:
            self.pixel_range = suits
            log.info(
                "collect %s: images have more than 8 bits a value; from a sample of %s, values from %.10g (black) to %.10g (white) are "
                "read, from now on; preprocess.range sets others", self.scenario.name, f"{len(sample):,}", *suits,
            )  # fmt: skip
            return
        self.pixel_range = PixelRange(asked.low, asked.high)
        if (reached := levels(self.pixel_range, suits)) < MIN_LEVELS:
            raise no_contrast(self.scenario, self.pixel_range, reached, suits)

    def _candidates(self, sample: Sample) -> Iterator[list[bytes]]:
        """The source's items that may be deep and would belong to the sample, some at a time."""
        chunk: list[bytes] = []
        for found in self._entries():
            if found.data is None or found.problem or not may_be_deep(found.data) or not sample.has_room_for(found.data):
                continue
            if isinstance(self.source, Inbox) or self.pattern.fullmatch(unicodedata.normalize("NFC", found.name)):
                chunk.append(found.data)
            if sum(map(len, chunk)) >= CHUNK_BYTES:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _chunks(self) -> Iterator[list[_Sighting]]:
        chunk: list[_Sighting] = []
        size_bytes = 0
        for found in self._entries():
            sighting = self._recognise(found)
            if sighting is None:
                continue
            if self.forgotten and sighting.id is not None and id_digest(sighting.id) in self.forgotten:
                self.count["forgotten"] += 1
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

    def _entries(self) -> Iterator[Found]:
        encoding = self.settings.encoding
        if isinstance(self.source, Inbox):
            return self.source.stream(encoding)
        return stream(self.source, encoding=encoding, follow_links=self.settings.follow_links)

    def _met(self, id: bytes | None) -> bool:
        return id in self.pending or id in self.labels or id in self.bad

    def _recognise(self, found: Found) -> _Sighting | None:
        """The item that an entry is, or None where the pattern does not match."""
        match = self.pattern.fullmatch(unicodedata.normalize("NFC", found.name))
        given = match.groupdict() if match else {}
        label, split = tidy(given.get("label") or ""), given.get("split")
        if found.encoding is not None and not self.encoding:
            self.encoding = found.encoding
            log.warning(
                "The names in %s are not in UTF-8; %s was assumed, by what letters that gives. If labels look wrong, set collect.encoding "
                "in scenarios/%s.yaml.", self.source, found.encoding, self.scenario.name,
            )  # fmt: skip
        if not isinstance(self.source, Inbox):
            if not label or is_leftover(found.name):
                self.skipped.skip(found)
                self.example = self.example or found.name
                return None
            self.skipped.take(found.name)
        elif self.settings.rename.get(label, label) not in self.scenario.validation.labels:
            self.source.leave(label)
            return None
        if split is not None:
            split = split_of(split)
            if split not in ("train", "val", "test"):
                raise WrongUse(
                    f"collect.pattern of scenario {self.scenario.name} gives a split that there is not",
                    expected=f"one of {', '.join(word for word, split in SPLITS.items() if split != 'unlabelled')}", received=given["split"], fix="Let the group `split` match these only.",
                )  # fmt: skip
        if found.problem is not None:
            self.unread.add(found.name)
        id = hashlib.sha256(found.data).digest() if found.data is not None else None
        return _Sighting(found, id, self.settings.rename.get(label, label), given.get("group"), split)

    def _settled_by_the_data_set(self, sighting: _Sighting) -> bool:
        """Whether the data set has the item already. What a source says of it otherwise is settled when all of it was seen."""
        assert sighting.id is not None
        stored = self.known.get(sighting.id)
        if stored is None or sighting.found.problem is not None:
            return False
        self.count["known"] += 1
        self.present.add(sighting.id)
        corrected = sighting.id in self.corrected and self.origin == "source"
        if stored == sighting.label or corrected or (sighting.id, sighting.label) in self.former:
            self.confirmed.add(sighting.id)
        else:
            sighting.found = replace(sighting.found, data=None)  # the data set has it
            self.otherwise.setdefault(sighting.id, {}).setdefault(sighting.label, sighting)
        return True

    def _settle_known(self) -> None:
        """A known item under one other label was relabelled; under several, or beside its own, its labels contradict each other. An inbox
        corrects by its CSV files alone, except what was withdrawn."""
        for id, sightings in list(self.otherwise.items()):
            alone = len(sightings) == 1 and id not in self.confirmed
            allowed = id in self.withdrawn and set(sightings) <= set(self.scenario.validation.labels)
            if alone and (self.origin == "source" or allowed):
                continue
            del self.otherwise[id]
            for sighting in sightings.values():
                self.count["known"] -= 1
                self._refuse(sighting, "label-conflict", f"the data set holds the same image as {self.known[id]!r}")
            if id not in self.confirmed and self.origin == "inbox":
                self.present.discard(id)

    def _said_of_known(self) -> tuple[list[Correction], list[Withdrawal]]:
        """The records of what the source takes away, gives back and labels otherwise, as far as it is followed in that; all of it is
        counted.

        Raises:
            DataRefused: it takes away more than `collect.max_withdrawn` allows.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        by, follows = (SOURCE, self.settings.mirror) if self.origin == "source" else (None, True)
        labels, withdrawn = [], []
        for id, sightings in self.otherwise.items():
            [(label, sighting)] = sightings.items()
            self._differs("relabelled", f"{sighting.found.name}: {self.known[id]} → {label}")
            if follows or id in self.withdrawn:
                labels.append(Correction(id.hex(), label, self.known[id], by, at, sighting.found.name))
        back = self.withdrawn & self.present
        gone: set[bytes] = set()
        if self.origin == "source":
            back, gone = back - self.decided, self.known.keys() - self.present - self.withdrawn - self.decided
        names, of_the_source = self._sources_of(back | gone) if back or gone else ({}, 0)
        for id in sorted(back & names.keys()):
            self._differs("reinstated", names[id])
            withdrawn.append(Withdrawal(id.hex(), False, by, at, names[id]))
        for id in sorted(gone & names.keys()):
            if names[id] in self.unread:
                continue
            self._differs("gone", names[id])
            if follows:
                withdrawn.append(Withdrawal(id.hex(), True, by, at, names[id]))
        if follows and self.count["gone"] > self.settings.max_withdrawn * of_the_source:
            raise DataRefused(
                f"{self.count['gone']:,} of {of_the_source:,} items that scenario {self.scenario.name} has from its source are gone from it "
                f"({', '.join(self.differences['gone'])}, …), and collect.mirror would withdraw them",
                expected=f"at most {self.settings.max_withdrawn:.1%} (collect.max_withdrawn)",
                fix="See that the source is whole: a disk may be away. If it is meant so, set collect.max_withdrawn: 1 for this run.",
            )
        return labels, withdrawn

    def _differs(self, what: str, example: str) -> None:
        self.count[what] += 1
        shown = self.differences.setdefault(what, [])
        if len(shown) < EXAMPLES:
            shown.append(example)

    def _sources_of(self, ids: set[bytes]) -> tuple[dict[bytes, str], int]:
        """Where those of these items came from that the source has brought, or that are withdrawn; and how many of the data set's items in
        use the source has brought. Of parts that don't say whence they came, the source has brought those of which it has the half."""
        import pyarrow.parquet as pq

        names: dict[bytes, str] = {}
        brought = 0
        for folder in self.folders:
            for part in parts([folder]):
                rows = pq.read_table(part, columns=["id", "source"]).to_pydict()
                here = [bytes.fromhex(id) for id in rows["id"]]
                came_from = origin(part) or ("source" if 2 * sum(id in self.present for id in here) >= len(here) else "inbox")
                brought += sum(id not in self.withdrawn for id in here) if came_from == "source" else 0
                for id, name in zip(here, rows["source"], strict=True):
                    if id in ids and (came_from == "source" or id in self.withdrawn):
                        names[id] = name
        return names, brought

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
            self.count["deep"] += verdict.header.deep
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
        with PartWriter(again, self.origin) as writer:
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
                f"there is no item in the source of scenario {self.scenario.name}: {self.skipped.counts.total():,} entries, none of "
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
