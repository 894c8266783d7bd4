"""Starts the shards of a run as processes, watches them, restarts those that were killed, and ends them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.errors import RunInUseError
from pipeline.leases import PARENT_ENV, TOKEN_ENV
from pipeline.runlog import log_event
from pipeline.settings import Settings
from pipeline.shards.plan import FOLDER, shard_folder
from pipeline.store import RunDir

#: Seconds until a shard that was killed is restarted.
AGAIN_S = 0.5
#: Seconds until a shard whose folder is in use fails and reports which process has it, and between its checks.
FREE_S, FREE_LOOK_S = 120.0, 0.1
#: How much of a failed shard's output is shown.
TAIL_BYTES = 600


class Running(Protocol):
    """The process of a shard, on this or another machine."""

    @property
    def returncode(self) -> int | None:
        """Its exit code after it has ended."""

    async def wait(self) -> int:
        """Return its exit code, which is negative if it was killed or its node was lost."""

    def send_signal(self, number: int) -> None:
        """Send it a signal."""


@dataclass(slots=True)
class Shard:
    """One process. `code` is its exit code after it has ended. All fields are mutable."""

    number: int
    folder: Path
    code: int | None = None
    process: Running | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.folder.with_name(f"{self.folder.name}.out")

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal, if there is one."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def output_tail(self) -> str:
        """Return the end of its output."""
        try:
            return self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""


#: Starts a shard with these Python arguments and environment variables.
Start = Callable[[Shard, Sequence[str], Mapping[str, str]], Awaitable[Running]]


async def start_here(shard: Shard, arguments: Sequence[str], env: Mapping[str, str]) -> Running:
    """Start a shard on this machine. It ends with this process, and Ctrl-C in the terminal does not reach it."""
    with shard.log.open("ab") as out:
        return await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
            env={**env, PARENT_ENV: str(os.getpid())}, start_new_session=True,
        )  # fmt: skip


async def until_free(folder: Path) -> None:
    """Wait until no process holds the folder of a shard, or until it is unlikely to become free.

    A shard whose parent was killed finishes its calls in flight. Its successor starts at once and waits for it.
    """
    end = time.monotonic() + FREE_S
    while os.environ.get(PARENT_ENV) and time.monotonic() < end:
        try:
            RunDir(folder).open_for_writing().close()
        except RunInUseError:
            await asyncio.sleep(FREE_LOOK_S)
        else:
            return


class Processes:
    """The processes of all shards."""

    def __init__(
        self, settings: Settings, shards: int, url: str, token: str, extra: Sequence[str], start: Start = start_here
    ) -> None:
        run = Path(settings.output.dir)
        words, _ = settings.overrides()
        config, here = Path(settings.config_path or ""), Path.cwd()
        # A relative path is also right on a machine that has a copy of the current folder.
        config = config.relative_to(here) if config.is_relative_to(here) else config
        self._command = ["-m", "pipeline", "run", str(config)]
        self._command += [part for word in words for part in ("--set", word)]
        self._extra = ["--leases", url, "--token-env", TOKEN_ENV, "--json", *extra]
        self._env = {**os.environ, TOKEN_ENV: token}
        self._start = start
        self._of = shards
        self.shards = [Shard(number, shard_folder(run / FOLDER, number, shards)) for number in range(1, shards + 1)]
        # Mutable state, in addition to the shards:
        self._is_ending = False

    async def run(self) -> None:
        """Wait until each shard has ended by itself. Restart those that were killed."""
        try:
            async with asyncio.TaskGroup() as group:
                for shard in self.shards:
                    group.create_task(self._keep(shard), name=f"shard {shard.number}")
        finally:
            self.send(signal.SIGKILL)

    async def _keep(self, shard: Shard) -> None:
        while True:
            arguments = [*self._command, "--shard", f"{shard.number}/{self._of}", *self._extra]
            shard.process = await self._start(shard, arguments, self._env)
            if self._is_ending:  # `end` was called while it was starting
                shard.send(signal.SIGINT)
            code = await shard.process.wait()
            shard.process = None
            log_event("a shard ended", shard=shard.number, exit_code=code)
            if code >= 0 or self._is_ending:
                shard.code = code
                if code == 2:  # what keeps one shard from starting affects all of them
                    self.end()
                return
            await asyncio.sleep(AGAIN_S)

    def end(self) -> None:
        """Let the calls in flight finish, then end. A second call cuts them off."""
        self._is_ending = True
        log_event("the shards are told to end")
        self.send(signal.SIGINT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all running shards."""
        for shard in self.shards:
            shard.send(number)
