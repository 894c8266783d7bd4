"""A real S3 server on a socket (moto's, in a process of its own), and what shards have kept there."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import fsspec
from end_to_end.stage import Endpoint, Project, wait_until

from pipeline.parts.selection import is_of_shard
from pipeline.shards.snapshots import SnapshotStore
from pipeline.store import unpack_snapshot

BUCKET = "shards"
FOLDER = f"s3://{BUCKET}/runs"


@contextmanager
def s3_server() -> Iterator[Mapping[str, str]]:
    """Serve a bucket while the block lasts; gives the variables with which S3's clients find it."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    # A file: of a pipe that nobody reads, the server would hang when it is full.
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as log, Path(log.name).open("w", encoding="utf-8") as out:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out)
        wait_until(lambda: "Running on" in Path(log.name).read_text(encoding="utf-8"))
        url = next(line.split()[-1] for line in log if "Running on" in line)
    try:
        variables = {
            "AWS_ACCESS_KEY_ID": "a-key",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }
        # fsspec keeps those of a server before.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        system = fsspec.filesystem("s3", key="a-key", secret="a-secret", client_kwargs={"endpoint_url": url})
        system.mkdir(BUCKET)
        yield variables
    finally:
        server.kill()
        server.wait()


def outcomes_kept(user: Project) -> int:
    """How many outcomes are in the last whole state of the first shard."""
    plan, archive = user.run_dir / "shards" / "plan.json", user.folder / "state"
    if not plan.exists():
        return 0
    state = SnapshotStore(FOLDER, json.loads(plan.read_bytes())["dealing"]).fetch("01", archive)
    if state is None or not state.has_ledger:
        return 0
    unpack_snapshot(archive, user.folder / "unpacked")
    with sqlite3.connect(user.folder / "unpacked" / "ledger.db") as connection:
        return int(connection.execute("SELECT COUNT(*) FROM outcomes").fetchone()[0])


def calls_of_first(endpoint: Endpoint) -> int:
    """How often the endpoint was asked by the first of two shards."""
    return sum(is_of_shard(line.key, (1, 2)) for line in endpoint.lines())
