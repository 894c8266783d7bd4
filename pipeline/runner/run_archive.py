"""Moves an old run aside, and never deletes it, because its answers were paid for."""

import asyncio
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from pipeline.errors import RunInUseError, SetupError
from pipeline.parts import sql_of
from pipeline.runner.corrections import count_corrections
from pipeline.settings import Settings
from pipeline.store import BatchBook, Ledger, RunDir, check_table, lock_shards, release_table
from pipeline.units import dollars


async def describe_existing_run(settings: Settings) -> str:
    """Describe the run in the output folder in a sentence or two; empty if there is none.

    Raises SetupError if a new run could not use its table in a database, before anything is moved.
    """
    run_dir = RunDir(Path(settings.output.dir))
    files = [file.name for file in run_dir.files() if not file.name.startswith("lock")]
    if not files:
        return ""
    records, cost_usd, batches = 0, 0.0, 0
    shards = run_dir.shards()
    try:
        for path in [run_dir.before_shards, *(one.ledger for one in shards)] if shards else [run_dir.ledger]:
            async with await Ledger.open(path, read_only=True) as ledger:
                records += sum((await ledger.count_by_status()).values())
                cost_usd += (await ledger.totals()).cost_usd
                batches += sum(part.is_open for part in await BatchBook(ledger).parts())
    except SetupError:
        return f"{run_dir.path} holds {', '.join(files)}, and no ledger that can be read."
    there = f"{run_dir.path} holds {records:,} records with an outcome ({dollars(cost_usd)})."
    if batches:
        there += f" {batches:,} of its batches are open and would be paid for in vain: labelpipe cancel {run_dir.path}."
    if people := await asyncio.to_thread(count_corrections, run_dir.path):
        there += f" People have corrected or confirmed {people:,} of them."
    options = sql_of(settings)
    if options is None or not await asyncio.to_thread(check_table, options, run_dir.ledger):
        return there
    return f"{there} The rows of its table {options.table} will be replaced."


def move_aside(settings: Settings) -> Path:
    """Move the run to a new folder, and return that. Raises RunInUseError while the run is in progress.

    Other files stay where they are. The new run takes over the run's table in a database.
    """
    folder, options = Path(settings.output.dir), sql_of(settings)
    run_dir = RunDir(folder if folder.name not in ("", "..") else folder.resolve())
    with run_dir.open_for_writing() as lock, lock_shards(run_dir.path) as are_idle:
        if not are_idle:
            raise RunInUseError(f"{run_dir.path}: its shards are running. End them first: labelpipe drain {folder}")
        # After a kill here, the old run takes the table back in its next session and rebuilds it.
        if options is not None and run_dir.ledger.exists():
            release_table(options, run_dir.ledger)
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        # The second one in a second gets a number.
        endings = chain([""], (f"-{number}" for number in count(2)))
        names = (run_dir.path.with_name(f"{run_dir.path.name}.{stamp}{ending}") for ending in endings)
        aside = next(name for name in names if not name.exists())
        try:
            lock.move([*run_dir.files(), *run_dir.path.glob("shards")], aside)
        except OSError as error:
            raise SetupError(
                f"{run_dir.path}: cannot be moved to {aside}: {error.strerror}. Choose another folder with --output."
            ) from error
    return aside
