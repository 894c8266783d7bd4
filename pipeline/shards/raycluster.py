"""Runs shards in a Ray cluster: each has an actor, which starts it as a process on its node."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import MissingExtraError, SetupError
from pipeline.leases import PARENT_ENV, TOKEN_ENV
from pipeline.parts import portable_files
from pipeline.readers import is_url
from pipeline.runlog import log_event
from pipeline.settings import Settings
from pipeline.shards.plan import FOLDER
from pipeline.shards.processes import Running, Shard, Start
from pipeline.store import RunDir, write_whole

#: The size of Ray's object store in a local cluster: the minimum, because only exit codes are stored.
OBJECT_BYTES = 80_000_000
#: An actor that does not take a signal within this many seconds has not been placed yet.
SIGNAL_S = 5.0
#: Files of a shard on another disk that are copied here, to show it and to send it orders, and seconds between copies.
_STATUS_FILES, LOOK_S = ("live.json", "summary.json", "manifest.json"), 1.0
_ORDERS = "control.jsonl"


@asynccontextmanager
async def in_ray(settings: Settings, shards: int) -> AsyncIterator[tuple[str, Start]]:
    """Stay connected while the block lasts. Yields the host for the lease server, and the function that starts a shard.

    The cluster is the one in RAY_ADDRESS, or a local one. If the nodes share no disk with this machine, small files are
    sent to them and their status files are copied back. Raises MissingExtraError, and SetupError without a cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError('scale.engine = "ray"', "ray") from error
    is_ours = not ray.is_initialized()
    is_apart = is_url(settings.scale.folder or "")
    with TemporaryDirectory(prefix="labelpipe-") as luggage:
        if is_apart:
            _pack(portable_files(settings).files, Path(luggage))
        # In a thread, because in the main one Ray would replace our handler of SIGTERM.
        host = await asyncio.to_thread(_connect, ray, shards, luggage if is_apart else "")
    # Ray prints warnings, even while it shuts down, and stdout is reserved for the summary.
    with redirect_stdout(sys.stderr):
        try:
            yield host, partial(_start, ray, f"labelpipe-{secrets.token_hex(8)}" if is_apart else "")
        finally:
            if is_ours:
                await asyncio.to_thread(ray.shutdown)


def _pack(files: Mapping[str, Path], luggage: Path) -> None:
    for name, path in files.items():
        (luggage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, luggage / name)


def _connect(ray: Any, shards: int, luggage: str) -> str:
    address = os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    sent = {"runtime_env": {"working_dir": luggage}} if luggage else {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own = {"num_cpus": shards, "include_dashboard": False, "object_store_memory": OBJECT_BYTES}
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own, **sent)
        except Exception as error:  # Ray raises a plain Exception if its start takes too long
            raise SetupError(f"There is no connection to Ray at RAY_ADDRESS = {address}: {error}") from error
    return "127.0.0.1" if own else str(ray.util.get_node_ip_address())


async def _start(ray: Any, place: str, shard: Shard, arguments: Sequence[str], env: Mapping[str, str]) -> Running:
    # Three at once: signals and status exchanges arrive while the shard runs. `Processes` restarts it, in a new actor.
    actor = ray.remote(num_cpus=1, max_restarts=0, max_concurrency=3)(_ShardActor).remote()
    # A job that was submitted with a working_dir has its files there on each node.
    cwd = None if place or ray.get_runtime_context().runtime_env.get("working_dir") else Path.cwd()
    folder = shard.folder.absolute()
    return _RayProcess(
        ray, actor, shard, actor.run.remote(place, folder, cwd, arguments, dict(env)), is_apart=bool(place)
    )


