"""Shards placed by Ray: an actor for each, which starts it as a process on its node."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import MissingExtraError, SetupError
from pipeline.leases import PARENT_ENV, TOKEN_ENV
from pipeline.runlog import tell
from pipeline.shards.processes import Running, Shard, Start

#: What Ray takes of the memory for objects, in a cluster of this machine's own: exit codes need the least it can have.
OBJECT_BYTES = 80_000_000
#: An actor that has not taken a signal by then has no place yet.
SIGNAL_S = 5.0


@asynccontextmanager
async def in_ray(shards: int) -> AsyncIterator[tuple[str, Start]]:
    """Connected while the block lasts; gives where the lease server is to listen, and what starts a shard.

    The cluster is the one that RAY_ADDRESS names, or one of this machine's own. Raises MissingExtraError, and
    SetupError where there is none.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError('scale.engine = "ray"', "ray") from error
    is_ours = not ray.is_initialized()
    # In a thread: in the main one Ray would put its own handler of SIGTERM in place of ours.
    host = await asyncio.to_thread(_connect, ray, shards)
    try:
        with redirect_stdout(sys.stderr):  # Ray prints what it complains of, and stdout is the summary's
            yield host, partial(_start, ray)
    finally:
        if is_ours:
            await asyncio.to_thread(ray.shutdown)


def _connect(ray: Any, shards: int) -> str:
    address = os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own = {"num_cpus": shards, "include_dashboard": False, "object_store_memory": OBJECT_BYTES}
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:  # Ray raises a plain one where its start takes too long
            raise SetupError(f"There is no connection to Ray at RAY_ADDRESS = {address}: {error}") from error
    return "127.0.0.1" if own else str(ray.util.get_node_ip_address())


async def _start(ray: Any, shard: Shard, arguments: Sequence[str], env: Mapping[str, str]) -> Running:
    # Two at once: a signal comes while the shard is at work. Ray restarts nothing: `Processes` does, in a new actor.
    actor = ray.remote(num_cpus=1, max_restarts=0, max_concurrency=2)(_Node).remote()
    return _Placed(ray, actor, shard, actor.run.remote(shard.folder.absolute(), Path.cwd(), arguments, dict(env)))


class _Node:
    """The actor, on the shard's node."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, folder: Path, cwd: Path, arguments: Sequence[str], env: Mapping[str, str]) -> int:
        """The shard from its start to its exit code."""
        # Ray blocks SIGINT in its processes, and those that they start inherit that.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        # What the node has of its own, such as PATH and a key, is better there.
        env = {**env, **os.environ, TOKEN_ENV: env[TOKEN_ENV], PARENT_ENV: str(os.getpid())}
        with Shard(0, folder).log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                [sys.executable, *arguments], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        return self._process.wait()

    def send(self, number: int) -> bool:
        """Send the shard a signal; whether it is there."""
        if self._process is None:
            return False
        self._process.send_signal(number)
        return True


class _Placed:
    """A shard as its driver sees it."""

    def __init__(self, ray: Any, actor: Any, shard: Shard, code: Any) -> None:
        self._ray, self._actor, self._shard, self._code = ray, actor, shard, code
        self._signals: set[asyncio.Task[None]] = set()
        # All state that changes.
        self.returncode: int | None = None

    async def wait(self) -> int:
        """The exit code. Raises SetupError where the node cannot start it."""
        errors = self._ray.exceptions
        try:
            self.returncode = int(await self._code)
        except errors.RayActorError as error:
            if getattr(error, "actor_init_failed", False):
                raise self._cannot(error) from error
            tell("an actor was lost", shard=self._shard.number, reason=str(error)[:300])
            self.returncode = -signal.SIGKILL
        except errors.RayError as error:
            raise self._cannot(error) from error
        finally:  # one that cannot be reached may still be at work
            self._ray.kill(self._actor)
        return self.returncode

    def _cannot(self, error: Exception) -> SetupError:
        return SetupError(
            f"Ray cannot start shard {self._shard.number}: {error}\nThe nodes need labelpipe, and the folders of the "
            "config, the input and the run under the same names."
        )

    def send_signal(self, number: int) -> None:
        """Send it a signal. One that has not begun is taken away."""
        if number == signal.SIGKILL:
            self._ray.kill(self._actor)
            return
        task = asyncio.create_task(self._send(number))
        self._signals.add(task)
        task.add_done_callback(self._signals.discard)

    async def _send(self, number: int) -> None:
        sent = self._actor.send.remote(int(number))
        try:
            async with asyncio.timeout(SIGNAL_S):
                is_there = await sent
        except (TimeoutError, self._ray.exceptions.RayError):
            is_there = False
        if not is_there:
            self._ray.kill(self._actor)
