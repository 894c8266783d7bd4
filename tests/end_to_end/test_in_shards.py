"""Runs in shards as real processes, judged by the books of an endpoint: one limit, one budget, one result."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Endpoints, Process, Project, project, rows, wait_until

COUNT = 60
TOKEN = {"LEASES_TOKEN": "a-token"}
BOUND = {"parameters": {"max_completion_tokens": 30}, "price": {"input": 100.0, "output": 100.0}}


def processes_of(user: Project) -> list[int]:
    """The shards that are at work here."""
    found = []
    for folder in sorted((user.run_dir / "shards").glob("[0-9]*")):
        try:
            found.append(int(json.loads((folder / "lock.owner").read_bytes())["pid"]))
            os.kill(found[-1], 0)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except ProcessLookupError:
            found.pop()
    return found


@pytest.fixture
def user(tmp_path: Path, endpoint: Endpoint) -> Project:
    made = project(tmp_path / "many", endpoint.base_url, COUNT, output={"order": "input"})
    made.give([*rows(COUNT), *rows(2)])  # and two keys that come twice
    return made


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
    assert user.run("--shards", "3", code=1)["labelled"] == 1
    user.verify("few")


def test_killed_shards_and_a_killed_parent_lose_nothing(user: Project, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(latency_ms=150.0)
    user.configure(model={"base_url": endpoint.base_url}, limits={"concurrency": 4})
    first = user.start("run", "job.toml", "--shards", "2", "--json", as_a_user=True)
    wait_until(lambda: endpoint.calls() >= 6)
    os.kill(processes_of(user)[0], signal.SIGKILL)  # it is started again
    wait_until(lambda: endpoint.calls() >= 25)
    first.kill()
    again = user.start("run", "job.toml", "--shards", "2", "--json", as_a_user=True)
    wait_until(lambda: endpoint.calls() >= 35)  # it has waited for those that the first one left
    again.kill()
    assert "--shards 2" in user.do("run", "job.toml", "--shards", "3").expect(2).err
    for words in (["run", "job.toml"], ["retry", "run"], ["replay", "run"], ["rename", "run", "label", "c01=c1"]):
        assert "labelpipe merge" in user.do(*words).expect(2).err
    wait_until(lambda: not processes_of(user))  # they end with their parent
    one = user.run_dir / "shards" / "01"
    (one / "lock.owner").write_text(json.dumps({"pid": os.getpid(), "host": "another"}), encoding="utf-8")
    (one.parent / "live.json").write_text(json.dumps({"heard_at": {"1": time.time()}}), encoding="utf-8")
    found = user.do("status", "run", "--json").expect(0).json
    assert found["labelled"] > 0
    assert [shard["running"] for shard in found["shards"]] == [True, False], "the lease server has heard of one"
    (one / "lock.owner").unlink()
    summary = user.run("--shards", "2", code=1)
    assert (summary["labelled"], summary["rejected"]) == (COUNT, 2)
    # One process was killed with at most two calls in flight; those of the others were let end.
    assert COUNT <= endpoint.calls() <= COUNT + 2
    user.verify()


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
    server = _serve(user, 0)
    _address(server)
    server.kill()
    user.do("run", "job.toml", "--fresh", "--yes", "--set", "input.limit=1").expect(0)
    assert [one for one in user.folder.glob("run.*") if (one / "shards").exists()]


def test_shards_and_lease_server_started_by_hand(user: Project, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(latency_ms=50.0)
    user.configure(model={"base_url": endpoint.base_url}, limits={"concurrency": 4})
    server = _serve(user, 0)
    url = _address(server)
    port = url.rpartition(":")[2]
    one = ["--shard", "1/2", "--leases", url]
    mixed = (["--shards", "2", *one], ["--fresh", "--yes", *one])
    for words in (one[:2], one[2:], *mixed, ["--engine", "ray"], ["--engine", "no"]):
        user.do("run", "job.toml", *words, env=TOKEN).expect(2)
    assert "LEASES_TOKEN is not set" in user.do("run", "job.toml", "--shard", "1/2", "--leases", url).expect(2).err
    wrong = user.do("run", "job.toml", "--shard", "1/2", "--leases", url, env={"LEASES_TOKEN": "other"}).expect(2)
    assert "token" in wrong.err
    crew = [user.start("run", "job.toml", "--shard", f"{n}/2", "--leases", url, "--json", env=TOKEN) for n in (1, 2)]
    wait_until(lambda: endpoint.calls() >= 8)
    assert "at work" in user.do("run", "job.toml", "--fresh", "--yes").expect(2).err
    assert "paused" in user.do("pause", "run").expect(0).err
    user.do("resume", "run").expect(0)
    server.kill()
    half = user.do("merge", "run", "--json").expect(0).json  # as far as they are
    assert not half["complete"]
    server = _serve(user, int(port))
    for shard in crew:
        assert shard.wait().code in (0, 1)
    assert "this lease server is for 2 shards" in user.do(
        "run", "job.toml", "--shard", "1/3", "--leases", url, env=TOKEN
    ).expect(2).err  # fmt: skip
    assert "draining" in user.do("drain", "run").expect(0).err
    assert "drained by order" in server.wait().expect(0).err
    assert user.do("verify", "run").expect(0)
    merged = user.do("merge", "run", "--json").expect(0).json
    assert merged["shards"] == 2
    (user.folder / "run" / "labels.csv").unlink()  # as a kill may leave it, once the shards have gone
    again = user.do("merge", "run", "--json").expect(0).json
    assert again == {**merged, "shards": 0}
    assert endpoint.calls() == COUNT
    assert len(user.labels()) == COUNT
    user.verify()


def _serve(user: Project, port: int) -> Process:
    return user.start("leases", "job.toml", "--listen", f"127.0.0.1:{port}", env=TOKEN, as_a_user=True)


def _address(server: Process) -> str:
    assert server.popen.stderr is not None
    line = server.popen.stderr.readline()
    assert "are served at http://127.0.0.1:" in line, line
    return line.split()[-1]


def test_orders_reach_all_shards(user: Project, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(latency_ms=100.0)
    user.give(rows(400))
    user.configure(model={"base_url": endpoint.base_url}, limits={"concurrency": 2})
    process = user.start("run", "job.toml", "--shards", "2", "--json", as_a_user=True)
    wait_until(lambda: endpoint.calls() >= 4)
    assert "paused" in user.do("pause", "run").expect(0).err
    assert "for all shards" in user.do("set", "run", "limits.requests_per_minute=90000").expect(0).err
    user.do("set", "run", "limits.concurrency=8").expect(0)
    wait_until(lambda: [_live(user, number)["concurrency"] for number in (1, 2)] == [4, 4])
    user.configure(limits={"requests_per_minute": 80_000, "max_attempts": 9})
    wait_until(lambda: _live(user, 1)["limits"]["limits.max_attempts"] == 9)
    assert user.do("set", "run", "limits.concurrency=no").code == 2
    found = user.do("status", "run", "--json").expect(0).json
    assert (found["running"], found["left"], found["next_step"]) == (True, None, "")
    user.do("resume", "run").expect(0)
    user.do("drain", "run").expect(0)
    done = process.wait().expect(3)
    assert done.json["reason"].startswith("drained")
    assert "limits.requests_per_minute is 80000 for all shards (job.toml)" in done.err
    user.verify()


def _live(user: Project, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((user.run_dir / "shards" / f"{number:02}" / "live.json").read_bytes())
    return found


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


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"input": {"path": "-"}}, "stdin"),
        ({"quality": {"gold": "gold.csv", "gold_column": "label", "every": 5}}, "quality.gold"),
    ],
)
def test_what_shards_cannot_do_is_refused(user: Project, tables: dict[str, dict[str, object]], words: str) -> None:
    (user.folder / "gold.csv").write_text("id,label\nr0001,c01\n", encoding="utf-8")
    user.configure(**tables)
    assert words in user.do("run", "job.toml", "--shards", "2").expect(2).err
