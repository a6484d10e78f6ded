"""MLflow as Evergreen uses it: one registered model per scenario, `evergreen-NAME`, with aliases for the version in use.

`@champion` is the version in use, `@previous` the one before it, and `@challenger` the one registered last. An alias is moved
atomically, and only after everything about its new version is stored.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import sqlite3
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen import progress
from evergreen.environment import changed
from evergreen.errors import EvergreenError, Unreachable, WrongUse
from evergreen.registry.store import ARTIFACT_ROOT, database, readdress
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

log = logging.getLogger("evergreen")

ALIASES = ("champion", "challenger", "previous")
# Prefixes of tags, followed by the moment. MLflow's aliases have no history, so tags record when and how a version became the
# champion, and when the gate refused it.
NOTE = "champion-"
REFUSED = "refused-"
# The query of `look_up` on a local store, in MLflow's tables. A test compares its result with that of MLflow's own client.
VERSION_AND_ALIASES = """
SELECT '' AS alias, version, run_id, creation_time
FROM model_versions JOIN model_version_tags USING (workspace, name, version)
WHERE workspace = 'default' AND name = :name AND key = 'fingerprint' AND value = :fingerprint AND current_stage <> 'Deleted_Internal'
UNION ALL
SELECT alias, version, NULL, NULL FROM registered_model_aliases WHERE workspace = 'default' AND name = :name
"""
ANSWER_SECONDS = 10  # timeout for a server; after it, MLflow's client is used, which has longer timeouts and retries
MOMENT = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True)
class Rollback:
    """The result of a rollback to the previous champion.

    Attributes:
        scenario: the scenario's name.
        champion: the version in use now.
        previous: the version in use before.
    """

    scenario: str
    champion: int
    previous: int

    def __str__(self) -> str:
        return (
            f"evergreen-{self.scenario}: version {self.champion} is the champion again; version {self.previous} is @previous now "
            f"(the same command undoes this)."
        )


@dataclass(frozen=True)
class Held:
    """The current state of a scenario's model in the store.

    Attributes:
        version: the version with the requested fingerprint; None if there is none.
        run_id: of that version.
        created_at_ms: when that version was created (Unix time). Together with the fingerprint it identifies the version,
            regardless of the store's address and the checkout's path, and even if another or a new store has a different model
            under the same number.
        aliases: version by alias.
    """

    version: int | None
    run_id: str | None
    created_at_ms: int
    aliases: dict[str, int]

    @classmethod
    def of(cls, versions: Iterable[tuple[int, str, int]], aliases: dict[str, int]) -> Held:
        """The latest of several versions with one fingerprint, `(version, run_id, created_at_ms)` each."""
        version, run_id, created_at_ms = max(versions, default=(None, None, 0))
        return cls(version, run_id, created_at_ms, aliases)


@dataclass(frozen=True)
class Refusal:
    """A refusal by the gate to make a version the champion.

    Attributes:
        at: when, UTC.
        reason: in a sentence.
        champion: the version that it was compared with; None if there was none.
        settings: a digest of the scenario's settings (`evergreen.registry.origin.settings_digest`).
    """

    at: datetime
    reason: str
    champion: int | None
    settings: str


def tracking_uri(workspace: Workspace) -> str:
    """The address of the user's or `evergreen up`'s MLflow if there is one, else of the checkout's own store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database(workspace)}"


def registry_uri(workspace: Workspace) -> str:
    """The address of the model registry: the tracking store, unless the user has configured another one."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri(workspace)


def connect(workspace: Workspace) -> Any:
    """Import `mlflow` and set it to `tracking_uri`; returns the module. The environment is left unchanged."""
    uri = tracking_uri(workspace)
    own = uri == f"sqlite:///{database(workspace)}"
    if own:
        readdress(database(workspace))
    if "mlflow" not in sys.modules:
        with progress.task("Starting MLflow"):
            import mlflow
    import mlflow
    from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

    from evergreen.registry import artifacts

    # The same as the entry point, which is missing if the environment has metadata of an earlier version.
    repositories: dict[str, Any] = get_registered_artifact_repositories()
    repositories["mlflow-artifacts"] = artifacts.served_or_beside
    artifacts.set_checkout(workspace)
    # MLflow sets the first two, and the next call would take them for the user's. It reads the third when it opens a store,
    # which it caches, and offers no other way to pass it; if it stays set, MLflow takes the process for a server.
    with changed(
        MLFLOW_TRACKING_URI=uri, MLFLOW_REGISTRY_URI=registry_uri(workspace), _MLFLOW_SERVER_ARTIFACT_ROOT=ARTIFACT_ROOT
    ):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(registry_uri(workspace))
        if own:
            mlflow.MlflowClient()
    return mlflow


def model_name(name: str) -> str:
    """The name of a scenario's registered model."""
    return f"evergreen-{name}"


