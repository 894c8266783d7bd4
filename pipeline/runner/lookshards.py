"""A run in shards as one: sums of what its shards say, and of what was done before there were any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.records import Status
from pipeline.results import Report
from pipeline.store import Ledger, RunDir

_COUNTS = ("labelled", "by_people", "rejected", "failed", "untold")
#: What is said of each shard.
_OF_A_SHARD = ("running", "labelled", "rejected", "failed", "cost_usd", "ended")


async def counted_in(ledgers: Iterable[Path]) -> Counter[Status]:
    """How many outcomes these ledgers hold, those that are there."""
    found: Counter[Status] = Counter()
    for path in filter(Path.exists, ledgers):
        async with await Ledger.open(path, read_only=True) as ledger:
            found.update(await ledger.count_by_status())
    return found


def with_shards(before: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of the whole run, and under `shards` those of each. `before` are those of what was done before."""
    parts = [before, *shards]
    labels: dict[str, Counter[str]] = {}
    for part in parts:
        for column, counts in part["labels"].items():
            labels.setdefault(column, Counter()).update(counts)
    costs = [part["cost_usd"] for part in parts]
    running = any(one["running"] for one in shards)
    # How the session ended that dealt the records out says nothing of those that are at work.
    ending = {"ended": None, "next_step": "", "last_alive_at": None, "summary": None} if running else {}
    return {
        **before,
        **ending,
        "left": None,
        "running": running,
        **{name: sum(part[name] or 0 for part in parts) for name in _COUNTS},
        "problems": _added(part["problems"] for part in parts),
        "labels": {column: dict(counts.most_common()) for column, counts in labels.items()},
        "tokens": _added(part["tokens"] for part in parts),
        "cost_usd": None if None in costs else sum(costs),
        "batches": [batch for part in parts for batch in part["batches"]],
        "live": None,
        "shards": [{"shard": Path(one["run_dir"]).name, **{name: one[name] for name in _OF_A_SHARD}} for one in shards],
    }


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in counts:
        found.update(one)
    return dict(found)


def together(run_dir: RunDir, reports: Mapping[str, Report], before: int) -> Report:
    """One report on all shards: each check with the name of its shard, and the sums of what was counted.

    `before` is how many outcomes there were before there were shards: no shard asks for those.
    """
    checks = [replace(check, name=f"{shard} {check.name}") for shard, one in reports.items() for check in one.checks]
    counts = _added(one.counts for one in reports.values())
    if "pending" in counts:
        counts["pending"] -= before
    return Report(run_dir.path, tuple(checks), counts)
