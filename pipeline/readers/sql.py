"""Reads a database query with SQLAlchemy: each row is a record.

The rows go to a nameless temporary file as fast as the database sends them, and are read from there. A query that is
read only as fast as the labels come would hold its connection, and locks, for hours.
"""

from collections.abc import Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import InputError, MissingExtraError
from pipeline.files import CHUNK_BYTES
from pipeline.readers.background import spool_to_disk
from pipeline.readers.formats import jsonl
from pipeline.readers.rows import RAW_CHARS, ReadContext, Row, Rows
from pipeline.readers.source import Source, missing_input_error
from pipeline.readers.values import Unreadable, all_to_json

#: The number of rows per fetch. Each may contain a photo.
FETCH_ROWS = 100
#: The beginnings of database addresses, before a `+` and the name of the driver.
DIALECTS = frozenset({"sqlite", "postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql", "duckdb", "snowflake"})
_REASON_CHARS = 400


@dataclass(frozen=True, slots=True)
class Query:
    """What to read from a database: the rows of a `SELECT`, or a whole table in the order of its primary key."""

    select: str | None = None
    table: str | None = None


@dataclass(frozen=True, slots=True)
class _Database:
    """An address and what to read there. `name` is the address without possible secrets."""

    url: Any = field(repr=False)
    name: str
    query: Query


