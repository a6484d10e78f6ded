"""Steps of deleting items for good: find the items and everything that contains them, then remove them from each location.

Every step is idempotent: after a kill, repeating the steps completes the deletion.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.data.dataset import (
    ALLOCATED,
    CORRECTIONS,
    FORGOTTEN,
    FORMER_SPLITS,
    WITHDRAWALS,
    Records,
    batches,
    id_digest,
    is_id,
    iter_parts,
    parts,
    read_quarantine,
    records,
    staged,
    without,
)
from evergreen.data.sources.archive import ArchiveSource, archive_kind
from evergreen.errors import DataRefused, EvergreenError, WrongUse
from evergreen.privacy.retention import older_files, record_is_older
from evergreen.registry.models import connect, model_name, unreachable
from evergreen.registry.origin import ORIGIN, REFERENCE, Origin
from evergreen.workspace import Workspace, replace_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

MARK = "forgotten_items"  # tag of the model versions whose data included forgotten items


@dataclass(frozen=True)
class Asked:
    """The items to forget: those with any of these ids, source paths (shell patterns such as `cat/*.png`) or groups, and those
    that were collected before a moment."""

    ids: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    collected_before: datetime | None = None

    def names(self, id: str, source: str, group: str | None) -> bool:
        """Whether an item with this id, source and group is named."""
        return id in self.ids or group in self.groups or any(fnmatch.fnmatchcase(source, pattern) for pattern in self.sources)

    def is_too_old(self, collected_at: datetime) -> bool:
        """Whether what was collected at this time is too old."""
        return self.collected_before is not None and collected_at < self.collected_before


@dataclass(frozen=True)
class Plan:
    """What is to be removed. The plan is stored in the checkout until it is completed.

    Attributes:
        scenario: the scenario's name.
        ids: ids of the items.
        labels: number of items in the data set by label.
        quarantined: number of items in quarantine.
        examples: source paths of some of the items.
        batches: names of the batch folders that contain items.
        objects: ids of the objects in DVC's cache and remotes that contain items.
        shared_with: other scenarios that have the very same parts.
        models: versions whose data included items.
        collected_before: ISO 8601; records of the quarantine without an id, and files in the inbox's `taken/`, are removed too
            if they are from before. None to remove none by their age.
    """

    scenario: str
    ids: tuple[str, ...]
    labels: dict[str, int]
    quarantined: int
    examples: tuple[str, ...]
    batches: tuple[str, ...]
    objects: tuple[str, ...]
    shared_with: tuple[str, ...]
    models: tuple[int, ...]
    collected_before: str | None = None

    def check(self, workspace: Workspace) -> None:
        """Check that no item would be removed only in part. It takes reading the ids of the other batches.

        Raises:
            EvergreenError: an item is also in a batch that is not one of the plan's.
        """
        ids = set(self.ids)
        for folder in batches(workspace, self.scenario):
            if ids and folder.name not in self.batches:
                for rows in iter_parts([folder], ["id"], Records()):
                    if here := sorted(ids.intersection(rows["id"].to_pylist())):
                        raise EvergreenError(
                            f"items of {self.scenario} would be removed only in part; nothing was changed",
                            expected=f"those to remove are in no other batch than {', '.join(self.batches) or 'none'}",
                            received=f"{', '.join(here[:3])}{', …' * (len(here) > 3)} in {folder.name}",
                            fix=f"Delete {journal(workspace, self.scenario)} if it is there, and repeat the command.",
                        )

    def save(self, workspace: Workspace) -> None:
        """Write the plan, so that the deletion can be resumed after a kill."""
        replace_file(journal(workspace, self.scenario), json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, workspace: Workspace, name: str) -> Plan | None:
        """The plan that is not completed yet, or None."""
        try:
            stored: dict[str, Any] = json.loads(journal(workspace, name).read_text())
        except (OSError, ValueError):
            return None
        whole: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
        whole["ids"] = tuple(id for id in whole["ids"] if is_id(id))  # plans of earlier versions may have paths among them
        return cls(**whole)


def journal(workspace: Workspace, name: str) -> Path:
    """The file that contains a scenario's plan until it is completed."""
    return workspace.private / "forget" / f"{name}.json"


@dataclass(frozen=True, slots=True)
class Match:
    """An item to forget, in the data set (`batch` is its folder's name) or in quarantine (`batch` is None)."""

    id: str
    source: str
    label: str
    batch: str | None


