"""Ledgers of older versions: brought up to date when a run writes to them, read as they are by who only looks."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import labelled, unlabelled

from pipeline.errors import SetupError
from pipeline.records import Answer, Outcome, Response, SavedAnswer, Status, Usage
from pipeline.store import Ledger, Selection
from pipeline.store import schema as schema_now
from pipeline.store.rows import COLUMNS, to_row
from pipeline.store.schema import VERSION, connect_reader

_OUTCOME_1 = """
    seq INTEGER PRIMARY KEY, key TEXT {unique} NOT NULL, ordinal INTEGER NOT NULL, digest INTEGER NOT NULL,
    status TEXT NOT NULL, problem_code TEXT, attempts INTEGER NOT NULL, repairs INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL, cost_usd REAL, latency_s REAL, finished_at REAL, vote INTEGER NOT NULL,
    line INTEGER NOT NULL, source TEXT NOT NULL, model TEXT, request_id TEXT, request_digest BLOB, copied_from TEXT,
    problem_message TEXT, label TEXT, fields TEXT NOT NULL, answer TEXT, record_problem TEXT
"""
_SET_ASIDE_1 = "superseded_at REAL NOT NULL, reason TEXT NOT NULL, paid INTEGER NOT NULL"
_REQUEST_1 = "status = 'labelled' AND request_digest IS NOT NULL"
#: The file as labelpipe made it before cache writes were counted.
VERSION_1 = (
    f"CREATE TABLE outcomes ({_OUTCOME_1.format(unique='UNIQUE')})",
    f"CREATE TABLE superseded ({_OUTCOME_1.format(unique='')}, {_SET_ASIDE_1})",
    "CREATE INDEX outcomes_problem ON outcomes (status, problem_code) WHERE status <> 'labelled'",
    f"CREATE INDEX outcomes_request ON outcomes (substr(request_digest, 1, 6)) WHERE {_REQUEST_1}",
    "CREATE TABLE sinks (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, position INTEGER NOT NULL, shape TEXT)",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE days (day TEXT PRIMARY KEY, requests INTEGER NOT NULL) WITHOUT ROWID",
    "PRAGMA application_id = 1818321516",
    "PRAGMA user_version = 1",
)
#: The file as labelpipe made it before outcomes followed their records to other names.
VERSION_2 = (
    *(text.replace("reasoning_tokens INTEGER NOT NULL,", "reasoning_tokens INTEGER NOT NULL,\n"
      "    cache_write_tokens INTEGER NOT NULL DEFAULT 0,") for text in VERSION_1[:-1]),
    """CREATE TABLE turns (
    key TEXT NOT NULL, turn INTEGER NOT NULL, request_digest BLOB NOT NULL, answer TEXT NOT NULL, usage TEXT NOT NULL,
    calls INTEGER NOT NULL, repairs INTEGER NOT NULL, results TEXT NOT NULL, model TEXT, request_id TEXT,
    latency_s REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (key, turn)) WITHOUT ROWID""",
    """INSERT INTO turns VALUES ('r7', 0, X'64', '{"calls":[],"text":"t","refusal":null,"finish_reason":null}',
    '[1,2,0,0,0]', 3, 1, '[]', NULL, 'req', 0.5, 1.0)""",
    "INSERT INTO sinks VALUES ('labels.csv', 100, 4, '[]'), ('failed.csv', -1, 0, '')",
    "PRAGMA user_version = 2",
)  # fmt: skip
#: The file as labelpipe made it before answers had their cost.
VERSION_3 = (
    *(text.replace("copied_from TEXT,", "copied_from TEXT, asked_as TEXT,")
      .replace("shape TEXT)", "shape TEXT, digest BLOB, is_stale INTEGER NOT NULL DEFAULT 0)")
      .replace("(\'labels.csv\', 100, 4, \'[]\'), (\'failed.csv\', -1, 0, \'\')",
               "(\'labels.csv\', 100, 4, \'[]\', NULL, 0), (\'failed.csv\', -1, 0, \'\', NULL, 1)")
      for text in VERSION_2[:-1]),
    "PRAGMA user_version = 3",
)  # fmt: skip
VERSIONS = {1: VERSION_1, 2: VERSION_2, 3: VERSION_3}
#: What they did not have.
NEW: dict[int, set[str]] = {1: {"cache_write_tokens", "asked_as"}, 2: {"asked_as"}, 3: set()}
#: What an older version kept of a record that is not at its end.
KEPT = SavedAnswer("r7", 0, b"d", Response(Answer(text="t"), Usage(1, 2), "", "req", 0.5), 3, 1.0, repairs=1)
OLD = [labelled(0, usage=Usage(10, 2, 4, 1)), labelled(1, usage=Usage(10, 2, 4, 1)), unlabelled(2)]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def path(tmp_path: Path, version: int) -> Path:
    """A ledger of an older version with three outcomes, and one more that was archived."""
    path = tmp_path / "ledger.db"
    names = [name for name in COLUMNS if name not in NEW[version]]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in VERSIONS[version]:
            connection.execute(statement)
        placeholders = ",".join("?" * len(names))
        for seq, outcome in enumerate(OLD, 1):
            row = dict(zip(COLUMNS, to_row(seq, outcome), strict=True))
            values = [row[name] for name in names]
            connection.execute(f"INSERT INTO outcomes ({', '.join(names)}, vote) VALUES ({placeholders}, 0)", values)
        aside = dict(zip(COLUMNS, to_row(9, OLD[0]), strict=True))
        columns = ", ".join([*names, "vote", "superseded_at", "reason", "paid"])
        values = [aside[name] for name in names]
        connection.execute(f"INSERT INTO superseded ({columns}) VALUES ({placeholders},0,1.0,'retry',1)", values)
        connection.commit()
    return path


def used(version: int) -> Usage:
    """What the kept answer has used; the first version kept none."""
    return Usage() if version == 1 else KEPT.response.usage


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


async def outcomes_in(ledger: Ledger) -> list[Outcome]:
    return [outcome for _, outcome in await ledger.rows_after(0)]


def test_who_only_reads_sees_all_of_it_and_changes_nothing(path: Path, version: int) -> None:
    async def main() -> None:
        async with await Ledger.open(path, read_only=True) as ledger:
            assert await outcomes_in(ledger) == OLD
            assert [outcome for _, outcome in await ledger.rows_in_order()] == OLD
            assert (await ledger.totals()).usage == Usage(30, 6, 12, 3, 0) + used(version)
            assert await ledger.answers_of(["r7"]) == ({} if version == 1 else {"r7": [KEPT]})
            assert (await ledger.count_by_status())[Status.LABELLED] == 2
            assert await ledger.known(["r1"]) != {}
            digest = OLD[1].request_digest
            assert digest is not None
            assert (await ledger.find_request([digest]))[digest] == OLD[1]
            assert await ledger.find_duplicates([("a", ""), ("a", "")]) == {1: ""}
            assert [checkpoint.is_stale for checkpoint in (await ledger.checkpoints()).values()] == [False, True][
                : 2 * (version > 1)
            ]

    before = path.read_bytes()
    asyncio.run(main())
    assert path.read_bytes() == before
    assert version_of(path) == version


def test_an_index_of_the_old_file_is_still_used(path: Path, version: int) -> None:
    with closing(connect_reader(path)) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT digest FROM outcomes WHERE key IN ('r1')").fetchall()
        assert "SEARCH" in str(plan)
        assert connection.execute("SELECT COUNT(*) FROM turns").fetchone() == (int(version > 1),)


def test_a_run_brings_it_up_to_date_and_goes_on(path: Path, version: int) -> None:
    async def main() -> None:
        async with await Ledger.open(path) as ledger:
            assert await outcomes_in(ledger) == OLD
            new = labelled(3, usage=Usage(100, 2, 0, 0, 60))
            assert await ledger.commit([new]) == [10]
            assert (await outcomes_in(ledger))[-1] == new
            assert (await ledger.totals()).usage == Usage(130, 8, 12, 3, 60) + used(version)
            assert await ledger.archive(Selection(), "relabel") == 4
            assert (await ledger.totals()).usage == Usage(130, 8, 12, 3, 60) + used(version), (
                "what was archived stays paid"
            )
            await ledger.commit([labelled(0)])
            assert await ledger.answers_of(["r7"]) == ({} if version == 1 else {"r7": [KEPT]})

    asyncio.run(main())
    assert version_of(path) == VERSION
    with closing(sqlite3.connect(path)) as connection:
        told = connection.execute("SELECT reason, paid, cache_write_tokens FROM archived ORDER BY seq").fetchall()
        every = {
            row[1] for table in ("outcomes", "archived") for row in connection.execute(f"PRAGMA table_info({table})")
        }
    assert "vote" not in every
    assert told == [("relabel", 1, 0)] * 3 + [("retry", 1, 0), ("relabel", 1, 60)]


def test_an_upgrade_is_whole_or_not_at_all(path: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It breaks off in the middle, as in a kill: the next one begins with the ledger as it was."""
    statements = schema_now._UPGRADES[3]
    monkeypatch.setitem(schema_now._UPGRADES, 3, (*statements, "SELECT * FROM nowhere"))
    with pytest.raises(SetupError, match="nowhere"):
        asyncio.run(Ledger.open(path))
    assert version_of(path) == version
    monkeypatch.setitem(schema_now._UPGRADES, 3, statements)
    test_a_run_brings_it_up_to_date_and_goes_on(path, version)


def test_an_upgraded_file_has_the_tables_and_columns_of_a_new_one(path: Path, tmp_path: Path) -> None:
    async def main() -> None:
        for one in (path, tmp_path / "new.db"):
            await (await Ledger.open(one)).close()

    asyncio.run(main())

    def shape(one: Path) -> dict[str, set[tuple[str, str]]]:
        with closing(sqlite3.connect(one)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {
                table: {(row[1], row[2]) for row in connection.execute(f"PRAGMA table_info({table})")}
                for table in tables
            }

    assert shape(path) == shape(tmp_path / "new.db")
