"""The database that the table is in, spoken to with SQLAlchemy: SQLite, PostgreSQL, and what else it knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from pipeline.errors import ConfigError, MissingExtraError, SetupError, StoreError
from pipeline.records import JSON
from pipeline.store.sqlcolumns import ROW, Column

#: Where the tables' progress is kept, beside them.
PROGRESS = "labelpipe_progress"
#: In place of a run's id: the run has started over, and the next one in its folder goes on with the table.
FREE = "free"
#: What libpq is told unless the URL says otherwise: a network that swallows everything must not hold a run for hours.
_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


def require() -> Any:
    """The sqlalchemy package. Raises MissingExtraError."""
    try:
        import sqlalchemy
    except ImportError:
        raise MissingExtraError("writing into a database", "sql") from None
    return sqlalchemy


def connect(url: str, name: str, *, read_only: bool = False, patience_s: float | None = None) -> Database:
    """The table `name` (`schema.name` if need be) of the database at a SQLAlchemy URL.

    Nothing is sent yet. With `read_only` a transaction sees the database as it was at the transaction's begin;
    `patience_s` bounds the wait for a connection, or for SQLite's lock, where the driver can be told. Raises
    ConfigError for a URL that cannot work, MissingExtraError without SQLAlchemy.
    """
    sqlalchemy = require()
    try:
        address = sqlalchemy.engine.make_url(url)
        # Values of records and the password stay out of every message.
        engine = sqlalchemy.create_engine(
            address, hide_parameters=True, pool_pre_ping=True, connect_args=_connect_args(address, patience_s)
        )
        if read_only and engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
    except ModuleNotFoundError as error:
        raise SetupError(
            f"output.sql: the driver for {url.partition(':')[0]} is not installed: {error}. Install it, or name "
            "another in the URL, like postgresql+psycopg://"
        ) from None
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        reason = _without(error, (url,))
        raise ConfigError(
            f"output.sql.url: not a database URL that SQLAlchemy knows ({reason}); expected something "
            "like sqlite:///labels.db or postgresql+psycopg://user@host/name"
        ) from None
    if engine.dialect.is_async:
        raise ConfigError(
            f"output.sql.url: {address.drivername} is an asynchronous driver; the table is written in a thread: "
            "name a plain one, like postgresql+psycopg:// or sqlite://"
        )
    if engine.dialect.name == "sqlite":
        if address.database in (None, "", ":memory:"):
            raise ConfigError(
                "output.sql.url: this SQLite database is in memory only; name a file: sqlite:///labels.db"
            )
        _begin_ourselves(engine, "BEGIN" if read_only else "BEGIN IMMEDIATE")
    return Database(engine, name)


def _connect_args(address: Any, patience_s: float | None) -> dict[str, Any]:
    backend, driver = address.get_backend_name(), address.get_driver_name()
    if backend == "sqlite" and driver == "pysqlite" and patience_s is not None and "timeout" not in address.query:
        return {"timeout": patience_s}
    if backend != "postgresql" or driver not in ("psycopg", "psycopg2"):
        return {}
    if patience_s is not None:
        return {**_PATIENCE, "connect_timeout": max(2, round(patience_s))}  # libpq takes no less
    return {key: value for key, value in _PATIENCE.items() if key not in address.query}


def _begin_ourselves(engine: Any, statement: str) -> None:
    """Python's sqlite3 begins no transaction for CREATE and DROP: it is kept from beginning any."""
    event = require().event

    def opened(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    event.listen(engine, "connect", opened)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(statement))


