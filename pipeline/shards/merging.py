"""Merges the ledgers of shards into one, and makes one set of files from it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pipeline.errors import LabelpipeError, SetupError
from pipeline.runner import RunOptions, arun
from pipeline.settings import Settings
from pipeline.shards.plan import BASE, FOLDER, ShardPlan, read_plan, shard_folder
from pipeline.shards.snapshots import SnapshotStore, restore
from pipeline.stats import Merged
from pipeline.store import RunDir, clear_merged, count_batches_left, join_ledgers, lock_shards


class MergedError(LabelpipeError):
    """The shards were merged and records are left. The same command resumes the run."""

    code = "merged"


async def merge(settings: Settings) -> Merged:
    """Merge the shards of a run. While some are running, merge what they have so far. Raises SetupError.

    It can be repeated, and killed at any time: shards are removed only after the run's own ledger has their outcomes.
    """
    run = Path(settings.output.dir)
    plan, left = read_plan(run), sorted(RunDir(run).merged.glob("*"))
    if plan is None and not RunDir(run).ledger.exists():
        raise SetupError(f"{run}: there is no run with shards to merge")
    merged = None if plan is None else await asyncio.to_thread(join, run, plan, ends=True)
    # A session that asks nothing writes the files. It first removes what a killed merge left.
    summary = await arun(settings, RunOptions(stop_first=MergedError(), quiet=True))
    outcomes = summary.labelled + summary.rejected + summary.failed
    return merged or Merged(str(run), sum(one.name.isdigit() for one in left), outcomes, complete=True)


def join(run: Path, plan: ShardPlan, *, ends: bool = False) -> Merged:
    """Merge the ledgers of the shards into one. If none is running, remove the shards. None can start meanwhile.

    Shards with batches at the API stay, and the same command collects these. With `ends`, the run takes the batches
    over.
    """
    with RunDir(run).open_for_writing():
        with lock_shards(run) as is_free:
            is_free_everywhere = _fetch(run, plan) and is_free
            shards = RunDir(run).shards()
            base = run / FOLDER / BASE
            parts = [*([base] if base.exists() else []), *(one.ledger for one in shards)]
            if any((one.read_manifest() or {}).get("simulated") for one in shards):
                RunDir(run).note_simulated()
            goes = is_free_everywhere and (ends or not count_batches_left(one.ledger for one in shards))
            outcomes = join_ledgers(RunDir(run).ledger, parts, plan.run_id, goes_on=not goes)
        if goes:
            if plan.address:
                SnapshotStore(plan.address, plan.dealing).clear()
            # Rename the folder before removing it, so that what a kill leaves is not taken for shards.
            clear_merged(RunDir(run))
            (run / FOLDER).rename(RunDir(run).merged)
            clear_merged(RunDir(run))
        return Merged(str(run), len(shards), outcomes, complete=goes)


def _fetch(run: Path, plan: ShardPlan) -> bool:
    """Fetch the last snapshot of each shard, if they are saved at an address. Returns whether no process is left."""
    if not plan.address:
        return True
    snapshots, over = SnapshotStore(plan.address, plan.dealing), True
    for number in range(1, plan.shards + 1):
        folder = shard_folder(run / FOLDER, number, plan.shards)
        snapshot = snapshots.last(folder.name)
        # If the shard ran on this disk, its lock shows whether it is running.
        is_own = not restore(snapshots, folder, plan.dealing) and RunDir(folder).ledger.exists()
        over = over and (snapshot is None or snapshot.is_over or is_own)
    return over
