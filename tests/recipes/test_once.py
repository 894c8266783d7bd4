"""`once`: what is written in the transaction of a call's key is there exactly once."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.recipes import TABLE, once, once_async, prepare
from pipeline.records import CallbackContext, Record

DOCS = Path(__file__).parents[2] / "docs"
CALL = CallbackContext("k1", 0, "set_label")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with a table to write into."""
    with closing(connected(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE written (what TEXT)")
        prepare(connection)
        prepare(connection)
    return tmp_path / "a.db"


def connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=60)


def written(path: Path) -> list[str]:
    with closing(connected(path)) as connection:
        return [row[0] for row in connection.execute("SELECT what FROM written")]


def test_the_second_time_nothing_is_written_and_the_first_result_is_given(path: Path) -> None:
    given = []
    for number in range(3):
        with closing(connected(path)) as connection, connection:

            def write(connection: sqlite3.Connection = connection, number: int = number) -> Any:
                connection.execute("INSERT INTO written VALUES (?)", (f"{number}",))
                return {"n": number, "all": (1, 2)}

            given.append(once(connection, CALL, write))
    assert given == [{"n": 0, "all": [1, 2]}] * 3
    assert written(path) == ["0"]


@pytest.mark.parametrize("result", [None, 0, "", [], {"a": None}, {"n": 2**70}])
def test_any_result_is_kept(path: Path, result: Any) -> None:
    with closing(connected(path)) as connection, connection:
        assert once(connection, "a", lambda: result) == result
        assert once(connection, "a", lambda: "another") == result
        assert once(connection, "b", lambda: "another") == "another"


def test_what_raises_leaves_no_key(path: Path) -> None:
    def write() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), closing(connected(path)) as connection, connection:
        once(connection, CALL, write)
    with closing(connected(path)) as connection, connection:
        assert once(connection, CALL, lambda: "now") == "now"


def test_a_kill_before_the_commit_leaves_neither(path: Path) -> None:
    connection = connected(path)
    once(connection, CALL, lambda: connection.execute("INSERT INTO written VALUES ('a')").rowcount)
    connection.close()
    assert written(path) == []
    with closing(connected(path)) as connection, connection:
        assert once(connection, CALL, lambda: "first") == "first"


def test_a_connection_in_autocommit_is_refused_and_nothing_is_kept(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(ValueError, match="in no transaction"):
            once(connection, CALL, lambda: 1)
        assert connection.execute(f"SELECT * FROM {TABLE}").fetchall() == []
        connection.execute("BEGIN")
        assert once(connection, CALL, lambda: 1) == 1
        connection.execute("COMMIT")


def test_many_at_once_with_one_key_write_once(path: Path) -> None:
    given = []

    def work(number: int) -> None:
        with closing(connected(path)) as connection, connection:

            def write() -> int:
                connection.execute("INSERT INTO written VALUES ('a')")
                return number

            given.append(once(connection, CALL, write))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 8
    assert len(set(given)) == 1
    assert written(path) == ["a"]


def test_sqlalchemys_connections_and_sessions(path: Path) -> None:
    import sqlalchemy  # each process that collects the tests would import it
    from sqlalchemy.orm import Session

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    insert = sqlalchemy.text("INSERT INTO written VALUES ('a')")
    for _ in range(2):
        with engine.begin() as connection:
            assert once(connection, "c", lambda: connection.execute(insert).rowcount) == 1
        with Session(engine) as session, session.begin():
            assert once(session, "s", lambda: session.execute(insert) and 2) == 2
    engine.dispose()
    assert written(path) == ["a", "a"]


def test_what_is_no_connection_is_told() -> None:
    with pytest.raises(TypeError, match=r"builtins\.list is no connection that is known here"):
        once([], CALL, lambda: 1)
    with pytest.raises(TypeError, match=r"builtins\.list is no connection"):
        asyncio.run(once_async([], CALL, lambda: 1))


class _Cursor:
    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self.rowcount, self.description = cursor.rowcount, cursor.description

    async def fetchone(self) -> Any:
        return self._cursor.fetchone()

    async def close(self) -> None:
        self._cursor.close()


class _Awaited:
    """sqlite3 as aiosqlite and psycopg show a connection."""

    isolation_level = ""
    in_transaction = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, values: tuple[str, ...] = ()) -> _Cursor:
        return _Cursor(self._connection.execute(sql, values))


@pytest.fixture
def aiosqlite(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Awaited]]:
    """The name of a driver that is awaited; the real ones were tried by hand."""
    module = ModuleType("aiosqlite")
    module.paramstyle = "qmark"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "aiosqlite", module)
    monkeypatch.setattr(_Awaited, "__module__", "aiosqlite")
    return _Awaited


def test_a_connection_that_is_awaited(path: Path, aiosqlite: type[_Awaited]) -> None:
    async def main(connection: sqlite3.Connection) -> list[Any]:
        async def write() -> str:
            connection.execute("INSERT INTO written VALUES ('a')")
            return "kept"

        return [await once_async(aiosqlite(connection), CALL, write) for _ in range(2)]

    with closing(connected(path)) as connection, connection:
        assert asyncio.run(main(connection)) == ["kept", "kept"]
    assert written(path) == ["a"]


BLOCKS = [
    block
    for block in re.findall(
        r"^```python\n(.*?)^```", (DOCS / "callbacks.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    if "recipes" in block and "asyncpg" not in block
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_examples_of_the_page_write_once(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module: dict[str, Any] = {}
    exec(compile(block, "callbacks.md", "exec"), module)
    record = Record("in", 0, "r1", {"text": "good"}, 1, 1)
    if "SaveReview" in module:
        save = module["SaveReview"]()
        given = [save({"label": "positive"}, record, CALL) for _ in range(2)]
    else:
        given = [module["set_label"]("positive", record, CALL) for _ in range(2)]

    async def both() -> list[Any]:
        return [await one if asyncio.iscoroutine(one) else one for one in given]

    assert asyncio.run(both()) in ([{"review_row": 1}] * 2, [None] * 2)
    with closing(sqlite3.connect("reviews.db")) as connection:
        assert [row[-2:] for row in connection.execute("SELECT * FROM reviews")] == [("r1", "positive")]
    if "engine" in module:
        module["engine"].dispose()
    elif hasattr(save, "_thread"):
        save._thread.submit(save._connection.close).result()
        save._thread.shutdown()


def test_the_examples_are_on_the_page() -> None:
    assert len(BLOCKS) == 3
