"""A run in shards as one: sums of what its shards say, and of what was done before there were any."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from socket import gethostname
from typing import Any

from pipeline import codec
from pipeline.records import Status
from pipeline.results import Report
from pipeline.store import Ledger, RunDir

_COUNTS = ("labelled", "by_people", "rejected", "failed", "untold")
#: What is said of each shard.
_OF_A_SHARD = ("running", "labelled", "rejected", "failed", "cost_usd", "ended", "heard_s")
#: A shard that the lease server has heard of so lately is at work.
FRESH_S = 15.0


def _as_heard(shard: Mapping[str, Any], heard_at: float | None, now: float) -> dict[str, Any]:
    """The facts of a shard. Of one that another machine has, only what the lease server has heard tells if it runs."""
    if heard_at is None or not _is_elsewhere(Path(shard["run_dir"])):
        return {**shard, "heard_s": None}
    running = now - heard_at < FRESH_S
    return {**shard, "running": running, **({"ended": None} if running else {}), "heard_s": max(0.0, now - heard_at)}


def _is_elsewhere(folder: Path) -> bool:
    """Whether another machine has put its name to the folder, and has not taken it away."""
    try:
        owner = codec.loads((folder / "lock.owner").read_bytes())
        return bool(owner.get("host", gethostname()) != gethostname())
    except (OSError, ValueError, AttributeError):
        return False


async def count_outcomes(ledgers: Iterable[Path]) -> Counter[Status]:
    """How many outcomes these ledgers hold, those that are there."""
    found: Counter[Status] = Counter()
    for path in filter(Path.exists, ledgers):
        async with await Ledger.open(path, read_only=True) as ledger:
            found.update(await ledger.count_by_status())
    return found


def with_shards(
    before: Mapping[str, Any], shards: Sequence[Mapping[str, Any]], heard: Mapping[str, float], now: float
) -> dict[str, Any]:
    """The facts of the whole run, and under `shards` those of each. `before` are those of what was done before.

    `heard` is when the lease server was told something by a shard that has not ended, by its number.
    """
    shards = [_as_heard(one, heard.get(str(int(Path(one["run_dir"]).name))), now) for one in shards]
    parts = [before, *shards]
    costs = [part["cost_usd"] for part in parts]
    running = any(one["running"] for one in shards)
    # How the session ended that dealt the records out says nothing of the shards.
    ending = {"ended": None, "last_alive_at": None, "summary": None, **({"next_step": ""} if running else {})}
    return {
        **before,
        **ending,
        "left": None,
        "running": running,
        "simulated": any(part["simulated"] for part in parts),
        **{name: sum(part[name] or 0 for part in parts) for name in _COUNTS},
        "problems": _added(part["problems"] for part in parts),
        "labels": _labels([part["labels"] for part in parts if part["labelled"]]),
        "tokens": _added(part["tokens"] for part in parts),
        "cost_usd": None if None in costs else sum(costs),
        "batches": [batch for part in parts for batch in part["batches"]],
        "live": None,
        "shards": [{"shard": Path(one["run_dir"]).name, **{name: one[name] for name in _OF_A_SHARD}} for one in shards],
    }


def _labels(parts: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """How often each value was given, of columns that are counted in all parts that have labels."""
    found = {column: Counter(_added(part.get(column, {}) for part in parts)) for part in parts for column in part}
    return {
        column: dict(counts.most_common()) for column, counts in found.items() if all(column in part for part in parts)
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
