"""MLflow as Evergreen uses it: one registered model a scenario, `evergreen-NAME`, whose aliases say what is in use.

`@champion` is in use, `@previous` was before it, `@challenger` was registered last. An alias is moved in one step, and only after
everything about its new version is stored.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen import progress
from evergreen.errors import EvergreenError, Unreachable, WrongUse
from evergreen.store import ARTIFACT_ROOT, database, readdress
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

log = logging.getLogger("evergreen")

ALIASES = ("champion", "challenger", "previous")
NOTE = (
    "champion-"  # and the moment: MLflow's aliases have no history, so each version's tags say when it came into use, and how
)
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}  # MLflow's own, with a server that is away, is minutes
MOMENT = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True)
class Rollback:
    """A champion that was put back.

    Attributes:
        scenario: its name.
        champion: the version in use now.
        previous: the one that was.
    """

    scenario: str
    champion: int
    previous: int

    def __str__(self) -> str:
        return (
            f"evergreen-{self.scenario}: version {self.champion} is the champion again; version {self.previous} is @previous now "
            f"(the same command undoes this)."
        )


def tracking_uri(workspace: Workspace) -> str:
    """The user's or `evergreen up`'s MLflow where there is one, else the checkout's own store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database(workspace)}"


def connect(workspace: Workspace) -> Any:
    """The module `mlflow`, set to `tracking_uri`."""
    os.environ["EVERGREEN_ROOT"] = str(workspace.root)
    for setting, patience in PATIENCE.items():
        os.environ.setdefault(setting, patience)
    uri = tracking_uri(workspace)
    if uri == f"sqlite:///{database(workspace)}":
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = ARTIFACT_ROOT
        readdress(database(workspace))
    else:
        os.environ.pop("_MLFLOW_SERVER_ARTIFACT_ROOT", None)
    if "mlflow" not in sys.modules:
        with progress.task("Starting MLflow"):
            import mlflow
    import mlflow
    from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

    from evergreen.artifacts import served_or_beside

    # As the entry point does, which an environment that an earlier version was installed in lacks.
    repositories: dict[str, Any] = get_registered_artifact_repositories()
    repositories["mlflow-artifacts"] = served_or_beside
    named = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(named["MLFLOW_REGISTRY_URI"] or uri)
    for name, value in named.items():  # MLflow writes them, and the next question would take them for the user's
        if value is None:
            os.environ.pop(name, None)
    return mlflow


def model_name(name: str) -> str:
    return f"evergreen-{name}"


def has_version(workspace: Workspace, name: str, version: int) -> bool:
    """Whether a version is registered. Asked at every run that changes nothing, and so without importing MLflow (3 s) where the store
    is the checkout's own or a server."""
    uri = tracking_uri(workspace)
    if uri == f"sqlite:///{database(workspace)}":
        if not database(workspace).exists():
            return False
        with sqlite3.connect(f"file:{urllib.parse.quote(str(database(workspace)))}?mode=ro", uri=True) as store:
            found = store.execute(
                "SELECT 1 FROM model_versions WHERE name = ? AND version = ? AND current_stage <> 'Deleted_Internal'",
                (model_name(name), version),
            )
            return found.fetchone() is not None
    if uri.startswith(("http://", "https://")) and "MLFLOW_REGISTRY_URI" not in os.environ:
        query = urllib.parse.urlencode({"name": model_name(name), "version": version})
        try:
            with urllib.request.urlopen(f"{uri}/api/2.0/mlflow/model-versions/get?{query}", timeout=10) as response:
                return "model_version" in json.load(response)
        except (urllib.error.URLError, OSError, ValueError):
            pass  # perhaps it wants credentials: MLflow knows where they are
    from mlflow.exceptions import MlflowException

    try:
        connect(workspace).MlflowClient().get_model_version(model_name(name), str(version))
    except MlflowException:
        return False
    return True


def find_version(workspace: Workspace, name: str, wanted: str) -> int:
    """The version that an alias or a number means.

    Raises:
        WrongUse: there is none; the error lists what there is.
    """
    from mlflow.exceptions import MlflowException

    client: MlflowClient = connect(workspace).MlflowClient()
    try:
        if wanted.isdigit():
            return int(client.get_model_version(model_name(name), wanted).version)
        return int(client.get_model_version_by_alias(model_name(name), wanted).version)
    except MlflowException as error:
        _raise_where_away(workspace, error)
        raise WrongUse(
            f"{model_name(name)} has no version {wanted}", expected=_there_are(client, name), received=wanted,
            fix=f"Train one with: evergreen run {name}" if not _versions(client, name) else "Name one of these.",
        ) from None  # fmt: skip


def aliases(workspace: Workspace, name: str) -> dict[str, int]:
    """Version by alias; empty where there is no such model."""
    from mlflow.exceptions import MlflowException

    client: MlflowClient = connect(workspace).MlflowClient()
    try:
        found = client.get_registered_model(model_name(name)).aliases
    except MlflowException as error:
        _raise_where_away(workspace, error)
        return {}
    return {alias: int(version) for alias, version in found.items()}


