"""The inbox of a scenario: `inbox/NAME/`, where people and programs put newly labelled images between two trainings.

inbox/NAME/LABEL/photo.jpg     images in a folder that has the label's name, at any depth
inbox/NAME/monday.zip          an archive (.zip, .tar, .tar.gz) of such folders
inbox/NAME/.taken/WHEN/…       what was taken in, as it was put there; it may be deleted

A file stays where it is until its items are in the data set or in quarantine, and while somebody may still be writing it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from evergreen.errors import DataRefused, WrongUse
from evergreen.scenario import Scenario
from evergreen.sources import Found, archive_kind, read_file, readable_name, stream
from evergreen.workspace import Workspace

PATTERN = r"(?:.*/)?(?P<label>[^/]+)/[^/]+"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")
SETTLED_SECONDS = 10.0  # a file that nothing was written to for so long is whole


@dataclass(frozen=True)
class Waiting:
    """A file of the inbox that is ready to be taken in.

    Attributes:
        path: inside the inbox.
        size_bytes, changed_ns: by which one sees whether it is still the same file.
    """

    path: str
    size_bytes: int
    changed_ns: int


@dataclass(frozen=True)
class Inbox:
    """What stands in an inbox.

    Attributes:
        ready: files that can be taken in, by path.
        unfinished: how many may still be being written, and are left for the next time.
        passed_over: paths of files that are neither in a label's folder nor an archive; they stay.
    """

    ready: tuple[Waiting, ...]
    unfinished: int
    passed_over: tuple[str, ...]


def folder(scenario: Scenario, workspace: Workspace) -> Path:
    return workspace.root / Path(scenario.retraining.inbox or f"inbox/{scenario.name}").expanduser()


def look_into(inbox: Path) -> Inbox:
    """What is there; an inbox that nobody has made yet is empty. Hidden files and folders are not looked at.

    Raises:
        WrongUse: it is no folder, or cannot be listed.
    """
    ready: list[Waiting] = []
    passed_over: list[str] = []
    unfinished = 0
    now_ns = time.time_ns()
    for entry, path in _files(inbox):
        status = entry.stat(follow_symlinks=False)
        # The time of the last change of any kind: that of the content is kept by those who copy with times.
        if entry.name.lower().endswith(UNFINISHED) or now_ns - status.st_ctime_ns < SETTLED_SECONDS * 1e9:
            unfinished += 1
        elif "/" in path or path.lower().endswith(ARCHIVES):
            ready.append(Waiting(path, status.st_size, status.st_ctime_ns))
        else:
            passed_over.append(readable_name(path))
    return Inbox(tuple(ready), unfinished, tuple(passed_over))


def entries(inbox: Path, ready: tuple[Waiting, ...], scenario: Scenario) -> Iterator[Found]:
    """The items of these files. A label that the scenario doesn't have is a problem of the item, which goes to quarantine: a slip
    in one folder's name must not hold up the rest."""
    known, rename = set(scenario.validation.labels), scenario.collect.rename
    for number, file in enumerate(ready):
        for found in _found(inbox, file.path):
            match = re.fullmatch(PATTERN, found.name, re.DOTALL)
            label = match["label"] if match else ""
            problem, detail = found.problem, found.detail
            if problem is None and rename.get(label, label) not in known:
                problem, detail = "unknown-label", f"{label!r} is not one of {', '.join(scenario.validation.labels)}"
            yield Found(found.name, found.data, found.size_bytes, problem, detail, number / len(ready))


def clear(inbox: Path, taken: tuple[Waiting, ...], when: datetime) -> int:
    """Move what was taken in to `.taken/WHEN`; returns how many files. One that has changed meanwhile stays for the next time."""
    moved = 0
    for file in taken:
        source, target = inbox / file.path, inbox / ".taken" / f"{when:%Y%m%dT%H%M%SZ}" / file.path
        try:
            status = source.lstat()
        except FileNotFoundError:  # moved before a kill, or by somebody
            continue
        if (status.st_size, status.st_ctime_ns) == (file.size_bytes, file.changed_ns):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, target)
            moved += 1
    return moved


def _files(inbox: Path, below: str = "") -> Iterator[tuple[os.DirEntry[str], str]]:
    try:
        with os.scandir(inbox / below) as listing:
            found = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise WrongUse(
            f"the inbox {inbox / below} cannot be listed: {error.strerror}",
            expected="a folder with one folder a label",
            fix="Make it a readable folder, or name another: retraining.inbox.",
        ) from None
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(inbox, f"{below}{entry.name}/")
        else:
            yield entry, f"{below}{entry.name}"


def _found(inbox: Path, path: str) -> Iterator[Found]:
    if "/" in path:
        yield read_file(readable_name(path), os.fsencode(inbox / path))
        return
    try:
        archive_kind(inbox / path)
        for found in stream(inbox / path):  # the archive's name in front: an image at its root then has a label, a wrong one
            yield Found(f"{readable_name(path)}/{found.name}", found.data, found.size_bytes, found.problem, found.detail)
    except (DataRefused, WrongUse) as error:
        yield Found(f"{readable_name(path)}/the archive", None, (inbox / path).stat().st_size, "unreadable", str(error))
