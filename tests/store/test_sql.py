"""The table in a database: a projection of the ledger, as the files are. Real SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import VALUES, labelled, match, read_csv, unlabelled
from store_sessions import BATCHES, LAYOUT, OUTCOMES

from pipeline.errors import ConfigError, SetupError, StoreError
from pipeline.records import Outcome, Status
from pipeline.store import Layout, Ledger, RunDir, Selection, Sinks, SqlOptions, check_place, prove_files, sql

SQL = Layout(labels=("label",), formats=("csv", "sql"))


def place(path: Path, table: str = "labels", name: str = "labels.db") -> SqlOptions:
    url = f"sqlite:///{path / name}"
    return SqlOptions(url, table, told_url=url)


async def session(
    path: Path,
    *batches: Sequence[Outcome],
    layout: Layout = SQL,
    options: SqlOptions | None = None,
    before: Any = None,
    finish: bool = True,
) -> None:
    async with await Ledger.open(path / "ledger.db") as ledger:
        if before is not None:
            await before(ledger)
        sinks = await Sinks.start(RunDir(path), ledger, layout, sql=options or place(path))
        try:
            for batch in batches:
                await sinks.write(batch, await ledger.commit(batch, sinks.marks()))
            if finish:
                await sinks.finish(all_done=True)
        finally:
            await sinks.close()


def run(path: Path, *batches: Sequence[Outcome], **more: Any) -> None:
    asyncio.run(session(path, *batches, **more))


def query(path: Path, statement: str, name: str = "labels.db") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path / name)
    try:
        found = connection.execute(statement).fetchall()
        connection.commit()
        return found
    finally:
        connection.close()


def table(path: Path, name: str = "labels") -> list[dict[str, Any]]:
    """The rows by their number."""
    connection = sqlite3.connect(path / "labels.db")
    connection.row_factory = sqlite3.Row
    try:
        rows = [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY labelpipe_row")]
    finally:
        connection.close()
    assert [row.pop("labelpipe_row") for row in rows] == list(range(1, len(rows) + 1))
    return rows


def proof(path: Path) -> tuple[bool, str]:
    async def main() -> tuple[bool, str]:
        async with await Ledger.open(path / "ledger.db", read_only=True) as ledger:
            (found,) = [one for one in await prove_files(RunDir(path), ledger) if one.name.startswith("table")]
            return found.ok, found.detail

    return asyncio.run(main())


KEYS = [outcome.record.key for outcome in OUTCOMES if outcome.status is Status.LABELLED]


def test_the_table_holds_the_labelled_records_and_is_proved(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES)
    rows = table(tmp_path)
    assert rows[0] == {"id": "r0", "text": "text 0", "label": "a\n,b"}
    assert [row["id"] for row in rows] == KEYS
    assert proof(tmp_path) == (True, f"{len(KEYS)} rows, value for value those of the ledger.")


def test_a_session_that_ends_early_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES[:2])
    run(tmp_path, *BATCHES[2:], finish=False)
    assert proof(tmp_path)[0]
    run(tmp_path)
    assert [row["id"] for row in table(tmp_path)] == KEYS


def test_values_have_the_types_of_their_columns(tmp_path: Path) -> None:
    given = {"n": 1, "big": 2**60, "x": 0.5, "yes": True, "deep": {"a": [1, None]}, "huge": 10**30, "no": None}
    label = {"label": "a", "score": 3, "mixed": 1}
    run(
        tmp_path,
        [labelled(0, label, fields={"id": "r0", **given})],
        [labelled(1, {**label, "score": 0.25, "mixed": "two"}, fields={"id": "r1", "n": None, "no": False})],
    )
    first, second = table(tmp_path)
    assert first == {
        "id": "r0", "n": 1, "big": 2**60, "x": 0.5, "yes": 1, "deep": '{"a":[1,null]}', "huge": str(10**30), "no": None,
        "label": "a", "score": 3.0, "mixed": "1",
    }  # fmt: skip
    assert (second["n"], second["no"], second["score"], second["mixed"], second["x"]) == (None, 0, 0.25, "two", None)
    types = dict(query(tmp_path, "SELECT name, type FROM pragma_table_info('labels')"))
    assert types == {
        "labelpipe_row": "BIGINT", "id": "TEXT", "n": "BIGINT", "big": "BIGINT", "x": "DOUBLE", "yes": "BOOLEAN",
        "deep": "TEXT", "huge": "TEXT", "no": "BOOLEAN", "label": "TEXT", "score": "DOUBLE", "mixed": "TEXT",
    }  # fmt: skip
    assert proof(tmp_path)[0]


def test_columns_that_come_later_are_added_at_the_end(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0)])
    query(tmp_path, "CREATE INDEX mine ON labels (label)")
    run(tmp_path, [labelled(1, {"label": "x", "score": 7})], [labelled(2, fields={"id": "r2", "lang": "ko"})])
    rows = table(tmp_path)
    assert list(rows[0]) == ["id", "text", "label", "lang", "score"]
    assert [(row["score"], row["lang"]) for row in rows] == [(None, None), (7, None), (None, "ko")]
    assert query(tmp_path, "SELECT name FROM sqlite_master WHERE name = 'mine'"), "it was not made anew"
    assert proof(tmp_path)[0]


def test_a_callbacks_column_that_takes_a_carried_ones_name_moves_it(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0)])
    run(tmp_path, [labelled(1, {"label": "x", "text": "the callback's"})])
    assert [(row["input_text"], row["text"]) for row in table(tmp_path)] == [
        ("text 0", None),
        ("text 1", "the callback's"),
    ]
    assert proof(tmp_path)[0]


def test_other_columns_in_the_next_session_make_the_table_anew(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES)
    run(tmp_path, layout=Layout(labels=("label",), columns=("id",), fixed=True, formats=("csv", "sql")))
    assert table(tmp_path)[0] == {"id": "r0", "label": "a\n,b"}
    assert len(table(tmp_path)) == len(KEYS)
    assert proof(tmp_path)[0]


def test_a_record_of_several_rows_has_them_all(tmp_path: Path) -> None:
    several = labelled(0, {"label": "x"}, rows=({"name": "a"}, {"name": "b"}))
    run(tmp_path, [several, labelled(1, {"label": "y"}, rows=()), labelled(2, {"label": "z", "name": "c"})])
    assert [(row["id"], row["label"], row["name"]) for row in table(tmp_path)] == [
        ("r0", "x", "a"),
        ("r0", "x", "b"),
        ("r2", "z", "c"),
    ]
    assert proof(tmp_path)[0]


def test_names_that_databases_refuse_are_made_fit(tmp_path: Path) -> None:
    fields = {
        "Text": 1,
        "text": 2,
        "a%b": 3,
        "": 4,
        "x" * 80: 5,
        "x" * 79: 6,
        'say "hi"': 7,
        "labelpipe_row": 8,
        "a:b(c)": 9,
    }
    run(tmp_path, [labelled(0, fields=fields)], [labelled(1, fields=fields)])
    names = [
        "Text",
        "text_2",
        "a_b",
        "column",
        "x" * 63,
        "x" * 61 + "_2",
        'say "hi"',
        "labelpipe_row_2",
        "a:b(c)",
        "label",
    ]
    assert [list(row) for row in table(tmp_path)] == [names, names]
    assert list(table(tmp_path)[1].values()) == [1, 2, 3, 4, 5, 6, 7, 8, 9, "positive"]
    assert proof(tmp_path)[0]


@pytest.mark.parametrize("change", ["retry", "replace", "moved"])
def test_rows_are_made_anew_when_outcomes_were_set_aside(tmp_path: Path, change: str) -> None:
    run(tmp_path, *BATCHES)
    query(tmp_path, "CREATE TABLE theirs (a)")
    query(tmp_path, "INSERT INTO theirs VALUES (1)")

    async def before(ledger: Ledger) -> None:
        if change == "retry":
            await ledger.supersede(Selection(keys=["r0", "r2"]), "relabel")
        elif change == "replace":
            await ledger.replace([labelled(0, "other")], "replay")
        else:
            here = [outcome.record for _, outcome in await ledger.rows_after(0)]
            await match(ledger, [replace(here[0], source="elsewhere", line=9), *here[1:]])

    again = [labelled(0, "new"), labelled(2, "new")] if change == "retry" else []
    run(tmp_path, again, before=before)
    rows = {row["id"]: row["label"] for row in table(tmp_path)}
    assert len(rows) == len(table(tmp_path)) == len(KEYS)
    assert rows["r0"] == {"retry": "new", "replace": "other", "moved": "a\n,b"}[change]
    assert query(tmp_path, "SELECT * FROM theirs") == [(1,)]
    assert proof(tmp_path)[0]


def test_a_table_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    query(tmp_path, "CREATE TABLE labels (a)")
    with pytest.raises(ConfigError, match=r"output\.sql\.table: table 'labels' .* was not made by labelpipe"):
        run(tmp_path, *BATCHES)
    assert query(tmp_path, "SELECT name FROM sqlite_master") == [("labels",)]
    with pytest.raises(ConfigError, match="was not made by labelpipe"):
        asyncio.run(check_place(place(tmp_path), tmp_path / "ledger.db"))
    query(tmp_path, "DROP TABLE labels")
    query(tmp_path, "CREATE VIEW labels AS SELECT 1")
    with pytest.raises(ConfigError, match="was not made by labelpipe"):
        run(tmp_path, *BATCHES)


def test_a_table_of_another_run_is_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    run(one, *BATCHES, options=place(tmp_path))
    with pytest.raises(ConfigError, match=f"holds the labels of another run, the one in {one}"):
        run(other, *BATCHES, options=place(tmp_path))
    run(other, *BATCHES, options=place(tmp_path, "others"))
    assert table(tmp_path) == table(tmp_path, "others")
    query(tmp_path, "DROP TABLE labels")
    run(other, [labelled(20)], options=place(tmp_path))
    assert len(table(tmp_path)) == len(KEYS) + 1, "a table that was dropped is nobody's"


def test_check_changes_nothing(tmp_path: Path) -> None:
    asyncio.run(check_place(place(tmp_path), tmp_path / "ledger.db"))
    assert not (tmp_path / "labels.db").exists()
    run(tmp_path, *BATCHES)
    asyncio.run(check_place(place(tmp_path), tmp_path / "ledger.db"))


def test_a_table_that_was_dropped_or_is_in_a_new_database_is_made_anew(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES)
    query(tmp_path, "DROP TABLE labels")
    assert proof(tmp_path) == (False, "is missing. Give the run's command again: it is made anew from the ledger.")
    run(tmp_path)
    assert [row["id"] for row in table(tmp_path)] == KEYS
    (tmp_path / "labels.db").unlink()
    assert not proof(tmp_path)[0]
    run(tmp_path)
    assert [row["id"] for row in table(tmp_path)] == KEYS


def test_a_database_that_was_left_while_outcomes_were_set_aside_is_made_anew(tmp_path: Path) -> None:
    """From one database to another, a retry there, and back: the first one's rows are older than they look."""
    run(tmp_path, *BATCHES)

    async def before(ledger: Ledger) -> None:
        await ledger.supersede(Selection(keys=["r0"]), "relabel")

    run(tmp_path, [labelled(0, "new")], before=before, options=place(tmp_path, name="second.db"))
    run(tmp_path)
    assert {row["id"]: row["label"] for row in table(tmp_path)}["r0"] == "new"


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE labels SET label = 'x' WHERE id = 'r4'", "differs from the ledger in row 4. Drop it"),
        ("DELETE FROM labels WHERE id = 'r4'", "differs from the ledger in row 4. Drop it"),
        ("DELETE FROM labels WHERE id = 'r12'", "differs from the ledger in row 10. Drop it"),
        ("INSERT INTO labels (labelpipe_row) VALUES (99)", "has more rows than the ledger's 10. Drop it"),
        ("DELETE FROM labelpipe_progress", "is not this run's"),
        ("ALTER TABLE labels DROP COLUMN text", "cannot be read: table 'labels' at sqlite"),
    ],
)
def test_what_was_changed_by_hand_is_found(tmp_path: Path, statement: str, told: str) -> None:
    run(tmp_path, *BATCHES)
    query(tmp_path, statement)
    ok, detail = proof(tmp_path)
    assert not ok
    assert detail.startswith(told)


