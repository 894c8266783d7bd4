"""The table in a database: a projection of the ledger, as the files are. Real SQLite."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import VALUES, labelled, match, unlabelled
from store_sessions import BATCHES, LAYOUT, OUTCOMES

from pipeline.errors import ConfigError, SetupError, StoreError
from pipeline.records import Outcome, Status
from pipeline.store import (
    Layout,
    Ledger,
    RunDir,
    Selection,
    Sinks,
    SqlPlace,
    SqlTarget,
    TableExport,
    check_table,
    claim_table,
    export_table,
    prove_files,
    release_table,
)
from pipeline.store.sqldatabase import Database, connect

SQL = Layout(labels=("label",), formats=("csv", "sql"))


def place(path: Path, table: str = "labels", name: str = "labels.db") -> SqlTarget:
    return SqlTarget(f"sqlite:///{path / name}", table)


async def session(
    path: Path,
    *batches: Sequence[Outcome],
    layout: Layout = SQL,
    before: Any = None,
    finish: bool = True,
) -> None:
    """A session of a run, up to its end, whose ledger says where the table is."""
    async with await Ledger.open(path / "ledger.db") as ledger:
        await ledger.run_id()
        await ledger.meta_set("sql", SqlPlace("labels", place(path).url, None).to_text())
        if before is not None:
            await before(ledger)
        sinks = await Sinks.start(RunDir(path), ledger, layout)
        try:
            for batch in batches:
                await sinks.write(batch, await ledger.commit(batch, sinks.checkpoints()))
            if finish:
                await sinks.finish()
        finally:
            await sinks.close()


def export(path: Path, target: SqlTarget | None = None, *, whole: bool = True) -> TableExport:
    return export_table(target or place(path), path / "ledger.db", whole=whole)


def run(path: Path, *batches: Sequence[Outcome], target: SqlTarget | None = None, **more: Any) -> TableExport:
    """A session, and then the export."""
    asyncio.run(session(path, *batches, **more))
    return export(path, target)


def query(path: Path, statement: str, name: str = "labels.db") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path / name)
    try:
        found = connection.execute(statement).fetchall()
        connection.commit()
        return found
    finally:
        connection.close()


def table(path: Path, name: str = "labels") -> list[dict[str, Any]]:
    """The rows by their number in the key: r2 before r10."""
    connection = sqlite3.connect(path / "labels.db")
    connection.row_factory = sqlite3.Row
    try:
        rows = [dict(row) for row in connection.execute(f"SELECT * FROM {name}")]
    finally:
        connection.close()
    rows.sort(key=lambda row: (int(re.sub(r"\D", "", row["labelpipe_key"])), row["labelpipe_part"]))
    for row in rows:
        del row["labelpipe_key"], row["labelpipe_part"]
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


def test_an_export_can_be_given_again_and_writes_only_what_differs(tmp_path: Path) -> None:
    first = run(tmp_path, *BATCHES[:2])
    assert (first.rows, first.added, first.updated, first.removed, first.made_anew) == (3, 3, 0, 0, False)
    query(tmp_path, "CREATE TABLE written (what)")
    for event in ("INSERT", "UPDATE", "DELETE"):
        query(tmp_path, f"CREATE TRIGGER on_{event} AFTER {event} ON labels BEGIN INSERT INTO written VALUES (1); END")
    again = export(tmp_path)
    assert (again.rows, again.added, again.updated, again.removed) == (3, 0, 0, 0)
    assert query(tmp_path, "SELECT * FROM written") == []
    asyncio.run(session(tmp_path, *BATCHES[2:], finish=False))
    assert proof(tmp_path) == (True, "3 rows, value for value those of the ledger, and the rest is still to come.")
    last = export(tmp_path)
    assert (last.rows, last.added, last.updated, last.removed) == (len(KEYS), len(KEYS) - 3, 0, 0)
    assert len(query(tmp_path, "SELECT * FROM written")) == len(KEYS) - 3
    assert [row["id"] for row in table(tmp_path)] == KEYS


def test_an_export_mends_what_was_changed_by_hand(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES)
    before = table(tmp_path)
    query(tmp_path, "UPDATE labels SET label = 'x' WHERE id = 'r4'")
    query(tmp_path, "DELETE FROM labels WHERE id = 'r6'")
    query(tmp_path, "INSERT INTO labels (labelpipe_key, labelpipe_part) VALUES ('r99', 1)")
    done = export(tmp_path)
    assert (done.added, done.updated, done.removed) == (1, 1, 1)
    assert table(tmp_path) == before
    assert proof(tmp_path)[0]


def test_a_run_at_work_is_exported_while_its_columns_are_not_known(tmp_path: Path) -> None:
    """After records were archived the columns are learned anew, at the end of the session."""

    async def before(ledger: Ledger) -> None:
        await ledger.archive(Selection(keys=["r0"]), "relabel")

    run(tmp_path, *BATCHES)
    asyncio.run(session(tmp_path, before=before, finish=False))
    query(tmp_path, "DELETE FROM meta WHERE key IN ('layout', 'layout_seq')", "ledger.db")
    done = export(tmp_path, whole=False)
    assert (done.rows, done.removed) == (len(KEYS) - 1, 1)
    assert [row["id"] for row in table(tmp_path)] == KEYS[1:]


def test_a_column_without_a_value_waits_for_the_end_of_the_run(tmp_path: Path) -> None:
    """Its type is that of its values, and a table whose column gets another type is made anew."""
    asyncio.run(session(tmp_path, [labelled(0, {"label": "a", "score": None})]))
    assert "score" not in _titles(tmp_path, whole=False)
    asyncio.run(session(tmp_path, [labelled(1, {"label": "a", "score": 3})]))
    assert not export(tmp_path, whole=False).made_anew
    assert dict(query(tmp_path, "SELECT name, type FROM pragma_table_info('labels')"))["score"] == "BIGINT"
    asyncio.run(session(tmp_path, [labelled(2, {"label": "a", "other": None})]))
    assert "other" in _titles(tmp_path, whole=True)


def _titles(path: Path, *, whole: bool) -> list[str]:
    export(path, whole=whole)
    return [name for (name,) in query(path, "SELECT name FROM pragma_table_info('labels')")]


def test_keys_that_no_database_indexes_are_made_fit_and_stay_apart(tmp_path: Path) -> None:
    long = "k" * 300
    keys = ["a b", long, long + "!", "nul\0", "nul\ufffd", "e\u0301", "\u00e9"]
    outcomes = [labelled(number, fields={"k": number}) for number in range(len(keys))]
    outcomes = [replace(one, record=replace(one.record, key=key)) for one, key in zip(outcomes, keys, strict=True)]
    assert run(tmp_path, outcomes).added == len(keys)
    found = {k: key for key, k in query(tmp_path, "SELECT labelpipe_key, k FROM labels")}
    assert len(set(found.values())) == len(keys)
    assert [found[0], found[4], found[5]] == [keys[0], keys[4], keys[5]]
    assert all(len(key.encode()) <= 255 for key in found.values())
    assert export(tmp_path).updated == 0
    assert proof(tmp_path)[0]


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
        "labelpipe_key": "VARCHAR(255)", "labelpipe_part": "INTEGER", "id": "TEXT", "n": "BIGINT", "big": "BIGINT",
        "x": "DOUBLE", "yes": "BOOLEAN", "deep": "TEXT", "huge": "TEXT", "no": "BOOLEAN", "label": "TEXT",
        "score": "DOUBLE", "mixed": "TEXT",
    }  # fmt: skip
    assert proof(tmp_path)[0]


def test_columns_that_come_later_are_added_at_the_end(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0)])
    query(tmp_path, "CREATE INDEX mine ON labels (label)")
    done = run(tmp_path, [labelled(1, {"label": "x", "score": 7})], [labelled(2, fields={"id": "r2", "lang": "ko"})])
    rows = table(tmp_path)
    assert sorted(rows[0]) == ["id", "label", "lang", "score", "text"]
    assert list(rows[0])[:3] == ["id", "text", "label"]
    assert (done.updated, done.made_anew) == (0, False)
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
        "labelpipe_key": 8,
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
        "labelpipe_key_2",
        "a:b(c)",
        "label",
    ]
    assert [list(row) for row in table(tmp_path)] == [names, names]
    assert list(table(tmp_path)[1].values()) == [1, 2, 3, 4, 5, 6, 7, 8, 9, "positive"]
    assert proof(tmp_path)[0]


@pytest.mark.parametrize("change", ["retry", "replace", "moved"])
def test_rows_follow_when_outcomes_were_archived(tmp_path: Path, change: str) -> None:
    run(tmp_path, *BATCHES)
    query(tmp_path, "CREATE TABLE theirs (a)")
    query(tmp_path, "INSERT INTO theirs VALUES (1)")

    async def before(ledger: Ledger) -> None:
        if change == "retry":
            await ledger.archive(Selection(keys=["r0", "r2"]), "relabel")
        elif change == "replace":
            await ledger.replace([labelled(0, "other")], "replay")
        else:
            here = [outcome.record for _, outcome in await ledger.rows_after(0)]
            await match(ledger, [replace(here[0], source="elsewhere", line=9), *here[1:]])

    again = [labelled(0, "new"), labelled(2, "new")] if change == "retry" else []
    asyncio.run(session(tmp_path, before=before, finish=False))
    assert proof(tmp_path)[1].startswith("is older than the ledger's rows. The end of a session, or labelpipe export")
    done = run(tmp_path, again)
    assert (done.added, done.updated, done.removed) == (0, {"retry": 2, "replace": 1, "moved": 0}[change], 0)
    rows = {row["id"]: row["label"] for row in table(tmp_path)}
    assert len(rows) == len(table(tmp_path)) == len(KEYS)
    assert rows["r0"] == {"retry": "new", "replace": "other", "moved": "a\n,b"}[change]
    assert query(tmp_path, "SELECT * FROM theirs") == [(1,)]
    assert proof(tmp_path)[0]


def test_a_table_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    query(tmp_path, "CREATE TABLE labels (a)")
    with pytest.raises(ConfigError, match=r"table 'labels' .* was not made by labelpipe"):
        run(tmp_path, *BATCHES)
    assert query(tmp_path, "SELECT name FROM sqlite_master") == [("labels",)]
    for look in (check_table, claim_table):
        with pytest.raises(ConfigError, match="was not made by labelpipe"):
            look(place(tmp_path), tmp_path / "ledger.db")
    query(tmp_path, "DROP TABLE labels")
    query(tmp_path, "CREATE VIEW labels AS SELECT 1")
    with pytest.raises(ConfigError, match="was not made by labelpipe"):
        export(tmp_path)


def test_a_table_of_another_run_is_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    run(one, *BATCHES, target=place(tmp_path))
    with pytest.raises(ConfigError, match=f"holds the labels of another run, the one in {one}"):
        run(other, *BATCHES, target=place(tmp_path))
    export(other, place(tmp_path, "others"))
    assert table(tmp_path) == table(tmp_path, "others")
    query(tmp_path, "DROP TABLE labels")
    run(other, [labelled(20)], target=place(tmp_path))
    assert len(table(tmp_path)) == len(KEYS) + 1, "a table that was dropped is nobody's"


def test_check_changes_nothing(tmp_path: Path) -> None:
    assert not check_table(place(tmp_path), tmp_path / "ledger.db")
    assert not (tmp_path / "labels.db").exists()
    run(tmp_path, *BATCHES)
    assert check_table(place(tmp_path), tmp_path / "ledger.db")


def test_a_table_that_was_dropped_or_is_in_a_new_database_is_made_anew(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES)
    query(tmp_path, "DROP TABLE labels")
    assert proof(tmp_path) == (False, "is missing. `labelpipe export` writes it again from the ledger.")
    export(tmp_path)
    assert [row["id"] for row in table(tmp_path)] == KEYS
    (tmp_path / "labels.db").unlink()
    assert not proof(tmp_path)[0]
    export(tmp_path)
    assert [row["id"] for row in table(tmp_path)] == KEYS


def test_a_database_that_was_left_while_outcomes_were_archived_is_made_anew(tmp_path: Path) -> None:
    """From one database to another, a retry there, and back: the first one's rows are older than they look."""
    run(tmp_path, *BATCHES)

    async def before(ledger: Ledger) -> None:
        await ledger.archive(Selection(keys=["r0"]), "relabel")

    run(tmp_path, [labelled(0, "new")], before=before, target=place(tmp_path, name="second.db"))
    export(tmp_path)
    assert {row["id"]: row["label"] for row in table(tmp_path)}["r0"] == "new"


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE labels SET label = 'x' WHERE id = 'r4'", "differs from the ledger in the row of r4. `labelpipe"),
        ("DELETE FROM labels WHERE id = 'r4'", "lacks the row of r4. `labelpipe export` writes it again"),
        ("DELETE FROM labels WHERE id = 'r12'", "lacks the row of r12. `labelpipe export` writes it again"),
        ("INSERT INTO labels VALUES ('r99', 1, 'r99', '', '')", "has 11 rows, and 10 were written. `labelpipe"),
        ("DELETE FROM labelpipe_progress", "belongs to another run"),
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
    async def hide(ledger: Ledger) -> None:
        await ledger.meta_set("sql", SqlPlace("labels", None, "LABELS_URL").to_text())

    run(tmp_path, *BATCHES, before=hide)
    assert proof(tmp_path) == (True, "not compared: LABELS_URL is not set.")


