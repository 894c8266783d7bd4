"""Runs through the batch lane of a rehearsal endpoint, and what its books say of them."""

from __future__ import annotations

import asyncio
import csv
import functools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline import RunOptions, RunSummary
from pipeline.rehearsal import Rehearsal
from pipeline.runner import arun
from pipeline.settings import Settings

LABELS = ["positive", "negative", "neutral"]
#: Small parts, looked at often, so that a test has many of both.
BATCH = {"poll_s": 0.02, "first_part": 5, "part_records": 20}


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test, run in an event loop of its own."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        asyncio.run(test(**given))

    return run


def write_input(folder: Path, texts: Iterable[str]) -> Path:
    """A file with these texts, which are named 0, 1, and so on."""
    path = folder / "in.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "text"])
        out.writerows(enumerate(texts))
    return path


def settings_for(folder: Path, base_url: str, **more: Mapping[str, Any]) -> Settings:
    """A run in the batch lane; `more` are further keys of the tables."""
    model = {"name": "gpt-6-luna", "base_url": base_url, "lane": "batch", "parameters": {"max_completion_tokens": 16}}
    tables: dict[str, Any] = {
        "input": {"path": str(folder / "in.csv"), "key": "id"},
        "task": {"labels": {"sentiment": LABELS}, "prompt": "{{ text }}"},
        "output": {"dir": str(folder / "run"), "report": False},
        "batch": BATCH,
        "model": model,
    }
    for name, table in more.items():
        tables[name] = {**tables.get(name, {}), **table}
    return Settings(**tables)


async def label(settings: Settings, batches: str = "wait", **options: Any) -> RunSummary:
    """One session."""
    from pipeline.batches import BatchMode

    return await arun(settings, RunOptions(quiet=True, batches=BatchMode(batches), **options))


def rows_in(folder: Path) -> dict[str, str]:
    """The labels by id; each id once."""
    with (folder / "run" / "labels.csv").open(newline="") as file:
        rows = [(row["id"], row["sentiment"]) for row in csv.DictReader(file)]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def answered_twice(endpoint: Rehearsal) -> list[str]:
    """The records that the endpoint has answered well more than once."""
    return [entry.name for entry in endpoint.books if entry.answered > 1]


def states(folder: Path) -> Counter[str]:
    """How many parts are in which state."""
    import sqlite3

    with sqlite3.connect(folder / "run" / "ledger.db") as ledger:
        return Counter(dict(ledger.execute("SELECT state, COUNT(*) FROM batches GROUP BY state")))
