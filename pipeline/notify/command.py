"""Runs the user's command. It may contain a token, so it is never shown."""

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from pipeline.errors import ConfigError


def argv_of(command: str | None) -> list[str] | None:
    """Split the command into words, as there is no shell. Raises ConfigError."""
    if command is None:
        return None
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"notify.command cannot be split into words: {error}") from None
    if not argv or "\0" in command:
        raise ConfigError("notify.command names no program; there is no shell, so give a program and its arguments")
    return argv


def execute(argv: Sequence[str], env: Mapping[str, str], stdin: bytes, timeout_s: float) -> int | None:
    """Return the exit code (negative: a signal's number); None if the command had to be killed. Blocks."""
    quiet = subprocess.DEVNULL  # its output would break the progress line, and may contain secrets
    # Its own session: a kill includes its child processes, and Ctrl-C for the run does not reach it.
    with subprocess.Popen(  # noqa: S603 - the user's own words, and no shell
        argv, env=env, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
    ) as process:  # fmt: skip
        try:
            process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            return None
        return process.returncode


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:  # pragma: no cover - Windows has no groups of this kind
            process.kill()