def look_up(workspace: Workspace, name: str, fingerprint: str) -> Held:
    """The current state of a scenario's model in the store: the version with a fingerprint, and all aliases. It is needed in
    every run that changes nothing, and therefore avoids importing MLflow (3 s) if the store is a SQLite file or a server that
    requires no credentials.

    Raises:
        Unreachable: the store does not answer.
    """
    uri, model = registry_uri(workspace), model_name(name)
    if uri.startswith("sqlite:///") and "?" not in uri:
        with contextlib.suppress(sqlite3.Error):  # locked, or of another version of MLflow
            return _from_file(Path(uri.removeprefix("sqlite:///")), model, fingerprint)
    if uri.startswith(("http://", "https://")):
        with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
            return _from_server(uri.rstrip("/"), model, fingerprint)
    try:
        found = connect(workspace).MlflowClient().search_model_versions(_filter(model, fingerprint))
    except Exception as error:  # noqa: BLE001 (also SQLAlchemy's, of a file that is no database)
        raise unreachable(workspace, error) from None
    versions = [(int(one.version), str(one.run_id), int(one.creation_timestamp)) for one in found]
    return Held.of(versions, aliases(workspace, name))


def _from_file(path: Path, model: str, fingerprint: str) -> Held:
    if not path.exists():
        return Held.of([], {})
    with contextlib.closing(sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True)) as store:
        rows = store.execute(VERSION_AND_ALIASES, {"name": model, "fingerprint": fingerprint}).fetchall()
    aliases = {alias: int(version) for alias, version, *_ in rows if alias}
    return Held.of([(int(version), run_id, created) for alias, version, run_id, created in rows if not alias], aliases)


def _from_server(url: str, model: str, fingerprint: str) -> Held:
    """Look up the state by the server's REST API.

    Raises:
        OSError, ValueError, KeyError, http.client.HTTPException: no answer, or an unexpected one. The server may require
            credentials, which MLflow's client can find.
    """

    def ask(method: str, **question: str) -> dict[str, Any]:
        address = f"{url}/api/2.0/mlflow/{method}?{urllib.parse.urlencode(question)}"
        try:
            with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            answer = json.load(error)
            if answer.get("error_code") != "RESOURCE_DOES_NOT_EXIST":
                raise
        return answer

    found = ask("model-versions/search", filter=_filter(model, fingerprint)).get("model_versions", [])
    versions = [(int(one["version"]), one.get("run_id", ""), int(one["creation_timestamp"])) for one in found]
    named = ask("registered-models/get", name=model).get("registered_model", {}).get("aliases", [])
    return Held.of(versions, {one["alias"]: int(one["version"]) for one in named})


def _filter(model: str, fingerprint: str) -> str:
    return f"name = '{model}' AND tags.fingerprint = '{fingerprint}'"


def find_version(workspace: Workspace, name: str, requested: str) -> int:
    """The version that an alias or a number refers to.

    Raises:
        WrongUse: there is none; the error lists the versions and aliases that exist.
        Unreachable: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    client: MlflowClient = connect(workspace).MlflowClient()
    try:
        if requested.isdigit():
            return int(client.get_model_version(model_name(name), requested).version)
        return int(client.get_model_version_by_alias(model_name(name), requested).version)
    except MlflowException as error:
        _raise_where_away(workspace, error)
        if not _versions(client, name):
            from evergreen.scenario.loading import load_scenario

            load_scenario(workspace.scenarios, name)  # raises an error if there is no such scenario
        raise WrongUse(
            f"{model_name(name)} has no version {requested}", expected=_there_are(client, name), received=requested,
            fix=_how_to_get(client, name, requested),
        ) from None  # fmt: skip


def aliases(workspace: Workspace, name: str) -> dict[str, int]:
    """Version by alias; empty if there is no such model."""
    from mlflow.exceptions import MlflowException

    client: MlflowClient = connect(workspace).MlflowClient()
    try:
        found = client.get_registered_model(model_name(name)).aliases
    except MlflowException as error:
        _raise_where_away(workspace, error)
        return {}
    return {alias: int(version) for alias, version in found.items()}


def _raise_where_away(workspace: Workspace, error: MlflowException) -> None:
    """Raise an error unless MLflow has reported that something does not exist.

    Raises:
        Unreachable: MLflow did not answer, or reported any other error.
    """
    if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        raise unreachable(workspace, error) from None


def unreachable(workspace: Workspace, error: Exception) -> Unreachable:
    """Convert an error of MLflow's to an `Unreachable`."""
    uri = urllib.parse.urlsplit(tracking_uri(workspace))
    where = uri._replace(netloc=uri.netloc.rpartition("@")[2]).geturl()  # without a password
    return Unreachable(
        f"MLflow at {where} does not answer: {str(error).partition('(Caused')[0]}",
        fix="See that it does, and do the same again: what is finished is kept, and the champion stays.",
    )


