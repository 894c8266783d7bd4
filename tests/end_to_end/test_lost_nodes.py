"""Shards whose own disk may be lost: their state is kept in a bucket, and they go on elsewhere."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
from end_to_end.buckets import FOLDER, calls_of_first, outcomes_kept, s3_server
from end_to_end.stage import Endpoints, Process, Project, project, wait_until

from pipeline.parts.selection import is_of_shard

pytestmark = pytest.mark.skipif(not find_spec("s3fs"), reason="s3fs is not installed: pip install 'labelpipe[s3]'")
COUNT, IN_FLIGHT = 60, 2


@pytest.fixture(scope="module")
def bucket() -> Iterator[Mapping[str, str]]:
    with s3_server() as variables:
        yield {**variables, "LEASES_TOKEN": "a-token"}


class Crew:
    """A lease server, and shards that are started on machines with nothing but the config and the input."""

    def __init__(self, user: Project, variables: Mapping[str, str]) -> None:
        self._user, self._variables = user, variables
        self.server = user.start("leases", "job.toml", "--listen", "127.0.0.1:0", env=variables, as_a_user=True)
        assert self.server.popen.stderr is not None
        self.url = self.server.popen.stderr.readline().split()[-1]

    def shard(self, number: int, machine: str) -> Process:
        words = ["--shard", f"{number}/2", "--leases", self.url, "--output", machine, "--json"]
        return self._user.start("run", "job.toml", *words, env=self._variables)

    def end(self) -> None:
        self.server.signal(signal.SIGINT)
        self.server.wait()


def test_a_lost_node_costs_what_was_answered_since_its_last_sync(
    tmp_path: Path, endpoints: Endpoints, bucket: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = endpoints.open(latency_ms=150.0)
    user = project(tmp_path, endpoint.base_url, COUNT, limits={"concurrency": 2 * IN_FLIGHT}, output={"order": "input"},
                   scale={"folder": FOLDER, "sync_s": 0.2})  # fmt: skip
    user.run("--limit", "5")  # what is done before there are shards is not asked by them
    crew = Crew(user, bucket)
    lost = crew.shard(1, "machine-a")
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    wait_until(lambda: outcomes_kept(user) > 0)
    lost.kill()
    shutil.rmtree(user.folder / "machine-a")
    asked, kept = calls_of_first(endpoint), outcomes_kept(user)
    done_before = sum(is_of_shard(f"r{number:04}", (1, 2)) for number in range(1, 6))
    assert kept <= asked
    for one in (crew.shard(1, "machine-b"), crew.shard(2, "machine-c")):
        one.wait().expect(0)
    half = user.do("merge", "run", "--json", env=bucket).expect(0).json
    assert not half["complete"], "the lease server is at work"
    crew.end()
    assert user.do("merge", "run", "--json", env=bucket).expect(0).json["complete"]
    # What was on the wire at the kill may have come into the endpoint's books since.
    again = endpoint.calls() - COUNT
    assert asked - done_before - kept <= again <= asked - done_before - kept + IN_FLIGHT
    assert [row["id"] for row in user.labels()] == [f"r{number:04}" for number in range(1, COUNT + 1)]
    user.verify()
    assert not (user.run_dir / "shards").exists()


def test_a_node_that_comes_back_does_not_go_on(tmp_path: Path, endpoints: Endpoints, bucket: Mapping[str, str]) -> None:
    """It was only frozen, and its shard goes on elsewhere: what it holds is worth nothing any more."""
    endpoint = endpoints.open(latency_ms=60.0)
    user = project(tmp_path, endpoint.base_url, COUNT, limits={"concurrency": 2 * IN_FLIGHT}, output={"order": "input"},
                   scale={"folder": FOLDER, "sync_s": 0.2})  # fmt: skip
    crew = Crew(user, bucket)
    frozen = crew.shard(1, "machine-a")
    wait_until(lambda: calls_of_first(endpoint) >= 10)
    frozen.signal(signal.SIGSTOP)
    second = crew.shard(1, "machine-b")
    wait_until((user.folder / "machine-b" / "shards" / "01" / "live.json").exists)
    frozen.signal(signal.SIGCONT)
    assert "shard 01 was taken over by another process (number 2, this one is number 1)" in frozen.wait().expect(3).err
    for one in (second, crew.shard(2, "machine-c")):
        one.wait().expect(0)
    crew.end()
    assert user.do("merge", "run", "--json", env=bucket).expect(0).json["complete"]
    assert len(user.labels()) == COUNT
    user.verify()


def test_a_folder_that_all_machines_see_needs_no_sync(tmp_path: Path, endpoints: Endpoints) -> None:
    """A path in place of an address: the shards are there, also those of a machine that has nothing else of the run."""
    endpoint = endpoints.open()
    user = project(tmp_path, endpoint.base_url, COUNT, scale={"folder": "shared"})
    crew = Crew(user, {"LEASES_TOKEN": "a-token"})
    crew.shard(1, "machine-a").wait().expect(0)
    assert user.do("merge", "run", "--json").expect(0).json == {
        "run_dir": "run", "shards": 1, "outcomes": len(user.labels()), "complete": False
    }  # fmt: skip
    crew.shard(2, "machine-b").wait().expect(0)
    crew.end()
    assert not (user.folder / "machine-a").exists(), "all that is of the run is in the folder"
    assert user.do("merge", "run", "--json").expect(0).json["complete"]
    assert endpoint.calls() == len(user.labels()) == COUNT
    assert list((user.folder / "shared").iterdir()) == []
    assert user.run("--shards", "2")["calls"] == 0
    user.verify()
