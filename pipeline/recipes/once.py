"""Writes exactly once: the key of a call enters the database in the same transaction as the callback's own writes.

A callback may receive the same call twice, because a kill can come between its work and the ledger's commit. The
second time, the key is already there: nothing is written, and the result of the first time is returned.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pipeline import codec
from pipeline.recipes.connections import AsyncConnection, Connection, wrap, wrap_async
from pipeline.records import JSON, CallbackContext

#: The table of keys, in the user's database.
TABLE = "labelpipe_calls"

_CREATE = f"CREATE TABLE IF NOT EXISTS {TABLE} (idempotency_key VARCHAR(255) NOT NULL PRIMARY KEY, result TEXT)"
# These contain only constant words and parameters.
_INSERT = {
    "sqlite": f"INSERT INTO {TABLE} (idempotency_key) VALUES ({{}}) ON CONFLICT DO NOTHING",  # noqa: S608
    "postgresql": f"INSERT INTO {TABLE} (idempotency_key) VALUES ({{}}) ON CONFLICT DO NOTHING",  # noqa: S608
    "mysql": f"INSERT IGNORE INTO {TABLE} (idempotency_key) VALUES ({{}})",  # noqa: S608
    "mariadb": f"INSERT IGNORE INTO {TABLE} (idempotency_key) VALUES ({{}})",  # noqa: S608
}
_UPDATE = f"UPDATE {TABLE} SET result = {{}} WHERE idempotency_key = {{}}"  # noqa: S608
_SELECT = f"SELECT result FROM {TABLE} WHERE idempotency_key = {{}}"  # noqa: S608


def prepare(connection: Any) -> None:
    """Create the table of keys if it is missing. Call this once at the start, and commit."""
    wrap(connection).run(_CREATE)


def once(connection: Any, call: CallbackContext | str, write: Callable[[], JSON]) -> JSON:
    """Call `write` only the first time, and return its result then and later.

    `connection` is in a transaction of yours. `write` uses it, and you commit. If `write` raises, roll back, which
    also removes the key. `call` is the context that the callback receives, or a key of your own. The result is saved
    as JSON. Raises TypeError for an unknown connection, ValueError for one that is not in a transaction.
    """
    to = wrap(connection)
    _check_open(to)
    added, _ = to.run(_insert_for(to), key := _key(call))
    if not added:
        return _saved_result(to.run(_SELECT, key))
    text = codec.dumps(write()).decode()
    to.run(_UPDATE, text, key)
    return codec.loads_exact(text)


async def prepare_async(connection: Any) -> None:
    """Do what `prepare` does, for an asynchronous connection."""
    await (await wrap_async(connection)).run(_CREATE)


async def once_async(connection: Any, call: CallbackContext | str, write: Callable[[], Awaitable[JSON] | JSON]) -> JSON:
    """Do what `once` does, for an asynchronous connection. `write` may be async or not."""
    to = await wrap_async(connection)
    _check_open(to)
    added, _ = await to.run(_insert_for(to), key := _key(call))
    if not added:
        return _saved_result(await to.run(_SELECT, key))
    result = write()
    text = codec.dumps(await result if inspect.isawaitable(result) else result).decode()
    await to.run(_UPDATE, text, key)
    return codec.loads_exact(text)


def _insert_for(to: Connection | AsyncConnection) -> str:
    if to.database not in _INSERT:
        raise TypeError(f"{to.database} cannot be resolved here; expected one of {', '.join(_INSERT)}")
    return _INSERT[to.database]


def _key(call: CallbackContext | str) -> str:
    return call if isinstance(call, str) else call.idempotency_key


def _saved_result(reply: tuple[int, Any]) -> JSON:
    row = reply[1]
    return None if row is None or row[0] is None else codec.loads_exact(row[0])


def _check_open(to: Connection | AsyncConnection) -> None:
    if not to.is_open():
        raise ValueError(
            "this connection is in no transaction (autocommit): the key would be kept even if what you write is not. "
            "Begin one, then call once within it"
        )
