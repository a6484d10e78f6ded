"""The checkout's own MLflow store: a SQLite file, and the files logged with runs and models beside it.

MLflow keeps absolute addresses. Here they are `mlflow-artifacts:/1/…`, MLflow's own address for files that its server serves: with a server, any
MLflow client fetches them over HTTP; without one, `evergreen.registry.artifacts` takes them from the folder `artifacts` beside the SQLite file. So
the addresses hold in a moved or copied checkout too.

Checkouts made before had `evergreen:/artifacts/1/…`, which only an environment with this project could read. `readdress` replaces them once.
"""

from __future__ import annotations

import sqlite3
import urllib.parse
from pathlib import Path

from evergreen.workspace import Workspace

ARTIFACT_ROOT = "mlflow-artifacts:/"
BEFORE = "evergreen:/artifacts/"
ADDRESSES = (  # every column of MLflow's store that holds such an address
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def database(workspace: Workspace) -> Path:
    """The SQLite file of the checkout's own MLflow store."""
    return workspace.mlruns / "mlflow.db"


def artifacts(store: Path) -> Path:
    """The folder of the files that a store's addresses name.

    Args:
        store: the SQLite file.
    """
    return store.parent / "artifacts"


def readdress(store: Path) -> None:
    """Replace addresses of earlier versions by today's, in one transaction: a kill leaves all of them old or all of them new.

    The files stay where they are. A store that has none of them, or that isn't there yet, is left alone; that takes a millisecond.
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
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} LIKE ?",  # noqa: S608 (names of ours)
                    (ARTIFACT_ROOT, len(BEFORE) + 1, f"{BEFORE}%"),
                )
    finally:
        connection.close()


def _has_addresses_of_before(connection: sqlite3.Connection) -> bool:
    """MLflow's first experiment is made with the store, and so has the addresses of that time."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone() is None:
        return False
    return (
        connection.execute("SELECT 1 FROM experiments WHERE artifact_location LIKE ?", (f"{BEFORE}%",)).fetchone() is not None
    )
