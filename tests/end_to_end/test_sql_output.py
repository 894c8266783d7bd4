"""Labels in a database: `labelpipe export`, and sessions whose output.formats have "sql". No password anywhere."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Endpoints, Project, project, rows, wait_until

import pipeline

Make = Callable[..., Project]
SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
URL = "sqlite:///labels.db"
SQL = {"formats": ["csv", "sql"], "sql": {"url": URL, "table": "reviews"}}
HIDDEN = {"formats": ["csv", "sql"], "sql": {"url_env": "LABELS_URL"}}


@contextmanager
def database(user: Project) -> Iterator[sqlite3.Connection]:
    """The user's own connection."""
    with closing(sqlite3.connect(user.folder / "labels.db", timeout=60)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def table(user: Project, name: str = "reviews") -> list[dict[str, Any]]:
    """The rows of the table as the CSV has them, in the order of their ids."""
    with database(user) as connection:
        found = [dict(row) for row in connection.execute(f"SELECT * FROM {name}")]
    for row in found:
        del row["labelpipe_key"], row["labelpipe_part"]
        if "simulated" in row:
            row["simulated"] = "true" if row["simulated"] else ""
    return in_order(found)


def in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda row: str(row["id"]))


def labels(user: Project) -> list[dict[str, Any]]:
    """The CSV in the same order."""
    return in_order(user.labels())


