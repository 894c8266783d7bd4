"""output.formats with "sql": the table through the program: killed, retried, verified, and no password anywhere."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Endpoints, Project, project, rows, wait_until

SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
SQL = {"formats": ["csv", "sql"], "sql": {"url": "sqlite:///labels.db", "table": "reviews"}}
HIDDEN = {"formats": ["csv", "sql"], "sql": {"url_env": "LABELS_URL"}}


def table(folder: Path, name: str = "reviews") -> list[dict[str, Any]]:
    """The rows of the table, as the CSV has them."""
    path = folder / "labels.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.row_factory = sqlite3.Row
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone():
            return []
        found = [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY labelpipe_row")]
    assert [row.pop("labelpipe_row") for row in found] == list(range(1, len(found) + 1))
    return [row | {"simulated": "true" if row["simulated"] else ""} if "simulated" in row else row for row in found]


def all_text(folder: Path) -> bytes:
    """Everything that a run has left behind."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_table_is_the_csv_and_follows_a_retry(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(poison={"REFUSE": "refusal"})
    user = project(tmp_path / "project", endpoint.base_url, count=40, output=SQL)
    user.give([{**row, "text": "REFUSE"} if at % 10 == 0 else row for at, row in enumerate(rows(40))])
    assert user.run(code=1)["rejected"] == 4
    assert table(user.folder) == user.labels()
    assert len(user.labels()) == 36
    user.verify()
    endpoint = endpoints.again(endpoint)
    user.do("retry", "job.toml").expect(0)
    assert table(user.folder) == user.labels()
    assert len(user.labels()) == 40
    user.verify()
    with closing(sqlite3.connect(user.folder / "labels.db")) as connection, connection:
        connection.execute("UPDATE reviews SET label = 'changed' WHERE labelpipe_row = 7")
    told = user.do("verify", "run").expect(1).out
    assert "BAD  table reviews" in told
    assert "differs from the ledger in row 7" in told
    endpoints.close(endpoint)


def test_a_table_of_somebody_elses_costs_not_one_call(make: Callable[..., Project], endpoint: Endpoint) -> None:
    user = make("theirs", output=SQL)
    with closing(sqlite3.connect(user.folder / "labels.db")) as connection, connection:
        connection.execute("CREATE TABLE reviews (mine TEXT)")
    before = endpoint.calls()
    told = user.do("run", "job.toml", "--json").expect(2).err
    assert "output.sql.table: table 'reviews'" in told
    assert "was not made by labelpipe" in told
    assert "was not made by labelpipe" in user.do("check", "job.toml").out
    assert endpoint.calls() == before


def test_the_url_of_a_variable_is_written_nowhere(make: Callable[..., Project]) -> None:
    user = make("hidden", output=HIDDEN)
    told = user.do("run", "job.toml", "--json").expect(2)
    assert "output.sql: LABELS_URL is not set" in told.err
    env = {"LABELS_URL": "sqlite:///labels.db?nolock=0&password=s3cret&uri=false"}
    refused = user.do("run", "job.toml", "--json", env={"LABELS_URL": "postgresql+nodriver://me:s3cret@host/db"})
    broken = user.do("run", "job.toml", "--json", env=env)
    for done in (refused.expect(2), broken):
        assert "s3cret" not in done.out + done.err
    user.do("run", "job.toml", "--json", env={"LABELS_URL": "sqlite:///labels.db?timeout=17.25"}).expect(0)
    assert len(table(user.folder, "labels")) == 20
    assert b"s3cret" not in all_text(user.run_dir)
    assert b"17.25" not in all_text(user.run_dir), "nothing of the URL is kept"
    assert "not compared: LABELS_URL is not set" in user.do("verify", "run").expect(0).out
    checked = user.do("verify", "run", env={"LABELS_URL": "sqlite:///labels.db"}).expect(0).out
    assert "20 rows, value for value" in checked


def test_a_database_that_is_gone_at_the_end_is_made_up_for(make: Callable[..., Project], endpoint: Endpoint) -> None:
    """Only the table lags: the files are whole, and the same command needs no call for it."""
    user = make("gone", output=SQL)
    user.run()
    (user.folder / "labels.db").replace(user.folder / "elsewhere.db")
    (user.folder / "labels.db").mkdir()
    assert "unable to open database file" in user.do("run", "job.toml", "--json").expect(2).err
    (user.folder / "labels.db").rmdir()
    calls = endpoint.calls()
    user.run()
    assert endpoint.calls() == calls
    assert table(user.folder) == user.labels()


@pytest.mark.chaos
def test_kills_at_random_moments_cost_the_table_nothing(tmp_path: Path, endpoints: Endpoints) -> None:
    dice = random.Random(SEED)
    endpoint = endpoints.open(latency_ms=20.0, latency_jitter=0.5, faults={"503": 0.02, "bad_label": 0.02})
    user = project(tmp_path / "project", endpoint.base_url, count=800, output=SQL)
    seen: list[Mapping[str, Any]] = []
    kills = 0
    for number in range(6):
        process = user.start("run", "job.toml")
        goal = len(seen) + dice.randint(0, 15)
        wait_until(lambda: len(table(user.folder)) >= goal or process.popen.poll() is not None)  # noqa: B023
        time.sleep(dice.uniform(0, 0.2))  # the moment is the point here
        process.signal(signal.SIGKILL)
        kills += process.wait().code == -signal.SIGKILL
        now = table(user.folder)
        assert now[: len(seen)] == seen, f"seed {SEED}, kill {number}: rows that were there are gone"
        assert len({row["id"] for row in now}) == len(now), f"seed {SEED}, kill {number}: a row twice"
        seen = now
        if (user.run_dir / "manifest.json").exists():
            user.verify()
    assert kills >= 4, f"seed {SEED}: it was done before"
    user.run()
    assert table(user.folder) == user.labels()
    assert {row["id"] for row in table(user.folder)} == {row["id"] for row in rows(800)}
    user.verify()
    endpoints.close(endpoint)