def test_an_error_of_the_database_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES[:2])
    before = table(tmp_path)
    query(tmp_path, "CREATE TRIGGER t BEFORE INSERT ON labels WHEN NEW.id = 'r12' BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(StoreError, match=r"cannot be used: no\. No label is lost"):
        run(tmp_path, *BATCHES[2:])
    assert table(tmp_path) == before
    query(tmp_path, "DROP TRIGGER t")
    export(tmp_path)
    assert [row["id"] for row in table(tmp_path)] == KEYS


def test_a_ledger_that_changes_meanwhile_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry sets records aside between the first row that is read and the commit, twice."""
    run(tmp_path, *BATCHES)
    fetch, changes = Database.fetch, ["r0", "r2"]

    async def set_aside(ledger: Ledger) -> None:
        await ledger.archive(Selection(keys=[changes.pop()]), "relabel")

    def fetch_late(self: Database, *given: Any) -> Any:
        if changes:
            asyncio.run(session(tmp_path, before=set_aside))
        return fetch(self, *given)

    monkeypatch.setattr(Database, "fetch", fetch_late)
    assert export(tmp_path).removed == 2
    assert [row["id"] for row in table(tmp_path)] == [key for key in KEYS if key not in {"r0", "r2"}]
    assert proof(tmp_path)[0]


def test_a_table_of_labelpipe_0_3_is_made_anew(tmp_path: Path) -> None:
    """Its rows were numbered, and their number was the primary key."""
    run(tmp_path, *BATCHES)
    before = table(tmp_path)
    query(tmp_path, "ALTER TABLE labels RENAME TO kept")
    query(tmp_path, "CREATE TABLE labels (labelpipe_row BIGINT PRIMARY KEY, id TEXT, text TEXT, label TEXT)")
    query(tmp_path, "INSERT INTO labels SELECT rowid, id, text, label FROM kept")
    assert proof(tmp_path)[0]
    assert export(tmp_path).added == len(KEYS)
    assert table(tmp_path) == before
    assert proof(tmp_path) == (True, f"{len(KEYS)} rows, value for value those of the ledger.")


def test_a_run_that_has_no_rows_yet_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        await (await Ledger.open(tmp_path / "ledger.db")).close()

    asyncio.run(main())
    with pytest.raises(SetupError, match="no row was written yet"):
        export(tmp_path)
    assert not (tmp_path / "labels.db").exists()


def test_a_database_that_cannot_be_reached_at_the_start_is_told_before_anything_else(tmp_path: Path) -> None:
    asyncio.run(session(tmp_path))
    with pytest.raises(SetupError, match="unable to open database file") as caught:
        claim_table(SqlTarget(f"sqlite:///{tmp_path}/nowhere/labels.db", "labels"), tmp_path / "ledger.db")
    assert not isinstance(caught.value, ConfigError)


def test_a_table_that_was_left_is_free_for_its_folder_alone_and_keeps_its_rows(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
    target = place(tmp_path)
    run(mine, *BATCHES, target=target)
    before = table(tmp_path)
    for _ in range(2):
        release_table(target, mine / "ledger.db")
    assert table(tmp_path) == before
    with pytest.raises(SetupError, match=r"holds the labels of another run, the one in .*mine"):
        check_table(target, other / "ledger.db")
    assert check_table(target, mine / "ledger.db")
    (mine / "ledger.db").rename(mine / "old.db")
    assert check_table(target, mine / "ledger.db")
    done = run(mine, BATCHES[0], target=target)
    assert (done.rows, done.removed) == (2, len(before) - 2)
    assert query(tmp_path, "SELECT COUNT(*) FROM labelpipe_progress") == [(1,)]


def test_the_table_of_another_run_cannot_be_left(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
    run(mine, *BATCHES, target=place(tmp_path))
    run(other, *BATCHES, target=place(tmp_path, "others"))
    release_table(place(tmp_path), other / "ledger.db")
    assert export(mine, place(tmp_path)).updated == 0


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
        run(tmp_path, target=SqlTarget(url, "labels"))
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(SqlTarget(url, "labels"))


def test_secrets_stay_out_of_what_a_database_says(tmp_path: Path) -> None:
    url = f"sqlite:///file:{tmp_path}/no/s3cret.db?uri=true&password=s3cret"
    database = connect(url, "labels")
    with pytest.raises(StoreError) as caught, database.transaction():
        pass
    assert "password" not in str(database)
    assert "s3cret" not in str(caught.value).replace("/no/s3cret.db", "")


FIELDS = st.dictionaries(st.sampled_from(["id", "a", "A", "b", "label", "c\0"]), VALUES, max_size=4)
LABELS = st.dictionaries(st.sampled_from(["label", "score", "a", "id"]), VALUES, max_size=3)


@settings(max_examples=15)
@given(batches=st.lists(st.lists(st.tuples(FIELDS, LABELS), max_size=3), min_size=1, max_size=3), data=st.data())
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
        asyncio.run(session(path, outcomes, finish=data.draw(st.booleans())))
        export(path, whole=data.draw(st.booleans()))
        assert proof(path)[0], proof(path)
    export(path)
    assert proof(path) == (True, f"{number} rows, value for value those of the ledger.")
    assert [row["k"] for row in table(path)] == list(range(number))


def test_layout_is_not_touched_by_the_format() -> None:
    assert SQL.label_table() == LAYOUT.label_table()
    assert unlabelled(0).status not in SQL.label_table().statuses