class Database:
    """One table of a database, and the row about it in the progress table.

    `str()` of it names both without a password. What goes wrong within `transaction` is a StoreError.
    """

    def __init__(self, engine: Any, name: str) -> None:
        self._sql = require()
        self._engine = engine
        schema, _, self._name = name.rpartition(".")
        self._schema = schema or None
        self.progress = self._progress_table()

    def __str__(self) -> str:
        name = f"{self._schema}.{self._name}" if self._schema else self._name
        # The query may hold a password too.
        place = self._engine.url.set(query={}).render_as_string(hide_password=True)
        return f"table {name!r} at {place}"

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """All of the block or nothing of it. Raises StoreError."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except (self._sql.exc.SQLAlchemyError, OSError) as error:
            reason = _without(getattr(error, "orig", None) or error, self._secrets())
            raise StoreError(
                f"{self}: cannot be used: {reason}. No label is lost, the ledger has them all: put the cause right, "
                "then give the same command again."
            ) from None

    def is_missing_file(self) -> bool:
        """Whether it is an SQLite file that is not there: a connection would make one."""
        url = self._engine.url
        name = url.database or ""
        return url.get_backend_name() == "sqlite" and not name.startswith("file:") and not Path(name).exists()

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._engine.dispose()

    # ── the row about the table ──────────────────────────────────────────────────────────────────────────────────

    def has_table(self, connection: Any, name: str | None = None) -> bool:
        """Whether there is a table, or a view, of that name."""
        look = self._sql.inspect(connection)
        name = name or self._name
        return look.has_table(name, schema=self._schema) or name in look.get_view_names(schema=self._schema)

    def has_progress(self, connection: Any) -> bool:
        """Whether any run keeps a table beside it."""
        return self.has_table(connection, PROGRESS)

    def read_progress(self, connection: Any) -> Any:
        """The row about the table, or None."""
        return connection.execute(self._sql.select(self.progress).where(self._mine())).first()

    def note(self, connection: Any, run_id: str, run_dir: str) -> None:
        """The table is this run's from now on, and nothing is in it."""
        values = {"table_name": self._name, "run_id": run_id, "run_dir": run_dir}
        empty = {"generation": -1, "seq": 0, "rows_written": 0, "columns_json": "[]"}
        connection.execute(self.progress.insert(), values | empty)

    def release(self, connection: Any, run_id: str, run_dir: str) -> bool:
        """The table of this run is free for the next run in this folder, rows and all; False: it is not this run's."""
        return self.move(connection, {"run_id": run_id}, {"run_id": FREE, "run_dir": run_dir})

    def take(self, connection: Any, run_id: str) -> None:
        """A table that is free is this run's from now on, and nothing in it is worth anything."""
        nothing = {"generation": -1, "seq": 0, "rows_written": 0}
        self.move(connection, {"run_id": FREE}, {"run_id": run_id, **nothing})

    def forget(self, connection: Any) -> None:
        """The table is nobody's."""
        connection.execute(self.progress.delete().where(self._mine()))

    def move(self, connection: Any, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """Write how far the table has come; False if the row is not as it was."""
        columns = self.progress.c
        as_before = [columns[name] == value for name, value in old.items()]
        change = self.progress.update().where(self._mine(), *as_before).values(dict(new))
        return bool(connection.execute(change).rowcount == 1)

    # ── the table ────────────────────────────────────────────────────────────────────────────────────────────────

    def make(self, connection: Any, columns: Sequence[Column]) -> None:
        """Make the table, empty."""
        self._table(columns).create(connection)

    def drop(self, connection: Any) -> None:
        """Drop the table."""
        self._table(()).drop(connection)

    def empty(self, connection: Any) -> None:
        """Delete all rows."""
        connection.execute(self._table(()).delete())

    def add_columns(self, connection: Any, columns: Sequence[Column], new: Sequence[Column]) -> None:
        """Add the new ones of the columns to the table."""
        table = self._table(columns)
        named = connection.dialect.identifier_preparer.format_table(table)
        for column in list(table.columns)[len(columns) - len(new) + 1 :]:
            told = self._sql.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {named} ADD COLUMN {told}")

    def insert(self, connection: Any, columns: Sequence[Column], rows: Sequence[Sequence[JSON]], first: int) -> None:
        """Add rows; the first of them gets this number."""
        if not rows:
            return
        keys = [ROW, *(f"c{index}" for index in range(len(columns)))]
        numbered = [dict(zip(keys, [number, *row], strict=True)) for number, row in enumerate(rows, first)]
        connection.execute(self._table(columns).insert(), numbered)

    def rows(self, connection: Any, columns: Sequence[Column]) -> Iterator[tuple[int, ...]]:
        """All rows by their number, that number first."""
        table = self._table(columns)
        found = connection.execution_options(stream_results=True, yield_per=500).execute(
            self._sql.select(table).order_by(table.c[ROW])
        )
        yield from map(tuple, found)

    def _table(self, columns: Sequence[Column]) -> Any:
        sql = self._sql
        row = sql.Column(ROW, sql.BigInteger, key=ROW, primary_key=True, autoincrement=False)
        made = [
            # Keys of our own, so that no name of a column is ever taken for a parameter's.
            sql.Column(column.name, self._type(column.sql_type), key=f"c{index}", quote=True)
            for index, column in enumerate(columns)
        ]
        return sql.Table(self._name, sql.MetaData(), row, *made, schema=self._schema)

    def _type(self, sql_type: str) -> Any:
        sql = self._sql
        kinds = {"bool": sql.Boolean, "bigint": sql.BigInteger, "double": sql.Double}
        return kinds[sql_type]() if sql_type in kinds else self._long_text()

    def _long_text(self) -> Any:
        from sqlalchemy.dialects import mysql

        return self._sql.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")

    def _progress_table(self) -> Any:
        sql = self._sql
        return sql.Table(
            PROGRESS,
            sql.MetaData(),
            sql.Column("table_name", sql.String(255), primary_key=True),
            sql.Column("run_id", sql.String(32), nullable=False),
            sql.Column("run_dir", self._long_text(), nullable=False),
            sql.Column("generation", sql.BigInteger, nullable=False),
            sql.Column("seq", sql.BigInteger, nullable=False),
            sql.Column("rows_written", sql.BigInteger, nullable=False),
            sql.Column("columns_json", self._long_text(), nullable=False),
            schema=self._schema,
        )

    def _mine(self) -> Any:
        return self.progress.c.table_name == self._name

    def _secrets(self) -> list[str]:
        url = self._engine.url
        words = [url.password or "", *(word for value in url.query.values() for word in _texts(value))]
        return [form for word in words if word for form in (word, quote(word, safe=""), quote_plus(word))]


def _texts(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _without(error: BaseException, secrets: Sequence[str]) -> str:
    """The error's first line without secrets."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
