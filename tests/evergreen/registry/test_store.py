"""The addresses of the files in MLflow's store: those that earlier versions wrote are replaced, whole or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from evergreen.registry import store
from evergreen.registry.models import connect
from evergreen.registry.store import ADDRESSES, ARTIFACT_ROOT, BEFORE, database, readdress
from evergreen.serving.scoring import load
from evergreen.workspace import Workspace
from tests.tiny import NAME, Tiny


def addresses(workspace: Workspace, root: str) -> list[tuple[str, str, str]]:
    """Every text in the store that begins so, with its table and column, whichever they are."""
    found = []
    with sqlite3.connect(database(workspace)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for (column,) in connection.execute(f"SELECT name FROM pragma_table_info('{table}')").fetchall():
                rows = connection.execute(f'SELECT "{column}" FROM "{table}" WHERE "{column}" LIKE ?', (f"{root}%",))
                found += [(table, column, value) for (value,) in rows]
    return found


@pytest.fixture
def before(registered: Tiny) -> Tiny:
    """A checkout whose store has the addresses of earlier versions, in every place that has one."""
    today = addresses(registered.workspace, ARTIFACT_ROOT)
    with sqlite3.connect(database(registered.workspace)) as connection:
        for table, column, _ in today:
            connection.execute(f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?)', (ARTIFACT_ROOT, BEFORE))
    assert len(addresses(registered.workspace, BEFORE)) == len(today) == 5  # two experiments, a run, a model and its version
    return registered


def test_every_address_of_before_is_replaced_and_leads_to_the_same_files(before: Tiny) -> None:
    old = addresses(before.workspace, BEFORE)
    mlflow = connect(before.workspace)
    assert addresses(before.workspace, BEFORE) == []
    assert addresses(before.workspace, ARTIFACT_ROOT) == [
        (*place, value.replace(BEFORE, ARTIFACT_ROOT)) for *place, value in old
    ]
    run_id = mlflow.MlflowClient().get_model_version("evergreen-quickstart", "1").run_id
    assert "evergreen-quickstart" in mlflow.artifacts.load_text(f"runs:/{run_id}/model_card.md")
    assert load(before.workspace, NAME, "1").predict(before.images[:1])


def test_a_replacement_that_is_killed_midway_leaves_every_address_as_it_was(
    before: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = addresses(before.workspace, BEFORE)
    with monkeypatch.context() as patch:
        patch.setattr(store, "ADDRESSES", (*ADDRESSES, ("no_such_table", "at_all")))
        with pytest.raises(sqlite3.OperationalError):
            readdress(database(before.workspace))
    assert addresses(before.workspace, BEFORE) == old
    readdress(database(before.workspace))
    assert addresses(before.workspace, BEFORE) == []


def test_a_store_of_today_and_one_that_is_not_there_are_left_alone(registered: Tiny, tmp_path: Path) -> None:
    content = database(registered.workspace).read_bytes()
    readdress(database(registered.workspace))
    assert database(registered.workspace).read_bytes() == content
    readdress(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "empty.db").touch()
    readdress(tmp_path / "empty.db")
    assert (tmp_path / "empty.db").read_bytes() == b""
