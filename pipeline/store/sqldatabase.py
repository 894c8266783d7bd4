"""Accesses the table's database with SQLAlchemy: SQLite, PostgreSQL, and the others that it supports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from pipeline.errors import ConfigError, MissingExtraError, SetupError, StoreError
from pipeline.records import JSON
from pipeline.store.columntypes import column_type
from pipeline.store.sqlcolumns import KEY, KEY_BYTES, PART, Column

#: The table that records which run each table belongs to, and how far it goes.
PROGRESS = "labelpipe_progress"
#: Replaces a run's id if the run has started over: the next run in its folder continues with the table.
FREE = "free"
#: How many rows of the table are read at once.
FETCHED = 500
#: A row of the table: the record's key and the number of the row among the record's, and its values.
Row = tuple[tuple[str, int], list[JSON]]
#: Options of libpq unless the URL sets them: a network that drops everything must not block a run for hours.
_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


def require() -> Any:
    """Return the sqlalchemy package. Raises MissingExtraError."""
    try:
        import sqlalchemy
    except ImportError:
        raise MissingExtraError("writing into a database", "sql") from None
    return sqlalchemy


def connect(url: str, name: str, *, read_only: bool = False) -> Database:
    """Return the table `name`, or `schema.name`, of the database at a SQLAlchemy URL. Sends nothing yet.

    With `read_only`, a transaction sees the database as it was when the transaction began.
    Raises ConfigError for a URL that cannot work, MissingExtraError without SQLAlchemy.
    """
    sqlalchemy = require()
    try:
        address = sqlalchemy.engine.make_url(url)
        # No message may contain values of records or the password.
        is_libpq = address.get_backend_name() == "postgresql" and address.get_driver_name() in ("psycopg", "psycopg2")
        patience = {key: value for key, value in _PATIENCE.items() if is_libpq and key not in address.query}
        engine = sqlalchemy.create_engine(address, hide_parameters=True, pool_pre_ping=True, connect_args=patience)
        if read_only and engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
    except ModuleNotFoundError as error:
        raise SetupError(
            f"the driver for {url.partition(':')[0]} is not installed: {error}. Install it, or name "
            "another in the URL, like postgresql+psycopg://"
        ) from None
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        reason = _without(error, (url,))
        raise ConfigError(
            f"this is not a database URL that SQLAlchemy knows ({reason}); expected something "
            "like sqlite:///labels.db or postgresql+psycopg://user@host/name"
        ) from None
    if engine.dialect.is_async:
        raise ConfigError(
            f"{address.drivername} is an asynchronous driver, and the table is written in a thread; "
            "name a plain one, like postgresql+psycopg:// or sqlite://"
        )
    if engine.dialect.name == "sqlite":
        if address.database in (None, "", ":memory:"):
            raise ConfigError("this SQLite database is in memory only; name a file: sqlite:///labels.db")
        _begin_ourselves(engine, "BEGIN" if read_only else "BEGIN IMMEDIATE")
    return Database(engine, name)


def _begin_ourselves(engine: Any, statement: str) -> None:
    """Begin transactions with this statement, because Python's sqlite3 begins none for CREATE and DROP."""
    event = require().event

    def opened(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    event.listen(engine, "connect", opened)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(statement))


