"""The data contract of a kind: what an item is, and how items are collected, checked and converted to arrays."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from evergreen.kinds.base.codec import Codec
from evergreen.kinds.base.proposal import Ask, Sections
from evergreen.kinds.base.split import ArrayFile, Assignment
from evergreen.scenario.settings import Scenario

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from evergreen.data.collecting.base import Inspector, Recogniser
    from evergreen.data.inbox import Inbox
    from evergreen.data.sources.base import Source

S = TypeVar("S", bound=Scenario)


@dataclass(frozen=True)
class DataSet:
    """All collected items of a scenario, in the order of their arrival.

    Attributes:
        root: of the checkout.
        batches: all batch folders, including those that hold only records.
        folders: those that hold items.
        rows: `id`, `label` (with corrections applied), `group` (from `Contract.groups`), `split` (as given by the source) and
            the contract's `columns`.
        withdrawn: bool `(items,)`: True for items that are no longer used.
        former: the earlier splits of the first items, from before other items were removed for good; None if none were.
    """

    root: Path
    batches: Sequence[Path]
    folders: Sequence[Path]
    rows: pa.Table
    withdrawn: np.ndarray
    former: Assignment | None

    def __len__(self) -> int:
        return len(self.withdrawn)


@dataclass(frozen=True)
class Prepared:
    """The items as arrays, before they are allocated to splits.

    Attributes:
        arrays: by name, `(items, …)` each, in the order of arrival.
        facts: values that hold for all items; each is written as a JSON file beside the splits' arrays (`Split.facts`).
        details: anything that the contract itself needs to assign splits.
    """

    arrays: Mapping[str, np.ndarray | ArrayFile]
    facts: Mapping[str, Any]
    details: Any = None


class Contract(ABC, Generic[S]):
    """Defines the items of one kind. Its data sets have the columns `id`, `label`, `group`, `split`, `source` and
    `collected_at`, and further ones of the kind. `label` is the known truth of an item, which can be corrected: text, a number,
    or null.

    Attributes:
        noun: the word for an item, in the singular.
        description: of a model, if the scenario has none.
        settings: names of settings that `prepare` and `assign` depend on in addition to `seed` and the section `preprocess`,
            such as `validate.labels`.
        left_out_because: why items may be in no split, as a clause.
        fix_of_empty_split: what to do if no items are left for training or testing.
        inbox_file: the word for a file in the inbox, in the singular.
        properties: numeric columns that are monitored for drift; some expectations compare new items with their medians.
    """

    noun: ClassVar[str]
    description: ClassVar[str]
    properties: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[tuple[str, ...]] = ()
    left_out_because: ClassVar[str] = "they were withdrawn"
    fix_of_empty_split: ClassVar[str] = "Collect more items."
    inbox_file: ClassVar[str] = "file"

    @abstractmethod
    def propose(self, source: Path, *, labels_at: int | None, follow_links: bool, ask: Ask | None) -> Sections:
        """Propose a scenario for a source, for `evergreen new`.

        Args:
            source: a folder or archive.
            labels_at: the level of the folders that name the labels, counted from 1 below the source; None to detect it.
                Ignored if items have no labels.
            follow_links: whether to follow links that lead out of the folder.
            ask: called with a question if the source can be understood in several ways; None to take the likeliest one.

        Raises:
            SourceDoesNotFit: the source holds no items of this kind.
            WrongUse: it holds some, but no scenario can be made for them.
        """

    def source(self, scenario: S, files: Source) -> Source:
        """The scenario's source, with the entries in which `recogniser` looks for items; by default its files.

        Args:
            files: the folder, archive or built-in data set that the section `collect` names.
        """
        return files

    @abstractmethod
    def recogniser(self, scenario: S, source: Source) -> Recogniser:
        """The recogniser of items in the scenario's source."""

    @abstractmethod
    def inbox_recogniser(self, scenario: S, inbox: Inbox) -> Recogniser:
        """The recogniser of items in the scenario's inbox."""

    @abstractmethod
    def inspector(self, scenario: S, folders: Sequence[Path], source: Source, recogniser: Recogniser) -> Inspector:
        """The inspector, which checks items and makes rows of them.

        Args:
            folders: the data set's batch folders.
        """

    @abstractmethod
    def count(self, scenario: S, source: Source, name: str) -> int:
        """Estimate how many items an entry of the source holds, from its name alone."""

    def known_labels(self, scenario: S) -> Sequence[str]:
        """The labels that items may have, if they form a fixed set; else none."""
        return ()

    def by_label(self, scenario: S, labels: Iterable[Any]) -> dict[str, int]:
        """Count the items of each label, in alphabetical order; without `known_labels`, all items are counted together."""
        counts = Counter(map(str, labels)) if self.known_labels(scenario) else Counter(f"{self.noun}s" for _ in labels)
        return dict(sorted(counts.items()))

    def ids_in(self, scenario: S, content: bytes) -> set[str]:
        """The ids of the items in a file of the inbox or in an archive's member, which `evergreen forget` uses to remove such
        files. By default a file is one item, whose id is its SHA-256."""
        return {hashlib.sha256(content).hexdigest()}

    @abstractmethod
    def corrected(self, scenario: S, text: str) -> str:
        """The label that a correction from the inbox gives an item, in the form in which labels are compared and stored.

        Raises:
            BadItem: items cannot have this label (`correction-unknown-label`).
        """

    @abstractmethod
    def expectations(self, scenario: S, accepted: Mapping[str, float]) -> list[Any]:
        """The requirements on the items, as expectations of Great Expectations on a table of all columns except the encoded
        items, of `derived_columns`, and of `new` (1 or 0), `duplicate_share` and `conflict_share`.

        Each has its wording in `description`, and in `meta`: `about` (the subject), `expected`, and `unit` (of the observed
        number, or what items do that violate it).

        Args:
            accepted: medians of `properties` in the last accepted version, with which new items are compared; empty if there is
                none.
        """

    def derived_columns(self, scenario: S, items: pd.DataFrame) -> Mapping[str, np.ndarray]:
        """Further columns of the table that `expectations` are checked on, which depend on several items, such as the time
        since the one before. By default none.

        Args:
            items: a row for each item, with the columns of the data set except the encoded items.

        Returns:
            Arrays by name, `(items,)` each.
        """
        return {}

    @abstractmethod
    def columns(self, scenario: S) -> tuple[str, ...]:
        """The further columns that `groups`, `prepare` and `assign` need."""

    def groups(self, scenario: S, root: Path, rows: pa.Table) -> pa.ChunkedArray:
        """The group of each item, text or null; by default as given by the source.

        Args:
            root: of the checkout.
            rows: as in `DataSet`, with the groups given by the source.

        Raises:
            WrongUse: the scenario's rule for groups does not match the items.
        """
        return rows["group"]

    @abstractmethod
    def prepare(self, scenario: S, data: DataSet, scratch: Path) -> Prepared:
        """Convert the items to arrays.

        Args:
            scratch: an empty folder for large arrays, which is removed afterwards.

        Raises:
            EvergreenError: an item of the data set cannot be used.
        """

    @abstractmethod
    def assign(self, scenario: S, data: DataSet, prepared: Prepared) -> Assignment:
        """Assign each item a split, or the reason why it has none. Withdrawn items are assigned like all others."""

    @abstractmethod
    def counts(self, prepared: Prepared, chosen: np.ndarray) -> dict[str, int]:
        """Count some of the items by label, if there are labels.

        Args:
            chosen: bool `(items,)`.
        """

    @abstractmethod
    def items(self, scenario: S, folders: Sequence[Path], ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Yield ids and items, in the form that the codec takes, in the order of their arrival."""

    def labels(self, scenario: S, labels: Sequence[Any], facts: Mapping[str, Any]) -> np.ndarray:
        """Labels in the form that `Judge.tally` takes; by default numbers, float64 `(items,)`."""
        return np.array(labels, np.float64)

    def measure(self, items: Sequence[Any], codec: Codec, folders: Sequence[Path]) -> np.ndarray:
        """Compute the `properties` of items, float32 `(items, properties)`; by default there are none.

        Args:
            items: as the codec takes them.
            folders: batch folders of the data set that the items belong to; empty if they belong to none.

        Raises:
            BadItem: one of them cannot be used.
        """
        return np.empty((len(items), 0), np.float32)

    def thumbnail(self, content: bytes) -> str | None:
        """A small picture of an encoded item as a `data:` address; None if it has none."""
        return None
