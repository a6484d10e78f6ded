"""What it takes to forget items for good: which they are, what holds them, and taking them out of each place.

Every step may be done again, and does nothing then: whoever is killed half-way, and does the same again, ends as if nothing had happened.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.data.dataset import (
    CORRECTIONS,
    DEALT,
    FORGOTTEN,
    WITHDRAWALS,
    Records,
    batches,
    id_digest,
    iter_parts,
    parts,
    read_quarantine,
    records,
    without,
)
from evergreen.data.sources.archive import ArchiveSource
from evergreen.errors import DataRefused, EvergreenError, WrongUse
from evergreen.registry.models import connect, model_name, unreachable
from evergreen.registry.origin import ORIGIN, REFERENCE, Origin
from evergreen.workspace import Workspace, replace_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

MARK = "forgotten_items"  # a tag of the model versions that had them


@dataclass(frozen=True)
class Asked:
    """Which items are meant: any of these ids, source paths (shell patterns such as `cat/*.png`) or groups."""

    ids: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def means(self, id: str | None, source: str, group: str | None) -> bool:
        """Whether an item with this id, source and group is one of them."""
        return id in self.ids or group in self.groups or any(fnmatch.fnmatchcase(source, pattern) for pattern in self.sources)


@dataclass(frozen=True)
class Plan:
    """What is to be taken out. It is kept in the checkout until all is done.

    Attributes:
        scenario: its name.
        ids: of the items.
        labels: items of the data set by label.
        quarantined: items that are in quarantine.
        examples: paths in the source of some of them.
        batches: names of the batch folders that hold them.
        objects: of DVC's cache and remotes that hold them.
        shared_with: other scenarios that have the very same parts.
        models: versions that had them in their data.
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

    def save(self, workspace: Workspace) -> None:
        """Write the plan, so that a run that was killed goes on with it."""
        replace_file(journal(workspace, self.scenario), json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, workspace: Workspace, name: str) -> Plan | None:
        """The plan that was not carried out to its end, if there is one."""
        try:
            told: dict[str, Any] = json.loads(journal(workspace, name).read_text())
        except (OSError, ValueError):
            return None
        whole: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
        return cls(**whole)


def journal(workspace: Workspace, name: str) -> Path:
    """The file that holds the plan of a scenario until it is carried out."""
    return workspace.private / "forget" / f"{name}.json"


@dataclass(frozen=True, slots=True)
class Match:
    """An item that is meant: of the data set (`batch` is its folder's name) or in quarantine (`batch` is None)."""

    id: str
    source: str
    label: str
    batch: str | None


def matches(workspace: Workspace, name: str, asked: Asked) -> list[Match]:
    """The items that are meant. Of one that is, every trace is: also its records in quarantine under other names.

    Raises:
        WrongUse: there are none.
    """
    found: list[Match] = []
    folders = batches(workspace, name)
    labels = Records(records(folders).labels)
    for folder in folders:
        for rows in iter_parts([folder], ["id", "source", "group", "label"], labels):
            for row in rows.to_pylist():
                if asked.means(row["id"], row["source"], row["group"]):
                    found.append(Match(row["id"], row["source"], row["label"], folder.name))
    ids = {one.id for one in found}
    for record in read_quarantine(workspace, name):
        if record["id"] and (record["id"] in ids or asked.means(record["id"], record["source"], None)):
            found.append(Match(record["id"], record["source"], record["label"] or "", None))
    if not found:
        raise WrongUse(
            f"scenario {name} has no such item, neither in its data set nor in quarantine",
            received=asdict(asked), fix="An id is the sha256 of the image file, a source the item's path in its source (quote patterns).",
        )  # fmt: skip
    return found


def dealt_file(workspace: Workspace, name: str) -> Path:
    """Where the splits of the items that stay are kept until they are in the data set."""
    return journal(workspace, name).with_suffix(".parquet")


