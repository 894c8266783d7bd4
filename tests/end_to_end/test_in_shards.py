"""Runs in shards as real processes, judged by the books of an endpoint: one limit, one budget, one result."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from end_to_end.sharded import COUNT, address, many, serve
from end_to_end.stage import Endpoint, Project, project, rows

BOUND = {"parameters": {"max_completion_tokens": 30}, "price": {"input": 100.0, "output": 100.0}}


@pytest.fixture
def user(tmp_path: Path, endpoint: Endpoint) -> Project:
    return many(tmp_path, endpoint.base_url)


def test_shards_come_to_what_one_process_comes_to(user: Project, tmp_path: Path, endpoint: Endpoint) -> None:
    summary = user.run("--shards", "2", code=1)
    assert (summary["labelled"], summary["rejected"], summary["calls"]) == (COUNT, 2, COUNT)
    assert summary["simulated"], "so the shards have noted"
    assert endpoint.calls() == COUNT
    assert not (user.run_dir / "shards").exists(), "the shards are put together"
    user.verify()
    alone = project(tmp_path / "alone", endpoint.base_url, COUNT, output={"order": "input"})
    alone.give([*rows(COUNT), *rows(2)])
    alone.run(code=1)
    for name in ("labels.csv", "failed.csv"):
        assert (user.run_dir / name).read_bytes() == (alone.run_dir / name).read_bytes()
    # More records, and another number of shards: what is done is done.
    user.give([*rows(COUNT + 9), *rows(2)])
    resumed = user.do("run", "job.toml", "--shards", "3", "--json").expect(1)
    assert resumed.json["calls"] == 9, resumed.err
    assert "11 of 71 records" in resumed.err, resumed.err
    user.verify()
    # What a merge has left that was killed at its very end.
    (user.run_dir / "shards.merged" / "01").mkdir(parents=True)
    (user.run_dir / "labels.csv").unlink()
    assert user.do("merge", "run", "--json").expect(0).json["complete"]
    assert (len(user.labels()), (user.run_dir / "shards.merged").exists()) == (COUNT + 9, False)
    # Shards without a record, or with nothing but a record that cannot be asked, are no reason to stop.
    user.give([{"id": "only", "text": "one"}, {"text": "no key"}])
    user.configure(output={"dir": "few"})
    assert user.run("--shards", "2", code=1)["labelled"] == 1
    user.verify("few")


def test_a_budget_is_shared_and_never_passed(user: Project, endpoint: Endpoint) -> None:
    user.configure(model=BOUND, limits={"budget_usd": 0.4})
    summary = user.run("--shards", "2", code=3)
    assert 0.1 < summary["cost_usd"] <= 0.4
    assert "limits.budget_usd = 0.4" in summary["reason"]
    assert summary["next_step"].startswith("raise limits.budget_usd first")
    user.configure(limits={"budget_usd": 100.0})
    assert user.run("--shards", "2", code=1)["labelled"] == COUNT
    assert endpoint.calls() == COUNT
    # Half a run in shards is moved aside as a whole.
    user.configure(limits={"budget_usd": 0.4})
    server = serve(user, 0)
    address(server)
    server.kill()
    user.do("run", "job.toml", "--fresh", "--yes", "--set", "input.limit=1").expect(0)
    assert [one for one in user.folder.glob("run.*") if (one / "shards").exists()]


def test_a_merge_that_is_cut_off_changes_nothing(user: Project, endpoint: Endpoint) -> None:
    """What a kill leaves of a merge is made anew; and merged twice is merged once."""
    from pipeline.store import join_ledgers

    user.run(code=1)
    ledger = user.run_dir / "ledger.db"
    before = _dump(ledger)
    (user.run_dir / "ledger.db.joining").write_bytes(b"half a ledger")
    copy = user.run_dir / "copy.db"
    copy.write_bytes(ledger.read_bytes())
    for _ in range(2):
        assert join_ledgers(ledger, [copy], "run") == COUNT + 2
        assert _dump(ledger) == before


def test_what_may_have_been_spent_is_joined_too(user: Project, tmp_path: Path) -> None:
    """A killed shard may have spent more than its outcomes say, and what was there before them had no budget."""
    from pipeline.store import join_ledgers

    user.configure(model=BOUND)
    user.run("--limit", "3", code=0)
    base, shard = tmp_path / "base.db", tmp_path / "shard.db"
    base.write_bytes((user.run_dir / "ledger.db").read_bytes())
    shard.write_bytes((user.run_dir / "ledger.db").read_bytes())
    with sqlite3.connect(shard) as connection:
        connection.execute("DELETE FROM outcomes")
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('budget', '{\"usd\": 0.5, \"tokens\": 70}')")
    join_ledgers(user.run_dir / "ledger.db", [base, shard], "run")
    with sqlite3.connect(user.run_dir / "ledger.db") as connection:
        (text,) = connection.execute("SELECT value FROM meta WHERE key = 'budget'").fetchone()
        (cost,) = connection.execute("SELECT SUM(cost_usd) FROM outcomes").fetchone()
    assert json.loads(text)["usd"] == pytest.approx(0.5 + cost)


def _dump(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT * FROM outcomes ORDER BY seq").fetchall()


def test_what_shards_cannot_do_is_refused(user: Project) -> None:
    user.configure(model={"lane": "auto"})
    assert "each would choose for itself" in user.do("run", "job.toml", "--shards", "2").expect(2).err
    user.configure(model={"lane": "live"}, input={"path": "-"})
    assert "stdin" in user.do("run", "job.toml", "--shards", "2").expect(2).err
