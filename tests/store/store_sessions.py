"""Sessions of a run, for the tests of its files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store_samples import labelled, read_csv, unlabelled

from pipeline.records import Outcome
from pipeline.store import Layout, Ledger, RunDir, Sinks

LAYOUT = Layout(labels=("label",))


async def session(
    path: Path,
    *batches: Sequence[Outcome],
    layout: Layout = LAYOUT,
    finish: bool = True,
    before: Any = None,
) -> None:
    """A session of a run: each batch into the ledger and the files, as the engine's writer does it."""
    async with await Ledger.open(path / "ledger.db") as ledger:
        if before is not None:
            await before(ledger)
        files = await Sinks.start(RunDir(path), ledger, layout)
        for batch in batches:
            await files.write(batch, await ledger.commit(batch, files.checkpoints()))
        if finish:
            await files.finish()
        await files.close()


def run(path: Path, *batches: Sequence[Outcome], **more: Any) -> None:
    asyncio.run(session(path, *batches, **more))


def labels(path: Path, column: str = "id") -> list[str]:
    return [row[column] for row in read_csv(path / "labels.csv")]


OUTCOMES = [unlabelled(number) if number % 4 == 1 else labelled(number, "a\n,b") for number in range(14)]
BATCHES = [OUTCOMES[:3], OUTCOMES[3:4], OUTCOMES[4:9], OUTCOMES[9:]]