def matches(workspace: Workspace, name: str, asked: Asked) -> list[Match]:
    """Find the items to forget, including their records in quarantine under other names, and items of the data set of which a
    record in quarantine is named. The age of an item of the data set is its own, whatever the ages of its records in
    quarantine: it may have been refused before, or under another name since. Of items that are in quarantine alone, the oldest
    record counts.

    Raises:
        WrongUse: items are named, and there are none.
    """
    refused = [record for record in read_quarantine(workspace, name) if is_id(record["id"])]
    named = {record["id"] for record in refused if asked.names(record["id"], record["source"], None)}
    found: list[Match] = []
    folders = batches(workspace, name)
    labels = Records(records(folders).labels)
    for folder in folders:
        for rows in iter_parts([folder], ["id", "source", "group", "label", "collected_at"], labels):
            for row in rows.to_pylist():
                is_named = row["id"] in named or asked.names(row["id"], row["source"], row["group"])
                if is_named or asked.is_too_old(row["collected_at"]):
                    found.append(Match(row["id"], row["source"], str(row["label"]), folder.name))
    aged = {record["id"] for record in refused if asked.is_too_old(datetime.fromisoformat(record["collected_at"]))}
    ids = {one.id for one in found} | named | _not_in(aged, [*folders, *staged(workspace, name)])
    found += [Match(record["id"], record["source"], record["label"] or "", None) for record in refused if record["id"] in ids]
    if not found and asked.collected_before is None:
        raise WrongUse(
            f"scenario {name} has no such item, neither in its data set nor in quarantine",
            received=asdict(asked), fix="An id is a sha256 (of an image, that of its file), a source the item's path in its source (quote patterns).",
        )  # fmt: skip
    return found


def _not_in(ids: set[str], folders: list[Path]) -> set[str]:
    """Those of these ids that no item in these batch folders has."""
    left = set(ids)
    for rows in iter_parts(folders if ids else [], ["id"], Records()):
        left.difference_update(rows["id"].to_pylist())
    return left


def dealt_file(workspace: Workspace, name: str) -> Path:
    """The file that contains the splits of the remaining items until they are in the data set."""
    return journal(workspace, name).with_suffix(".parquet")


def keep_splits(workspace: Workspace, plan: Plan) -> None:
    """Store the splits of the remaining items, as in `outputs/NAME/splits`: if splits were assigned again without the forgotten
    items, they could change."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows, sink = pq.read_table(workspace.splits(plan.scenario) / "items.parquet"), pa.BufferOutputStream()
    rows = rows.select(["id", ALLOCATED, "left_out", "cluster"]).filter(
        pc.invert(pc.is_in(rows["id"], pa.array(plan.ids, pa.string())))
    )
    pq.write_table(rows, sink, compression="zstd")
    replace_file(dealt_file(workspace, plan.scenario), sink.getvalue().to_pybytes())


def rewrite_data(workspace: Workspace, plan: Plan) -> None:
    """Remove the items from `data/NAME`: record their digests, so that they are not collected again, and then rewrite the parts
    and records without them.

    Raises:
        EvergreenError: an item is also in a batch that is not one of the plan's; nothing is changed.
    """
    plan.check(workspace)
    ids, folders = set(plan.ids), batches(workspace, plan.scenario)
    digests = {id_digest(bytes.fromhex(id)).hex() for id in ids}
    affected = [folder for folder in folders if folder.name in plan.batches] or folders[-1:]
    for folder in affected:
        path = folder / FORGOTTEN
        old = path.read_bytes() if path.exists() else b""
        known = {json.loads(line)["digest"] for line in old.splitlines()}
        at = datetime.now(UTC).date().isoformat()
        new = b"".join(json.dumps({"digest": one, "at": at}).encode() + b"\n" for one in sorted(digests - known))
        if new:
            replace_file(path, old + new)
    for folder in folders:
        for part in parts([folder]):
            if folder.name in plan.batches:
                left = without(part, ids)
                if left is None:
                    part.unlink()
                else:
                    replace_file(part, left)
        for name in (CORRECTIONS, WITHDRAWALS):
            _filter_lines(folder / name, ids)
    _keep_former_splits(workspace, plan, folders)


def _keep_former_splits(workspace: Workspace, plan: Plan, folders: list[Path]) -> None:
    """Put the splits of the remaining items into the data set in place of those from earlier deletions. If none were stored, as
    no model was trained on the plan's batches, the newest of those stay, without the forgotten items."""
    kept, files = dealt_file(workspace, plan.scenario), [folder / FORMER_SPLITS for folder in folders]
    older = [file for file in files if file.exists()]
    if kept.exists() and folders:
        newest = _last_covered(folders, kept) / FORMER_SPLITS
        replace_file(newest, kept.read_bytes())
    elif older:
        newest = older[-1]
        if _names_any(newest, set(plan.ids)):
            replace_file(newest, _rows_without(newest, set(plan.ids)))
    for file in older:
        if file != newest:
            file.unlink()


