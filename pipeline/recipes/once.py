"""Exactly once: the key of a call goes into the database in the same transaction as what the callback writes there.

A callback may be handed the same call twice, because a kill can come between its work and the ledger's commit. The
second time the key is there already: nothing is written, and what came of the first time is given back.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pipeline import codec
from pipeline.recipes.connections import AsyncLink, Link, async_link, link
from pipeline.records import JSON, CallbackContext

#: The table of keys, in the user's database.
TABLE = "labelpipe_calls"

_MAKE = f"CREATE TABLE IF NOT EXISTS {TABLE} (idempotency_key VARCHAR(255) NOT NULL PRIMARY KEY, result TEXT)"
# Constant words and parameters are all that is in these.
_ADD = {
    "sqlite": f"INSERT INTO {TABLE} (idempotency_key) VALUES ({{}}) ON CONFLICT DO NOTHING",  # noqa: S608
    "postgresql": f"INSERT INTO {TABLE} (idempotency_key) VALUES ({{}}) ON CONFLICT DO NOTHING",  # noqa: S608
    "mysql": f"INSERT IGNORE INTO {TABLE} (idempotency_key) VALUES ({{}})",  # noqa: S608
    "mariadb": f"INSERT IGNORE INTO {TABLE} (idempotency_key) VALUES ({{}})",  # noqa: S608
}
_KEEP = f"UPDATE {TABLE} SET result = {{}} WHERE idempotency_key = {{}}"  # noqa: S608
_FIND = f"SELECT result FROM {TABLE} WHERE idempotency_key = {{}}"  # noqa: S608


def prepare(connection: Any) -> None:
    """Make the table of keys, if it is not there. Once at the start, and committed by you."""
    link(connection).run(_MAKE)


def once(connection: Any, call: CallbackContext | str, write: Callable[[], JSON]) -> JSON:
    """What `write` gives, which is called the first time only; later what it gave then.

    `connection` is in a transaction of yours: `write` writes by it, and you commit. If `write` raises, roll back: the
    key goes with it. `call` is what the callback is given, or a key of your own. The result is kept as JSON.
    Raises TypeError for a connection that is not known, ValueError for one that is in no transaction.
    """
    to = link(connection)
    _check_open(to)
    added, _ = to.run(_adding(to), key := _key(call))
    if not added:
        return _kept(to.run(_FIND, key))
    text = _text(write())
    to.run(_KEEP, text, key)
    return codec.loads_exact(text)


async def prepare_async(connection: Any) -> None:
    """`prepare` for a connection that is awaited."""
    await (await async_link(connection)).run(_MAKE)


async def once_async(connection: Any, call: CallbackContext | str, write: Callable[[], Awaitable[JSON] | JSON]) -> JSON:
    """`once` for a connection that is awaited; `write` may be async or plain."""
    to = await async_link(connection)
    _check_open(to)
    added, _ = await to.run(_adding(to), key := _key(call))
    if not added:
        return _kept(await to.run(_FIND, key))
    result = write()
    text = _text(await result if inspect.isawaitable(result) else result)
    await to.run(_KEEP, text, key)
    return codec.loads_exact(text)


def _adding(to: Link | AsyncLink) -> str:
    if to.database not in _ADD:
        raise TypeError(f"{to.database} is not known here; expected one of {', '.join(_ADD)}")
    return _ADD[to.database]


def _key(call: CallbackContext | str) -> str:
    return call if isinstance(call, str) else call.idempotency_key


def _kept(found: tuple[int, Any]) -> JSON:
    row = found[1]
    return None if row is None or row[0] is None else codec.loads_exact(row[0])


def _check_open(to: Link | AsyncLink) -> None:
    if not to.is_open():
        raise ValueError(
            "this connection is in no transaction (autocommit): the key would be kept even if what you write is not. "
            "Begin one, then call once within it"
        )


def _text(result: JSON) -> str:
    return codec.dumps(result).decode()