def test_a_proof_without_the_url_says_so(tmp_path: Path) -> None:
    secret = place(tmp_path)
    run(tmp_path, *BATCHES, options=SqlOptions(secret.url, "labels", url_env="LABELS_URL"))
    assert proof(tmp_path) == (True, "not compared: LABELS_URL is not set.")
    assert str(tmp_path / "labels.db").encode() not in (tmp_path / "ledger.db").read_bytes()


def test_two_that_write_the_same_table_are_found_out(tmp_path: Path) -> None:
    """A copy of a run folder believes that the table is its own."""

    async def main() -> None:
        await session(tmp_path, *BATCHES)
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            sinks = await Sinks.start(RunDir(tmp_path), ledger, SQL, sql=place(tmp_path))
            await ledger.commit([labelled(20)])
            query(tmp_path, "CREATE TRIGGER t BEFORE INSERT ON labels BEGIN SELECT RAISE(ABORT, 'not now'); END")
            with pytest.raises(StoreError, match="not now"):
                await sinks.finish(all_done=True)
            await sinks.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql, "LAST_TRY_S", 0)
        asyncio.run(main())
    assert len(table(tmp_path)) == len(KEYS)


def test_a_database_that_cannot_be_reached_at_the_start_is_told_before_anything_else(tmp_path: Path) -> None:
    options = SqlOptions(f"sqlite:///{tmp_path}/nowhere/labels.db", "labels")
    with pytest.raises(SetupError, match="unable to open database file") as caught:
        run(tmp_path, options=options)
    assert not isinstance(caught.value, ConfigError)


