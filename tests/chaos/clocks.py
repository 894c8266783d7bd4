"""Real commands under a clock that the test moves."""

from __future__ import annotations

import subprocess

from end_to_end.forked import Fork
from end_to_end.stage import Process, Project, environment


def start_moved(user: Project, *args: str) -> Process:
    """Give a project's command under the clock of the file `clock` in its folder."""
    return Process(args, Fork(args, user.folder, environment(), subprocess.DEVNULL, user.folder / "clock"))
