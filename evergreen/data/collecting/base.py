"""The parts that a collection is given: which entries of a source are items, how an item is inspected, and what the source may
change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from evergreen.data.dataset import SOURCE
from evergreen.data.skipped import Skipped
from evergreen.data.sources.base import SourceEntry
from evergreen.scenario.settings import Collect

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True)
class Candidate:
    """An item of a source before it is decided whether the data set takes it.

    Attributes:
        entry: the entry that it was recognised in.
        id: sha256 of its content in the source, 32 bytes; None where that could not be read.
        label, group, split: as the source gives them, as text; the label renamed as the scenario says.
        content: what is inspected, and kept where it is refused; None where it could not be read, or is no longer needed.
    """

    entry: SourceEntry
    id: bytes | None
    label: str
    group: str | None
    split: str | None
    content: bytes | None


class Recogniser(Protocol):
    """Decides which entries of a source are items.

    Attributes:
        skipped: the entries that are not taken, counted.
    """

    skipped: Skipped

    def may_hold_items(self, entry: SourceEntry) -> bool:
        """Cheaply and without counting it: False only for an entry that is not taken."""

    def recognise(self, entry: SourceEntry) -> Iterable[Candidate]:
        """The items that an entry holds; none where it is not taken.

        Raises:
            WrongUse: the scenario's settings give what they must not.
        """

    def finish(self, items: int) -> None:
        """Report what was not taken, once all entries were recognised.

        Args:
            items: how many items were recognised.

        Raises:
            WrongUse: there must be items, and there are none.
        """


class Inspector(Protocol):
    """Inspects items, usually in processes of their own. A context manager, entered while items are submitted.

    Attributes:
        noun: what an item is, in the singular.
        schema: the columns of the data set's parts.
    """

    noun: str
    schema: pa.Schema
    max_pending: int  # submitted lots of which the answer is not fetched yet, beyond which more would only take memory

    def submit(self, candidates: Sequence[Candidate]) -> Future[list[Any]]:
        """Inspect some items; what was found of each, or a `BadItem`, in their order. Until the answer comes, an inspector may
        replace an item's `content` by what may be stored of it, or by None if nothing may."""

    def row(self, candidate: Candidate, inspection: Any, collected_at: datetime) -> tuple[Any, ...]:
        """The row of an item that is added to the batch: the values of `schema`, in its order."""

    def record(self, folder: Path) -> None:
        """Write what was chosen for the whole data set into the folder of the new batch."""

    def summary(self) -> str:
        """What there is to say of the items that were added, as sentences; empty where there is nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """What a source may change in the data set, and how much of it may be bad.

    Attributes:
        origin: recorded in the parts that are written.
        whole: the source holds all items that it ever brought, so that missing items and other labels are changes of the
            source, over which what people decided has precedence. Otherwise another label for a known item is a conflict.
        author: recorded as `by` where the source changes a known item; None: not known.
        followed: whether those changes are made in the data set too; otherwise they are only counted.
        max_bad: the fraction of items that may be quarantined, `damaged` ones aside.
        max_damaged: the fraction of items that may be quarantined as `damaged`.
        max_withdrawn: the fraction of the source's items in use that may be withdrawn.
    """

    origin: Literal["source", "inbox"]
    whole: bool
    author: str | None
    followed: bool
    max_bad: float = 1.0
    max_damaged: float = 1.0
    max_withdrawn: float = 1.0

    @classmethod
    def of_source(cls, settings: Collect) -> Policy:
        """For the scenario's own source."""
        return cls("source", True, SOURCE, settings.mirror, settings.max_bad, settings.max_damaged, settings.max_withdrawn)

    @classmethod
    def of_inbox(cls) -> Policy:
        """For an inbox: it adds items and brings withdrawn ones back, and however much of it is bad, the rest is taken."""
        return cls("inbox", whole=False, author=None, followed=True)
