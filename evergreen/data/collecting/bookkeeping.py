"""Takes what is new in a source into a batch beside the data set, whatever kind of items it holds.

Every item ends in the batch, is already known, is an exact copy of another, or is in quarantine with its reason.
"""

from __future__ import annotations

import shutil
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evergreen import progress
from evergreen.data.collecting.base import Candidate, Inspector, Policy, Recogniser
from evergreen.data.collecting.known_items import KnownItems
from evergreen.data.dataset import PartWriter, Quarantine, iter_parts, stage_records
from evergreen.data.sources.base import Source, SourceEntry
from evergreen.errors import BadItem, DataRefused

CHUNK_ITEMS = 256
CHUNK_BYTES = 4 * 2**20

Chunk = list[tuple[Candidate, bool]]  # items in the order of the source, and whether each is inspected


class Collecting:
    """One collection.

    Attributes:
        count: items `seen`, `added`, `known`, `duplicates` and `forgotten`, and the `bytes` of those added.
        quarantined: items in quarantine for each reason.
    """

    def __init__(
        self,
        source: Source,
        recogniser: Recogniser,
        inspector: Inspector,
        known: KnownItems,
        quarantine: Quarantine,
        policy: Policy,
    ) -> None:
        self.source, self.recogniser, self.inspector = source, recogniser, inspector
        self.known, self.quarantine, self.policy = known, quarantine, policy
        self.collected_at = source.published_at or datetime.now(UTC).replace(microsecond=0)
        self.count: Counter[str] = Counter()
        self.quarantined: Counter[str] = Counter()
        self._pending: set[bytes] = set()  # ids that are being inspected
        self._labels: dict[bytes, str] = {}  # of the new items
        self._bad: dict[bytes, tuple[str, str]] = {}  # reason and detail of those that inspection has refused
        self._conflicting: set[bytes] = set()  # seen under several labels

    def run(self, staging: Path) -> str | None:
        """Collect into a staging area.

        Returns:
            The name of the staged batch folder; None where there is nothing new.

        Raises:
            WrongUse: the source is missing, or holds no item and must.
            DataRefused: it is damaged or a trap, or more of it is bad or gone than the policy allows.
        """
        writing = staging / ".writing"
        writing.mkdir(parents=True)
        with PartWriter(writing, self.inspector.schema, self.policy.origin) as writer:
            self._read(writer)
        items_hash = writer.hash
        if self._conflicting:
            writing, items_hash = self._without_conflicts(writing)
        for candidate, detail in self.known.conflicts():
            self.count["known"] -= 1
            self._refuse(candidate, "label-conflict", detail)
        self._check_limits()
        self.recogniser.finish(self.count["seen"] + self.count["forgotten"])
        changes = self.known.changes()
        number, name = len(self.known.folders), None
        if self.count["added"]:
            self.inspector.record(writing)
            target = staging / f"{number:05d}-{items_hash}"
            writing.rename(target)
            number, name = number + 1, target.name
        else:
            shutil.rmtree(writing)
        name_of_changes = stage_records(staging, number, *changes)
        if name is None and name_of_changes is None:
            shutil.rmtree(staging)
        return name or name_of_changes

    def _read(self, writer: PartWriter) -> None:
        waiting: deque[tuple[Chunk, Future[list[Any]]]] = deque()
        with self.inspector, progress.task("collect", unit="items") as report:
            for chunk in self._chunks():
                answer = self.inspector.submit([candidate for candidate, is_inspected in chunk if is_inspected])
                waiting.append((chunk, answer))
                if len(waiting) > self.inspector.max_pending:
                    self._settle(*waiting.popleft(), writer)
                report(self.count["seen"], fraction=chunk[-1][0].entry.fraction_read)
            while waiting:
                self._settle(*waiting.popleft(), writer)

    def _chunks(self) -> Iterator[Chunk]:
        """The source's items, except those that the data set holds, some at a time."""
        chunk: Chunk = []
        size_bytes = 0
        for candidate in self._candidates():
            is_inspected = candidate.entry.problem is None and not self._is_met(candidate.id)
            if is_inspected and candidate.id is not None:
                self._pending.add(candidate.id)
            chunk.append((candidate, is_inspected))
            size_bytes += len(candidate.content or b"")
            if len(chunk) >= CHUNK_ITEMS or size_bytes >= CHUNK_BYTES:
                yield chunk
                chunk, size_bytes = [], 0
        if chunk:
            yield chunk

    def _candidates(self) -> Iterator[Candidate]:
        for entry in self.source.stream():
            for candidate in self.recogniser.recognise(entry):
                if self.known.is_forgotten(candidate):
                    self.count["forgotten"] += 1
                    continue
                self.count["seen"] += 1
                if self.known.compare(candidate):
                    self.count["known"] += 1
                else:
                    yield candidate

    def _is_met(self, id: bytes | None) -> bool:
        return id in self._pending or id in self._labels or id in self._bad

    def _settle(self, chunk: Chunk, answer: Future[list[Any]], writer: PartWriter) -> None:
        """Decide about a chunk; items come in the order of the source, so that the first one of several copies is settled
        before them."""
        verdicts = iter(answer.result())
        for candidate, is_inspected in chunk:
            verdict = next(verdicts) if is_inspected else None
            if candidate.id is not None and verdict is not None:
                self._pending.discard(candidate.id)
                if isinstance(verdict, BadItem):
                    self._bad[candidate.id] = (verdict.reason, verdict.detail)
            if verdict is None:
                candidate.content = None
            if verdict is None or isinstance(verdict, BadItem):
                self._settle_without_adding(candidate)
            else:
                self._add(candidate, verdict, writer)

    def _settle_without_adding(self, candidate: Candidate) -> None:
        """An item that could not be read, is bad, or is a copy of an earlier one, with which its content is kept."""
        id, entry = candidate.id, candidate.entry
        if entry.problem is not None:
            self._refuse(candidate, entry.problem, entry.detail)
            return
        assert id is not None
        if id in self._bad:
            self._refuse(candidate, *self._bad[id])
        elif id in self._conflicting:
            self._refuse(candidate, "label-conflict", f"the same {self.inspector.noun} has several labels")
        elif self._labels[id] == candidate.label:
            self.count["duplicates"] += 1
        else:
            self._conflicting.add(id)
            self._refuse(candidate, "label-conflict", f"the same {self.inspector.noun} has the label {self._labels[id]!r} too")

    def _add(self, candidate: Candidate, inspection: Any, writer: PartWriter) -> None:
        assert candidate.id is not None and candidate.content is not None
        self._labels[candidate.id] = candidate.label
        self.count["added"] += 1
        self.count["bytes"] += len(candidate.content)
        writer.add_row(self.inspector.row(candidate, inspection, self.collected_at))

    def _refuse(self, candidate: Candidate, reason: str, detail: str) -> None:
        entry = candidate.entry
        self.quarantined[reason] += 1
        self.quarantine.add(
            entry.name, reason, detail, id=candidate.id.hex() if candidate.id else None, data=candidate.content, label=candidate.label,
            size_bytes=entry.size_bytes, collected_at=self.collected_at,
        )  # fmt: skip

    def _without_conflicts(self, writing: Path) -> tuple[Path, str]:
        """Write the batch again without the images that turned out to have several labels, since it is not known which one is
        right.

        Returns:
            The new folder, and the hash of its items.
        """
        again = writing.with_name(".writing-again")
        again.mkdir()
        with PartWriter(again, self.inspector.schema, self.policy.origin) as writer:
            for rows in iter_parts([writing]):
                for row in rows.to_pylist():
                    id = bytes.fromhex(row["id"])
                    if id not in self._conflicting:
                        writer.add_row(tuple(row.values()))
                        continue
                    content = b"".join(value for value in row.values() if isinstance(value, bytes))
                    self.count["added"] -= 1
                    self.count["bytes"] -= len(content)
                    entry = SourceEntry(row["source"], content, len(content))
                    candidate = Candidate(entry, id, str(row["label"]), None, None, content)
                    self._refuse(candidate, "label-conflict", f"the same {self.inspector.noun} has another label too")
        shutil.rmtree(writing)
        return again, writer.hash

    def _check_limits(self) -> None:
        seen, damaged = self.count["seen"], self.quarantined["damaged"]
        bad = self.quarantined.total() - damaged
        records = self.quarantine.folder / "records.jsonl"
        if bad > self.policy.max_bad * seen:
            reasons = ", ".join(
                f"{number:,} {reason}" for reason, number in self.quarantined.most_common() if reason != "damaged"
            )
            raise DataRefused(
                f"{bad:,} of {seen:,} items are bad: {reasons}", expected=f"at most {self.policy.max_bad:.1%} (collect.max_bad)",
                fix=f"See {records}, and correct the source.",
            )  # fmt: skip
        if damaged > self.policy.max_damaged * seen:
            raise DataRefused(
                f"{damaged:,} of {seen:,} items are damaged: they can be decoded, but part of their pixels is wrong",
                expected=f"at most {self.policy.max_damaged:.1%} (collect.max_damaged)",
                fix=f"Get intact copies of the files named in {records}, or raise collect.max_damaged.",
            )
