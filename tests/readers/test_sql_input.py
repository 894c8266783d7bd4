from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
import time
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError, MissingExtraError
from pipeline.readers import Query, ReadProgress, peek, read_records, resolve_sources, sql
from pipeline.records import Record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as db:
        db.execute("CREATE TABLE reviews (id TEXT PRIMARY KEY, text TEXT, n REAL, photo BLOB)")
        rows = [(f"r{number:04}", f"t{number}", number / 2, b"\xff\x00") for number in reversed(range(1000))]
        db.executemany("INSERT INTO reviews VALUES (?, ?, ?, ?)", rows)
        db.commit()
    return tmp_path


def read(base: Path, address: str = "sqlite:///db.sqlite", **choices: Any) -> list[Record]:
    query = Query(choices.pop("query", None), choices.pop("table", None))
    sources = resolve_sources(address, base=base, query=query, secret=choices.pop("secret", False))

    async def main() -> list[Record]:
        found: list[Record] = []
        async with aclosing(read_records(sources, **choices)) as batches:
            async for batch in batches:
                found += batch
        return found

    return asyncio.run(main())


def refusal(base: Path, address: str = "sqlite:///db.sqlite", **choices: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(base, address, **choices)
    return str(caught.value)


def test_columns_of_one_name_are_told_apart(folder: Path) -> None:
    progress = ReadProgress()
    query = "SELECT a.id, b.id, b.text FROM reviews a JOIN reviews b ON a.id = b.id ORDER BY a.id LIMIT 1"
    [record] = read(folder, query=query, progress=progress)
    assert list(record.fields) == ["id", "id_2", "text"]
    assert progress.format_notes() == ["sqlite:///db.sqlite: two columns are named 'id': column 2 is called 'id_2'"]


def test_rows_of_a_query_become_records(folder: Path) -> None:
    query = "SELECT id, text, n, photo FROM reviews WHERE text LIKE '%9%' AND ': no' <> ':x' ORDER BY id;"
    records = read(folder, query=query, key="id", batch=50)

    assert len(records) == 271
    assert records[0].fields == {"id": "r0009", "text": "t9", "n": 4.5, "photo": "/wA="}
    assert [(record.source, record.key, record.line) for record in records[:2]] == [
        ("sqlite:///db.sqlite", "r0009", 1),
        ("sqlite:///db.sqlite", "r0019", 2),
    ]
    assert read(folder, query=query, limit=1)[0].key == "sqlite:///db.sqlite:1"
    assert [record.digest for record in read(folder, query=query)] == [record.digest for record in records]


def test_a_table_comes_in_the_order_of_its_primary_key_and_is_counted(folder: Path) -> None:
    progress = ReadProgress()
    records = read(folder, table="reviews", progress=progress)
    assert [record.fields["id"] for record in records] == [f"r{number:04}" for number in range(1000)]
    assert records[0].key == "sqlite:///db.sqlite#reviews:1"
    assert progress.exact_total == 1000
    with closing(sqlite3.connect(folder / "db.sqlite")) as db:
        db.execute('CREATE TABLE "odd.name x" (a INTEGER)')
        db.execute('INSERT INTO "odd.name x" VALUES (1)')
        db.execute("CREATE VIEW seen AS SELECT text FROM reviews LIMIT 2")
        db.commit()
    assert [record.fields for record in read(folder, table="odd.name x")] == [{"a": 1}]
    assert read(folder, table="main.reviews", limit=1)[0].fields["id"] == "r0000"
    assert len(read(folder, table="seen")) == 2


VALUES = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=8))
def test_values_go_through_as_they_are(rows: list[tuple[Any, Any]]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        with closing(sqlite3.connect(Path(name) / "db.sqlite")) as db:
            db.execute("CREATE TABLE t (a, b)")
            db.executemany("INSERT INTO t VALUES (?, ?)", rows)
            db.commit()
        found = read(Path(name), query="SELECT a, b FROM t ORDER BY rowid")
    assert [tuple(record.fields.values()) for record in found] == rows


def test_the_database_is_let_go_of_while_labels_are_still_made(folder: Path) -> None:
    """A run of a night must not hold a lock: the callback may well write into the same database."""

    async def main() -> int:
        sources = resolve_sources("sqlite:///db.sqlite", base=folder, query=Query("SELECT * FROM reviews"))
        seen = 0
        async with aclosing(read_records(sources, batch=10)) as batches:
            async for batch in batches:
                seen += len(batch)
                while any(thread.name == "labelpipe-spool" for thread in threading.enumerate()):
                    await asyncio.sleep(0.005)
                with closing(sqlite3.connect(folder / "db.sqlite", timeout=0)) as db:
                    db.execute("UPDATE reviews SET text = 'changed'")
                    db.commit()
        return seen

    assert asyncio.run(main()) == 1000


def test_leaving_early_ends_the_query(folder: Path) -> None:
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"
    [source] = resolve_sources("sqlite:///db.sqlite", base=folder, query=Query(endless))
    assert [record.fields for record in asyncio.run(peek(source, n=2))] == [{"n": 1}, {"n": 2}]
    until = time.monotonic() + 30
    while any(thread.name == "labelpipe-spool" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"query": "SELECT nope FROM reviews"}, "sqlite:///db.sqlite: no such column: nope"),
        ({"query": "UPDATE reviews SET text = 'x'"}, "input.query gives no rows; a SELECT is needed"),
        ({"table": "review"}, "there is no table 'review'; did you mean 'reviews'?"),
        ({"table": "x"}, "there is no table 'x'; it has reviews"),
    ],
)
def test_a_query_that_cannot_work_says_why(choices: dict[str, str], message: str, folder: Path) -> None:
    assert message in refusal(folder, **choices)
    with closing(sqlite3.connect(folder / "db.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM reviews WHERE text = 'x'").fetchone() == (0,)


def test_an_address_that_cannot_work_says_why_without_its_secrets(tmp_path: Path) -> None:
    query = {"query": "SELECT 1"}
    assert "'sqlite:///none.sqlite' cannot be read: no such file" in refusal(tmp_path, "sqlite:///none.sqlite", **query)
    assert list(tmp_path.iterdir()) == []
    assert "needs the address of a database" in refusal(tmp_path, "reviews.csv", **query)
    told = refusal(tmp_path, "postgresql://me:pa55word@127.0.0.1:9/db?sslpassword=s3cret", secret=True, **query)
    assert "pip install psycopg" in told
    assert "asynchronous driver" in refusal(tmp_path, "sqlite+aiosqlite:///x", **query)
    unknown = refusal(tmp_path, "nosuch://me:pa55word@h/db", **query)
    assert "nosuch" in unknown
    for text in (told, unknown):
        assert "pa55word" not in text
        assert "s3cret" not in text
    with pytest.raises(InputError, match=r"address of a database: set input\.query or input\.table"):
        resolve_sources("postgresql://h/db", base=tmp_path)


def test_names_and_representations_hold_no_secret(tmp_path: Path) -> None:
    address = "mssql+pyodbc://me:pa55word@h/db?token=s3cret"
    [source] = resolve_sources(address, base=tmp_path, query=Query("SELECT 1"), secret=True)
    assert source.name == "mssql+pyodbc://me:***@h/db"
    assert "pa55word" not in repr(source)
    assert "s3cret" not in repr(source)


def test_without_sqlalchemy_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtraError, match=r"labelpipe\[sql\]"):
        read(folder, query="SELECT 1")