def set_alias(workspace: Workspace, name: str, alias: str, version: int) -> None:
    """Point an alias (`champion`, `challenger`, …) at this version."""
    connect(workspace).MlflowClient().set_registered_model_alias(model_name(name), alias, str(version))


def moving_aliases(workspace: Workspace, name: str) -> contextlib.AbstractContextManager[None]:
    """A lock to hold while aliases are read and moved, so that no other process moves them in between."""
    return workspace.lock(f"promote-{name}")


def set_champion(workspace: Workspace, name: str, version: int) -> int | None:
    """Make a version the champion, and the current champion `@previous`; returns the latter. The caller holds
    `moving_aliases`.

    After a kill in between, both aliases name the old champion, which stays in use.
    """
    current = aliases(workspace, name).get("champion")
    if current == version:
        return current
    if current is not None:
        set_alias(workspace, name, "previous", current)
    set_alias(workspace, name, "champion", version)
    _note(workspace, name, version, "promoted", current)
    return current


def rollback(workspace: Workspace, name: str) -> Rollback:
    """Make the previous champion the champion again.

    Raises:
        WrongUse: there is none.
    """
    with moving_aliases(workspace, name):
        current = aliases(workspace, name)
        champion, previous = current.get("champion"), current.get("previous")
        if previous is None or champion is None or previous == champion:
            raise WrongUse(
                f"{model_name(name)} has no previous champion to go back to",
                expected="a model that was promoted in another one's place",
                received=current or None,
                fix="To use a version of your choice: "
                f"evergreen promote {name} --version {previous if champion is None and previous else 'N'} --force",
            )
        set_alias(workspace, name, "champion", previous)
        set_alias(workspace, name, "previous", champion)
        _note(workspace, name, previous, "rolled back to", champion)
        return Rollback(name, previous, champion)


def champion_notes(tags: dict[str, str]) -> list[tuple[datetime, str, int | None]]:
    """When a version became the champion (UTC), how (`promoted` or `rolled back to`), and which version it replaced; from its
    tags, oldest first."""
    return [(at, str(record["how"]), record["instead_of"]) for at, record in _records(tags, NOTE, "how", "instead_of")]


def rolled_back_at(workspace: Workspace, name: str, version: int) -> datetime | None:
    """When this version was put back into use by a rollback (UTC); None if it last came into use otherwise."""
    records = champion_notes(connect(workspace).MlflowClient().get_model_version(model_name(name), str(version)).tags)
    return records[-1][0] if records and records[-1][1] == "rolled back to" else None


def refuse(workspace: Workspace, name: str, version: int, reason: str, champion: int | None, settings: str) -> None:
    """Record on a version that the gate has kept it from becoming the champion. Arguments as in `Refusal`."""
    _record(workspace, name, version, REFUSED, {"reason": reason, "champion": champion, "settings": settings})


def last_refusal(workspace: Workspace, name: str, version: int) -> Refusal | None:
    """The gate's last refusal of a version; None if there is none."""
    tags = connect(workspace).MlflowClient().get_model_version(model_name(name), str(version)).tags
    found = _records(tags, REFUSED, "reason", "champion", "settings")
    return Refusal(found[-1][0], **found[-1][1]) if found else None


