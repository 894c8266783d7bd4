"""One way to speak to the connections that people have, without importing any driver."""

import sys
from collections.abc import Awaitable
from typing import Any, Protocol

#: The driver's package -> the database that it is for.
_DATABASES = {
    **dict.fromkeys(("sqlite3", "aiosqlite"), "sqlite"),
    **dict.fromkeys(("psycopg", "psycopg2", "pg8000", "asyncpg"), "postgresql"),
    **dict.fromkeys(("pymysql", "MySQLdb", "aiomysql", "mariadb"), "mysql"),
}
_MARKS = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric": ":{}", "numeric_dollar": "${}"}
#: psycopg's number for a connection that is in no transaction
_IDLE = 0


class Link(Protocol):
    """A connection that is waited for. `sql` has `{}` where a parameter stands."""

    database: str

    def run(self, sql: str, *values: str) -> tuple[int, Any]:
        """Carry out a statement: the number of rows that it touched, and the first row of its answer or None."""

    def is_open(self) -> bool:
        """Whether it is in a transaction, or will begin one by itself; true where the driver does not say."""


class AsyncLink(Protocol):
    """The same for a connection that is awaited."""

    database: str

    def run(self, sql: str, *values: str) -> Awaitable[tuple[int, Any]]:
        """As above."""

    def is_open(self) -> bool:
        """As above."""


def link(connection: Any) -> Link:
    """How to speak to it: a DB-API connection, or a Connection or Session of SQLAlchemy. Raises TypeError."""
    package = _package(connection)
    if package == "sqlalchemy":
        return _Alchemy(connection if hasattr(connection, "exec_driver_sql") else connection.connection())
    if package not in _DATABASES or not hasattr(connection, "cursor"):
        raise TypeError(_unknown(connection))
    return _Driver(connection, package)


async def async_link(connection: Any) -> AsyncLink:
    """How to speak to it: a connection of asyncpg, aiosqlite or psycopg, or SQLAlchemy's. Raises TypeError."""
    package = _package(connection)
    if package == "sqlalchemy":
        return _AsyncAlchemy(connection if hasattr(connection, "exec_driver_sql") else await connection.connection())
    if package not in _DATABASES:
        raise TypeError(_unknown(connection))
    return _Asyncpg(connection) if package == "asyncpg" else _AsyncDriver(connection, package)


def _package(connection: Any) -> str:
    return type(connection).__module__.partition(".")[0]


def _unknown(connection: Any) -> str:
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    return (
        f"{kind} is no connection that is known here; expected one of SQLAlchemy, sqlite3, psycopg, asyncpg, pymysql "
        "and the like. For another, write the call's idempotency_key into a table of your own in the same transaction."
    )


def _marked(sql: str, style: str, count: int) -> str:
    if style not in _MARKS:
        raise TypeError(f"this driver names its parameters ({style}); expected one that takes them by their place")
    return sql.format(*(_MARKS[style].format(number) for number in range(1, count + 1)))


class _Alchemy:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.database: str = connection.dialect.name

    def run(self, sql: str, *values: str) -> tuple[int, Any]:
        done = self._connection.exec_driver_sql(_marked(sql, self._connection.dialect.paramstyle, len(values)), values)
        return done.rowcount, done.first() if done.returns_rows else None

    def is_open(self) -> bool:
        return bool(self._connection.in_transaction())


class _AsyncAlchemy(_Alchemy):
    async def run(self, sql: str, *values: str) -> tuple[int, Any]:  # type: ignore[override]
        marked = _marked(sql, self._connection.dialect.paramstyle, len(values))
        done = await self._connection.exec_driver_sql(marked, values)
        return done.rowcount, done.first() if done.returns_rows else None


class _Driver:
    def __init__(self, connection: Any, package: str) -> None:
        self._connection = connection
        self._style = str(getattr(sys.modules[package], "paramstyle", "qmark"))
        self.database = _DATABASES[package]

    def run(self, sql: str, *values: str) -> tuple[int, Any]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(_marked(sql, self._style, len(values)), values)
            return cursor.rowcount, cursor.fetchone() if cursor.description else None
        finally:
            cursor.close()

    def is_open(self) -> bool:
        if hasattr(self._connection, "in_transaction"):  # sqlite3 begins one by itself, unless it is told not to
            begins = self._connection.isolation_level is not None
            return bool(self._connection.in_transaction) or begins
        info = getattr(self._connection, "info", None)
        is_idle = getattr(info, "transaction_status", _IDLE) == _IDLE
        return not (is_idle and getattr(self._connection, "autocommit", False) is True)


class _AsyncDriver(_Driver):
    async def run(self, sql: str, *values: str) -> tuple[int, Any]:  # type: ignore[override]
        cursor = await self._connection.execute(_marked(sql, self._style, len(values)), values)
        try:
            return cursor.rowcount, await cursor.fetchone() if cursor.description else None
        finally:
            await cursor.close()


class _Asyncpg:
    database = "postgresql"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def run(self, sql: str, *values: str) -> tuple[int, Any]:
        marked = _marked(sql, "numeric_dollar", len(values))
        if sql.startswith("SELECT"):
            return 0, await self._connection.fetchrow(marked, *values)
        told = await self._connection.execute(marked, *values)  # "INSERT 0 1"
        count = told.rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0, None

    def is_open(self) -> bool:
        return bool(self._connection.is_in_transaction())
