"""What the tests of runs in shards share: a project, and a lease server that is started by hand."""

from __future__ import annotations

from pathlib import Path

from end_to_end.stage import Process, Project, project, rows

COUNT = 60
TOKEN = {"LEASES_TOKEN": "a-token"}


def many(folder: Path, base_url: str) -> Project:
    """A project of so many records, and of two whose keys come twice."""
    made = project(folder / "many", base_url, COUNT, output={"order": "input"})
    made.give([*rows(COUNT), *rows(2)])
    return made


def serve(user: Project, port: int) -> Process:
    """The lease server of a project."""
    return user.start("leases", "job.toml", "--listen", f"127.0.0.1:{port}", env=TOKEN, as_a_user=True)


def address(server: Process) -> str:
    """Where it listens."""
    assert server.popen.stderr is not None
    line = server.popen.stderr.readline()
    assert "are served at http://127.0.0.1:" in line, line
    return line.split()[-1]
