"""Starting over: the old run is moved aside, never deleted. Its answers were paid for."""

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
    """A sentence or two about the run in the output folder; empty if there is none.

    Raises SetupError where a new run would be refused its table in a database: now nothing has been moved.
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
    """Move the run to a folder of its own, whose name it gives. Raises RunInUseError while a run is at work in it.

    Other files stay where they are. The run's table in a database is left to the run that comes.
    """
    folder, options = Path(settings.output.dir), sql_of(settings)
    run_dir = RunDir(folder if folder.name not in ("", "..") else folder.resolve())
    with run_dir.open_for_writing() as lock, lock_shards(run_dir.path) as are_idle:
        if not are_idle:
            raise RunInUseError(f"{run_dir.path}: its shards are running. End them first: labelpipe drain {folder}")
        # If it ends here, the old run takes the table back at its next session, and makes it anew.
        if options is not None and run_dir.ledger.exists():
            release_table(options, run_dir.ledger)
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        # Two in one second: the later one gets a number.
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
