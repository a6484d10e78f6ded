"""Recognises labelled files by what the source states of them, or by their paths, of which a regular expression captures label,
group and split."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable

from evergreen.data.collecting.base import Candidate
from evergreen.data.folder_names import SPLITS, is_leftover, split_of
from evergreen.data.inbox import PATTERN, Inbox
from evergreen.data.skipped import Skipped, reason_to_skip_unlabelled
from evergreen.data.sources.base import Source, SourceEntry, Stated
from evergreen.errors import WrongUse
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.names import tidy

log = logging.getLogger("evergreen")


class LabelledFiles(ABC):
    """Recognises one item in each entry whose path matches a pattern and whose label is accepted.

    Attributes:
        skipped: the counts of entries that were not accepted.
    """

    def __init__(self, scenario: ImageScenario, source: Source, pattern: str) -> None:
        self.scenario, self.source = scenario, source
        self.pattern = re.compile(unicodedata.normalize("NFC", pattern), re.DOTALL)
        self.skipped = Skipped()
        self._encoding_is_reported = False

    @abstractmethod
    def accepts(self, entry: SourceEntry, label: str) -> bool:
        """True if an entry is accepted; otherwise it is counted as skipped.

        Args:
            label: from the path; empty if the path gives none.
        """

    def may_hold_items(self, entry: SourceEntry) -> bool:
        """A cheap test that counts nothing: False only for an entry that `recognise` would not accept."""
        return self._match(entry) is not None

    def recognise(self, entry: SourceEntry) -> Iterable[Candidate]:
        """The item of an entry, if the entry is accepted.

        Raises:
            WrongUse: the pattern gives a split that does not exist.
        """
        self._report_encoding(entry)
        stated = self.stated(entry)
        label = tidy(stated.label or "")
        if not self.accepts(entry, label):
            return ()
        split = self._split(stated.split)
        id = hashlib.sha256(entry.data).digest() if entry.data is not None else None
        return (Candidate(entry, id, self.renamed(label), stated.group, split, entry.data),)

    def stated(self, entry: SourceEntry) -> Stated:
        """What is stated of an entry, by default by its name."""
        match = self._match(entry)
        groups = match.groupdict() if match else {}
        beside = entry.stated or Stated(None)  # of a frame: its clip
        return Stated(groups.get("label"), groups.get("group") or beside.group, groups.get("split"))

    def finish(self, items: int) -> None:
        """Log which entries were skipped, one line per reason."""
        for sentence in self.skipped.sentences():
            log.log(logging.WARNING if self.skipped.lost or self.skipped.links else logging.INFO, "%s", sentence)

    def renamed(self, label: str) -> str:
        """Apply `collect.rename` to a label of the source."""
        return self.scenario.collect.rename.get(label, label)

    def _match(self, entry: SourceEntry) -> re.Match[str] | None:
        return self.pattern.fullmatch(unicodedata.normalize("NFC", entry.name))

    def _split(self, name: str | None) -> str | None:
        if name is None:
            return None
        split = split_of(name)
        if split not in ("train", "val", "test"):
            words = ", ".join(word for word, split in SPLITS.items() if split != "unlabelled")
            by_pattern = self.scenario.collect.annotations is None
            raise WrongUse(
                f"collect.{'pattern' if by_pattern else 'annotations'} of scenario {self.scenario.name} gives a split that there is not",
                expected=f"one of {words}", received=name,
                fix="Let the group `split` match these only." if by_pattern else "Correct it in the annotations, or take no split from them.",
            )  # fmt: skip
        return split

    def _report_encoding(self, entry: SourceEntry) -> None:
        if entry.encoding is None or self._encoding_is_reported:
            return
        self._encoding_is_reported = True
        log.warning(
            "The names in %s are not in UTF-8; %s was assumed, by what letters that gives. If labels look wrong, set collect.encoding "
            "in scenarios/%s.yaml.", self.source.describe(), entry.encoding, self.scenario.name,
        )  # fmt: skip


class SourceFiles(LabelledFiles):
    """Recognises the labelled files of a scenario's source by `collect.pattern`. Any label is accepted, since validate checks
    all labels."""

    def __init__(self, scenario: ImageScenario, source: Source) -> None:
        super().__init__(scenario, source, scenario.collect.pattern)
        self._example = ""  # of a skipped name

    def accepts(self, entry: SourceEntry, label: str) -> bool:
        """True if the entry has a label and is not a leftover of an operating system."""
        if not label or is_leftover(entry.name):
            self.skipped.skip(entry)
            self._example = self._example or entry.name
            return False
        self.skipped.take(entry.name)
        return True

    def finish(self, items: int) -> None:
        """Log which entries were skipped.

        Raises:
            WrongUse: the source holds no items.
        """
        if not items:
            raise WrongUse(
                f"there is no item in the source of scenario {self.scenario.name}: {self.skipped.counts.total():,} entries, none of "
                f"which matches collect.pattern", expected=self.scenario.collect.pattern, received=self._example or "nothing at all",
                fix=f"Correct collect.pattern in scenarios/{self.scenario.name}.yaml, or the source.",
            )  # fmt: skip
        super().finish(items)


class AnnotatedFiles(SourceFiles):
    """Recognises the images of which the source's annotations state a label (`collect.annotations`). An image that cannot be
    read is one even if its label is not known."""

    def stated(self, entry: SourceEntry) -> Stated:
        """What the annotations state; nothing of a file that they do not name."""
        return entry.stated or Stated(None)

    def accepts(self, entry: SourceEntry, label: str) -> bool:
        """True if the entry has a label, or should have one and cannot be read."""
        if label or (entry.stated is not None and entry.problem):
            self.skipped.take(entry.name)
            return True
        self.skipped.skip(entry, reason_to_skip_unlabelled(entry))
        self._example = self._example or entry.name
        return False

    def may_hold_items(self, entry: SourceEntry) -> bool:
        """True if the annotations state a label."""
        return entry.stated is not None and entry.stated.label is not None

    def finish(self, items: int) -> None:
        """Log which entries were skipped.

        Raises:
            WrongUse: the source holds no items.
        """
        if not items:
            raise WrongUse(
                f"there is no item in the source of scenario {self.scenario.name}: of its {self.skipped.counts.total():,} entries none has a label "
                f"in the annotations ({', '.join(self.skipped.counts)})", received=self._example or "nothing at all",
                fix=f"Correct collect.annotations in scenarios/{self.scenario.name}.yaml, or the source.",
            )  # fmt: skip
        super().finish(items)


class InboxFiles(LabelledFiles):
    """Recognises the labelled files of an inbox, which has one folder per label. Files with an unknown label stay there."""

    def __init__(self, scenario: ImageScenario, inbox: Inbox) -> None:
        super().__init__(scenario, inbox, PATTERN)
        self._inbox = inbox
        self._labels = frozenset(scenario.validation.labels)

    def accepts(self, entry: SourceEntry, label: str) -> bool:
        """True if the label is one of the scenario's."""
        if self.renamed(label) in self._labels:
            return True
        self._inbox.leave(label)
        return False

    def may_hold_items(self, entry: SourceEntry) -> bool:
        """Always True."""
        return True