def _last_covered(folders: list[Path], splits: Path) -> Path:
    """The last of these batch folders whose items have these splits: others may have come while a deletion was interrupted."""
    import pyarrow.parquet as pq

    items, covered, found = pq.read_metadata(splits).num_rows, 0, folders[-1]
    for folder in folders:
        covered += sum(pq.read_metadata(part).num_rows for part in parts([folder]))
        if covered == items:
            found = folder
    return found


def clean_files(workspace: Workspace, plan: Plan, inbox: Path, ids_in: Callable[[bytes], set[str]]) -> list[str]:
    """Remove the items from everything in the checkout that was made from the data set, from quarantine and from the inbox.

    Args:
        ids_in: finds the items in a file of the inbox (`Contract.ids_in`).

    Returns:
        The files that the user has to handle: those in the inbox that contain items to forget among others, and were not taken
        in yet.
    """
    name, ids = plan.scenario, set(plan.ids)
    outputs, private = workspace.outputs(name), workspace.private
    for folder in (
        workspace.splits(name), workspace.evaluation(name), workspace.data_docs(name), workspace.staging(name),
        workspace.checkpoints(name), outputs / "tuning", workspace.explained(name),
        *(private / what / name for what in ("incoming", "outgoing", "tuning")), workspace.features(name),
    ):  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
    for file in (
        workspace.data_page(name),
        outputs / "report.html",
        outputs.parent / "report.html",
        workspace.champion(name) / REFERENCE,
    ):
        file.unlink(missing_ok=True)
    for file in _files(outputs):
        if file.parent == workspace.record(name) and file.name.startswith("stage-") or _names_any(file, ids):
            file.unlink()
    quarantine, reviewed = workspace.quarantine(name), workspace.review(name)
    shutil.rmtree(reviewed / "cache", ignore_errors=True)
    _filter_lines(reviewed / "decisions.jsonl", ids, key="item")
    _filter_lines(quarantine / "records.jsonl", ids)
    for id in ids:
        (quarantine / "items" / id[:2] / id).unlink(missing_ok=True)
    left = list(_clean_inbox(inbox, ids, ids_in))
    if plan.collected_before is not None:
        remove_aged(workspace, name, inbox, datetime.fromisoformat(plan.collected_before))
    return left


def remove_aged(workspace: Workspace, name: str, inbox: Path, before: datetime) -> None:
    """Remove the records of the quarantine that are from before a moment, the bytes that no other record refers to, and the
    files that the inbox's `taken/` has had since before it."""
    quarantine = workspace.quarantine(name)
    refused = [record for record in read_quarantine(workspace, name) if is_id(record["id"])]
    kept = {record["id"] for record in refused if not record_is_older(record, before)}
    for id in {record["id"] for record in refused} - kept:
        (quarantine / "items" / id[:2] / id).unlink(missing_ok=True)
    _keep_lines(quarantine / "records.jsonl", lambda record: not record_is_older(record, before))
    for file in older_files(inbox, before):
        file.unlink()


def _clean_inbox(folder: Path, ids: set[str], ids_in: Callable[[bytes], set[str]]) -> Iterator[str]:
    taken = folder / "taken"
    for file in _files(folder):
        archive = _is_archive(file)
        held = set() if archive else ids_in(file.read_bytes())
        if file.parent == folder and file.suffix.lower() == ".csv" and _names_any(file, ids):
            _filter_corrections(file, ids)
        elif _names_any(file, ids) or held and held <= ids:
            file.unlink()
        elif held & ids or archive and _archive_has(file, ids, ids_in):
            if taken in file.parents:  # its other items are in the data set
                file.unlink()
            else:
                yield str(file)