class Database:
    """One table of a database, and its row in the progress table.

    `str()` names the table and the database without a password. Errors in `transaction` become StoreErrors.
    """

    def __init__(self, engine: Any, name: str) -> None:
        self._sql = require()
        self._engine = engine
        schema, _, self._name = name.rpartition(".")
        self._schema = schema or None
        self.progress = self._progress_table()

    def __str__(self) -> str:
        name = f"{self._schema}.{self._name}" if self._schema else self._name
        # The query may contain a password too.
        place = self._engine.url.set(query={}).render_as_string(hide_password=True)
        return f"table {name!r} at {place}"

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Commit the block as a whole, or roll it back. Raises StoreError."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except (self._sql.exc.SQLAlchemyError, OSError) as error:
            reason = _without(getattr(error, "orig", None) or error, self._secrets())
            raise StoreError(
                f"{self}: cannot be used: {reason}. No label is lost, because the ledger has them all. Fix the cause, "
                "then run the same command again."
            ) from None

    def is_missing_file(self) -> bool:
        """Whether it is a missing SQLite file, which a connection would create."""
        url = self._engine.url
        name = url.database or ""
        return url.get_backend_name() == "sqlite" and not name.startswith("file:") and not Path(name).exists()

    def close(self) -> None:
        """Close the connection. Can be called twice."""
        self._engine.dispose()

    # ── the row about the table ──────────────────────────────────────────────────────────────────────────────────

    def has_table(self, connection: Any, name: str | None = None) -> bool:
        """Whether there is a table or view of that name."""
        inspector = self._sql.inspect(connection)
        name = name or self._name
        return inspector.has_table(name, schema=self._schema) or name in inspector.get_view_names(schema=self._schema)

    def has_progress(self, connection: Any) -> bool:
        """Whether there is a progress table."""
        return self.has_table(connection, PROGRESS)

    def read_progress(self, connection: Any) -> Any:
        """Return the table's row in the progress table, or None."""
        return connection.execute(self._sql.select(self.progress).where(self._mine())).first()

    def claim(self, connection: Any, run_id: str, run_dir: str) -> None:
        """Make the table, or take it for this run if it is ours or was left to the next run in this folder."""
        mine = {"run_id": run_id, "run_dir": run_dir}
        if self.has_table(connection):
            self.note(connection, {"generation": -1}, only=self.progress.c.run_id == FREE)
            self.note(connection, mine)
            return
        self.progress.create(connection, checkfirst=True)
        self.make(connection, ())
        connection.execute(self.progress.delete().where(self._mine()))
        empty = {"generation": -1, "seq": 0, "rows_written": 0, "columns_json": "[]"}
        connection.execute(self.progress.insert(), {"table_name": self._name, **mine, **empty})

    def release(self, connection: Any, run_id: str, run_dir: str) -> None:
        """Free this run's table, with its rows, for the next run in this folder; another run's table is unchanged."""
        self.note(connection, {"run_id": FREE, "run_dir": run_dir}, only=self.progress.c.run_id == run_id)

    def note(self, connection: Any, values: Mapping[str, Any], *, only: Any = True) -> None:
        """Update the table's row in the progress table. Other writers of the row wait until this transaction ends."""
        where = [self._mine()] if only is True else [self._mine(), only]
        connection.execute(self.progress.update().where(*where).values(dict(values)))

    # ── the table ────────────────────────────────────────────────────────────────────────────────────────────────

    def make(self, connection: Any, columns: Sequence[Column]) -> None:
        """Create the table, empty."""
        self._table(columns).create(connection)

    def drop(self, connection: Any) -> None:
        self._table(()).drop(connection)

    def add_columns(self, connection: Any, columns: Sequence[Column], new: Sequence[Column]) -> None:
        """Add `new`, the last of `columns`, to the table."""
        table = self._table(columns)
        named = connection.dialect.identifier_preparer.format_table(table)
        for column in list(table.columns)[len(columns) - len(new) + 2 :]:
            definition = self._sql.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {named} ADD COLUMN {definition}")

    def has_key(self, connection: Any) -> bool:
        """Whether the table's rows have their record's key. Up to 0.3, they were numbered."""
        there = self._sql.inspect(connection).get_columns(self._name, schema=self._schema)
        return {KEY, PART} <= {column["name"] for column in there}

    def fetch(
        self, connection: Any, columns: Sequence[Column], keys: Iterable[str]
    ) -> dict[tuple[str, int], list[JSON]]:
        """Return the rows of the records with these keys."""
        table = self._table(columns)
        rows = connection.execute(self._sql.select(table).where(table.c[KEY].in_(list(keys))))
        return {(key, part): values for key, part, *values in rows}

    def ids(self, connection: Any) -> Iterator[Sequence[tuple[str, int]]]:
        """Yield the key and number of every row, in blocks."""
        table = self._table(())
        wanted = self._sql.select(table).execution_options(stream_results=True, yield_per=FETCHED)
        yield from ([(key, part) for key, part in block] for block in connection.execute(wanted).partitions())

    def count(self, connection: Any) -> int:
        """Return how many rows there are."""
        counted = self._sql.select(self._sql.func.count()).select_from(self._table(()))
        return int(connection.execute(counted).scalar_one())

    def insert(self, connection: Any, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        if rows:
            keys = [KEY, PART, *(f"c{index}" for index in range(len(columns)))]
            added = [dict(zip(keys, [*row_id, *values], strict=True)) for row_id, values in rows]
            connection.execute(self._table(columns).insert(), added)

    def update(self, connection: Any, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """Set existing rows to these values."""
        if rows and columns:
            names = [f"c{index}" for index in range(len(columns))]
            bound = {name: self._sql.bindparam(f"new_{name}") for name in names}
            named = [f"new_{name}" for name in names]
            changed = [
                {"the_key": key, "the_part": part, **dict(zip(named, values, strict=True))}
                for (key, part), values in rows
            ]
            table = self._table(columns)
            connection.execute(table.update().where(*self._these(table)).values(bound), changed)

    def delete(self, connection: Any, row_ids: Sequence[tuple[str, int]]) -> None:
        if row_ids:
            gone = [{"the_key": key, "the_part": part} for key, part in row_ids]
            table = self._table(())
            connection.execute(table.delete().where(*self._these(table)), gone)

    def _these(self, table: Any) -> Sequence[Any]:
        bind = self._sql.bindparam
        return table.c[KEY] == bind("the_key"), table.c[PART] == bind("the_part")

    def _table(self, columns: Sequence[Column]) -> Any:
        sql = self._sql
        from sqlalchemy.dialects import mysql

        exact = mysql.VARCHAR(KEY_BYTES, collation="utf8mb4_bin")
        key = sql.Column(KEY, sql.String(KEY_BYTES).with_variant(exact, "mysql", "mariadb"), primary_key=True)
        part = sql.Column(PART, sql.Integer, primary_key=True, autoincrement=False)
        made = [
            # Use our own keys, so that a column's name is never taken for a parameter's.
            sql.Column(column.name, self._type(column_type(column.kind)), key=f"c{index}", quote=True)
            for index, column in enumerate(columns)
        ]
        return sql.Table(self._name, sql.MetaData(), key, part, *made, schema=self._schema)

    def _type(self, column_type: str) -> Any:
        types = {"bool": self._sql.Boolean, "int64": self._sql.BigInteger, "double": self._sql.Double}
        return types.get(column_type, self._long_text)()

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
        values = ([one] if isinstance(one, str) else one for one in url.query.values())
        words = [url.password or "", *chain.from_iterable(values)]
        return [form for word in words if word for form in (word, quote(word, safe=""), quote_plus(word))]


def _without(error: BaseException, secrets: Sequence[str]) -> str:
    """Return the error's first line without secrets."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
