"""monitor: add the inbox's new items to the data set, and compare them with the champion's training data.

Reads   the scenario's inbox, the data set, the champion with its origin and reference, the last retraining's record.
Writes  `data/NAME` and `data.dvc`, `quarantine/NAME/`, `outputs/NAME/drift/`; moves what it took to the inbox's `taken/`.
Stops   when the new items do not meet the scenario's expectations: then the data set and the inbox stay as they were.

TensorFlow is not needed: the champion runs on ONNX Runtime.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evergreen import figures
from evergreen.data.dataset import (
    Correction,
    Quarantine,
    Records,
    batches,
    corrections,
    is_id,
    iter_parts,
    records,
    stage_records,
    staged,
    table,
    withdrawals,
)
from evergreen.data.inbox import Inbox, InboxFile, Row, inbox_of, read_corrections, said_at
from evergreen.data.versions import fetch_data
from evergreen.errors import BadItem, EvergreenError
from evergreen.kinds.base.kind import kind_of
from evergreen.monitoring.drift import REFERENCE_ITEMS, Drift, Observations, compare, draw, observe
from evergreen.names import near
from evergreen.registry.origin import ORIGIN, REFERENCE, LastRetraining, Origin, settings_digest
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tasks.collect import collect_inbox
from tasks.page import Page, Rows, bullets, plain
from tasks.stage import Stage
from tasks.validate import validate
from tasks.version import version


@dataclass(frozen=True)
class Taken:
    """What happened to the content of an inbox.

    Attributes:
        added: number of new items.
        known: number of items that are already in the data set, and of copies.
        quarantined: number of items by reason.
        corrected: number of items that have another label now.
        corrections_known: number of corrections to the label that the item already has.
        corrections_refused: number of lines (or files) by reason; they are in quarantine.
        left: the files left for the next time, with the reason.
        unknown: number of items by label that the scenario doesn't know, which stay too; "" stands for those in no label's
            folder.
        meant: the most similar known label, by unknown label.
    """

    added: int = 0
    known: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    corrected: int = 0
    corrections_known: int = 0
    corrections_refused: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    meant: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        refused = Counter(self.quarantined) + Counter(self.corrections_refused)
        counts = {
            "new items": self.added, "known": self.known, "corrected": self.corrected, "corrections known": self.corrections_known,
            **{f"in quarantine as {reason}": count for reason, count in sorted(refused.items())}, "left for next time": len(self.left),
        }  # fmt: skip
        counted = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        unknown = "; ".join(self._of_unknown(label, count) for label, count in self.unknown.items())
        return (
            ", ".join(filter(None, [counted, f"left because validate.labels lacks their label: {unknown}" if unknown else ""]))
            or "nothing came"
        )

    def _of_unknown(self, label: str, count: int) -> str:
        files = f"{count:,} {'file' if count == 1 else 'files'}"
        if not label:
            return f"{files} in no label's folder"
        return f"{label!r}, {files}" + (f" (did you mean {self.meant[label]!r}?)" if label in self.meant else "")


@dataclass(frozen=True)
class Quality:
    """The champion's quality on the test split when it was registered (`then`), and on new items, whose given labels count as
    correct (`now`); both in the form of `Judge.tally`."""

    then: dict[str, float]
    now: dict[str, float]


@dataclass(frozen=True)
class Findings:
    """The facts on which `decide` bases its decision.

    Attributes:
        name: the scenario's name.
        taken: what happened to the content of the inbox.
        champion: the version in use, or None.
        tried: without a champion: whether a model was already trained with these settings on all items except the new ones, and
            did not become the champion.
        age_days: days since the champion was registered, or since a later retraining that did not replace it; None if unknown.
        new_items, corrected_items: number of new items, and of corrected, withdrawn or reinstated ones, that were included
            neither in the champion's training nor in such a retraining.
        quality, drift: on the new items (at most the newest 4,000); None if unknown.
        unknown: why they are unknown, in words.
        batches: names of the data set's batch folders.
    """

    name: str
    taken: Taken
    champion: int | None
    age_days: float | None
    new_items: int
    corrected_items: int
    quality: Quality | None
    drift: Drift | None
    unknown: tuple[str, ...]
    batches: tuple[str, ...]
    tried: bool = False

    def __str__(self) -> str:
        since = f"{self.new_items:,} new and {self.corrected_items:,} corrected items since the last training"
        drift = f"; {self.drift.reason}" if self.drift else ""
        return f"inbox: {self.taken}; {since}{drift}."


def monitor(scenario: Scenario, workspace: Workspace) -> Findings:
    """Add the inbox's items to the data set, and compare the items that are new to the champion with its training data.

    Raises:
        DataRefused: the new items do not meet the scenario's expectations.
        EvergreenError: the champion's files can't be read, the disk is full, or DVC can't add the new items.
    """
    fetch_data(workspace, scenario.name)
    seen = _compared(scenario, workspace, take_in(scenario, workspace))
    if seen.drift:
        draw(seen.drift, drift_picture(workspace, scenario.name))
    return seen


def drift_picture(workspace: Workspace, name: str) -> Path:
    """The picture of the last comparison."""
    return workspace.outputs(name) / "drift" / "drift.png"


def take_in(scenario: Scenario, workspace: Workspace) -> Taken:
    """Add the inbox's content to the data set, and then move it to `taken`. If a run is killed in between, repeating it gives
    the same result.

    Raises:
        EvergreenError: as in `monitor`.
    """
    settle_seconds, encoding = scenario.retraining.settle_seconds, scenario.collect.encoding
    inbox = Inbox.look_into(inbox_of(scenario, workspace), settle_seconds, encoding)
    if not len(inbox):
        return Taken(left=inbox.left)
    try:
        collection = collect_inbox(scenario, workspace, inbox)
        correcting = _Correcting(scenario, workspace)
        correcting.stage(inbox.corrections)
        if staged(workspace, scenario.name):
            # Copies and conflicts are handled one by one: they are no reason to refuse the other items.
            validate(scenario, workspace, replace(collection, duplicates=0, conflicts=0))
    except BaseException:
        shutil.rmtree(workspace.staging(scenario.name), ignore_errors=True)
        raise
    if batches(workspace, scenario.name) or staged(workspace, scenario.name):
        version(scenario, workspace, collection)
    inbox.put_away()
    return Taken(
        collection.added, collection.known + collection.duplicates, collection.quarantined, correcting.count["corrected"],
        correcting.count["known"], dict(sorted(correcting.refused.items())), inbox.left,
        dict(inbox.unknown.most_common()), _meant(inbox.unknown, kind_of(scenario).contract.known_labels(scenario)),
    )  # fmt: skip


def _meant(unknown: Iterable[str], labels: Sequence[str]) -> dict[str, str]:
    found = {label: near(label, labels) for label in unknown if label}
    return {label: meant for label, meant in found.items() if meant is not None}


class _Correcting:
    """Matches an inbox's corrections to items, and stages those that change a label."""

    def __init__(self, scenario: Scenario, workspace: Workspace) -> None:
        self.scenario, self.workspace = scenario, workspace
        self.folders = [*batches(workspace, scenario.name), *staged(workspace, scenario.name)]
        self.said = {(one.id, one.label, one.at, one.source) for one in corrections(self.folders)}
        self.new: list[Correction] = []
        self.count: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)  # id and source, by a line's reference
        self.labels: dict[str, str] = {}  # of those items

    def stage(self, files: list[InboxFile]) -> None:
        """Stage a batch of the corrections that change a label; later files take precedence."""
        if not files:
            return
        files = sorted(files, key=lambda file: (said_at(file), file.name))
        contents = [(file, Path(os.fsdecode(file.path)).read_bytes()) for file in files]
        read = [(file, content, read_corrections(content)) for file, content in contents]
        self._find({row.id for _, _, rows in read if isinstance(rows, list) for row in rows if not row.problem})
        with Quarantine(self.workspace, self.scenario.name) as quarantine:
            for file, content, rows in read:
                if isinstance(rows, str):
                    self.refused["corrections-unreadable"] += 1
                    quarantine.add(
                        file.name, "corrections-unreadable", rows, id=hashlib.sha256(content).hexdigest(), data=content, label=None,
                        size_bytes=len(content), collected_at=datetime.now(UTC),
                    )  # fmt: skip
                    continue
                said: defaultdict[str, set[str]] = defaultdict(set)  # the same item may be named in two ways
                for row in rows:
                    if len(found := self.found.get(row.id, [])) == 1:
                        said[found[0][0]].add(row.label)
                for row in dict.fromkeys(rows):
                    self._settle(file, row, said, quarantine)
        stage_records(self.workspace.staging(self.scenario.name), len(self.folders), self.new)

    def _find(self, references: set[str]) -> None:
        """Find the items to which the references (ids, prefixes of ids, paths or file names) refer, and their labels."""
        by_start: defaultdict[str, set[str]] = defaultdict(set)
        by_name: defaultdict[str, set[str]] = defaultdict(set)
        for one in references:
            by_name[_plain(one).rsplit("/", 1)[-1]].add(one)
            if re.fullmatch(r"[0-9a-f]{8,64}", one):
                by_start[one[:8]].add(one)
        columns = ["id", "label", "source"]
        for rows in iter_parts(self.folders, columns, Records(records(self.folders).labels)):
            ids, labels, sources = (rows[column].to_pylist() for column in columns)
            for id, label, source in zip(ids, labels, sources, strict=True):
                meant = {one for one in by_start.get(id[:8], ()) if id.startswith(one)}
                meant |= {one for one in by_name.get(source.rsplit("/", 1)[-1], ()) if _names(_plain(one), source)}
                for one in meant:
                    self.found[one].append((id, source))
                    self.labels[id] = str(label)
        for one, found in self.found.items():  # an exact path takes precedence over the end of a longer one
            if exact := [(id, source) for id, source in found if source == _plain(one)]:
                self.found[one] = exact

    def _settle(self, file: InboxFile, row: Row, said: dict[str, set[str]], quarantine: Quarantine) -> None:
        label, problem = row.label, ("correction-unreadable", row.problem or "") if row.problem else None
        if problem is None and (problem := self._problem(row.id, said)) is None:
            try:
                label = kind_of(self.scenario).contract.corrected(self.scenario, row.label)
            except BadItem as bad:
                problem = bad.reason, bad.detail
        if problem:
            self.refused[problem[0]] += 1
            quarantine.add(
                f"{file.name}, line {row.line}", *problem, id=row.id if is_id(row.id) else None, data=None, label=row.label,
                size_bytes=0, collected_at=datetime.now(UTC),
            )  # fmt: skip
            return
        [(id, _)] = self.found[row.id]
        if self.labels[id] == label or (id, label, said_at(file), file.name) in self.said:
            self.count["known"] += 1
        else:
            self.count["corrected"] += 1
            self.new.append(Correction(id, label, self.labels[id], row.by, said_at(file), file.name))
            self.labels[id] = label

    def _problem(self, reference: str, said: dict[str, set[str]]) -> tuple[str, str] | None:
        found = self.found.get(reference, [])
        if not found:
            return "correction-unknown-id", f"the data set has no item {reference[:200]}"
        if len(found) > 1:
            shown = ", ".join(f"{source} ({id[:12]})" for id, source in found[:5])
            more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
            return "correction-ambiguous", f"{reference[:200]} could be {shown}{more}: give more of the path, or the id"
        if len(labels := said[found[0][0]]) > 1:
            return "correction-unreadable", f"the same file gives it several labels: {', '.join(sorted(labels))}"
        return None


