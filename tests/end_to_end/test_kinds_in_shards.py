"""What a config may ask for, in shards: it comes to what one process makes of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from end_to_end.stage import Endpoint, Project, rows

Make = Callable[..., Project]

STORE = """
def store(label, record):
    with open("stored.txt", "a") as file:
        file.write(record.key + "\\n")
    if record.key == "r0003":
        raise ValueError("no")
    return {"stored": record.key}


store.extra_columns = ("stored",)
"""


def test_a_table_several_files_and_a_callback(make: Make, endpoint: Endpoint) -> None:
    """Shards refused the table, for they write none themselves; and it was taken for another run's."""
    sql = {"url": "sqlite:///labels.db", "table": "reviews"}
    user = make(count=20, output={"formats": ["csv", "jsonl", "parquet", "sql"], "sql": sql})
    user.configure(task={"callback": "mine:store"})
    (user.folder / "mine.py").write_text(STORE, encoding="utf-8")
    summary = user.run("--shards", "2", code=1)
    assert (summary["labelled"], summary["problems"]) == (19, {"callback_error": 1})
    assert summary["next_step"].endswith("labelpipe replay job.toml"), "replay knows no shards"
    assert sorted((user.folder / "stored.txt").read_text().split()) == [row["id"] for row in rows(20)]
    assert len((user.run_dir / "labels.jsonl").read_text().splitlines()) == 19
    user.verify()
    with sqlite3.connect(user.folder / "labels.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM reviews").fetchone() == (19,)
    assert endpoint.calls() == 20


def test_a_folder_that_cannot_be_written_is_named(make: Make) -> None:
    user = make(count=4)
    user.run_dir.mkdir()
    (user.run_dir / "shards").write_text("somebody else's", encoding="utf-8")
    assert "run/shards: the run folder cannot be written" in user.do("run", "job.toml", "--shards", "2").expect(2).err
    (user.run_dir / "shards").unlink()
    (user.run_dir / "shards" / "02").parent.mkdir()
    (user.run_dir / "shards" / "02").write_text("somebody else's", encoding="utf-8")
    said = user.do("run", "job.toml", "--shards", "2").expect(2).err
    assert "run/shards/02: the run folder cannot be written" in said
    assert "broke off" not in said
