"""The rows of a database query as tables: read in chunks through SQLAlchemy, each chunk an entry that is a Parquet file.

So whatever reads tables from files reads them from databases too. The query runs in one transaction, which is rolled back at
its end. User and password come from the environment: from the variables that the driver reads, such as PGUSER and PGPASSWORD,
or from a variable with the whole address.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from evergreen.data.sources.base import Source, SourceEntry
from evergreen.errors import DataRefused, EvergreenError, Unreachable, WrongUse
from evergreen.scenario.settings import Sql
from evergreen.secrets import from_environment, without_secrets

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 65_536

Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class SqlSource(Source):
    """The rows that a query gives.

    Attributes:
        settings: address and query.
    """

    settings: Sql

    def stream(self) -> Iterator[SourceEntry]:
        """The chunks of rows as Parquet files, `query/00000.parquet` and so on, in the order of the query.

        Raises:
            Unreachable: the database does not answer, or went away; how many rows were read is said.
            WrongUse: the query is wrong, or gives no table; or the environment lacks what the settings name.
            DataRefused: the query gives no row.
        """
        done = 0
        for columns, rows in self._chunks(self.settings.query):
            content = _as_parquet(columns, rows)
            yield SourceEntry(f"query/{done // CHUNK_ROWS:05d}.parquet", content, len(content))
            done += len(rows)
        if not done:
            raise DataRefused(
                f"the query of {self.describe()} gives no row", fix="Correct collect.sql.query, or fill the table."
            )

    def names(self) -> Iterator[tuple[str, float | None]]:
        """One name: how many rows there are is not known before they are read."""
        yield "query/00000.parquet", None

    def fingerprint(self) -> str:
        """As `Source.fingerprint`: from what `changed_by` gives, if that is set. Otherwise it always differs, as nothing cheap
        says whether the rows have changed."""
        if self.settings.changed_by is None:
            return hashlib.sha256(uuid.uuid4().bytes).hexdigest()
        found = [[str(value) for value in row] for _, rows in self._chunks(self.settings.changed_by) for row in rows]
        return hashlib.sha256(repr((self.settings.query, found)).encode()).hexdigest()

    def describe(self) -> str:
        url = self._url(with_environment=False)
        return "a database" if url is None else str(url.render_as_string(hide_password=True))

    def _url(self, *, with_environment: bool = True) -> Any:
        """SQLAlchemy's URL of the database; None if only the environment says it, and that is not to be read."""
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        settings = self.settings
        if settings.url is None and not with_environment:
            return None
        address = settings.url if settings.url is not None else from_environment(settings.url_variable or "")
        try:
            url = make_url(address)
        except ArgumentError:
            raise WrongUse(
                "that is no address of a database", expected="SQLAlchemy's form, such as postgresql://host/name or sqlite:////folder/file.db",
                fix="Correct collect.sql.url, or the environment variable that url_variable names.",
            ) from None  # fmt: skip
        if url.drivername == "postgresql" and find_spec("psycopg2") is None:
            url = url.set(drivername="postgresql+psycopg" if find_spec("psycopg") else "postgresql+asyncpg")
        return url

    def _chunks(self, query: str) -> Iterator[tuple[list[str], Rows]]:
        """The names of the columns, and some rows, again and again."""
        from sqlalchemy.exc import NoSuchModuleError, ProgrammingError, ResourceClosedError

        url, done = self._url(), 0
        try:
            for columns, rows in _asynchronous(url, query) if url.get_dialect().is_async else _synchronous(url, query):
                yield columns, rows
                done += len(rows)
        except (NoSuchModuleError, ImportError) as error:
            raise EvergreenError(
                f"{self.describe()} cannot be read: {without_secrets(str(error))}", expected="the driver for this kind of database",
                fix="Install it with pip, and name it in the address, such as mysql+pymysql://.",
            ) from None  # fmt: skip
        except (ProgrammingError, ResourceClosedError) as error:
            raise WrongUse(
                f"the query of {self.describe()} is wrong: {_reason(error)}",
                expected="one SELECT",
                fix="Correct collect.sql.query.",
            ) from None
        except Exception as error:  # noqa: BLE001 (drivers raise their own, where SQLAlchemy does not replace them)
            if done == 0 and _is_mistake(error):
                raise WrongUse(
                    f"the query of {self.describe()} is wrong: {_reason(error)}", fix="Correct collect.sql."
                ) from None
            raise Unreachable(
                f"{self.describe()} cannot be read after {done:,} rows: {_reason(error)}",
                fix="See that the database runs and lets you in, and try again. Nothing of this collection was kept, and nothing else was changed.",
            ) from None


def _is_mistake(error: Exception) -> bool:
    """True for what SQLite reports of a wrong query, which it does not tell from other failures by the exception's class."""
    words = str(getattr(error, "orig", None) or error)
    return any(word in words for word in ("no such table", "no such column", "syntax error", "no such function"))


def _reason(error: Exception) -> str:
    """The database's own words without the query, in a line."""
    words = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    return without_secrets(" ".join(words.split("\n[SQL")[0].split()))[:300]


def _synchronous(url: Any, query: str) -> Iterator[tuple[list[str], Rows]]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    try:
        with engine.connect() as connection:
            result = connection.execution_options(stream_results=True, yield_per=CHUNK_ROWS).execute(text(query))
            columns = list(result.keys())
            for rows in result.partitions(CHUNK_ROWS):
                yield columns, rows
    finally:
        engine.dispose()


def _asynchronous(url: Any, query: str) -> Iterator[tuple[list[str], Rows]]:
    """As `_synchronous`, for asynchronous drivers such as asyncpg; their loop runs in this thread, a chunk at a time."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def opened() -> tuple[Any, Any]:
        engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True)
        connection = await engine.connect()
        try:
            return connection, await connection.stream(text(query), execution_options={"yield_per": CHUNK_ROWS})
        except BaseException:
            await _closed(connection)
            raise

    async def next_rows(result: Any) -> Rows:
        return list(await result.fetchmany(CHUNK_ROWS))

    with asyncio.Runner() as runner:
        connection, result = runner.run(opened())
        try:
            columns = list(result.keys())
            while rows := runner.run(next_rows(result)):
                yield columns, rows
        finally:
            runner.run(_closed(connection))


async def _closed(connection: Any) -> None:
    with contextlib.suppress(Exception):  # it may be gone, and the error that said so is the one that counts
        await connection.close()


def _as_parquet(columns: Sequence[str], rows: Rows) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    twice = {column for column in columns if columns.count(column) > 1} if isinstance(columns, list) else set()
    if twice:
        raise WrongUse(
            f"the query gives the column {min(twice)} twice",
            expected="a name of its own for each column",
            fix="Rename one with AS.",
        )
    sink = io.BytesIO()
    arrays = [_array(list(values)) for values in zip(*rows, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), sink, compression="zstd")
    return sink.getvalue()


def _array(values: list[Any]) -> pa.Array:
    """A column with the type of its values; as text, if they are of several types: SQLite keeps whatever is written."""
    import pyarrow as pa

    if any(isinstance(value, Decimal) for value in values):
        values = [float(value) if isinstance(value, Decimal) else value for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)
