"""Reads the status of a run: counts, costs, and how its last session ended."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from socket import gethostname
from typing import Any

from pipeline import codec
from pipeline.facts import BROKE_OFF, KILLED
from pipeline.limits import Price
from pipeline.records import Status
from pipeline.runner.costs import ledger_facts, left_facts
from pipeline.runner.session_view import read_live
from pipeline.runner.summary import measured_accuracy
from pipeline.store import BatchBook, Ledger, RunDir, Totals
from pipeline.targets import run_and_manifest

#: The facts of a session that has no ending to report.
_NO_ENDING: Mapping[str, Any] = {
    "ended": None, "left": None, "next_step": "", "last_alive_at": None, "live": None, "summary": None,
}  # fmt: skip
#: Counts that are added up over shards.
_COUNTS = ("labelled", "by_people", "rejected", "failed", "untold")
#: The facts that are shown of each shard.
_SHARD_FACTS = ("running", "labelled", "rejected", "failed", "cost_usd", "ended", "heard_s")
#: A shard that has reported to the lease server within this time is running.
REPORT_VALID_S = 15.0


async def status(folder: str | Path) -> dict[str, Any]:
    """Return the state of a run as plain values; `folder` may be its config. Raises SetupError if there is no run."""
    run_dir, manifest = run_and_manifest(folder)
    if not (shards := run_dir.shards()):
        return await _status(run_dir, manifest, run_dir.ledger)
    before = await _status(run_dir, manifest, run_dir.before_shards)
    reported_at = (read_live(RunDir(run_dir.path / "shards")) or {}).get("heard_at", {})
    facts = [await _status(one, one.read_manifest() or {}, one.ledger) for one in shards]
    return _with_shards(before, facts, reported_at, time.time())


async def _status(run_dir: RunDir, manifest: Mapping[str, Any], path: Path) -> dict[str, Any]:
    live = read_live(run_dir)
    # It is in live.json even after the session's end, or a kill.
    price = None if (live or {}).get("price") is None else Price(**(live or {})["price"])
    async with await Ledger.open(path, read_only=True) as ledger:
        facts, totals = await ledger_facts(ledger, price)
        by_people = await ledger.count_human_labels()
        labels = await ledger.label_counts(manifest.get("label_columns") or ())
        batches = [part.as_dict() for part in await BatchBook(ledger).parts() if not part.was_split]
    running = run_dir.is_running()
    done = facts["labelled"] + facts["rejected"] + facts["failed"]
    return {
        "run_dir": str(run_dir.path),
        "running": running,
        "simulated": bool(manifest.get("simulated")),
        **facts,
        "by_people": by_people,
        "labels": labels,
        "measured": measured_accuracy(run_dir),
        "tokens": {name: count for name, count in asdict(totals.usage).items() if name != "reasoning"},
        "batches": batches,
        **({**_NO_ENDING, "live": live} if running else _ending_of(run_dir, live, totals, done)),
    }


def _ending_of(run_dir: RunDir, live: Mapping[str, Any] | None, totals: Totals, done: int) -> dict[str, Any]:
    """Return how a session that is not running ended.

    `ended` is the summary's; "killed" if a note of its process is left, which only a kill or a power cut leaves behind;
    "broke off" if there is neither: an error, reported on the screen. `last_alive_at` is in seconds since 1970.
    """
    summary, owner = run_dir.read_summary(), _owner(run_dir)
    if owner is None and summary is not None:
        facts = {"ended": summary["ended"], "left": summary.get("left"), "next_step": summary["next_step"]}
        return {**_NO_ENDING, **facts, "summary": summary}
    began_at = _began_at(owner)
    if live is not None and live.get("written_at", 0.0) < began_at:
        live = None  # from an earlier session: this one was killed before it wrote its own
    go_on, total = (live or {}).get("go_on") or "the same command", (live or {}).get("total")
    is_exact = bool((live or {}).get("total_known"))
    return {
        **_NO_ENDING,
        "ended": BROKE_OFF if owner is None else KILLED,
        # By the session's last count of the input.
        "left": None if total is None else left_facts(round(total), done, totals, exact=is_exact),
        "next_step": f"to continue: {go_on}",
        "last_alive_at": began_at or None if live is None else live.get("written_at"),
        "live": live,
    }


def _owner(run_dir: RunDir) -> Mapping[str, Any] | None:
    """Return the note of the process that writes to the folder; None if there is none, {} if it cannot be read."""
    try:
        owner = codec.loads((run_dir.path / "lock.owner").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, codec.JSONDecodeError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _began_at(owner: Mapping[str, Any] | None) -> float:
    try:
        return datetime.fromisoformat(str((owner or {})["started_at"])).timestamp()
    except (KeyError, ValueError):
        return 0.0


# -- a run in shards as one --------------------------------------------------------------------------------------------


def _with_shards(
    before: Mapping[str, Any], shards: Sequence[Mapping[str, Any]], reported_at: Mapping[str, float], now: float
) -> dict[str, Any]:
    """Return the facts of the whole run, and those of each shard as `shards`. `before` is from before sharding.

    `reported_at` is when each unfinished shard last reported to the lease server, by its number.
    """
    shards = [_with_report(one, reported_at.get(str(int(Path(one["run_dir"]).name))), now) for one in shards]
    parts = [before, *shards]
    costs = [part["cost_usd"] for part in parts]
    running = any(one["running"] for one in shards)
    return {
        **before,
        # The ending of the session that split the records says nothing about the shards.
        **_NO_ENDING,
        "next_step": "" if running else before["next_step"],
        "running": running,
        "simulated": any(part["simulated"] for part in parts),
        **{name: sum(part[name] or 0 for part in parts) for name in _COUNTS},
        "problems": add_counts(part["problems"] for part in parts),
        "labels": _labels([part["labels"] for part in parts if part["labelled"]]),
        "tokens": add_counts(part["tokens"] for part in parts),
        "cost_usd": None if None in costs else sum(costs),
        "batches": [batch for part in parts for batch in part["batches"]],
        "shards": [
            {"shard": Path(one["run_dir"]).name, **{name: one[name] for name in _SHARD_FACTS}} for one in shards
        ],
    }


def _with_report(shard: Mapping[str, Any], reported_at: float | None, now: float) -> dict[str, Any]:
    """Return a shard's facts. If it is on another machine, only its reports to the lease server show if it runs."""
    # The note of another machine's process is in the folder, and was not removed.
    host = (_owner(RunDir(Path(shard["run_dir"]))) or {}).get("host", gethostname())
    if reported_at is None or host == gethostname():
        return {**shard, "heard_s": None}
    age_s = max(0.0, now - reported_at)
    running = age_s < REPORT_VALID_S
    return {**shard, "running": running, **({"ended": None} if running else {}), "heard_s": age_s}


def _labels(parts: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """Return how often each value was given, for columns that are counted in all parts with labels."""
    columns = dict.fromkeys(column for part in parts for column in part if all(column in one for one in parts))
    counts = {column: Counter(add_counts(part[column] for part in parts)) for column in columns}
    return {column: dict(one.most_common()) for column, one in counts.items()}


async def count_outcomes(ledgers: Iterable[Path]) -> Counter[Status]:
    """Return how many outcomes these ledgers contain, if they exist."""
    counts: Counter[Status] = Counter()
    for path in filter(Path.exists, ledgers):
        async with await Ledger.open(path, read_only=True) as ledger:
            counts.update(await ledger.count_by_status())
    return counts


def add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums by name."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)
