"""Queries of databases: their rows come in chunks as tables, and a database that goes away loses nothing."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.data.dataset import staged
from evergreen.data.sources import sql
from evergreen.data.sources.sql import SqlSource
from evergreen.data.sources.table import TableFormat, open_table
from evergreen.errors import DataRefused, EvergreenError, Unreachable, WrongUse
from evergreen.kinds.classify.settings import ImageCollect
from evergreen.scenario.settings import Sql
from evergreen.workspace import Workspace
from tasks.collect import collect
from tests.support.kinds import Example, tiny_kind_installed
from tests.support.postgres import PASSWORD, Postgres, postgres
from tests.support.readings.example import EXAMPLE

QUERY = "SELECT at, station, level FROM readings ORDER BY at"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A SQLite database with ten readings."""
    path = tmp_path / "plant.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE readings (at TEXT, station TEXT, level REAL)")
        rows = [(f"2026-01-{day:02d}", "north" if day % 2 else None, day / 4) for day in range(1, 11)]
        database.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        found.execute(
            "CREATE TABLE readings AS SELECT TIMESTAMPTZ '2026-01-01 00:00+00' + n * INTERVAL '1 minute' AS at, 'st' || n % 3 AS station, "
            "(n / 8.0)::numeric(12, 3) AS level FROM generate_series(0, 199999) AS n;"
        )
        yield found


def source(query: str = QUERY, **more: Any) -> SqlSource:
    return SqlSource(Sql.model_validate({"query": query} | more))


def tables(found: SqlSource) -> list[pa.Table]:
    return [pq.read_table(io.BytesIO(entry.data or b"")) for entry in found.stream()]


def test_rows_come_in_chunks_that_any_reader_of_tables_takes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "CHUNK_ROWS", 4)
    entries = list(source(url=f"sqlite:///{file}").stream())
    assert [entry.name for entry in entries] == [f"query/{number:05d}.parquet" for number in range(3)]
    opened = [open_table(entry.name, entry.data or b"", TableFormat()) for entry in entries]
    rows = [row for table in opened for batch in table.batches(["at", "level"]) for row in batch.to_pylist()]
    assert [row["level"] for row in rows] == [day / 4 for day in range(1, 11)] and rows[0]["at"] == "2026-01-01"


def test_a_column_that_changes_its_type_midway_is_text(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (x)")
        database.executemany("INSERT INTO t VALUES (?)", [(1,), ("n/a",), (2.5,), (None,)])
    [table] = tables(source("SELECT x FROM t", url=f"sqlite:///{tmp_path / 'a.db'}"))
    assert table["x"].to_pylist() == ["1", "n/a", "2.5", None]


def test_the_fingerprint_follows_the_query_that_says_so(file: Path) -> None:
    found = source(url=f"sqlite:///{file}", changed_by="SELECT count(*), max(at) FROM readings")
    first = found.fingerprint()
    assert found.fingerprint() == first
    with sqlite3.connect(file) as database:
        database.execute("INSERT INTO readings VALUES ('2027-01-01', 'south', 1)")
    assert found.fingerprint() != first
    always = source(url=f"sqlite:///{file}")
    assert always.fingerprint() != always.fingerprint()


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("SELECT * FROM nowhere", WrongUse, "the query of sqlite:.* is wrong: no such table: nowhere"),
        ("SELEC 1", WrongUse, "is wrong: near .SELEC.: syntax error"),
        ("SELECT at AS x, level AS x FROM readings", WrongUse, "gives the column x twice.*Rename one with AS"),
        ("SELECT at FROM readings WHERE level > 99", DataRefused, "gives no row"),
    ],
)
def test_a_wrong_query_says_why(file: Path, query: str, error: type[EvergreenError], message: str) -> None:
    with pytest.raises(error, match=message):
        list(source(query, url=f"sqlite:///{file}").stream())


def test_an_address_that_is_wrong_or_has_no_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, error, message in (
        ("nonsense", WrongUse, "that is no address of a database"),
        ("oracle://host/db", EvergreenError, "the driver for this kind of database"),
        (f"sqlite:///{tmp_path}/no/where.db", Unreachable, "cannot be read after 0 rows: unable to open database file"),
    ):
        with pytest.raises(error, match=message):
            list(source(url=address).stream())
    with pytest.raises(WrongUse, match="the environment variable PLANT_DATABASE is not set"):
        list(source(url_variable="PLANT_DATABASE").stream())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "postgresql://anna:geheim@host/db"}, "url holds credentials"),
        ({"url": "postgresql://host/db?password=geheim"}, "url holds credentials"),
        ({}, "exactly one of url and url_variable"),
        ({"url": "sqlite:///a.db", "url_variable": "PLANT"}, "exactly one of url and url_variable"),
    ],
)
def test_a_scenario_has_one_address_without_credentials(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(**settings)


def test_postgresql_is_read_in_chunks_with_the_credentials_of_the_environment(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    found = tables(source(url=f"postgresql://127.0.0.1:{server.port}/postgres"))
    assert [len(table) for table in found] == [65_536, 65_536, 65_536, 3_392]
    assert (
        found[0].schema.field("at").type == pa.timestamp("us", tz="UTC") and found[0].schema.field("level").type == pa.float64()
    )
    assert found[3]["level"].to_pylist()[-1] == 24_999.875
    address = f"postgresql://anna:{PASSWORD}@127.0.0.1:{server.port}/postgres"
    monkeypatch.setenv("PLANT_DATABASE", address)
    assert len(tables(source("SELECT 1 AS one", url_variable="PLANT_DATABASE"))) == 1


def test_postgresql_with_a_wrong_password_or_query_says_so_without_it(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGUSER", "anna")
    monkeypatch.setenv("PGPASSWORD", "planted-wrong-password")
    url = f"postgresql://127.0.0.1:{server.port}/postgres"
    with pytest.raises(Unreachable, match="password authentication failed") as refused:
        list(source(url=url).stream())
    assert "planted-wrong" not in str(refused.value)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with pytest.raises(WrongUse, match='relation "nowhere" does not exist'):
        list(source("SELECT * FROM nowhere", url=url).stream())


def test_a_database_that_goes_away_while_being_read_is_an_error_and_nothing_is_lost(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace.root / "data.dvc").unlink(missing_ok=True)
    with postgres() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        settings = {
            "url": f"postgresql://127.0.0.1:{server.port}/postgres",
            "query": "SELECT n, repeat('x', 200) AS text FROM generate_series(1, 400000) AS n",
        }
        entries = SqlSource(Sql.model_validate(settings)).stream()
        next(entries)
        server.stop()
        with pytest.raises(Unreachable, match=r"cannot be read after 65,536 rows.*Nothing of this collection was kept"):
            list(entries)
        with tiny_kind_installed():
            settings_of_all = dict(EXAMPLE.settings) | {"collect": {"sql": settings}}
            scenario = Example(settings_of_all, EXAMPLE.write).scenario()
            with pytest.raises(Unreachable, match="after 0 rows"):
                collect(scenario, workspace)
    assert staged(workspace, scenario.name) == [] and not workspace.data(scenario.name).exists()


def test_images_are_not_in_tables() -> None:
    with pytest.raises(ValueError, match="sql gives tables, and images are in files"):
        ImageCollect.model_validate({"sql": {"url": "sqlite:///a.db", "query": QUERY}})
