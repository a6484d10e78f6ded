"""The checkout's own MLflow store: a SQLite file, and the files logged with runs and models beside it.

MLflow stores absolute URIs. Here they are `mlflow-artifacts:/1/…`, MLflow's own scheme for files that its server serves: with a
server, any MLflow client downloads them over HTTP; without one, `evergreen.registry.artifacts` finds them in the folder
`artifacts` beside the SQLite file. The URIs therefore remain valid in a moved or copied checkout.

Earlier versions used `evergreen:/artifacts/1/…`, which only an environment with this project could read. `readdress` replaces
such URIs once.
"""

from __future__ import annotations

import sqlite3
import urllib.parse
from pathlib import Path

from evergreen.workspace import Workspace

ARTIFACT_ROOT = "mlflow-artifacts:/"
BEFORE = "evergreen:/artifacts/"
ADDRESSES = (  # every column of MLflow's store that contains such URIs
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def database(workspace: Workspace) -> Path:
    """The SQLite file of the checkout's own MLflow store."""
    return workspace.mlruns / "mlflow.db"


def artifacts(store: Path) -> Path:
    """The folder of the files to which a store's URIs refer.

    Args:
        store: the SQLite file.
    """
    return store.parent / "artifacts"


def readdress(store: Path) -> None:
    """Replace the URIs of earlier versions by current ones, in one transaction: after a kill, all are old or all are new.

    The files are not moved. A store without such URIs, or one that doesn't exist yet, is left unchanged; checking that takes a
    millisecond.
    """
    if not store.exists():
        return
    connection = sqlite3.connect(f"file:{urllib.parse.quote(str(store))}?mode=rw", uri=True, timeout=60)
    try:
        if not _has_addresses_of_before(connection):
            return
        with connection:
            for table, column in ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} LIKE ?",  # noqa: S608 (our own constants)
                    (ARTIFACT_ROOT, len(BEFORE) + 1, f"{BEFORE}%"),
                )
    finally:
        connection.close()


def _has_addresses_of_before(connection: sqlite3.Connection) -> bool:
    """Whether a store has URIs of earlier versions, judged by the first experiment, which MLflow creates with the store."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone() is None:
        return False
    return (
        connection.execute("SELECT 1 FROM experiments WHERE artifact_location LIKE ?", (f"{BEFORE}%",)).fetchone() is not None
    )