def sql_source(address: str, query: Query, base: Path) -> Source:
    """Return the rows of the query as a source. Raises InputError if the address or the driver is wrong."""
    sqlalchemy = _sqlalchemy()
    try:
        url = sqlalchemy.make_url(address)
        is_async = url.get_dialect().is_async
    except (sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise InputError(f"input.path: {_scheme(address)}: {error}") from None
    except (sqlalchemy.exc.ArgumentError, ValueError):
        # The message does not repeat the text, which may contain a password.
        raise InputError(
            "input.path: a query needs the address of a database, like sqlite:///reviews.db or "
            "postgresql://user@host/name; this is not an address of that form"
        ) from None
    if is_async:
        raise InputError(f"input.path: {_scheme(address)}: is an asynchronous driver; name one that is not")
    # Anything after a `?` may be a secret, like the password.
    name = url.set(query={}).render_as_string(hide_password=True)
    database = _Database(_locate_database(url, base, name), f"{name}#{query.table}" if query.table else name, query)
    rows, count = partial(_rows, database), partial(_count, database)
    return Source(database.name, None, "sql", None, rows=rows, read_count=count)


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ImportError:
        raise MissingExtraError("Reading a database", "sql") from None
    return sqlalchemy


def _scheme(address: str) -> str:
    return address.partition("://")[0]


def _locate_database(url: Any, base: Path, name: str) -> Any:
    """Require that a SQLite file exists, and return its address. SQLite would create one for a mistaken name."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":memory:", "file:")):
        return url
    path = base / Path(url.database).expanduser()
    if not path.is_file():
        raise missing_input_error(name, path, "no such file")
    return url.set(database=str(path))


async def _rows(database: _Database, context: ReadContext) -> Rows:
    blocks = spool_to_disk(partial(_lines, database, context), chunk_bytes=CHUNK_BYTES)
    async with aclosing(jsonl(blocks, context)) as parts:
        async for rows in parts:
            yield [_restore_bad_row(row) if row[3] else row for row in rows]


def _restore_bad_row(row: Row) -> Row:
    """Return a row that could not be read. Its line lists what is wrong and what could be saved."""
    line, fields, digest, _ = row
    try:
        trouble, fields_read = codec.loads_exact(str(fields["raw"]))
    except (ValueError, TypeError):  # the row was too long and is cut
        return row
    return line, fields_read, digest, trouble


def _lines(database: _Database, context: ReadContext) -> Generator[bytes, None, None]:
    """Yield the rows as lines of JSON, several at a time."""
    engine = None
    try:
        engine = _engine(database)
        with engine.connect() as connection:
            options = {"stream_results": True, "max_row_buffer": FETCH_ROWS, "no_parameters": True}
            result = _execute(engine, connection.execution_options(**options), database)
            names = context.columns(_names(result, database))
            for part in result.partitions(FETCH_ROWS):
                yield b"".join(_line(names, row) + b"\n" for row in part)
    except InputError:
        raise
    except Exception as error:  # a driver may raise anything
        raise InputError(f"{database.name}: {_reason(error, database)}") from None
    finally:
        if engine is not None:
            engine.dispose()


def _line(names: Sequence[str], row: Sequence[Any]) -> bytes:
    """Return a row as an object, with halves of characters as escapes; or, as a list, what is wrong with it."""
    values = all_to_json(row)
    if bad := [(name, value) for name, value in zip(names, row, strict=True) if type(value) is Unreadable]:
        return codec.dumps(
            [f"{bad[0][0]!r}: {bad[0][1].trouble}", {"raw": codec.dumps(values).decode()[: RAW_CHARS // 8]}]
        )
    return codec.dumps(dict(zip(names, values, strict=True)))


def _engine(database: _Database) -> Any:
    sqlalchemy = _sqlalchemy()
    try:
        engine = sqlalchemy.create_engine(database.url, poolclass=sqlalchemy.pool.NullPool)
    except ImportError as error:
        driver = error.name or database.url.get_driver_name()
        raise InputError(f"{database.name}: its driver is not installed: pip install {driver}") from None
    if database.url.get_backend_name() == "sqlite":
        sqlalchemy.event.listen(engine, "connect", _take_any_text)
    return engine


def _take_any_text(connection: Any, _: Any) -> None:
    """Accept any bytes as text, as SQLite does. Its module would end the query at the first that are not UTF-8."""

    def text(data: bytes) -> str | Unreadable:
        try:
            return data.decode()
        except UnicodeDecodeError:
            return Unreadable.text(data)

    connection.text_factory = text


def _execute(engine: Any, connection: Any, database: _Database) -> Any:
    """Return the result of the query, or of the whole table."""
    if database.query.select is not None:
        # Verbatim, because in SQLAlchemy's own text a colon or a percent sign would begin a parameter.
        return connection.exec_driver_sql(database.query.select.strip().rstrip(";"))
    sqlalchemy = _sqlalchemy()
    table, keys = _table(engine, database)
    statement = sqlalchemy.select(sqlalchemy.literal_column("*")).select_from(table)
    return connection.execute(statement.order_by(*(sqlalchemy.column(key) for key in keys)))


def _table(engine: Any, database: _Database) -> tuple[Any, list[str]]:
    """Return the table and the columns of its primary key. Raises InputError if there is no table of this name."""
    sqlalchemy = _sqlalchemy()
    inspector, written = sqlalchemy.inspect(engine), database.query.table or ""
    schema, dot, last = written.rpartition(".")
    for name, place in [(written, None), *([(last, schema)] if dot else [])]:
        if inspector.has_table(name, schema=place):
            keys = inspector.get_pk_constraint(name, schema=place).get("constrained_columns") or []
            return sqlalchemy.table(name, schema=place), list(keys)
    there = [*inspector.get_table_names(), *inspector.get_view_names()]
    near = get_close_matches(written, there, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(there)[:12]) or 'none'}"
    raise InputError(f"{database.name}: input.table: there is no table {written!r}; {hint}")


def _names(result: Any, database: _Database) -> list[str]:
    if not result.returns_rows:
        raise InputError(f"{database.name}: input.query gives no rows; a SELECT is needed")
    return [str(name) for name in result.keys()]  # noqa: SIM118 - not a dict: iterating would yield rows


def _count(database: _Database) -> int | None:
    """Return the number of rows of a table. A query is not executed twice."""
    if database.query.table is None:
        return None
    sqlalchemy = _sqlalchemy()
    try:
        engine = _engine(database)
        with engine.connect() as connection:
            table, _ = _table(engine, database)
            return int(connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(table)).scalar())
    except (sqlalchemy.exc.SQLAlchemyError, OSError):
        return None  # reading it will report what is wrong


def _reason(error: Exception, database: _Database) -> str:
    """Return the database's message without the password."""
    original = getattr(error, "orig", None) or error
    text = " ".join(str(original).split())
    password = database.url.password
    return (text.replace(str(password), "***") if password else text)[:_REASON_CHARS]
