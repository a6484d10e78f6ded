"""Compares what a source has with what the data set holds: known items, other labels for them, items that are gone or back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from evergreen.data.collecting.base import Candidate, Policy
from evergreen.data.dataset import (
    SOURCE,
    Correction,
    Withdrawal,
    batches,
    corrections,
    forgotten,
    id_digest,
    known_ids,
    origin,
    parts,
    records,
    withdrawals,
)
from evergreen.errors import DataRefused
from evergreen.workspace import Workspace

MAX_EXAMPLES = 5  # of each difference


class KnownItems:
    """The items of the data set, and what a source has of them as far as it was read.

    Attributes:
        folders: the data set's batch folders.
        count: items that are `gone`, `relabelled` and `reinstated`, once `changes` was called.
        differences: some examples of each of the three.
    """

    def __init__(self, workspace: Workspace, name: str, policy: Policy, noun: str) -> None:
        """
        Args:
            noun: what an item is, in the singular.
        """
        self.name, self.policy, self.noun = name, policy, noun
        self.folders = batches(workspace, name)
        self.count: Counter[str] = Counter()
        self.differences: dict[str, list[str]] = {}
        self._labels = known_ids(workspace, name)
        # A source goes on giving the label that a person corrected here, and an inbox may bring again what it brought once.
        by_people = [one for one in corrections(self.folders) if one.by != SOURCE]
        self._former = {(bytes.fromhex(one.id), one.old_label) for one in by_people}
        self._corrected = {bytes.fromhex(one.id) for one in by_people}
        self._withdrawn = {bytes.fromhex(id) for id in records(self.folders).withdrawn}
        # A person has brought these back, or withdrawn them: the source no longer decides about them.
        self._decided = {bytes.fromhex(one.id) for one in withdrawals(self.folders) if one.by != SOURCE}
        self._forgotten = forgotten(self.folders)
        self._present: set[bytes] = set()  # those that the source has
        self._confirmed: set[bytes] = set()  # under the label that they have here
        self._otherwise: dict[bytes, dict[str, Candidate]] = {}  # under others, by label
        self._unread: set[str] = set()  # names of what the source has and could not give

    def is_forgotten(self, candidate: Candidate) -> bool:
        """Whether `evergreen forget` took the item out: it is not collected again."""
        return bool(self._forgotten) and candidate.id is not None and id_digest(candidate.id) in self._forgotten

    def compare(self, candidate: Candidate) -> bool:
        """Whether the data set holds the item already. If the source gives it another label, that is settled once all was
        compared."""
        id, label = candidate.id, candidate.label
        if candidate.entry.problem is not None:
            self._unread.add(candidate.entry.name)
            return False
        if id is None or id not in self._labels:
            return False
        self._present.add(id)
        corrected = self.policy.whole and id in self._corrected
        if label == self._labels[id] or corrected or (id, label) in self._former:
            self._confirmed.add(id)
        else:
            candidate.entry, candidate.content = replace(candidate.entry, data=None), None  # the data set has it
            self._otherwise.setdefault(id, {}).setdefault(label, candidate)
        return True

    def conflicts(self) -> Iterator[tuple[Candidate, str]]:
        """The items whose labels contradict the data set, with a clause about each; call it once, when all was compared.

        A known item under one other label was relabelled; under several, or beside its own, its labels contradict each other.
        An inbox corrects by its CSV files alone, except what was withdrawn.
        """
        for id, candidates in list(self._otherwise.items()):
            has_one_label = len(candidates) == 1 and id not in self._confirmed
            if has_one_label and (self.policy.whole or id in self._withdrawn):
                continue
            del self._otherwise[id]
            for candidate in candidates.values():
                yield candidate, f"the data set holds the same {self.noun} as {self._labels[id]!r}"
            if id not in self._confirmed and not self.policy.whole:
                self._present.discard(id)

    def changes(self) -> tuple[list[Correction], list[Withdrawal]]:
        """The records of what the source takes away, gives back and labels otherwise, as far as it is followed in that; all of
        it is counted. Call it after `conflicts`.

        Raises:
            DataRefused: the source takes away more than the policy allows.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        policy, new_labels, withdrawn = self.policy, [], []
        for id, candidates in self._otherwise.items():
            [(label, candidate)] = candidates.items()
            self._differs("relabelled", f"{candidate.entry.name}: {self._labels[id]} → {label}")
            if policy.followed or id in self._withdrawn:
                new_labels.append(Correction(id.hex(), label, self._labels[id], policy.author, at, candidate.entry.name))
        back = self._withdrawn & self._present
        gone: set[bytes] = set()
        if policy.whole:
            back, gone = back - self._decided, self._labels.keys() - self._present - self._withdrawn - self._decided
        names, items_of_source = self._names_of(back | gone) if back or gone else ({}, 0)
        for id in sorted(back & names.keys()):
            self._differs("reinstated", names[id])
            withdrawn.append(Withdrawal(id.hex(), False, policy.author, at, names[id]))
        for id in sorted(gone & names.keys()):
            if names[id] in self._unread:
                continue
            self._differs("gone", names[id])
            if policy.followed:
                withdrawn.append(Withdrawal(id.hex(), True, policy.author, at, names[id]))
        if policy.followed and self.count["gone"] > policy.max_withdrawn * items_of_source:
            raise DataRefused(
                f"{self.count['gone']:,} of {items_of_source:,} items that scenario {self.name} has from its source are gone from it "
                f"({', '.join(self.differences['gone'])}, …), and collect.mirror would withdraw them",
                expected=f"at most {policy.max_withdrawn:.1%} (collect.max_withdrawn)",
                fix="See that the source is whole: a disk may be away. If it is meant so, set collect.max_withdrawn: 1 for this run.",
            )
        return new_labels, withdrawn

    def _differs(self, what: str, example: str) -> None:
        self.count[what] += 1
        shown = self.differences.setdefault(what, [])
        if len(shown) < MAX_EXAMPLES:
            shown.append(example)

    def _names_of(self, ids: set[bytes]) -> tuple[dict[bytes, str], int]:
        """The paths of those of these items that the source has brought, or that are withdrawn; and how many of the data set's
        items in use the source has brought. Of parts that don't record their origin, the source has brought those of which it
        has half."""
        import pyarrow.parquet as pq

        names: dict[bytes, str] = {}
        brought = 0
        for part in parts(self.folders):
            rows = pq.read_table(part, columns=["id", "source"]).to_pydict()
            here = [bytes.fromhex(id) for id in rows["id"]]
            came_from = origin(part) or ("source" if 2 * sum(id in self._present for id in here) >= len(here) else "inbox")
            brought += sum(id not in self._withdrawn for id in here) if came_from == "source" else 0
            for id, name in zip(here, rows["source"], strict=True):
                if id in ids and (came_from == "source" or id in self._withdrawn):
                    names[id] = name
        return names, brought
