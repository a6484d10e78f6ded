"""Artifact repositories that resolve MLflow's artifact URIs to files, in an environment with this project.
`evergreen.registry.store` explains the URIs.

MLflow finds them by the entry points in pyproject.toml, which it loads after its own. This module is imported only where MLflow
is in use.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from evergreen.errors import WrongUse
from evergreen.registry.store import artifacts
from evergreen.workspace import Workspace

SQLITE = "sqlite:///"
_checkout: Workspace | None = None


def set_checkout(workspace: Workspace) -> None:
    """Set the checkout that this process works on."""
    global _checkout
    _checkout = workspace


def served_or_beside(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """The repository for `mlflow-artifacts:/…`: MLflow's own over HTTP, or, for a store in a SQLite file, which MLflow's own
    rejects, the folder beside that file."""
    kind = BesideTheStore if _is_sqlite(tracking_uri or mlflow.get_tracking_uri()) else MlflowArtifactsRepository
    return kind(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)


class _Relocatable(LocalArtifactRepository):
    """Files below a folder that is looked up on each access, since MLflow caches the object and the checkout may have moved."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        relative = PurePosixPath(unquote(urlparse(artifact_uri).path).lstrip("/"))
        if ".." in relative.parts:
            raise WrongUse("an artifact's address leads out of mlruns/", received=artifact_uri)
        self._relative, self._store_uri = relative, tracking_uri or mlflow.get_tracking_uri()
        self._follows = self._store_uri == mlflow.get_tracking_uri()
        super().__init__(str(self._folder() / relative), tracking_uri, registry_uri)

    @property
    def artifact_dir(self) -> str:
        return str(self._folder() / self._relative)

    def _folder(self) -> Path:
        raise NotImplementedError


class BesideTheStore(_Relocatable):
    """`mlflow-artifacts:/1/…` without a server: files in the folder `artifacts` beside the SQLite file."""

    def _folder(self) -> Path:
        now = mlflow.get_tracking_uri()
        if self._follows and _is_sqlite(now):
            self._store_uri = now
        return artifacts(Path(self._store_uri.removeprefix(SQLITE)))


class RelocatableArtifacts(_Relocatable):
    """`evergreen:///artifacts/1/…`, which a server started by an earlier version still returns: files in
    `mlruns/artifacts/1/…` of the requesting checkout."""

    def _folder(self) -> Path:
        return (_checkout or Workspace.find()).mlruns


def _is_sqlite(uri: str) -> bool:
    return uri.startswith(SQLITE)