def clean_models(workspace: Workspace, plan: Plan, log: Callable[[str], None]) -> None:
    """Remove the items from the artifacts of the scenario's runs in MLflow (predictions, records). From the versions whose data
    included items, also remove the reference for drift, and tag them.

    Raises:
        Unreachable: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    client: MlflowClient = connect(workspace).MlflowClient()
    try:
        for run in _runs(client, plan.scenario):
            _clean_artifacts(run.info.artifact_uri, set(plan.ids), log)
        for number in plan.models:
            version = client.get_model_version(model_name(plan.scenario), str(number))
            _artifacts(_location(client, version)).delete_artifacts(f"artifacts/{REFERENCE}")
            mark = json.dumps({"items": len(plan.ids), "at": datetime.now(UTC).isoformat(timespec="seconds")})
            client.set_model_version_tag(version.name, version.version, MARK, mark)
    except MlflowException as error:
        raise unreachable(workspace, error) from None


def models_with(workspace: Workspace, name: str, batch_names: set[str]) -> tuple[int, ...]:
    """The model versions whose data included any of these batches, and those of which that is unknown.

    Raises:
        Unreachable: MLflow does not answer.
    """
    import tempfile

    from mlflow.exceptions import MlflowException

    client: MlflowClient = connect(workspace).MlflowClient()
    found = []
    try:
        for version in client.search_model_versions(f"name='{model_name(name)}'"):
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    origin = Origin.load(
                        Path(_artifacts(_location(client, version)).download_artifacts(f"artifacts/{ORIGIN}", scratch))
                    )
                except (OSError, MlflowException):
                    origin = None
            if origin is None or batch_names & set(origin.batches):
                found.append(int(version.version))
    except MlflowException as error:
        raise unreachable(workspace, error) from None
    return tuple(sorted(found))


def _runs(client: MlflowClient, name: str) -> list[Any]:
    from mlflow.entities import ViewType

    experiment = client.get_experiment_by_name(model_name(name))
    return (
        []
        if experiment is None
        else list(client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, max_results=50_000))
    )


def _location(client: MlflowClient, version: Any) -> str:
    """The URI of a version's files."""
    address = str(version.source)
    if address.startswith("models:/m-"):
        return str(client.get_logged_model(address.removeprefix("models:/")).artifact_location)
    if address.startswith("runs:/"):
        from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

        return str(RunsArtifactRepository.get_underlying_uri(address))
    return address


def _artifacts(uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri)


def _clean_artifacts(uri: str, ids: set[str], log: Callable[[str], None]) -> None:
    """Rewrite tables without the items, and delete other files that contain their ids; network files contain no ids."""
    import tempfile

    repository = _artifacts(uri)

    def below(path: str | None) -> Iterator[str]:
        for entry in repository.list_artifacts(path):
            yield from below(entry.path) if entry.is_dir else iter([entry.path])

    with tempfile.TemporaryDirectory() as scratch:
        for path in below(None):
            if not path.endswith((".parquet", ".json", ".jsonl", ".yaml", ".csv", ".html", ".md", ".txt")):
                continue
            file = Path(repository.download_artifacts(path, scratch))
            if not _names_any(file, ids):
                continue
            repository.delete_artifacts(path)
            if path.endswith(".parquet"):
                left = _rows_without(file, ids)
                copy = Path(scratch) / "left" / file.name
                replace_file(copy, left)
                repository.log_artifact(str(copy), os.path.dirname(path) or None)
            log(f"{path} of {uri.rstrip('/').rsplit('/', 2)[-2]}")


def _rows_without(file: Path, ids: set[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows, sink = pq.read_table(file), pa.BufferOutputStream()
    pq.write_table(rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(ids, pa.string())))), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _names_any(file: Path, ids: set[str]) -> bool:
    """Whether a table or a text file contains any of these ids; False if it cannot be read."""
    from evergreen.data.versions import holds

    try:
        return holds(file, ids)
    except (OSError, ValueError, KeyError):
        return False


def _filter_corrections(path: Path, ids: set[str]) -> None:
    """Rewrite a file of corrections without the lines that name these ids; if none is left, delete the file."""
    first, *lines = path.read_bytes().splitlines(keepends=True)
    left = [line for line in lines if not any(id.encode() in line.lower() for id in ids)]
    if left:
        replace_file(path, b"".join([first, *left]))
    else:
        path.unlink()


def _filter_lines(path: Path, ids: set[str], key: str = "id") -> None:
    """Rewrite a file of JSON lines without the lines that have one of these ids as `key`; if none is left, delete the file."""
    _keep_lines(path, lambda record: record.get(key) not in ids)


def _keep_lines(path: Path, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a file of JSON lines with those that are kept; if none is left, delete the file. An incomplete last line is
    kept."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    left = [line for line in lines if not line.endswith(b"\n") or is_kept(json.loads(line))]
    if not left:
        path.unlink()
    elif len(left) < len(lines):
        replace_file(path, b"".join(left))


def _is_archive(file: Path) -> bool:
    try:
        archive_kind(file)
    except WrongUse:
        return False
    return True


def _archive_has(file: Path, ids: set[str], ids_in: Callable[[bytes], set[str]]) -> bool:
    try:
        entries = ArchiveSource(file).stream()
        return any(entry.data is not None and ids_in(entry.data) & ids for entry in entries)
    except (WrongUse, DataRefused, EvergreenError, OSError):
        return False


def _files(folder: Path) -> Iterable[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