def test_a_text_that_is_none_spoils_its_row_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as db:
        db.execute("CREATE TABLE r (id INTEGER PRIMARY KEY, text TEXT)")
        db.executemany("INSERT INTO r VALUES (?, ?)", [(1, "one"), (3, "three"), (5, "a" * 30_000)])
        db.execute("INSERT INTO r VALUES (2, CAST(x'63616ce9' AS TEXT))")
        db.execute("INSERT INTO r VALUES (4, CAST(? AS TEXT))", (b'"\xff' * 30_000,))
        db.execute("INSERT INTO r VALUES (6, CAST(x'EDA0BD' AS TEXT))")  # half of an emoji, as no UTF-8 has it
        db.commit()
    records = read(tmp_path, table="r", key="id")

    assert [record.line for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.key for record in records if record.problem is None] == ["1", "3", "5"]
    for record in records[1::2]:
        assert record.problem
        assert record.problem.code == "unreadable"
        assert record.problem.message.endswith(f", row {record.line}: 'text': not valid UTF-8")
    assert records[1].fields == {"raw": '[2,"cal\ufffd"]'}


def test_what_a_driver_raises_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a driver's own")

    monkeypatch.setattr(sql, "_execute", broken)
    assert "db.sqlite#reviews: a driver's own" in refusal(folder, table="reviews")