def all_text(folder: Path) -> bytes:
    """Everything that a run has left behind."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# -- the command -----------------------------------------------------------------------------------------------------


def test_an_export_is_the_csv_and_can_be_given_again_by_config_or_folder_or_from_python(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = make()
    user.run()
    told = user.do("export", "run", "--to", URL, "--table", "reviews").expect(0).out
    assert told.startswith("table 'reviews' at sqlite:///labels.db: 20 rows; 20 added\n")
    assert table(user) == labels(user)
    again = user.do("export", "job.toml", "--to", URL, "--table", "reviews", "--json").expect(0).json
    assert again == {
        "run_dir": "run", "place": "table 'reviews' at sqlite:///labels.db", "table": "reviews", "rows": 20,
        "added": 0, "updated": 0, "removed": 0, "made_anew": False, "simulated": True,
    }  # fmt: skip
    monkeypatch.chdir(user.folder)
    done = pipeline.export("run", URL)
    assert (done.table, done.added) == ("labels", 20)
    assert "SIMULATED: the built-in endpoint made up these labels" in repr(done)
    assert table(user, "labels") == table(user)


def test_an_export_follows_a_run_at_work_and_the_records_that_are_gone(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(latency_ms=30.0)
    user = project(tmp_path / "project", endpoint.base_url, 200, limits={"concurrency": 2})
    run = user.start("run", "job.toml")
    wait_until(lambda: (user.run_dir / "labels.csv").exists() and len(user.labels()) > 5)
    words = ("export", "run", "--to", URL, "--table", "reviews", "--json")
    first = user.do(*words).expect(0).json
    assert first["rows"] > 5
    run.wait().expect(0)
    assert user.do(*words).expect(0).json["added"] == 200 - first["rows"]
    user.give(rows(190))
    user.run()
    last = user.do(*words).expect(0).json
    assert (last["rows"], last["updated"], last["removed"]) == (190, 0, 10)
    assert table(user) == labels(user)
    endpoints.close(endpoint)


def test_what_is_wrong_with_an_export_is_told_without_the_password(make: Make) -> None:
    user = make()
    assert "it has no run yet" in user.do("export", "job.toml", "--to", URL).expect(2).err
    user.run()
    for words, code, text in (
        ((), 2, "name a destination: --to data/ for training data, or --to sqlite:///labels.db"),
        (("--to", "me:s3cret@host/db"), 2, "--to: expected a folder, or a database URL"),
        (("--to", "postgresql+nodriver://me:s3cret@host/db"), 2, "not a database URL that SQLAlchemy knows"),
        (("--to", "sqlite:///nowhere/s.db?password=s3cret"), 3, "unable to open database file"),
        (("--to", URL, "--table", "a b"), 2, "--table: got "),
    ):
        told = user.do("export", "run", *words).expect(code)
        assert text in told.err
        assert "s3cret" not in told.out + told.err
    with database(user) as connection, connection:
        connection.execute("CREATE TABLE labels (mine TEXT)")
    assert "was not made by labelpipe" in user.do("export", "run", "--to", URL).expect(2).err


# -- at the end of each session --------------------------------------------------------------------------------------


def test_the_table_is_the_csv_and_follows_a_retry(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(poison={"REFUSE": "refusal"})
    user = project(tmp_path / "project", endpoint.base_url, count=40, output=SQL)
    user.give([{**row, "text": "REFUSE"} if at % 10 == 0 else row for at, row in enumerate(rows(40))])
    first = user.run(code=1)
    assert first["rejected"] == 4
    assert first["files"]["table"] == "reviews, 36 rows"
    assert table(user) == labels(user)
    user.verify()
    endpoint = endpoints.again(endpoint)
    assert "  table     reviews, 40 rows\n" in user.do("retry", "job.toml").expect(0).err
    assert table(user) == labels(user)
    assert len(labels(user)) == 40
    user.verify()
    with database(user) as connection, connection:
        connection.execute("UPDATE reviews SET label = 'changed' WHERE id = (SELECT MIN(id) FROM reviews)")
    told = user.do("verify", "run").expect(1).out
    assert "BAD  table reviews" in told
    assert "differs from the ledger in the row of " in told
    assert "40 rows; 1 updated" in user.do("export", "run").expect(0).out
    user.verify()
    endpoints.close(endpoint)


def test_a_table_alone_stands_in_the_place_of_the_file(make: Make) -> None:
    user = make(output={**SQL, "formats": ["sql"]})
    assert user.run()["files"]["labels"] == "table reviews, 20 rows"


def test_a_table_of_somebody_elses_costs_not_one_call(make: Make, endpoint: Endpoint) -> None:
    user = make("theirs", output=SQL)
    with database(user) as connection, connection:
        connection.execute("CREATE TABLE reviews (mine TEXT)")
    before = endpoint.calls()
    told = user.do("run", "job.toml", "--json").expect(2).err
    assert "table 'reviews'" in told
    assert "was not made by labelpipe" in told
    assert "was not made by labelpipe" in user.do("check", "job.toml").out
    assert endpoint.calls() == before


def test_the_url_of_a_variable_is_written_nowhere(make: Make) -> None:
    user = make("hidden", output=HIDDEN)
    told = user.do("run", "job.toml", "--json").expect(2)
    assert "output.sql: LABELS_URL is not set" in told.err
    env = {"LABELS_URL": "sqlite:///labels.db?nolock=0&password=s3cret&uri=false"}
    refused = user.do("run", "job.toml", "--json", env={"LABELS_URL": "postgresql+nodriver://me:s3cret@host/db"})
    broken = user.do("run", "job.toml", "--json", env=env)
    for done in (refused.expect(2), broken):
        assert "s3cret" not in done.out + done.err
    user.do("run", "job.toml", "--json", env={"LABELS_URL": "sqlite:///labels.db?timeout=17.2500481"}).expect(0)
    assert len(table(user, "labels")) == 20
    assert b"s3cret" not in all_text(user.run_dir)
    assert b"17.2500481" not in all_text(user.run_dir), "nothing of the URL is kept"
    assert "not compared: LABELS_URL is not set" in user.do("verify", "run").expect(0).out
    assert "LABELS_URL is not set" in user.do("export", "run").expect(2).err
    checked = user.do("verify", "run", env={"LABELS_URL": URL}).expect(0).out
    assert "20 rows, value for value" in checked


def test_a_database_that_fails_at_the_end_leaves_the_files_and_the_summary_whole(
    make: Make, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.runner import sql_export

    user = make("fails", output=SQL)
    user.run("--limit", "1")
    with database(user) as connection, connection:
        connection.execute("CREATE TRIGGER t BEFORE INSERT ON reviews BEGIN SELECT RAISE(ABORT, 'not now'); END")
    monkeypatch.chdir(user.folder)
    monkeypatch.setattr(sql_export, "WAITS_S", (0.0, 0.0))
    summary = pipeline.run("job.toml")
    assert (summary.ended, summary.exit_code, summary.labelled) == ("stopped", 3, 20)
    assert "not now" in summary.reason
    assert summary.next_step == "labelpipe export run"
    assert len(user.labels()) == 20
    calls = endpoint.calls()
    with database(user) as connection, connection:
        connection.execute("DROP TRIGGER t")
    user.do("export", "run").expect(0)
    assert endpoint.calls() == calls
    assert table(user) == labels(user)
    user.verify()


# -- starting over ---------------------------------------------------------------------------------------------------


def test_starting_over_takes_the_table_along_with_what_the_user_put_on_it(make: Make) -> None:
    user = make(output=SQL)
    user.run()
    old = table(user)
    with database(user) as connection, connection:
        connection.execute("CREATE INDEX mine ON reviews (label)")
        connection.execute("CREATE VIEW good AS SELECT id FROM reviews")
    user.configure(task={"prompt": "{{ id }} otherwise: {{ text }}"}, input={"limit": 12})
    refused = user.do("run", "job.toml", "--fresh").expect(2).err
    assert "The rows of its table reviews will be replaced. Nobody can be asked" in refused
    assert (table(user), sorted(user.folder.glob("run.*"))) == (old, [])
    user.run("--fresh", "--yes")
    assert table(user) == labels(user)
    assert len(table(user)) == 12
    user.verify()
    (moved,) = user.folder.glob("run.*")
    assert (moved / "ledger.db").exists()
    assert "holds the labels of another run" in user.do("export", moved.name).expect(2).err
    with database(user) as connection:
        assert len(connection.execute("SELECT * FROM good").fetchall()) == 12
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'mine'").fetchone()


def test_a_table_that_cannot_be_had_is_told_before_the_folder_is_moved(make: Make, endpoint: Endpoint) -> None:
    user = make(output=SQL)
    user.run()
    others = table(user)
    user.do("run", "job.toml", "--output", "mine", "--set", "output.sql.table=mine").expect(0)
    calls = endpoint.calls()
    told = user.do("run", "job.toml", "--output", "mine", "--fresh", "--yes").expect(2).err
    assert "holds the labels of another run, the one in " in told
    assert (user.folder / "mine" / "labels.csv").exists()
    assert list(user.folder.glob("mine.*")) == []
    assert (table(user), endpoint.calls()) == (others, calls)
    (user.folder / "labels.db").rename(user.folder / "elsewhere.db")
    (user.folder / "labels.db").mkdir()
    assert "unable to open database file" in user.do("run", "job.toml", "--fresh", "--yes").expect(2).err
    assert list(user.folder.glob("run.*")) == []


@pytest.mark.chaos
def test_kills_of_exports_at_random_moments_leave_whole_tables(tmp_path: Path, endpoints: Endpoints) -> None:
    dice = random.Random(SEED)
    endpoint = endpoints.open(latency_ms=1.0)
    user = project(tmp_path / "project", endpoint.base_url, count=800)
    seen, words = 0, ("export", "run", "--to", URL, "--table", "reviews")
    for number in range(6):
        user.give(rows(100 + number * 140))
        user.run()
        process = user.start(*words)
        time.sleep(dice.uniform(0.0, 0.5))  # the moment is the point here
        process.signal(signal.SIGKILL)
        process.wait()
        there = len(table(user)) if (user.folder / "labels.db").exists() and has_table(user) else 0
        assert there in {seen, 100 + number * 140}, f"seed {SEED}, kill {number}: a part of an export is there"
        user.do(*words).expect(0)
        assert table(user) == labels(user)
        seen = len(labels(user))
    endpoints.close(endpoint)


def has_table(user: Project) -> bool:
    with database(user) as connection:
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'reviews'").fetchone())
