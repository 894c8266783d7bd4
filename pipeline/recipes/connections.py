"""Wraps users' database connections in one interface, without importing any driver."""

import sys
from typing import Any

#: The driver's package -> its database.
_DATABASES = {
    **dict.fromkeys(("sqlite3", "aiosqlite"), "sqlite"),
    **dict.fromkeys(("psycopg", "psycopg2", "pg8000", "asyncpg"), "postgresql"),
    **dict.fromkeys(("pymysql", "MySQLdb", "aiomysql", "mariadb"), "mysql"),
}
_PLACEHOLDERS = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric": ":{}", "numeric_dollar": "${}"}
#: psycopg's status of a connection that is not in a transaction.
_IDLE = 0


class SqlalchemyConnection:
    """A connection of SQLAlchemy."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.database: str = connection.dialect.name

    def run(self, sql: str, *values: str) -> tuple[int, Any]:
        """Return the number of affected rows and the first row of the result. Each `{}` in `sql` is a parameter."""
        result = self._connection.exec_driver_sql(
            _with_placeholders(sql, self._connection.dialect.paramstyle, len(values)), values
        )
        return result.rowcount, result.first() if result.returns_rows else None

    def is_open(self) -> bool:
        """Whether it is in a transaction or will begin one by itself; True if the driver does not report it."""
        return bool(self._connection.in_transaction())


class AsyncSqlalchemyConnection(SqlalchemyConnection):
    """An asynchronous connection of SQLAlchemy."""

    async def run(self, sql: str, *values: str) -> tuple[int, Any]:  # type: ignore[override]
        statement = _with_placeholders(sql, self._connection.dialect.paramstyle, len(values))
        result = await self._connection.exec_driver_sql(statement, values)
        return result.rowcount, result.first() if result.returns_rows else None


class DriverConnection:
    """A connection of the Python DB-API."""

    def __init__(self, connection: Any, package: str) -> None:
        self._connection = connection
        self._style = str(getattr(sys.modules[package], "paramstyle", "qmark"))
        self.database = _DATABASES[package]

    def run(self, sql: str, *values: str) -> tuple[int, Any]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(_with_placeholders(sql, self._style, len(values)), values)
            return cursor.rowcount, cursor.fetchone() if cursor.description else None
        finally:
            cursor.close()

    def is_open(self) -> bool:
        if hasattr(self._connection, "in_transaction"):  # sqlite3 begins one by itself unless configured otherwise
            begins = self._connection.isolation_level is not None
            return bool(self._connection.in_transaction) or begins
        info = getattr(self._connection, "info", None)
        is_idle = getattr(info, "transaction_status", _IDLE) == _IDLE
        return not (is_idle and getattr(self._connection, "autocommit", False) is True)


class AsyncDriverConnection(DriverConnection):
    """A connection of an asynchronous driver that resembles the DB-API."""

    async def run(self, sql: str, *values: str) -> tuple[int, Any]:  # type: ignore[override]
        cursor = await self._connection.execute(_with_placeholders(sql, self._style, len(values)), values)
        try:
            return cursor.rowcount, await cursor.fetchone() if cursor.description else None
        finally:
            await cursor.close()


class AsyncpgConnection:
    """A connection of asyncpg."""

    database = "postgresql"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def run(self, sql: str, *values: str) -> tuple[int, Any]:
        statement = _with_placeholders(sql, "numeric_dollar", len(values))
        if sql.startswith("SELECT"):
            return 0, await self._connection.fetchrow(statement, *values)
        status = await self._connection.execute(statement, *values)  # "INSERT 0 1"
        count = status.rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0, None

    def is_open(self) -> bool:
        return bool(self._connection.is_in_transaction())


Connection = SqlalchemyConnection | DriverConnection
AsyncConnection = AsyncSqlalchemyConnection | AsyncDriverConnection | AsyncpgConnection


def _package(connection: Any) -> str:
    return type(connection).__module__.partition(".")[0]


def _unknown(connection: Any) -> str:
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    return (
        f"{kind} is no connection that is known here; expected one of SQLAlchemy, sqlite3, psycopg, asyncpg, pymysql "
        "and the like. For another, write the call's idempotency_key into a table of your own in the same transaction."
    )


def _with_placeholders(sql: str, style: str, count: int) -> str:
    if style not in _PLACEHOLDERS:
        raise TypeError(f"this driver names its parameters ({style}); expected one that takes them by their place")
    return sql.format(*(_PLACEHOLDERS[style].format(number) for number in range(1, count + 1)))


def wrap(connection: Any) -> Connection:
    """Wrap a DB-API connection, or a Connection or Session of SQLAlchemy. Raises TypeError."""
    package = _package(connection)
    if package == "sqlalchemy":
        return SqlalchemyConnection(connection if hasattr(connection, "exec_driver_sql") else connection.connection())
    if package not in _DATABASES or not hasattr(connection, "cursor"):
        raise TypeError(_unknown(connection))
    return DriverConnection(connection, package)


async def wrap_async(connection: Any) -> AsyncConnection:
    """Wrap a connection of asyncpg, aiosqlite, or psycopg, or one of SQLAlchemy. Raises TypeError."""
    package = _package(connection)
    if package == "sqlalchemy":
        return AsyncSqlalchemyConnection(
            connection if hasattr(connection, "exec_driver_sql") else await connection.connection()
        )
    if package not in _DATABASES:
        raise TypeError(_unknown(connection))
    return AsyncpgConnection(connection) if package == "asyncpg" else AsyncDriverConnection(connection, package)
