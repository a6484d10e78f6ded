"""Where MLflow keeps files: below `mlruns/` of whatever checkout asks, so that a moved or copied one finds its own.

MLflow stores absolute places. This one is relative: `evergreen:///artifacts/1/…` is `mlruns/artifacts/1/…`. MLflow finds the class by
the entry point in pyproject.toml, and only MLflow imports this file.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote, urlparse

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from evergreen.errors import WrongUse
from evergreen.workspace import Workspace


class RelocatableArtifacts(LocalArtifactRepository):
    """Files below `mlruns/`."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        relative = PurePosixPath(unquote(urlparse(artifact_uri).path).lstrip("/"))
        if ".." in relative.parts:
            raise WrongUse("an artifact's address leads out of mlruns/", received=artifact_uri)
        self._relative = relative
        super().__init__(str(Workspace.find().mlruns / relative), tracking_uri, registry_uri)

    @property
    def artifact_dir(self) -> str:
        """Asked anew each time: MLflow keeps the object, and the checkout may have moved."""
        return str(Workspace.find().mlruns / self._relative)