def test_a_database_that_goes_away_stops_nothing_and_is_made_up_for(tmp_path: Path, moved_clock: Any) -> None:
    """Locked by somebody for a while: rows go on to the files, and the table follows when it can."""
    told: list[str] = []
    blocker = sqlite3.connect(tmp_path / "labels.db", isolation_level=None)

    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            options = SqlOptions(f"sqlite:///{tmp_path / 'labels.db'}?timeout=0.01", "labels")
            sinks = await Sinks.start(
                RunDir(tmp_path), ledger, SQL, sql=options, tell=lambda event, _: told.append(event)
            )
            blocker.execute("BEGIN EXCLUSIVE")
            try:
                for batch in BATCHES:
                    await sinks.write(batch, await ledger.commit(batch, sinks.marks()))
                while told != ["sql table waits"]:
                    await asyncio.sleep(1)
                assert len(read_csv(tmp_path / "labels.csv")) == len(KEYS), "the files do not wait for it"
                blocker.execute("COMMIT")
                while told != ["sql table waits", "sql table goes on"]:
                    await asyncio.sleep(1)
                await sinks.finish(all_done=True)
            finally:
                await sinks.close()

    try:
        moved_clock(main())
    finally:
        blocker.close()
    assert [row["id"] for row in table(tmp_path)] == KEYS


