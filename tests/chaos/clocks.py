"""Real commands under a clock that the test moves."""

from __future__ import annotations

import subprocess
import sys

import moved
from end_to_end.stage import Process, Project, environment


def start_moved(user: Project, *args: str) -> Process:
    """Give a project's command under the clock of the file `clock` in its folder."""
    popen = subprocess.Popen(
        [sys.executable, moved.__file__, "clock", *args],
        cwd=user.folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    return Process(args, popen)