def keep_splits(workspace: Workspace, plan: Plan) -> None:
    """Keep the splits of the items that stay, as `outputs/NAME/splits` has them: dealt anew without the others, they could change theirs."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows, sink = pq.read_table(workspace.splits(plan.scenario) / "items.parquet"), pa.BufferOutputStream()
    rows = rows.select(["id", "dealt", "left_out", "cluster"]).filter(
        pc.invert(pc.is_in(rows["id"], pa.array(plan.ids, pa.string())))
    )
    pq.write_table(rows, sink, compression="zstd")
    replace_file(dealt_file(workspace, plan.scenario), sink.getvalue().to_pybytes())


def rewrite_data(workspace: Workspace, plan: Plan) -> None:
    """Take the items out of `data/NAME`: first their digests are written down, so that they are not collected again, then the parts and
    records are written anew without them."""
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
    kept = dealt_file(workspace, plan.scenario)
    if kept.exists() and folders:
        replace_file(folders[-1] / DEALT, kept.read_bytes())
    for folder in folders[:-1]:
        (folder / DEALT).unlink(missing_ok=True)
    if folders and _names_any(folders[-1] / DEALT, ids):  # of an earlier time
        (folders[-1] / DEALT).unlink()


def clean_files(workspace: Workspace, plan: Plan, inbox: Path) -> list[str]:
    """Take the items out of everything in the checkout that was made of the data set, and out of quarantine and inbox.

    Returns:
        What is left to the user: archives in the inbox that hold them and were not taken in yet.
    """
    name, ids = plan.scenario, set(plan.ids)
    outputs, private = workspace.outputs(name), workspace.private
    for folder in (
        workspace.splits(name), workspace.evaluation(name), workspace.data_docs(name), workspace.staging(name),
        workspace.checkpoints(name), outputs / "tuning", *(private / what / name for what in ("incoming", "outgoing", "tuning")),
    ):  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
    for file in (outputs / "report.html", outputs.parent / "report.html", private / "champion" / name / REFERENCE):
        file.unlink(missing_ok=True)
    for file in _files(outputs):
        if file.parent == workspace.record(name) and file.name.startswith("stage-") or _names_any(file, ids):
            file.unlink()
    quarantine = workspace.quarantine(name)
    _filter_lines(quarantine / "records.jsonl", ids)
    for id in ids:
        (quarantine / "items" / id[:2] / id).unlink(missing_ok=True)
    return list(_clean_inbox(inbox, ids))


def _clean_inbox(folder: Path, ids: set[str]) -> Iterator[str]:
    taken = folder / "taken"
    for file in _files(folder):
        if _names_any(file, ids) or _sha256(file) in ids:
            file.unlink()
        elif _archive_has(file, ids):
            if taken in file.parents:  # what else it held is in the data set
                file.unlink()
            else:
                yield str(file)


def clean_models(workspace: Workspace, plan: Plan, log: Callable[[str], None]) -> None:
    """Take the items out of what MLflow keeps of the scenario's runs (predictions, records), and the references for drift out of the
    versions that had them; mark these versions.

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
    """The model versions whose data held any of these batches; those of which nobody can tell count as such.

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
    """Where a version's files are."""
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
    """Tables are written anew without the items, other files that name them are deleted; networks hold no names."""
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
    """Whether a table has, or a text contains, any of these ids."""
    from evergreen.data.versions import holds

    try:
        return holds(file, ids)
    except (OSError, ValueError, KeyError):
        return False


def _filter_lines(path: Path, ids: set[str]) -> None:
    """Write a file of JSON lines anew without the lines of these ids; one that is empty then is deleted."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    left = [line for line in lines if not line.endswith(b"\n") or json.loads(line).get("id") not in ids]
    if not left:
        path.unlink()
    elif len(left) < len(lines):
        replace_file(path, b"".join(left))


def _archive_has(file: Path, ids: set[str]) -> bool:
    try:
        entries = ArchiveSource(file).stream()
        return any(entry.data is not None and hashlib.sha256(entry.data).hexdigest() in ids for entry in entries)
    except (WrongUse, DataRefused, EvergreenError, OSError):
        return False


def _files(folder: Path) -> Iterable[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]


def _sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
