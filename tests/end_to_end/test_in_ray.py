"""Runs in shards that Ray places, on clusters on this machine. They are slow: most of it is the start of Ray."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest
from end_to_end.buckets import BUCKET, FOLDER, calls_of_first, outcomes_kept, s3_server
from end_to_end.stage import Endpoints, Project, project, wait_until

# Not imported to see whether it is there: every process that runs tests would.
pytestmark = pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed: pip install 'labelpipe[ray]'")
COUNT, IN_FLIGHT = 60, 4
HEALTH = {"initial_delay_ms": 0, "period_ms": 500, "failure_threshold": 6}


class Cluster:
    """Two raylets and a head, on this machine; each node has its own place for files of its own."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        small: dict[str, Any] = {
            "object_store_memory": 80_000_000,
            "include_dashboard": False,
            "include_log_monitor": False,
        }
        # A node that says nothing for a moment is lost; usually that takes Ray half a minute.
        impatient = {f"health_check_{name}": value for name, value in HEALTH.items()}
        self._ray = RayCluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "no_monitor": True, "_system_config": impatient, **small},
        )
        self._nodes: list[Any] = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            own = {"num_cpus": 2, "env_vars": {"TMPDIR": str(folder / name)}, **small}
            self._nodes.append(self._ray.add_node(wait=False, **own))
        self._ray.wait_for_nodes()
        self.address = self._ray.address

    def kill_node_of(self, shard: str) -> None:
        """Kill the raylet that has this shard, and all that runs there."""
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in self._nodes}
        found = [pid for pid in processes() if f"--shard\0{shard}\0" in command_of(pid)]
        [lost] = {one for pid in found for one in ancestors_of(pid) if one in raylets}
        there = [pid for pid in processes() if lost in ancestors_of(pid)]
        self._ray.remove_node(raylets[lost], allow_graceful=False)
        for pid in there:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """All of it."""
        self._ray.shutdown()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """With a bucket that all nodes reach."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with s3_server() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        made = Cluster(tmp_path)
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        try:
            yield made
        finally:
            made.close()


def processes() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def ancestors_of(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        yield (pid := int(stat.rpartition(")")[2].split()[1]))


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


@pytest.mark.chaos
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the shard's node is found in /proc")
def test_a_killed_node_loses_what_was_not_synced(tmp_path: Path, endpoints: Endpoints, cluster: Cluster) -> None:
    """Nodes that share no disk: the input is in a bucket, and the config and the user's code travel."""
    endpoint = endpoints.open(latency_ms=1000.0)
    user = project(
        tmp_path / "many", endpoint.base_url, COUNT, limits={"concurrency": IN_FLIGHT}, output={"order": "input"},
        input={"path": f"s3://{BUCKET}/in.jsonl"}, task={"validators": [{"python": "mine:fine"}]},
        scale={"folder": FOLDER, "sync_s": 0.2, "shards": 2, "engine": "ray"},
    )  # fmt: skip
    (user.folder / "mine.py").write_text("def fine(label, record):\n    return None\n", encoding="utf-8")
    fsspec.filesystem("s3").put_file(str(user.folder / "in.jsonl"), f"{BUCKET}/in.jsonl")
    driver = user.start("run", str(user.folder / "job.toml"), "--json", as_a_user=True)
    wait_until(lambda: outcomes_kept(user) > 0 or driver.popen.poll() is not None)
    assert driver.popen.poll() is None, driver.wait()
    user.do("set", "run", "limits.concurrency=20").expect(0)
    wait_until(lambda: any(tmp_path.glob("[ab]/*/shards/01/control.answers.jsonl")) or driver.popen.poll() is not None)
    assert driver.popen.poll() is None, driver.wait()
    cluster.kill_node_of("1/2")
    asked, kept = calls_of_first(endpoint), outcomes_kept(user)
    summary = driver.wait().expect(0).json
    assert (summary["labelled"], summary["rejected"]) == (COUNT, 0)
    # Of the other shard, if it was on the same node, as much may be asked again.
    assert COUNT <= endpoint.calls() <= COUNT + 2 * (asked - kept + 10)
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
