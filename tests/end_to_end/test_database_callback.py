"""config/into-database.toml, killed at random moments: every record is in its database exactly once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from end_to_end.stage import Project, read_csv, wait_until

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
COMMAND = ("run", "config/into-database.toml", "--json")


@pytest.fixture
def user(tmp_path: Path) -> Project:
    """A folder with the example and the sample data."""
    (tmp_path / "config").mkdir()
    (tmp_path / "data").mkdir()
    for name in ("config/into-database.toml", "config/into_database.py", "data/reviews.csv"):
        shutil.copy(ROOT / name, tmp_path / name)
    return Project(tmp_path)


def saved(folder: Path) -> list[tuple[str, str, str]]:
    """The rows of the callback's own table: id, text, label."""
    path = folder / "runs" / "reviews.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'reviews'").fetchone():
            return []
        return connection.execute("SELECT id, text, label FROM reviews").fetchall()


def prove(user: Project) -> None:
    """The database and labels.csv hold the same, each record once."""
    rows = saved(user.folder)
    labels = read_csv(user.folder / "runs" / "into-database" / "labels.csv")
    given = read_csv(user.folder / "data" / "reviews.csv")
    twice = [key for key, count in Counter(row[0] for row in rows).items() if count > 1]
    assert not twice, f"written twice: {twice}"
    assert sorted(rows) == sorted((row["id"], row["text"], row["label"]) for row in labels)
    assert {row[0] for row in rows} == {row["id"] for row in given}
    assert len({row["review_row"] for row in labels}) == len(given)


def test_the_example_runs(user: Project) -> None:
    assert user.do(*COMMAND).expect(0).json["labelled"] == 300
    prove(user)
    again = user.do("replay", "config/into-database.toml", "--json").expect(0).json
    assert again["labelled"] == 300
    prove(user)
    user.verify("runs/into-database")


@pytest.mark.chaos
def test_kills_at_random_moments_write_nothing_twice_and_leave_nothing_out(user: Project) -> None:
    dice = random.Random(SEED)
    kills = 0
    for _ in range(6):
        before = len(saved(user.folder))
        process = user.start(*COMMAND)
        goal = before + dice.randint(1, 25)
        wait_until(lambda: len(saved(user.folder)) >= goal or process.popen.poll() is not None)  # noqa: B023
        time.sleep(dice.uniform(0, 0.02))  # the moment is the point here
        process.signal(signal.SIGKILL)
        kills += process.wait().code == -signal.SIGKILL
    assert kills >= 4, f"seed {SEED}: it was done before"
    user.do(*COMMAND).expect(0)
    prove(user)
