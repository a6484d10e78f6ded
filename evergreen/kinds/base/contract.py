"""What an item of a kind is: how it is collected, checked, and made into arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from evergreen.data.collecting.base import Inspector, Recogniser
from evergreen.data.inbox import Inbox
from evergreen.data.sources.base import Source
from evergreen.kinds.base.codec import Codec
from evergreen.kinds.base.split import ArrayFile, Assignment
from evergreen.scenario.settings import Scenario

if TYPE_CHECKING:
    import pyarrow as pa

S = TypeVar("S", bound=Scenario)


@dataclass(frozen=True)
class DataSet:
    """All items of a scenario that were collected, in the order of their arrival.

    Attributes:
        root: of the checkout.
        batches: all batch folders, those of records alone among them.
        folders: those that hold items.
        rows: `id`, `label` (as it is now), `group`, `split` (as the source gives it) and the contract's `columns`.
        withdrawn: bool `(items,)`: out of use.
        former: the splits that the first items had when others, which are gone for good, were among them; None where none are gone.
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
        facts: what holds for all of them; each becomes a JSON file beside the splits' arrays (`Split.facts`).
        details: what the contract itself needs to assign splits.
    """

    arrays: Mapping[str, np.ndarray | ArrayFile]
    facts: Mapping[str, Any]
    details: Any = None


class Contract(ABC, Generic[S]):
    """Of one kind. The parts of its data set have the columns `id`, `label`, `group`, `split`, `source` and `collected_at`, and those of its own.
    `label` holds what is known of an item and may be corrected: text, a number, or null.

    Attributes:
        noun: what an item is, in the singular.
        description: of a model, where the scenario has none.
        fix_of_empty_split: what to do where no item is left to learn from or to test on.
        properties: columns with numbers that are watched for drift, and whose medians new items are compared with by some expectations.
    """

    noun: ClassVar[str]
    description: ClassVar[str]
    properties: ClassVar[tuple[str, ...]] = ()
    fix_of_empty_split: ClassVar[str] = "Collect more items."

    @abstractmethod
    def recogniser(self, scenario: S, source: Source) -> Recogniser:
        """What recognises items in the scenario's source."""

    @abstractmethod
    def inbox_recogniser(self, scenario: S, inbox: Inbox) -> Recogniser:
        """What recognises items in its inbox."""

    @abstractmethod
    def inspector(self, scenario: S, folders: Sequence[Path], source: Source, recogniser: Recogniser) -> Inspector:
        """What inspects items, and makes rows of them.

        Args:
            folders: the data set's batch folders.
        """

    @abstractmethod
    def count(self, scenario: S, source: Source, name: str) -> int:
        """How many items an entry of the source probably holds, by its name alone, for an estimate."""

    def known_labels(self, scenario: S) -> Sequence[str]:
        """The labels that items may have, where they are a few; else none."""
        return ()

    @abstractmethod
    def corrected(self, scenario: S, text: str) -> str:
        """The label that a correction of the inbox gives an item, in the form in which it is compared and kept.

        Raises:
            BadItem: an item cannot have it (`correction-unknown-label`).
        """

    @abstractmethod
    def expectations(self, scenario: S, accepted: Mapping[str, float]) -> list[Any]:
        """What the items must be, as Great Expectations' expectations on a table of all columns but the encoded items, with `new` (1 or 0),
        `duplicate_share` and `conflict_share`.

        Each has its wording in `description`, and in `meta`: `about` (what is judged), `expected`, and `unit` (of the observed
        number; or what those items do that don't meet it).

        Args:
            accepted: medians of `properties` in the last accepted version, which the new items are compared with; empty where there is none.
        """

    @abstractmethod
    def columns(self, scenario: S) -> tuple[str, ...]:
        """Further columns that `prepare` and `assign` need."""

    @abstractmethod
    def prepare(self, scenario: S, data: DataSet, scratch: Path) -> Prepared:
        """Make arrays of the items.

        Args:
            scratch: an empty folder for large ones, which is removed afterwards.

        Raises:
            EvergreenError: an item of the data set cannot be used.
        """

    @abstractmethod
    def assign(self, scenario: S, data: DataSet, prepared: Prepared) -> Assignment:
        """Give each item its split, or the reason why it has none. Withdrawn items are allocated like all others."""

    @abstractmethod
    def counts(self, prepared: Prepared, chosen: np.ndarray) -> dict[str, int]:
        """Some of the items by label, where there are labels to count by.

        Args:
            chosen: bool `(items,)`.
        """

    @abstractmethod
    def items(self, scenario: S, folders: Sequence[Path], ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """The ids of some items and the items themselves, as the codec takes them, in the order of their arrival."""

    def labels(self, scenario: S, labels: Sequence[Any], facts: Mapping[str, Any]) -> np.ndarray:
        """Labels of items as `Judge.tally` takes them: by default numbers, float64 `(items,)`."""
        return np.array(labels, np.float64)

    def measure(self, items: Sequence[Any], codec: Codec, folders: Sequence[Path]) -> np.ndarray:
        """The `properties` of some items, float32 `(items, properties)`: by default there are none.

        Args:
            items: as the codec takes them.
            folders: batch folders of the data set that they belong to; none for items of no data set.

        Raises:
            BadItem: one of them cannot be used.
        """
        return np.empty((len(items), 0), np.float32)

    def thumbnail(self, content: bytes) -> str | None:
        """A small picture of an encoded item as a `data:` address; None where it has none."""
        return None
