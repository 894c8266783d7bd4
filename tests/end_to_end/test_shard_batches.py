"""Shards in the batch lane, judged by the books of an endpoint: one queue, one first part, nothing asked twice."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

from end_to_end.stage import Endpoint, Endpoints, Project, project, wait_until

COUNT = 60
BATCH = {"poll_s": 0.05, "first_part": 3, "part_records": 8}


def batches_of(endpoint: Endpoint) -> list[dict[str, Any]]:
    """What the endpoint says of all batches, the oldest first."""
    with urllib.request.urlopen(f"{endpoint.base_url}/batches?limit=100") as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]
    return found[::-1]


def batched(folder: Path, endpoint: Endpoint, **more: Any) -> Project:
    """A project in the batch lane."""
    return project(
        folder, endpoint.base_url, COUNT, model={"name": "gpt-6-luna", "base_url": endpoint.base_url, "lane": "batch"},
        batch={**BATCH, **more}, output={"dir": "run", "order": "input", "report": False},
    )  # fmt: skip


def test_shards_share_the_queue_and_lose_no_batch_to_kills(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(batch_s=0.5, batch_queue_tokens=8_000)
    user = batched(tmp_path / "many", endpoint, enqueued_tokens=4_000)  # the server counts about half as much again
    sent = user.do("run", "job.toml", "--shards", "2", "--no-wait", "--json").expect(3).json
    assert sent["reason"].startswith("1 batch with 3 records at the server"), "one shard's goes alone, for all of them"
    first = user.start("run", "job.toml", "--shards", "2", "--json", as_a_user=True)
    wait_until(lambda: len(batches_of(endpoint)) >= 3)
    owner = json.loads((user.run_dir / "shards" / "01" / "lock.owner").read_bytes())
    os.kill(owner["pid"], signal.SIGKILL)  # it is started again
    wait_until(lambda: len(batches_of(endpoint)) >= 5)
    first.kill()  # and with it the lease server
    assert user.run("--shards", "2")["labelled"] == COUNT
    assert not (user.run_dir / "shards").exists()
    assert endpoint.calls() == COUNT, "no record is in two batches"
    made = batches_of(endpoint)
    assert [one["status"] for one in made] == ["completed"] * len(made), "there was room for each"
    assert made[0]["request_counts"]["total"] == BATCH["first_part"]
    assert made[1]["created_at"] >= made[0]["completed_at"]
    user.verify()
    alone = batched(tmp_path / "alone", endpoint)
    alone.run()
    assert (user.run_dir / "labels.csv").read_bytes() == (alone.run_dir / "labels.csv").read_bytes()


def test_batches_of_shards_are_the_runs_once_they_are_merged(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(batch_s=20.0)
    user = batched(tmp_path / "many", endpoint)
    user.configure(batch={"first_part": 50})
    sent = user.do("run", "job.toml", "--shards", "2", "--no-wait", "--json").expect(3).json
    assert "; 1 batch with " in sent["reason"], "the other shard's is to be sent"
    assert len(user.do("status", "run", "--json").expect(0).json["batches"]) == 2
    wait_until(lambda: batches_of(endpoint)[0]["request_counts"]["completed"] > 0)
    books = user.do("cancel", "run", "--json").expect(0).json["lanes"]["batch"]
    assert (books["batches"], books["cancelled"]) == (1, 1)
    assert endpoint.calls() == books["answers"] > 0, "all that was answered is collected"
    summary = user.run("--shards", "2", "--set", "model.lane=flex")
    assert (summary["labelled"], endpoint.calls()) == (COUNT, COUNT)
    assert summary["lanes"]["flex"]["answers"] == COUNT - books["answers"]
    user.verify()
