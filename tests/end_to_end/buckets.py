"""A real S3 server on a socket: moto's, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import fsspec

BUCKET = "shards"


@contextmanager
def s3_server() -> Iterator[Mapping[str, str]]:
    """Serve a bucket while the block lasts; gives the variables with which S3's clients find it."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        url = next(line.split()[-1] for line in server.stderr if "Running on" in line)
        variables = {
            "AWS_ACCESS_KEY_ID": "a-key",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }
        system = fsspec.filesystem("s3", key="a-key", secret="a-secret", client_kwargs={"endpoint_url": url})
        system.mkdir(BUCKET)
        yield variables
    finally:
        server.kill()
        server.communicate()