def test_where_what_follows_the_ledger_dies_the_end_makes_up_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came out at the end as the run's error: all labelled, exit code 3, no summary."""
    catch_up, told = sql.SqlSink._catch_up, list[str]()

    async def broken(self: sql.SqlSink, *_: Any) -> None:
        monkeypatch.setattr(sql.SqlSink, "_catch_up", catch_up)
        raise ZeroDivisionError("a bug")

    async def main() -> None:
        monkeypatch.setattr(sql, "GATHER_S", 0)
        monkeypatch.setattr(sql.SqlSink, "_catch_up", broken)
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            sinks = await Sinks.start(
                RunDir(tmp_path), ledger, SQL, sql=place(tmp_path), tell=lambda event, text: told.append(text)
            )
            await sinks.write(OUTCOMES, await ledger.commit(OUTCOMES, sinks.marks()))
            while sql.SqlSink._catch_up is broken:
                await asyncio.sleep(0)
            await sinks.finish(all_done=True)
            await sinks.close()

    asyncio.run(main())
    assert told == ["ZeroDivisionError('a bug')"]
    assert proof(tmp_path)[0]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgres://u:s3cret@h/d", "not a database URL that SQLAlchemy knows"),
        ("nonsense s3cret", "not a database URL that SQLAlchemy knows"),
        ("sqlite://", "in memory only"),
        ("sqlite+aiosqlite:///s3cret.db", "driver"),
    ],
)
def test_urls_that_cannot_work_are_told_without_their_secrets(tmp_path: Path, url: str, told: str) -> None:
    with pytest.raises(SetupError, match=told) as caught:
        run(tmp_path, options=SqlOptions(url, "labels"))
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(SqlOptions(url, "labels"))


def test_secrets_stay_out_of_what_a_database_says(tmp_path: Path) -> None:
    from pipeline.store.sqldatabase import connect

    url = f"sqlite:///file:{tmp_path}/no/s3cret.db?uri=true&password=s3cret"
    database = connect(url, "labels")
    with pytest.raises(StoreError) as caught, database.transaction():
        pass
    assert "password" not in str(database)
    assert "s3cret" not in str(caught.value).replace("/no/s3cret.db", "")


FIELDS = st.dictionaries(st.sampled_from(["id", "a", "A", "b", "label", "c\0"]), VALUES, max_size=4)
LABELS = st.dictionaries(st.sampled_from(["label", "score", "a", "id"]), VALUES, max_size=3)


@settings(max_examples=60)
@given(batches=st.lists(st.lists(st.tuples(FIELDS, LABELS), max_size=3), max_size=5), data=st.data())
def test_any_values_in_any_order_come_out_as_the_ledger_has_them(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[Any, Any]]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("any")
    number = 0
    for batch in batches:
        outcomes = []
        for fields, label in batch:
            outcomes.append(labelled(number, label, fields={"k": number, **fields}, answer=None))
            number += 1
        run(path, outcomes, finish=data.draw(st.booleans()))
        assert proof(path)[0], proof(path)
    run(path)
    assert proof(path) == (True, f"{number} rows, value for value those of the ledger.")
    assert [row["k"] for row in table(path)] == list(range(number))


def test_layout_is_not_touched_by_the_format() -> None:
    assert SQL.label_table() == LAYOUT.label_table()
    assert unlabelled(0).status not in SQL.label_table().statuses
