"""A person's work on the labels of one scenario: what is shown next, what the champion says of it, and what was decided."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evergreen.data.dataset import batches, parts
from evergreen.data.inbox import UNLABELLED
from evergreen.errors import BadItem, EvergreenError, WrongUse
from evergreen.kinds.base.explorer import LabelError
from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.base.labelling import Picture, part_of, suggested
from evergreen.names import readable_name
from evergreen.progress import task
from evergreen.review.decisions import Decision, Decisions, cache_folder
from evergreen.review.items import DataSetItems, Identity, identity_of, is_unlabelled, read_file_of, unlabelled
from evergreen.review.predictions import Predictions, Seen
from evergreen.review.queues import QUEUES
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file

log = logging.getLogger("evergreen")

MOST_ITEMS = 20_000  # of the data set that the champion is run on: those of val and test, and the newest others
SIMILAR = 6
CONTENTS_KEPT = 16  # files of the inbox, of some megabytes each
PICTURE_SIDE, THUMBNAIL_SIDE = 1024, 128  # pixels
OF_CHAMPION = "The champion suggests"
OF_OTHERS = "Models that did not learn from it suggest"


class Gone(WrongUse):
    """There is no such item, or no longer the one that the person saw."""


@dataclass(frozen=True)
class Suggestion:
    """What a model says of an item.

    Attributes:
        by: who suggests it, as the beginning of a sentence.
        label: the most probable one.
        probabilities: of the labels, 0 to 1; the most probable ones are among them.
    """

    by: str
    label: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Shown:
    """What a person is shown of an item.

    Attributes:
        item: its id, or the path of its file relative to the inbox.
        label: the one that it has now, with corrections that are not taken in yet; None if it has none.
        source: its path, for people.
        suggestion: None without a model, and where it cannot take the item.
        similar: ids and labels of the items that look most similar to the model, the most similar one first.
        identity: of the item's file (`identity_of`); empty for an item of the data set.
        problem: why the scenario does not take the item, so that it is neither shown nor given to the champion; mostly empty.
    """

    item: str
    label: str | None
    source: str
    suggestion: Suggestion | None
    similar: tuple[tuple[str, str], ...]
    identity: Identity = ()
    problem: str = ""


@dataclass(frozen=True)
class _FileSeen:
    """What is known of a file without a label: why the scenario does not take it, or else what the champion gave for it."""

    problem: str
    seen: Seen | None


@dataclass(frozen=True)
class _Champion:
    """The model in use: for suggestions and look-alikes, and for heat maps."""

    predictions: Predictions
    model: Any  # evergreen.serving.scoring.Model


class Review:
    """The review of one scenario. Its methods may be called from several threads.

    Attributes:
        scenario: the scenario.
        labels: those that can be given, in the scenario's order.
        no_champion: why there is no champion; empty if there is one, or nothing has asked for it yet.
    """

    def __init__(self, workspace: Workspace, scenario: Scenario, decisions: Decisions) -> None:
        """
        Raises:
            WrongUse: the scenario's items have no labels to choose between, or cannot be shown.
        """
        self.workspace, self.scenario, self._decisions = workspace, scenario, decisions
        kind = kind_of(scenario)
        self.part, self.labels = part_of(kind), tuple(kind.contract.known_labels(scenario))
        if not self.labels:
            raise WrongUse(f"the items of {scenario.name} have no labels to choose between", expected="a scenario with labels")
        self.no_champion = ""
        self._lock, self._loading = threading.RLock(), threading.Lock()
        self._champion: _Champion | None = None
        self._orders: dict[str, list[str]] = {}
        self._suspect: dict[str, LabelError] = {}
        self._of_files: dict[tuple[str, Identity, bool], _FileSeen] = {}
        self._contents: OrderedDict[tuple[str, Identity], bytes] = OrderedDict()  # of files that were shown last
        self._folders: list[Path] = []
        self._parts: list[tuple[Path, Identity]] = []
        self._items = DataSetItems([], self.part.column)
        self._refresh()

    # What there is to do

    def prepare(self, queue: str) -> None:
        """Find the items of a queue and their order. Takes up to minutes the first time, and reports progress.

        Raises:
            EvergreenError: something is missing that the queue needs; the error says what.
        """
        with self._loading:
            self.no_champion = ""  # there may be one since
            order = {"unsure": self._unsure, "mistakes": self._mistakes, "inbox": self._inbox, "errors": self._errors}[queue]
            found = order()
            with self._lock:
                self._orders[queue] = found

    def is_prepared(self, queue: str) -> bool:
        """Whether a queue has its items."""
        return queue in self._orders

    def left(self, queue: str) -> int:
        """How many items of a prepared queue have no decision."""
        return len(self._left(queue))

    def upcoming(self, queue: str, count: int, without: Sequence[str] = ()) -> list[Shown]:
        """The next items of a prepared queue that have no decision.

        Args:
            without: items that the caller has already.
        """
        passed = set(without)
        chosen = [item for item in self._left(queue) if item not in passed][:count]
        return [self.shown(queue, item) for item in chosen]

    def shown(self, queue: str, item: str) -> Shown:
        """What a person is shown of an item in a queue.

        Raises:
            WrongUse: there is no such item.
        """
        if queue == "errors" and (suspect := self._suspect.get(item)) is not None:
            return self._shown_suspect(suspect)
        of_file = self._file_seen(item) if _is_file(item) else _FileSeen("", None)
        champion = self._champion
        seen = of_file.seen if _is_file(item) or champion is None else champion.predictions.get(item)
        suggestion: Suggestion | None = None
        similar: tuple[tuple[str, str], ...] = ()
        if seen is not None and champion is not None:
            probabilities = self.part.probabilities(champion.predictions.model.codec, seen.output)
            suggestion = Suggestion(OF_CHAMPION, suggested(probabilities), probabilities)
            nearest = champion.predictions.nearest(seen, SIMILAR, but=item)
            similar = tuple((id, label) for id in nearest if (label := self._label_of(id)))
        return Shown(
            item, self._label_of(item) or None, readable_name(self._items.sources.get(item, item)), suggestion, similar,
            self._decisions.identity(item), of_file.problem,
        )  # fmt: skip

    def _shown_suspect(self, suspect: LabelError) -> Shown:
        probabilities = {suspect.suggested: suspect.probability_of_suggested, suspect.label: suspect.probability_of_label}
        similar = tuple((id, label) for id in suspect.similar if (label := self._label_of(id)))
        return Shown(
            suspect.id, self._label_of(suspect.id), self._items.sources.get(suspect.id, suspect.id),
            Suggestion(OF_OTHERS, suspect.suggested, probabilities), similar,
        )  # fmt: skip

    def picture(self, item: str, side: int = PICTURE_SIDE) -> Picture:
        """The picture of an item.

        Raises:
            BadItem: it cannot be shown.
            WrongUse: there is no such item.
        """
        return self.part.picture(self._checked(item), side)

    def heat_map(self, item: str, label: str) -> Picture:
        """The parts of an item that speak for a label, to the champion.

        Raises:
            BadItem: the network cannot take it.
            WrongUse: there is no such item, no champion, or the champion does not have this label.
        """
        champion = self._get_champion()
        if champion is None:
            raise WrongUse(self.no_champion)
        if label not in champion.model.labels:
            raise WrongUse("the champion does not have this label", expected=", ".join(champion.model.labels), received=label)
        return self.part.heat_map(champion.model, self._checked(item), label)

    # What a person does

    # Each takes the random id of the page's request, so that one that is sent again is not carried out again.

    def label(self, queue: str, item: str, label: str, identity: Identity | None = None, request: str = "") -> Decision:
        """Give an item a label; the one that it has is kept.

        Args:
            identity: of the file that the person saw (`Shown.identity`); None for any file that has the item's path.

        Raises:
            Gone: there is no such item, or its file is another one.
            WrongUse: there is no such label, or no folder of the inbox can stand for the label.
            EvergreenError: the inbox cannot be changed.
        """
        with self._lock:
            if done := self._decisions.done(request):
                return done
            self._check(queue, item, identity)
            if label not in self.labels:
                raise WrongUse("there is no such label", expected=f"one of {', '.join(self.labels)}", received=label)
            if label == self._label_of(item):
                return self._decisions.keep(queue, item, label, request)
            folder = None
            if _is_file(item):
                folder = self.part.inbox_folder(self.scenario, label)
                if folder is None:
                    raise WrongUse("no folder of the inbox can have this label's name", received=label, fix="Rename the label.")
            return self._decisions.label(queue, item, label, folder, request)

    def skip(self, queue: str, item: str, identity: Identity | None = None, request: str = "") -> Decision:
        """Leave an item for later. Every item of the queue can be skipped, also one whose file is gone.

        Args:
            identity: as for `label`.

        Raises:
            Gone: there is no such item, or its file is another one.
        """
        with self._lock:
            if done := self._decisions.done(request):
                return done
            if item not in self._orders.get(queue, ()) or (self._decisions.identity(item) and identity is not None):
                self._check(queue, item, identity)
            return self._decisions.skip(queue, item, request)

    def undo(self, queue: str, request: str = "") -> Decision | None:
        """Take back the last decision in a queue; None if there is none. Its file's path may be another one then.

        Raises:
            WrongUse: it was taken into the data set already.
        """
        with self._lock:
            undone = self._decisions.done(request) or self._decisions.undo(queue, request)
            order = self._orders.get(queue)
            if undone is not None and order is not None and undone.item not in order:  # decided before it was prepared
                order.insert(0, undone.item)
            return undone

    def show_skipped(self, queue: str) -> None:
        """Show the skipped items of a queue again."""
        with self._lock:
            self._decisions.show_skipped(queue)

    def tally(self, queue: str) -> dict[str, int]:
        """How much is done: `decided` items in all queues, those that wait in the inbox (`corrections`, `files`), and how many
        of this queue are `skipped`."""
        with self._lock:
            return {
                "decided": self._decisions.count(),
                "corrections": len(self._decisions.pending()),
                "files": len(self._decisions.moved()),
                "skipped": self._decisions.skipped(queue),
            }

    # The order of the queues

    def _unsure(self) -> list[str]:
        champion = self._needed_champion()
        held_out = self._held_out()
        newest = [id for id in reversed(self._items.ids) if id not in held_out]
        ids = [*held_out, *newest][:MOST_ITEMS]
        self._look_at(champion, ids)
        return sorted(
            (id for id in ids if id in champion.predictions),
            key=lambda id: self._sureness(champion, champion.predictions.get(id)),
        )

    def _mistakes(self) -> list[str]:
        champion = self._needed_champion()
        ids = self._held_out()
        if not ids:
            raise WrongUse(
                f"{self.scenario.name} has no validation or test items", fix=f"Run: evergreen run {self.scenario.name}"
            )
        self._look_at(champion, ids)
        known = champion.predictions
        wrong = []
        for id in ids:
            if id in known:
                probabilities = self.part.probabilities(known.model.codec, known[id].output)
                if (label := suggested(probabilities)) != self._label_of(id):
                    wrong.append((-probabilities[label], id))
        return [id for _, id in sorted(wrong)]

    def _inbox(self) -> list[str]:
        files = list(unlabelled(self._decisions.inbox))
        champion = self._get_champion()
        if champion is None:
            return files
        # Look-alikes come from the data set.
        self._look_at(champion, [*self._held_out(), *reversed(self._items.ids)][: MOST_ITEMS // 4])
        sureness: dict[str, float] = {}
        with task("Running the champion on the new items", total=len(files), unit="items") as report:
            for number, item in enumerate(files, 1):
                sureness[item] = self._sureness(champion, self._file_seen(item).seen)
                report(number)
        return sorted(files, key=lambda item: sureness[item])

    def _errors(self) -> list[str]:
        """The items whose label is likely wrong; computed once for a data set, since that takes minutes."""
        file = cache_folder(self.workspace, self.scenario.name) / "label-errors.json"
        sections = (self.scenario.validation, self.scenario.preprocess)
        about = [
            [folder.name for folder in self._folders], self.scenario.seed, *(one.model_dump(mode="json") for one in sections),
        ]  # fmt: skip
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["about"] == about:
                found = [LabelError(**one | {"similar": tuple(one["similar"])}) for one in kept["errors"]]
                return self._suspected(found)
        found = list(self.part.label_errors(self.scenario, self.workspace))
        with contextlib.suppress(OSError):  # a full disk; it can be computed again
            replace_file(file, json.dumps({"about": about, "errors": [asdict(one) for one in found]}).encode())
        return self._suspected(found)

    def _suspected(self, found: Sequence[LabelError]) -> list[str]:
        self._suspect = {one.id: one for one in found}
        return list(self._suspect)

    def _sureness(self, champion: _Champion, seen: Seen | None) -> float:
        """The probability of the most probable label; 1 for an item that the champion cannot take."""
        if seen is None:
            return 1.0
        return max(self.part.probabilities(champion.predictions.model.codec, seen.output).values())

    # The parts

    def _left(self, queue: str) -> list[str]:
        with self._lock:
            self._refresh()
            order = self._orders.get(queue)
            if order is None:
                raise WrongUse("this queue is not prepared", received=queue)
            labels = self._items.labels | self._decisions.pending()
            settled = self._decisions.settled(queue, lambda item: labels.get(item, ""))
            there = self._items.labels if QUEUES[queue].labelled else set(unlabelled(self._decisions.inbox))
            return [item for item in order if item not in settled and item in there]

    def _refresh(self) -> None:
        """Read the data set again if `evergreen retrain` has added to it, or `evergreen forget` has written a part again."""
        folders = batches(self.workspace, self.scenario.name)
        found = [(part, identity_of(part)) for part in parts(folders)]
        if folders != self._folders or found != self._parts:
            self._items = DataSetItems(folders, self.part.column)
            self._folders, self._parts = folders, found

    def _check(self, queue: str, item: str, identity: Identity | None) -> None:
        if queue not in QUEUES:
            raise WrongUse("there is no such queue", expected=f"one of {', '.join(QUEUES)}", received=queue)
        if item not in self._items.labels and not is_unlabelled(self._decisions.inbox, item):
            raise Gone("there is no such item", received=readable_name(item))
        if identity is not None and identity != self._decisions.identity(item):
            raise Gone("another file has this name now", received=readable_name(item), fix="Look at it before you decide.")

    def _label_of(self, item: str) -> str:
        with self._lock:
            return self._decisions.pending().get(item) or self._items.labels.get(item, "")

    def _read(self, item: str) -> bytes:
        if not _is_file(item):
            with self._lock:
                self._refresh()
                items = self._items
            return items.read(item)
        inbox = self._decisions.inbox
        if is_unlabelled(inbox, item):
            return read_file_of(inbox, item)
        with self._lock:  # the page may ask for the picture of an item that has just got its label
            moved = {one.item: one.file for one in self._decisions.moved()}
        if item not in moved:
            raise Gone("there is no such file in the inbox", received=readable_name(item))
        return read_file_of(inbox, moved[item])

    def _checked(self, item: str) -> bytes:
        """The content of an item that can be decoded; anybody may have put a file into the inbox. A file is shown as the data
        set will have it, which may take a second.

        Raises:
            BadItem: the scenario does not take it.
            WrongUse: there is no such item.
            EvergreenError: as `Labelling.as_collected`.
        """
        if not _is_file(item):
            return self._read(item)
        key = item, self._decisions.identity(item)
        with self._lock:
            kept = self._contents.get(key)
        if kept is None:
            kept = self.part.as_collected(self.scenario, self._read(item))
            if not key[1]:  # it was moved, and another file of this name may be as well
                return kept
            with self._lock:
                self._contents[key] = kept
                while len(self._contents) > CONTENTS_KEPT:
                    self._contents.popitem(last=False)
        return kept

    def _file_seen(self, item: str) -> _FileSeen:
        champion = self._champion
        key = item, self._decisions.identity(item), champion is not None
        if key not in self._of_files:
            self._of_files[key] = self._look_at_file(item, champion)
        return self._of_files[key]

    def _look_at_file(self, item: str, champion: _Champion | None) -> _FileSeen:
        try:
            content = self._checked(item)
        except (BadItem, EvergreenError) as error:
            return _FileSeen(error.detail if isinstance(error, BadItem) else str(error), None)
        if champion is not None:
            with contextlib.suppress(Exception):  # the kind defines what its codec raises
                return _FileSeen("", champion.predictions.see(content))
        return _FileSeen("", None)

    def _look_at(self, champion: _Champion, ids: Sequence[str]) -> None:
        """Run the champion on items of the data set, unless that was done before."""
        missing = [id for id in dict.fromkeys(ids) if id not in champion.predictions]
        if missing:
            with task("Running the champion on the items", total=len(missing), unit="items") as report:
                items = kind_of(self.scenario).contract.items(self.scenario, self._folders, missing)
                champion.predictions.add(items, report)

    def _held_out(self) -> list[str]:
        """The ids of the validation and test items that are in use."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(self.workspace.splits(self.scenario.name) / "items.parquet", columns=["id", "split"])
        except OSError:
            return []
        chosen = rows.filter(pc.is_in(rows["split"], value_set=_strings("val", "test")))
        return [str(id) for id in chosen["id"].to_pylist() if id in self._items.labels]

    def _needed_champion(self) -> _Champion:
        champion = self._get_champion()
        if champion is None:
            raise WrongUse(self.no_champion)
        return champion

    def _get_champion(self) -> _Champion | None:
        """The champion; None if there is none, and then `no_champion` says why."""
        if self._champion is None and not self.no_champion:
            from evergreen.serving.embedding import EmbeddingModel
            from evergreen.serving.scoring import Model, model_folder

            name = self.scenario.name
            try:
                folder = model_folder(self.workspace, name, "champion")
                model, network = Model.open(folder), EmbeddingModel.open(folder)
            except EvergreenError as error:
                self.no_champion = str(error)
                return None
            file = cache_folder(self.workspace, name) / "predictions.npz"
            self._champion = _Champion(Predictions(network, file), model)
        return self._champion


def _is_file(item: str) -> bool:
    return item.startswith(f"{UNLABELLED}/")


def _strings(*values: str) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())
