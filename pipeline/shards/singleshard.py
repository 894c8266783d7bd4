"""Labels one shard: its run folder, its snapshots at an address, and its session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from pipeline.errors import LabelpipeError
from pipeline.leases import LeaseClient
from pipeline.readers import is_url
from pipeline.runlog import log_event
from pipeline.runner import RunOptions, arun
from pipeline.settings import Settings
from pipeline.shards.plan import BASE, FOLDER, shard_folder, shard_overrides, shared_folder
from pipeline.shards.processes import until_free
from pipeline.shards.snapshots import FencedError, SnapshotStore, SnapshotSync, fetch_base
from pipeline.stats import RunSummary
from pipeline.store import RunDir
from pipeline.threads import in_daemon

#: Seconds until a failed save is retried, growing up to the second number, and the tries of the last save.
RETRY_S, RETRY_MOST_S, LAST_TRIES = 1.0, 30.0, 5


async def label_shard(
    load: Callable[[list[str], str], Settings],
    run: Path,
    shard: tuple[int, int],
    lease: LeaseClient,
    options: Callable[[Path], RunOptions],
    echo: Callable[[str], None],
) -> RunSummary:
    """Label one shard of the run in this folder. Raises SetupError, and FencedError if another process now owns it.

    `load` returns the shard's settings, given overrides and its folder. `options` returns the options of its session,
    given the ledger from before there were shards.
    """
    shards = run / FOLDER
    settings = load([], str(shard_folder(shards, *shard)))
    words, scale = shard_overrides(settings, *shard), settings.scale
    if scale.folder is not None and is_url(scale.folder):
        session = _synced(scale.folder, scale.sync_s, run, shard, lease, echo)
        async with session as (folder, base):
            return await arun(load(words, str(folder)), options(base))
    if scale.folder is not None:
        shards = shared_folder(scale.folder, (await lease.job(take_over=False)).dealing)
    folder = shard_folder(shards, *shard)
    await until_free(folder)
    return await arun(load(words, str(folder)), options(shards / BASE))


@asynccontextmanager
async def _synced(
    address: str, sync_s: float, run: Path, shard: tuple[int, int], lease: LeaseClient, echo: Callable[[str], None]
) -> AsyncIterator[tuple[Path, Path]]:
    """Save snapshots while the block lasts. Yields the folder, and the ledger from before there were shards."""
    folder = shard_folder(run / FOLDER, *shard)
    await until_free(folder)
    # Lock first: a second process on this machine must not take the shard over from the first.
    with RunDir(folder).open_for_writing():
        job = await lease.job(take_over=True)
        snapshots = await in_daemon(partial(SnapshotStore, address, job.dealing))
        synced = SnapshotSync(snapshots, folder, job.dealing, job.fence)
        fetched = await in_daemon(partial(synced.resume, job.spent))
        base = await in_daemon(partial(fetch_base, snapshots, folder.with_name(f"{folder.name}.base"), job.dealing))
    echo(
        f"labelpipe: shard {folder.name}{' goes on from its last sync and' if fetched else ''} is synced to {address}. "
        f"If its machine is lost, at most the answers of {sync_s:g} s are asked and paid for again"
    )
    task = asyncio.create_task(save_for_ever(synced, sync_s, lease), name="sync")
    try:
        yield folder, base
    finally:
        task.cancel()
        await asyncio.wait({task})
        await _save_last(synced)


async def save_for_ever(synced: SnapshotSync, sync_s: float, lease: LeaseClient) -> None:
    """Save a snapshot every `sync_s` seconds. If that fails, the shard stops sending, so that no more can be lost."""
    wait_s, retry_s = sync_s, RETRY_S
    while True:
        await asyncio.sleep(wait_s)
        try:
            await in_daemon(synced.save)
        except FencedError as error:
            lease.end(error)
            return
        except LabelpipeError as error:
            log_event("the shard's state cannot be saved; it waits", level=logging.WARNING, reason=str(error))
            lease.hold(True)
            wait_s, retry_s = retry_s, min(2 * retry_s, RETRY_MOST_S)
        else:
            lease.hold(False)
            wait_s, retry_s = sync_s, RETRY_S


async def _save_last(synced: SnapshotSync) -> None:
    """Save the last snapshot. Raises FencedError, and StoreError if it cannot be saved."""
    for attempt in range(LAST_TRIES):
        try:
            await in_daemon(partial(synced.save, is_over=True))
        except FencedError:
            raise
        except LabelpipeError:
            if attempt == LAST_TRIES - 1:
                raise
            await asyncio.sleep(RETRY_S * 2**attempt)
        else:
            return
