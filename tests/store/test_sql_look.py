"""A short look at the table in a database: what it tells, and that nothing holds it up. Real SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import labelled
from store_sessions import BATCHES
from test_sql import KEYS, SQL, place, query, run, table

from pipeline.errors import SetupError
from pipeline.store import Ledger, SqlPlace, TableLook, check_place, look_at_table, release_table


def look(path: Path, url: str | None = None, patience_s: float = 2.0) -> TableLook | None:
    async def main() -> TableLook | None:
        def find(kept: SqlPlace) -> str | None:
            return url or kept.url

        async with await Ledger.open(path / "ledger.db", read_only=True) as ledger:
            return await look_at_table(ledger, find, patience_s=patience_s)

    return asyncio.run(main())


def commit(path: Path, number: int) -> None:
    """The ledger gets a labelled record that the table does not have."""

    async def main() -> None:
        async with await Ledger.open(path / "ledger.db") as ledger:
            await ledger.commit([labelled(number, {"label": "x"}, fields={"id": f"r{number}", "text": "t"})], None)

    asyncio.run(main())


def test_it_counts_rows_and_what_is_behind(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES)
    assert look(tmp_path) == TableLook("labels", len(KEYS), 0)
    commit(tmp_path, 900)
    commit(tmp_path, 901)
    assert look(tmp_path) == TableLook("labels", len(KEYS), 2)


def test_there_is_none_where_none_is_asked_for_any_more(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES)
    query(
        tmp_path, f"UPDATE meta SET value = '{SQL.to_text().replace('sql', 'csv')}' WHERE key = 'layout'", "ledger.db"
    )
    assert look(tmp_path) is None


def test_a_driver_that_waits_for_ever_is_not_waited_for(tmp_path: Path) -> None:
    """It goes on waiting in a thread that the process does not wait for either."""
    run(tmp_path, *BATCHES)
    slow = f"sqlite:///{tmp_path / 'labels.db'}?timeout=20"
    with closing(sqlite3.connect(tmp_path / "labels.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        began_at = time.monotonic()
        found = look(tmp_path, slow, patience_s=0.2)
        took_s = time.monotonic() - began_at
        other.rollback()
    assert found == TableLook("labels", trouble="not reachable: no answer within 0.2 s")
    assert took_s < 15


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:////no/such/folder/labels.db", "its database is not there"),
        ("sqlite:///.", "not reachable: table 'labels' at sqlite:///.: cannot be used: unable to open"),
        ("nonsense", "output.sql.url: not a database URL"),
        ("postgresql+nodriver://me:s3cret@host/db", "output.sql.url: not a database URL"),
    ],
)
def test_whatever_is_wrong_with_the_database_is_an_answer(tmp_path: Path, url: str, told: str) -> None:
    run(tmp_path, *BATCHES)
    found = look(tmp_path, url)
    assert found is not None
    assert found.trouble.startswith(told), found.trouble
    assert "s3cret" not in found.trouble


def test_a_table_that_was_left_is_free_for_its_folder_alone_and_keeps_its_rows(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
    options = place(tmp_path)
    run(mine, *BATCHES, options=options)
    before = table(tmp_path)
    release_table(options, mine / "ledger.db")
    release_table(options, mine / "ledger.db")
    assert table(tmp_path) == before
    with pytest.raises(SetupError, match=r"holds the labels of another run, the one in .*mine"):
        asyncio.run(check_place(options, other / "ledger.db"))
    assert asyncio.run(check_place(options, mine / "ledger.db"))
    (mine / "ledger.db").rename(mine / "old.db")
    assert asyncio.run(check_place(options, mine / "ledger.db"))
    run(mine, BATCHES[0], options=options)
    assert len(table(tmp_path)) < len(before)
    assert look(mine) == TableLook("labels", len(table(tmp_path)), 0)
    assert query(tmp_path, "SELECT COUNT(*) FROM labelpipe_progress") == [(1,)]


def test_the_table_of_another_run_cannot_be_left(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
    options = place(tmp_path)
    run(mine, *BATCHES, options=options)
    run(other, *BATCHES, options=place(tmp_path, "others"))
    release_table(options, other / "ledger.db")
    assert look(mine) == TableLook("labels", len(KEYS), 0)
