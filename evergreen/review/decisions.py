"""What a person has decided about items, one by one, and what the inbox holds of it.

.evergreen/review/NAME/decisions.jsonl   every decision in order, also skipped items and what was undone
inbox/NAME/review-TIME-DIGITS.csv        the corrections that are not taken in yet, as `evergreen.data.inbox` reads them
inbox/NAME/LABEL/…                       the files of `inbox/NAME/unlabelled/` that got a label

A decision is written to the log first, and then applied: after a kill in between, the next `Decisions` applies it. One that
cannot be applied, such as in an inbox that is read-only, is followed by a line that says so, and is not in force. What
`evergreen retrain` has taken in stays, and can't be undone; the next correction begins another CSV file.

Cameras use file names again. So a decision about a file has what identifies the file, and is about no other one of that name.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from evergreen.data.inbox import TAKEN, UNLABELLED, inbox_of, read_corrections
from evergreen.errors import EvergreenError, WrongUse
from evergreen.review.items import Identity, identity_of
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file, room_for

log = logging.getLogger("evergreen")

Action = Literal["label", "keep", "skip", "show-skipped", "undo", "failed", "opened"]
DECIDES = ("label", "keep", "skip")  # the actions that a person can undo


@dataclass(frozen=True, slots=True)
class Decision:
    """A line of the log.

    Attributes:
        number: counts the lines.
        action: `label` gives an item a label, `keep` says that the one it has is right, `skip` leaves it; `show-skipped` shows
            a queue's skipped items again, `undo` takes a decision back, `failed` says that a line could not be applied and is
            not in force, `opened` means that all before it was applied.
        queue: in which it was decided; empty for `opened`.
        item: the item's id, or the path of a file in the inbox, relative to it; empty if it is about none. For `undo`, the path
            that the file has from now on: another one if a new file has its former path.
        label: the item's label from now on; empty if it is about none.
        file: where the inbox has it: the name of the CSV file, or the new path of the item's file; empty if nowhere.
        undoes: the number of the line that is taken back, or could not be applied; -1 if it is none.
        by: who decided it.
        at: when, ISO 8601 in UTC, whole seconds.
        identity: of the file that it is about (`identity_of`); empty if it is about none, and in lines of earlier versions.
        request: the random id with which the page has sent it; empty if it came otherwise, and in lines of earlier versions.
    """

    number: int
    action: Action
    queue: str
    item: str
    label: str
    file: str
    undoes: int
    by: str
    at: str
    identity: Identity = ()
    request: str = ""

    @property
    def about_file(self) -> bool:
        """Whether it is about a file of the inbox, rather than an item of the data set."""
        return self.item.startswith(f"{UNLABELLED}/")

    @property
    def moves(self) -> bool:
        """Whether it moves a file of the inbox, rather than correcting an item of the data set."""
        return self.action == "label" and self.about_file

    @property
    def corrects(self) -> bool:
        """Whether it is a line of a CSV file."""
        return self.action == "label" and not self.moves


def cache_folder(workspace: Workspace, name: str) -> Path:
    """The folder in it with what can be computed again."""
    return workspace.review(name) / "cache"


class Decisions:
    """The decisions about the items of one scenario. Only one process at a time has them open (`opened`).

    Attributes:
        inbox: the scenario's inbox.
        by: who decides now.
    """

    def __init__(self, workspace: Workspace, scenario: Scenario, by: str) -> None:
        self.inbox, self.by = inbox_of(scenario, workspace), by
        self._log = workspace.review(scenario.name) / "decisions.jsonl"
        self._entries = _read(self._log)
        self._undone: set[int] = set()
        for entry in self._entries:
            self._note(entry)
        self._complete_last()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, workspace: Workspace, scenario: Scenario, by: str) -> Iterator[Decisions]:
        """Open the decisions of a scenario.

        Raises:
            WrongUse: another process has them open.
        """
        with workspace.lock(f"review-{scenario.name}", timeout_seconds=0):
            yield cls(workspace, scenario, by)

    def label(self, queue: str, item: str, label: str, folder: str | None, request: str = "") -> Decision:
        """Give an item a label.

        Args:
            item: its id, or the path of its file relative to the inbox.
            folder: of the inbox, for files with this label; None for an item of the data set.

        Raises:
            EvergreenError: the inbox cannot be changed; then nothing was decided.
        """
        file = self._current_csv() if folder is None else self._free_name(f"{folder}/{Path(item).name}")
        return self._decide("label", queue, item, label, file, self.identity(item), request)

    def keep(self, queue: str, item: str, label: str, request: str = "") -> Decision:
        """Record that the label that an item has is right."""
        return self._decide("keep", queue, item, label, "", self.identity(item), request)

    def skip(self, queue: str, item: str, request: str = "") -> Decision:
        """Leave an item for later."""
        return self._decide("skip", queue, item, "", "", self.identity(item), request)

    def show_skipped(self, queue: str) -> None:
        """Show the skipped items of a queue again."""
        self._decide("show-skipped", queue, "", "", "")

    def done(self, request: str) -> Decision | None:
        """What was decided by this request of the page before; None if nothing was, or it could not be applied."""
        last = next((one for one in reversed(self._entries) if request and one.request == request), None)
        return None if last is None or last.action == "failed" else last

    def identity(self, item: str) -> Identity:
        """What identifies the file that has an item's path now; empty for an item of the data set, and if there is none."""
        return identity_of(self.inbox / item) if item.startswith(f"{UNLABELLED}/") else ()

    def undo(self, queue: str, request: str = "") -> Decision | None:
        """Take back the last decision in a queue.

        Returns:
            The decision that was taken back, with the path that its file has now; None if there is none.

        Raises:
            WrongUse: it was taken into the data set already.
            EvergreenError: the inbox cannot be changed; then the decision stays.
        """
        last = next((one for one in reversed(self._made()) if one.queue == queue), None)
        if last is None:
            return None
        if last.action == "label" and not (self._has(last) if last.moves else (self.inbox / last.file).exists()):
            raise WrongUse(
                "the last decision is in the data set already, and can no longer be undone here",
                fix="To change the label again, put a CSV file with the columns id and label into the inbox.",
            )
        item = self._free_name(last.item) if last.moves else last.item
        identity = identity_of(self.inbox / last.file) if last.moves else ()
        self._decide("undo", queue, item, "", last.file, identity, request, undoes=last.number)
        return replace(last, item=item)

    def pending(self) -> dict[str, str]:
        """The labels by id of the corrections that are not taken in yet."""
        corrections = [one for one in self._made() if one.corrects]
        waiting = {file for file in {one.file for one in corrections} if (self.inbox / file).exists()}
        return {one.item: one.label for one in corrections if one.file in waiting}

    def moved(self) -> list[Decision]:
        """The files that got a label and are not taken in yet."""
        return [one for one in self._made() if one.moves and self._has(one)]

    def settled(self, queue: str, label_of: Callable[[str], str]) -> set[str]:
        """The items that need not be shown in a queue: those that have the label that was decided last, and the skipped ones.

        Args:
            label_of: the label of an item of the data set now, with what is pending.
        """
        decided: dict[str, str] = {}
        skipped: set[str] = set()
        for one in self._made():
            if one.action == "skip":
                skipped |= {one.item} if one.queue == queue and self._is_about_what_is_there(one) else set()
            else:
                decided[one.item] = one.label
        return skipped | {item for item, label in decided.items() if label_of(item) == label}

    def skipped(self, queue: str) -> int:
        """How many items of a queue are skipped."""
        skips = (one for one in self._made() if one.action == "skip" and one.queue == queue)
        return len({one.item for one in skips if self._is_about_what_is_there(one)})

    def count(self) -> int:
        """How many items have a decision, without the skipped ones."""
        return len({(one.item, one.identity) for one in self._made() if one.action != "skip"})

    def _made(self) -> list[Decision]:
        """The decisions in force, oldest first."""
        shown_again: dict[str, int] = {one.queue: one.number for one in self._entries if one.action == "show-skipped"}
        return [
            one
            for one in self._entries
            if one.action in DECIDES
            and one.number not in self._undone
            and not (one.action == "skip" and one.number < shown_again.get(one.queue, -1))
        ]

    def _has(self, one: Decision) -> bool:
        """Whether the file that a decision has moved is still where it was moved to."""
        found = identity_of(self.inbox / one.file)
        return bool(found) and found == (one.identity or found)

    def _is_about_what_is_there(self, one: Decision) -> bool:
        """Whether a decision is about the item that its path, if it is one, leads to now."""
        return not one.about_file or (bool(one.identity) and self.identity(one.item) == one.identity)

    def _decide(
        self, action: Action, queue: str, item: str, label: str, file: str,
        identity: Identity = (), request: str = "", undoes: int = -1,
    ) -> Decision:  # fmt: skip
        at = datetime.now(UTC).isoformat(timespec="seconds")
        number = self._entries[-1].number + 1 if self._entries else 0
        one = Decision(number, action, queue, item, label, file, undoes, self.by, at, identity, request)
        try:
            with room_for("for the decision"):
                _append(self._log, one)
        except OSError as error:
            raise _not_saved(error) from None
        self._entries.append(one)
        self._note(one)
        try:
            with room_for("for the decision"):
                self._apply(one)
        except (OSError, EvergreenError) as error:
            self._fail(one)
            raise (_not_saved(error) if isinstance(error, OSError) else error) from None
        return one

    def _note(self, one: Decision) -> None:
        """Keep in mind which decisions are taken back."""
        if one.action == "undo":
            self._undone.add(one.undoes)
        elif one.action == "failed":
            failed = next((entry for entry in self._entries if entry.number == one.undoes), None)
            if failed is None:
                return
            if failed.action == "undo":
                self._undone.discard(failed.undoes)
            else:
                self._undone.add(failed.number)

    def _fail(self, one: Decision) -> None:
        """Record that a decision could not be applied, so that it is not in force."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        number = self._entries[-1].number + 1
        failed = Decision(number, "failed", one.queue, one.item, "", one.file, one.number, self.by, at, (), one.request)
        with contextlib.suppress(OSError):  # a full disk: the next start tries to apply the decision
            _append(self._log, failed)
        self._entries.append(failed)
        self._note(failed)

    def _apply(self, one: Decision) -> None:
        """Bring the inbox in line with a decision that the log has; to be repeated without harm."""
        if one.moves:
            self._move(one.item, one.file, one.identity)
        elif one.corrects:
            self._write_csv(one.file)
        elif one.action == "undo" and one.about_file:
            self._move(one.file, one.item, one.identity)
        elif one.action == "undo" and one.file:
            self._write_csv(one.file)

    def _complete_last(self) -> None:
        """Apply the last decision if a kill may have prevented it."""
        if not self._entries or self._entries[-1].action == "opened":
            return
        last = self._entries[-1]
        try:
            self._complete(last)
        except OSError as error:
            log.warning("The last decision of the review before could not be applied, and is not in force: %s", error)
            self._fail(last)
        self._decide("opened", "", "", "", "")

    def _complete(self, last: Decision) -> None:
        if last.corrects and not (self.inbox / last.file).exists():
            if not self._is_taken(last):  # it was never written, or `taken/` was emptied: then it is known, which does no harm
                replace_file(self.inbox / last.file, _csv({last.item: last}))
        elif last.corrects or last.moves or (self.inbox / last.file).exists():
            self._apply(last)

    def _is_taken(self, one: Decision) -> bool:
        try:
            rows = read_corrections((self.inbox / TAKEN / one.file).read_bytes())
        except OSError:
            return False
        return not isinstance(rows, str) and any((row.id, row.label) == (one.item, one.label) for row in rows)

    def _current_csv(self) -> str:
        """The CSV file to which the next correction is added: the last one if it is still there, else a new one."""
        last = next((one.file for one in reversed(self._entries) if one.corrects), None)
        if last is not None and (self.inbox / last).exists():
            return last
        return f"review-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}.csv"

    def _write_csv(self, name: str) -> None:
        rows = {one.item: one for one in self._made() if one.corrects and one.file == name}
        if rows:
            replace_file(self.inbox / name, _csv(rows))
        else:
            (self.inbox / name).unlink(missing_ok=True)

    def _move(self, from_: str, to: str, identity: Identity) -> None:
        """Move a file of the inbox, unless that is done: then another file may have its path."""
        source, target = self.inbox / from_, self.inbox / to
        if not identity or identity_of(source) != identity:
            return
        if os.path.lexists(target):
            target = self.inbox / self._free_name(to)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)

    def _free_name(self, path: str) -> str:
        """A path in the inbox that no file has, like this one."""
        stem, ending = os.path.splitext(path)
        free, number = path, 1
        while os.path.lexists(self.inbox / free):
            free, number = f"{stem}-{number}{ending}", number + 1
        return free


def _not_saved(error: OSError) -> EvergreenError:
    return EvergreenError(
        f"the decision could not be saved: {error.strerror or error}",
        received=os.fsdecode(error.filename) if error.filename else None,
        fix="Make the inbox and the folder .evergreen writable, on one file system, and decide again.",
    )


def _csv(rows: Mapping[str, Decision]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "label", "by"))
    writer.writerows((item, one.label, one.by) for item, one in rows.items())
    return text.getvalue().encode()


def _append(path: Path, one: Decision) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(one)).encode() + b"\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        before = os.fstat(file).st_size
        if os.write(file, line) != len(line):
            os.ftruncate(file, before)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        os.fsync(file)
    finally:
        os.close(file)


def _read(path: Path) -> list[Decision]:
    """The lines of the log; one that a kill left incomplete is removed."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        replace_file(path, whole)
    found = [json.loads(line) for line in whole.splitlines()]
    return [Decision(**one | {"identity": tuple(one.get("identity", ()))}) for one in found]
