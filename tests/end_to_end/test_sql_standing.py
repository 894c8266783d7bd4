"""The table in a database, looked at and started over: status, the closing screen, --fresh."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Endpoints, Project, project, wait_until

Make = Callable[..., Project]
SQL = {"formats": ["csv", "sql"], "sql": {"url": "sqlite:///labels.db", "table": "reviews"}}


@contextmanager
def database(user: Project) -> Iterator[sqlite3.Connection]:
    """The user's own connection."""
    with closing(sqlite3.connect(user.folder / "labels.db", timeout=60)) as connection:
        yield connection


def labels_in(user: Project) -> list[tuple[Any, ...]]:
    with database(user) as connection:
        return connection.execute("SELECT id, label FROM reviews ORDER BY labelpipe_row").fetchall()


def labels_of(user: Project) -> list[tuple[Any, ...]]:
    return [(row["id"], row["label"]) for row in user.labels()]


def aside(user: Project) -> list[Path]:
    """Folders that were moved aside."""
    return sorted(user.folder.glob("run.*"))


# -- looking ----------------------------------------------------------------------------------------------------------


def test_status_and_the_closing_screen_say_how_far_the_table_has_come(make: Make) -> None:
    user = make(output=SQL)
    told = user.do("run", "job.toml").expect(0).err
    assert "  table     reviews, 20 rows\n" in told
    assert "  labels    run/labels.csv\n" in told
    assert "  table reviews: 20 rows, up to date\n" in user.do("status", "run").expect(0).out
    table = user.do("status", "run", "--json").expect(0).json["table"]
    assert table == {"name": "reviews", "rows": 20, "behind": 0, "trouble": None}


def test_a_run_without_a_table_says_nothing_of_one(make: Make) -> None:
    user = make()
    assert "table" not in user.run()["files"]
    assert user.do("status", "run", "--json").expect(0).json["table"] is None
    assert "table" not in user.do("status", "run").expect(0).out


def test_a_table_alone_stands_in_the_place_of_the_file(make: Make) -> None:
    user = make(output={**SQL, "formats": ["sql"]})
    assert user.run()["files"]["labels"] == "table reviews, 20 rows"


def test_a_database_that_does_not_answer_does_not_hold_the_status_up(tmp_path: Path, endpoints: Endpoints) -> None:
    """While the run is at work, somebody else has the database for himself: the table waits, and the run does not."""
    endpoint = endpoints.open(latency_ms=50.0)
    limits = {"concurrency": 2}
    user = project(tmp_path / "project", endpoint.base_url, 300, limits=limits, output=SQL)
    run = user.start("run", "job.toml")
    wait_until(lambda: (user.folder / "labels.db").exists() and endpoint.calls() > 5)
    wait_until(lambda: bool(user.do("status", "run", "--json").json["table"]["rows"]))
    with database(user) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        calls = endpoint.calls()
        facts = user.do("status", "run", "--json").expect(0).json
        assert facts["labelled"] > 0
        assert facts["table"]["rows"] is None
        assert facts["table"]["trouble"].startswith("not reachable: ")
        assert "table reviews: not reachable: " in user.do("status", "run").expect(0).out
        wait_until(lambda: endpoint.calls() > calls)
        connection.rollback()
    run.wait().expect(0)
    assert "300 rows, up to date" in user.do("status", "run").expect(0).out
    endpoints.close(endpoint)


def test_a_table_that_is_gone_is_no_failure_of_the_status(make: Make) -> None:
    user = make(output=SQL)
    user.run()
    with database(user) as connection, connection:
        connection.execute("DROP TABLE reviews")
    assert "table reviews: it is not there; the run's next session" in user.do("status", "run").expect(0).out
    (user.folder / "labels.db").unlink()
    assert "table reviews: its database is not there" in user.do("status", "run").expect(0).out
    assert not (user.folder / "labels.db").exists(), "looking makes no database"


def test_a_url_in_a_variable_that_is_not_set_is_said(make: Make) -> None:
    user = make(output={"formats": ["csv", "sql"], "sql": {"url_env": "LABELS_URL"}})
    env = {"LABELS_URL": "sqlite:///labels.db"}
    user.do("run", "job.toml", env=env).expect(0)
    assert "table labels: LABELS_URL is not set" in user.do("status", "run").expect(0).out
    assert "table labels: 20 rows, up to date" in user.do("status", "run", env=env).expect(0).out


# -- starting over ----------------------------------------------------------------------------------------------------


def test_starting_over_takes_the_table_along_with_what_the_user_put_on_it(make: Make) -> None:
    user = make(output=SQL)
    user.run()
    old = labels_in(user)
    with database(user) as connection, connection:
        connection.execute("CREATE INDEX mine ON reviews (label)")
        connection.execute("CREATE VIEW good AS SELECT id FROM reviews")
    user.configure(task={"prompt": "{{ id }} otherwise: {{ text }}"}, input={"limit": 12})
    refused = user.do("run", "job.toml", "--fresh").expect(2).err
    assert "The rows of its table reviews will be replaced. Nobody can be asked" in refused
    assert (labels_in(user), aside(user)) == (old, [])
    user.run("--fresh", "--yes")
    assert labels_in(user) == labels_of(user)
    assert len(labels_in(user)) == 12
    user.verify()
    (moved,) = aside(user)
    assert (moved / "ledger.db").exists()
    assert "table reviews: it is not this run's any more" in user.do("status", moved.name).expect(0).out
    with database(user) as connection:
        assert len(connection.execute("SELECT * FROM good").fetchall()) == 12
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'mine'").fetchone()


def test_the_table_of_another_run_is_refused_before_the_folder_is_moved(make: Make, endpoint: Endpoint) -> None:
    user = make(output=SQL)
    user.run()
    others = labels_in(user)
    user.do("run", "job.toml", "--output", "mine", "--set", "output.sql.table=mine").expect(0)
    calls = endpoint.calls()
    told = user.do("run", "job.toml", "--output", "mine", "--fresh", "--yes").expect(2).err
    assert "holds the labels of another run, the one in run" in told
    assert (user.folder / "mine" / "labels.csv").exists()
    assert list(user.folder.glob("mine.*")) == []
    assert (labels_in(user), endpoint.calls()) == (others, calls)


def test_without_the_database_nothing_is_moved(make: Make) -> None:
    user = make(output=SQL)
    user.run()
    (user.folder / "labels.db").rename(user.folder / "elsewhere.db")
    (user.folder / "labels.db").mkdir()
    assert "unable to open database file" in user.do("run", "job.toml", "--fresh", "--yes").expect(2).err
    assert aside(user) == []
    assert (user.run_dir / "labels.csv").exists()


@pytest.mark.parametrize("again", [(), ("--fresh", "--yes")])
def test_what_ends_between_the_table_and_the_folder_is_made_up_for(
    make: Make, endpoint: Endpoint, again: tuple[str, ...]
) -> None:
    """A kill after the table was left to the next run, and before the folder was moved."""
    from pipeline.store import SqlOptions, release_table

    user = make(output=SQL)
    user.run()
    url = f"sqlite:///{user.folder / 'labels.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(user.folder)
        release_table(SqlOptions(url, "reviews"), Path("run/ledger.db"))
    calls = endpoint.calls()
    told = user.do("run", "job.toml", "--output", "other").expect(2).err
    assert "holds the labels of another run" in told, "it is free for this folder only"
    user.run(*again)
    assert endpoint.calls() == calls + (20 if again else 0)
    assert labels_in(user) == labels_of(user)
    user.verify()