def _raise_where_away(workspace: Workspace, error: MlflowException) -> None:
    """Unless MLflow has just said that there is no such thing.

    Raises:
        Unreachable: it did not answer, or something else than that.
    """
    if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        raise unreachable(workspace, error) from None


def unreachable(workspace: Workspace, error: Exception) -> Unreachable:
    """What MLflow failed at, as an error of ours."""
    uri = urllib.parse.urlsplit(tracking_uri(workspace))
    where = uri._replace(netloc=uri.netloc.rpartition("@")[2]).geturl()  # without a password
    return Unreachable(
        f"MLflow at {where} does not answer: {str(error).partition('(Caused')[0]}",
        fix="See that it does, and do the same again: what is finished is kept, and the champion stays.",
    )


def set_alias(workspace: Workspace, name: str, alias: str, version: int) -> None:
    connect(workspace).MlflowClient().set_registered_model_alias(model_name(name), alias, str(version))


def moving_aliases(workspace: Workspace, name: str) -> contextlib.AbstractContextManager[None]:
    """Hold this while aliases are looked at and moved: nobody else moves them in between."""
    return workspace.lock(f"promote-{name}")


def crown(workspace: Workspace, name: str, version: int) -> int | None:
    """Make a version the champion, and the champion until now `@previous`; returns the latter. Called with `moving_aliases` held.

    Killed in between, both aliases name the old champion: what was in use is in use.
    """
    reigning = aliases(workspace, name).get("champion")
    if reigning == version:
        return reigning
    if reigning is not None:
        set_alias(workspace, name, "previous", reigning)
    set_alias(workspace, name, "champion", version)
    _note(workspace, name, version, "promoted", reigning)
    return reigning


def rollback(workspace: Workspace, name: str) -> Rollback:
    """Give the previous champion its place back.

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
                fix=f"To use a version of your choice: evergreen promote {name} --version N --force",
            )
        set_alias(workspace, name, "champion", previous)
        set_alias(workspace, name, "previous", champion)
        _note(workspace, name, previous, "rolled back to", champion)
        return Rollback(name, previous, champion)


def champion_notes(tags: dict[str, str]) -> list[tuple[datetime, str, int | None]]:
    """When a version came into use (UTC), how (`promoted` or `rolled back to`), and in whose place; from its tags, oldest first."""
    notes = []
    for key, value in tags.items():
        if key.startswith(NOTE):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                told = json.loads(value)
                moment = datetime.strptime(key.removeprefix(NOTE), MOMENT).replace(tzinfo=UTC)
                notes.append((moment, str(told["how"]), told["instead_of"]))
    return sorted(notes, key=lambda note: note[0])


def _note(workspace: Workspace, name: str, version: int, how: str, instead_of: int | None) -> None:
    """Note a new champion on its version. The alias has moved by now, whatever becomes of the note."""
    key, told = f"{NOTE}{datetime.now(UTC).strftime(MOMENT)}", json.dumps({"how": how, "instead_of": instead_of})
    try:
        connect(workspace).MlflowClient().set_model_version_tag(model_name(name), str(version), key, told)
    except Exception as error:
        log.warning("That version %s was %s could not be noted in MLflow (%s).", version, how, error)


def download(workspace: Workspace, name: str, wanted: str) -> Path:
    """The folder of a registered model (as MLflow lays it out). Where a server has the files, they are fetched once a process into a temporary
    folder; without a server this is where they are kept, and nothing is copied.

    Raises:
        WrongUse: there is no such version.
        EvergreenError: its files can't be read.
    """
    version = find_version(workspace, name, wanted)
    mlflow = connect(workspace)
    try:
        address = mlflow.MlflowClient().get_model_version_download_uri(model_name(name), str(version))
        return _fetched(mlflow, address, tracking_uri(workspace))
    except (mlflow.MlflowException, OSError) as error:
        raise EvergreenError(
            f"the files of {model_name(name)} version {version} can't be read: {error}",
            fix="They lie below mlruns/artifacts: bring them back, or promote another version.",
        ) from None


_fetched_here: dict[tuple[str, str], tuple[Path, tempfile.TemporaryDirectory[str]]] = {}  # removed when the process ends


def _fetched(mlflow: Any, address: str, store: str) -> Path:
    """The files at an address of MLflow's, on this machine."""
    if not store.startswith(("http://", "https://")):
        return Path(mlflow.artifacts.download_artifacts(address))
    if (address, store) not in _fetched_here:
        folder = tempfile.TemporaryDirectory(prefix="evergreen-model-")
        _fetched_here[address, store] = Path(mlflow.artifacts.download_artifacts(address, dst_path=folder.name)), folder
    return _fetched_here[address, store][0]


def download_run_file(workspace: Workspace, name: str, version: int, path: str) -> bytes:
    """A file that was logged with the run that made a version.

    Args:
        path: below the run's artifacts.

    Raises:
        EvergreenError: there is none, or it can't be read.
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


def _there_are(client: MlflowClient, name: str) -> str:
    versions = _versions(client, name)
    if not versions:
        return "a registered model (there is none yet)"
    return f"one of {', '.join(map(str, versions))}, or an alias: {', '.join(client.get_registered_model(model_name(name)).aliases)}"