class _ShardActor:
    """The actor on the shard's node."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, place: str, folder: Path, cwd: Path | None, arguments: Sequence[str], env: Mapping[str, str]) -> int:
        """Run the shard and return its exit code. `place` names a run folder in the node's temporary folder."""
        if place:
            run = Path(tempfile.gettempdir()) / place
            folder, arguments = run / FOLDER / folder.name, [*arguments, "--output", str(run)]
            run.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        # Ray blocks SIGINT in its processes, and their children inherit that.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        # The node's own variables, such as PATH and a key, take precedence.
        env = {**env, **os.environ, TOKEN_ENV: env[TOKEN_ENV], PARENT_ENV: str(os.getpid())}
        with Shard(0, folder).log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                [sys.executable, *arguments], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        return self._process.wait()

    def exchange(self, is_over: bool, orders: bytes) -> dict[str, bytes]:
        """Take orders for the shard and return its status files. If it is over, remove its folder."""
        files = dict[str, bytes]()
        if self._folder is None:
            return files
        for name in _STATUS_FILES:
            with suppress(OSError):
                files[name] = (self._folder / name).read_bytes()
        if orders and RunDir(self._folder).ledger.exists():  # before that, it takes no orders and no foreign file
            with (self._folder / _ORDERS).open("ab") as file:
                file.write(orders)
            files[_ORDERS] = b""
        files[""] = Shard(0, self._folder).output_tail().encode()
        if is_over:
            for path in self._folder.parent.glob(f"{self._folder.name}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return files

    def send(self, number: int) -> bool:
        """Send a signal to the shard. Returns whether it is running."""
        if self._process is None:
            return False
        self._process.send_signal(number)
        return True


class _RayProcess:
    """The process of a shard, for the driver. If it is on another disk, its status files are copied here."""

    def __init__(self, ray: Any, actor: Any, shard: Shard, code: Any, *, is_apart: bool) -> None:
        self._ray, self._actor, self._shard, self._code, self._is_apart = ray, actor, shard, code, is_apart
        self._signals: set[asyncio.Task[None]] = set()
        # Mutable state: the exit code, and how much of the orders was passed on. Earlier orders are not for it.
        self.returncode: int | None = None
        self._passed = len(self._ordered())

    async def wait(self) -> int:
        """Return its exit code. Raises SetupError if the node cannot start it."""
        errors = self._ray.exceptions
        watch = asyncio.create_task(self._watch(), name=f"look at shard {self._shard.number}")
        try:
            code = int(await self._code)
            if self._is_apart:
                await self._exchange(is_over=code >= 0)
            self.returncode = code
        except errors.RayActorError as error:
            if getattr(error, "actor_init_failed", False):
                raise self._start_error(error) from error
            log_event("an actor was lost", shard=self._shard.number, reason=str(error)[:300])
            self.returncode = -signal.SIGKILL
        except errors.RayError as error:
            raise self._start_error(error) from error
        finally:  # an actor that cannot be reached may still be running
            watch.cancel()
            self._ray.kill(self._actor)
        return self.returncode

    async def _watch(self) -> None:
        while self._is_apart:
            await asyncio.sleep(LOOK_S)
            with suppress(self._ray.exceptions.RayError):
                await self._exchange(is_over=False)

    async def _exchange(self, *, is_over: bool) -> None:
        orders = self._ordered()[self._passed :]
        files = await self._actor.exchange.remote(is_over, orders)
        self._passed += len(orders) if _ORDERS in files else 0
        self._shard.folder.mkdir(mode=0o700, exist_ok=True)
        self._shard.log.write_bytes(files.pop("", b""))
        for name in _STATUS_FILES:
            if name in files:
                write_whole(self._shard.folder / name, files[name])
            else:
                (self._shard.folder / name).unlink(missing_ok=True)

    def _ordered(self) -> bytes:
        try:
            return (self._shard.folder / _ORDERS).read_bytes()
        except OSError:
            return b""

    def _start_error(self, error: Exception) -> SetupError:
        return SetupError(
            f"Ray cannot start shard {self._shard.number}: {error}\nThe nodes need labelpipe, and what labelpipe check "
            "says of Ray."
        )

    def send_signal(self, number: int) -> None:
        """Send it a signal. If it has not started yet, kill its actor."""
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