def _records(tags: dict[str, str], prefix: str, *keys: str) -> list[tuple[datetime, dict[str, Any]]]:
    """The records that `_record` wrote, oldest first, with only the given keys; records that lack one are left out."""
    records = []
    for key, value in tags.items():
        if key.startswith(prefix):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(value)
                moment = datetime.strptime(key.removeprefix(prefix), MOMENT).replace(tzinfo=UTC)
                records.append((moment, {key: record[key] for key in keys}))
    return sorted(records, key=lambda record: record[0])


def _note(workspace: Workspace, name: str, version: int, how: str, instead_of: int | None) -> None:
    """Record on a version that it has become the champion. The alias has already moved, even if recording fails."""
    _record(workspace, name, version, NOTE, {"how": how, "instead_of": instead_of})


def _record(workspace: Workspace, name: str, version: int, prefix: str, record: dict[str, Any]) -> None:
    """Tag a version with a record, under the current time. A failure is only logged, since the event has already happened."""
    key = f"{prefix}{datetime.now(UTC).strftime(MOMENT)}"
    try:
        connect(workspace).MlflowClient().set_model_version_tag(model_name(name), str(version), key, json.dumps(record))
    except Exception as error:  # noqa: BLE001 (the event has happened even if it cannot be recorded)
        log.warning("What became of version %s could not be recorded in MLflow: %s (%s).", version, record, error)


def download(workspace: Workspace, name: str, requested: str) -> Path:
    """The folder of a registered model, in MLflow's layout. Files on a server are downloaded once per process to a temporary
    folder; without a server, this is the folder in which they are stored, and nothing is copied.

    Raises:
        WrongUse: there is no such version.
        EvergreenError: its files can't be read.
    """
    version = find_version(workspace, name, requested)
    mlflow = connect(workspace)
    try:
        address = mlflow.MlflowClient().get_model_version_download_uri(model_name(name), str(version))
        return _fetched(mlflow, address, tracking_uri(workspace))
    except (mlflow.MlflowException, OSError) as error:
        raise EvergreenError(
            f"the files of {model_name(name)} version {version} can't be read: {error}",
            fix="They lie below mlruns/artifacts: bring them back, or promote another version.",
        ) from None


_fetched_here: dict[tuple[str, str], tuple[Path, tempfile.TemporaryDirectory[str]]] = {}  # deleted when the process ends


def _fetched(mlflow: Any, address: str, store: str) -> Path:
    """The local path of the files at an artifact URI, downloaded if necessary."""
    if not store.startswith(("http://", "https://")):
        return Path(mlflow.artifacts.download_artifacts(address))
    if (address, store) not in _fetched_here:
        folder = tempfile.TemporaryDirectory(prefix="evergreen-model-")
        _fetched_here[address, store] = Path(mlflow.artifacts.download_artifacts(address, dst_path=folder.name)), folder
    return _fetched_here[address, store][0]


def download_run_file(workspace: Workspace, name: str, version: int, path: str) -> bytes:
    """The content of a file that was logged with the run that made a version.

    Args:
        path: relative to the run's artifacts.

    Raises:
        EvergreenError: the file doesn't exist or can't be read.
    """
    mlflow = connect(workspace)
    try:
        run_id = mlflow.MlflowClient().get_model_version(model_name(name), str(version)).run_id
        with tempfile.TemporaryDirectory() as folder:
            found = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=folder)
            return Path(found).read_bytes()
    except (mlflow.MlflowException, OSError) as error:
        raise EvergreenError(
            f"{path} of {model_name(name)} version {version} can't be read: {error}",
            fix="It lies below mlruns/artifacts, or with the MLflow server.",
        ) from None


def _versions(client: MlflowClient, name: str) -> list[int]:
    return sorted(int(version.version) for version in client.search_model_versions(f"name='{model_name(name)}'"))


def _how_to_get(client: MlflowClient, name: str, requested: str) -> str:
    """What to do if a requested version doesn't exist."""
    versions = _versions(client, name)
    if not versions:
        return f"Train one with: evergreen run {name}"
    # There are versions, but none is in use: the gate has refused the first one, or someone has removed the alias.
    if requested == "champion":
        return f"Train a better one, or use one as it is: evergreen promote {name} --version {versions[-1]} --force"
    return "Name one of these."


def _there_are(client: MlflowClient, name: str) -> str:
    versions = _versions(client, name)
    if not versions:
        return "a registered model (there is none yet)"
    return f"one of {', '.join(map(str, versions))}, or an alias: {', '.join(client.get_registered_model(model_name(name)).aliases)}"
