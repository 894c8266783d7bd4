"""Starting over: the old run is moved aside, never deleted. Its answers were paid for."""

from __future__ import annotations

from datetime import datetime
from itertools import chain, count
from pathlib import Path

from pipeline.settings import Settings
from pipeline.store import Ledger, RunDir


async def what_is_there(settings: Settings) -> str:
    """A sentence about the run in the output folder; empty if there is none."""
    run_dir = RunDir(Path(settings.output.dir))
    if not run_dir.ledger.exists():
        return ""
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        counts = await ledger.count_by_status()
        totals = await ledger.totals()
    return f"{run_dir.path} holds {sum(counts.values()):,} records with an outcome (${totals.cost_usd:,.4f})."


def move_aside(settings: Settings) -> Path:
    """Rename the run folder; gives its new name. Raises RunInUseError while a run is at work in it."""
    folder = Path(settings.output.dir)
    RunDir(folder).open_for_writing().close()
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    # Two in one second: the later one gets a number.
    endings = chain([""], (f"-{number}" for number in count(2)))
    names = (folder.with_name(f"{folder.name}.{stamp}{ending}") for ending in endings)
    return folder.rename(next(name for name in names if not name.exists()))
