"""Runs in shards while they are at work: killed, steered, and started by hand; judged by an endpoint's books."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from end_to_end.sharded import COUNT, TOKEN, address, many, serve
from end_to_end.stage import Endpoint, Endpoints, Project, rows, wait_until


@pytest.fixture
def user(tmp_path: Path, endpoint: Endpoint) -> Project:
    return many(tmp_path, endpoint.base_url)


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
    # It has labels, but the run's own ledger is empty: no command may say that there are none.
    of_labels = [["evaluate", "run", "--gold", "none.csv"], ["review", "run", "--sample", "3", "--to", "draw.csv"]]
    of_labels += [["certify", "run"], ["show", "run", "1"], ["baseline", "run"], ["report", "run"]]
    of_labels += [["export", "run", "--to", to] for to in ("data", "sqlite:///labels.db")]
    for words in of_labels:
        assert "labelpipe merge run" in user.do(*words).expect(2).err, words
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


def test_shards_and_lease_server_started_by_hand(user: Project, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(latency_ms=50.0)
    user.configure(model={"base_url": endpoint.base_url}, limits={"concurrency": 4})
    server = serve(user, 0)
    url = address(server)
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
    assert "are running" in user.do("run", "job.toml", "--fresh", "--yes").expect(2).err
    assert "paused" in user.do("pause", "run").expect(0).err
    user.do("resume", "run").expect(0)
    server.kill()
    half = user.do("merge", "run", "--json").expect(0).json  # as far as they are
    assert not half["complete"]
    server = serve(user, int(port))
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
