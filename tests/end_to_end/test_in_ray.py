"""A run in shards that Ray places, on a cluster of this machine's own. It is slow: most of it is the start of Ray."""

from __future__ import annotations

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from end_to_end.stage import Endpoints, Project, project, wait_until

# Not imported to see whether it is there: every process that runs tests would.
pytestmark = pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed: pip install 'labelpipe[ray]'")
COUNT, IN_FLIGHT = 60, 4


def actor_of(shard: Path) -> tuple[int, int]:
    """The process of a shard, and that of its actor."""
    pid = int(json.loads((shard / "lock.owner").read_bytes())["pid"])
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return pid, int(stat.rpartition(")")[2].split()[1])


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.chaos
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the actor is found in /proc")
def test_a_killed_actor_loses_nothing(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(latency_ms=150.0)
    user = project(
        tmp_path / "many", endpoint.base_url, COUNT, limits={"concurrency": IN_FLIGHT}, output={"order": "input"}
    )
    driver = user.start("run", "job.toml", "--shards", "2", "--engine", "ray", "--json", as_a_user=True)
    wait_until(lambda: endpoint.calls() >= 10 or driver.popen.poll() is not None)
    if driver.popen.poll() is not None:
        told = driver.wait().expect(2).err
        assert "timed out during startup" in told, told
        pytest.skip("Ray gives its start 30 s, and this machine is too busy for that")
    shard, actor = actor_of(user.run_dir / "shards" / "01")
    assert b"ray::" in Path(f"/proc/{actor}/cmdline").read_bytes()
    os.kill(actor, signal.SIGKILL)
    summary = driver.wait().expect(0).json
    assert not is_there(shard)
    assert (summary["labelled"], summary["rejected"]) == (COUNT, 0)
    assert COUNT <= endpoint.calls() <= COUNT + IN_FLIGHT // 2
    user.verify()
    assert labels_of(user) == labels_of(alone(tmp_path, endpoints))


def alone(folder: Path, endpoints: Endpoints) -> Project:
    """The same in one process."""
    endpoint = endpoints.open()
    user = project(folder / "alone", endpoint.base_url, COUNT, output={"order": "input"})
    user.run()
    return user


def labels_of(user: Project) -> bytes:
    return (user.run_dir / "labels.csv").read_bytes()