def _plain(reference: str) -> str:
    """Normalize a path as sources write it: with slashes, and without a leading `./`."""
    return reference.replace("\\", "/").removeprefix("./")


def _names(path: str, source: str) -> bool:
    """True if a path refers to an item: it is the item's path in the source, or one of the two paths ends with the other."""
    return source == path or source.endswith(f"/{path}") or path.endswith(f"/{source}")


def last_retraining_file(workspace: Workspace, name: str) -> Path:
    """The file that records the last retraining."""
    return workspace.record(name) / "retraining.json"


def _compared(scenario: Scenario, workspace: Workspace, taken: Taken) -> Findings:
    from evergreen.registry.models import aliases, download

    name, folders = scenario.name, batches(workspace, scenario.name)
    names = tuple(folder.name for folder in folders)
    champion = aliases(workspace, name).get("champion")
    if champion is None:
        return _without_champion(scenario, workspace, taken, folders)
    artifacts = download(workspace, name, str(champion)) / "artifacts"
    origin, last = Origin.load(artifacts / ORIGIN), LastRetraining.load(last_retraining_file(workspace, name))
    if last is not None and last.champion != champion and not _rolled_back_since(workspace, name, champion, last):
        last = None
    new, labels, changed = _new_to(folders, origin, last)
    newest = dict(list(labels.items())[-REFERENCE_ITEMS:])
    quality, drift, unknown = _asked(scenario, artifacts, origin, new, newest, folders)
    since = max([at for at in (origin and origin.registered_at, last and last.ended_at) if at], default=None)
    age = (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds() / 86_400 if since else None
    return Findings(name, taken, champion, age, len(labels), len(changed), quality, drift, unknown, names)


def _rolled_back_since(workspace: Workspace, name: str, champion: int, last: LastRetraining) -> bool:
    """True if a user has rolled back to this champion since that retraining: training on the same items again would undo that
    decision."""
    from evergreen.registry.models import rolled_back_at

    at = rolled_back_at(workspace, name, champion)
    return at is not None and at >= datetime.fromisoformat(last.ended_at)


def _new_to(folders: list[Path], *had: Origin | LastRetraining | None) -> tuple[list[Path], dict[str, str], set[str]]:
    """The data that none of the earlier trainings included.

    Returns:
        The new batch folders, the labels of their items by id, and the ids of earlier items that they correct, withdraw or
        reinstate.
    """
    known = {batch for one in had if one is not None for batch in one.batches}
    new = [folder for folder in folders if folder.name not in known]
    rows = table(new, ["id", "label"], records(folders))
    labels = dict(zip(rows["id"].to_pylist(), rows["label"].to_pylist(), strict=True))
    changed = {one.id for one in corrections(new)} | {one.id for one in withdrawals(new)}
    return new, labels, changed - labels.keys()


def _without_champion(scenario: Scenario, workspace: Workspace, taken: Taken, folders: list[Path]) -> Findings:
    """The result while there is no champion: what is new since the last model, which the gate refused or whose training failed.
    With the same items and settings, the next one would be no better."""
    from evergreen.registry.models import aliases, download, last_refusal

    name, settings = scenario.name, settings_digest(scenario)
    refused, last = None, LastRetraining.load(last_retraining_file(workspace, name))
    if last is not None and (last.champion is not None or last.settings != settings):
        last = None
    why = ["there is no champion yet"]
    challenger = aliases(workspace, name).get("challenger")
    refusal = None if challenger is None else last_refusal(workspace, name, challenger)
    if refusal is not None and refusal.champion is None and refusal.settings == settings:
        refused = Origin.load(download(workspace, name, str(challenger)) / "artifacts" / ORIGIN)
        why.append(f"version {challenger} was refused: {refusal.reason}")
    elif last is not None:
        why.append("the last training with these settings has left none")
    _, labels, changed = _new_to(folders, refused, last)
    tried = refused is not None or last is not None
    names = tuple(folder.name for folder in folders)
    return Findings(name, taken, None, None, len(labels), len(changed), None, None, (": ".join(why),), names, tried)


def _asked(
    scenario: Scenario,
    artifacts: Path,
    origin: Origin | None,
    folders: list[Path],
    labels: dict[str, Any],
    data_set: list[Path],
) -> tuple[Quality | None, Drift | None, tuple[str, ...]]:
    """The champion's quality on new items, their drift, and what is unknown, in words.

    Args:
        folders: batch folders of the new items.
        labels: of the new items, by id.
        data_set: all batch folders.
    """
    from evergreen.serving.embedding import EmbeddingModel

    kind = kind_of(scenario)

    if origin is None:
        return None, None, ("the champion was registered without its origin: all items count as new, its age is not known",)
    if not labels:
        return None, None, ()
    order: list[str] = []

    def items() -> Iterator[Any]:
        for id, item in kind.contract.items(scenario, data_set, list(labels)):
            order.append(id)
            yield item

    try:
        seen = observe(EmbeddingModel.open(artifacts), kind.contract, items(), data_set)
    except EvergreenError as error:
        return None, None, (f"the champion can't be asked about new items: {error}",)
    known = kind.contract.labels(scenario, [labels[id] for id in order], {"labels": seen.labels})
    quality = Quality(origin.quality, kind.judge.tally(seen.predicted, known)) if origin.quality.get("items") else None
    if not (artifacts / REFERENCE).is_file():
        return quality, None, ("drift is not known: the champion was registered without a reference",)
    try:
        drift = compare(Observations.load(artifacts / REFERENCE), seen, alpha=scenario.retraining.drift_level)
    except EvergreenError as error:
        return quality, None, (f"drift is not known: {error}",)
    return quality, drift, ()


def page(scenario: Scenario, workspace: Workspace, seen: Findings) -> Page:
    """The content of the inbox, and how it compares with the champion's data."""
    texts = {"Inbox": plain(f"{seen.taken}.")}
    if seen.drift:
        texts["Drift"] = plain(f"{seen.drift.reason}.")
        texts["What each feature has found"] = bullets(one.reason for one in seen.drift.features)
    if seen.unknown:
        texts["Not known"] = bullets(seen.unknown)
    drift: Rows = [
        {
            "feature": one.name,
            "drift": one.drifted,
            "distance": f"{figures.number(one.distance)} σ" if one.name == "embedding" else figures.percent(one.distance),
            "with all features in view": figures.probability(one.p_value_together),
        }
        for one in (seen.drift.features if seen.drift else ())
    ]
    left = [{"file": file, "because": why} for file, why in seen.taken.left.items()]
    unknown: Rows = [
        {"label": label, "files": count, "did you mean": seen.taken.meant.get(label, "")}
        for label, count in seen.taken.unknown.items()
    ]
    picture = {"Drift": drift_picture(workspace, seen.name)} if seen.drift else {}
    return Page(
        texts=texts,
        tables={"Drift by feature": drift, "Unknown labels, left in the inbox": unknown, "Left in the inbox": left},
        links=picture,
        pictures=picture,
    )


stage = Stage(monitor, Findings, page=page)
