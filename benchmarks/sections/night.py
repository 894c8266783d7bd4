"""What a run meets while nobody looks: stragglers, the end of the money, an edited config, silent calls."""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from benchmarks.bench import Bench, Job
from benchmarks.process import Cost
from benchmarks.rules import Rules
from benchmarks.sections.limits import joined, rate_of, side_by_side
from benchmarks.tables import Row, Section, at_least, at_most, exactly

SLOW, SLOW_FACTOR, SLOW_LATENCY_S, SLOW_CONCURRENCY = 0.1, 20.0, 0.1, 64
BUDGET_RUNS = 100
HUNG, HUNG_TIMEOUT_S, HUNG_ATTEMPTS, HUNG_CONCURRENCY = 200, 4.0, 2, 256
#: Seconds that a run with hanging records may take beyond their timeouts: start-up, backoff, writing.
FEW_S = 5.0


def stragglers(bench: Bench, full: bool) -> Section:
    """10 % of calls take 20 times as long."""
    records = 20_000 if full else 8_000
    cases: dict[str, dict[str, float | str]] = {
        "64 in flight": {},
        "and hedge_after_p = 95": {"hedge_after_p": 95},
        'concurrency = "auto", 64 at most': {"concurrency": "auto", "concurrency_max": SLOW_CONCURRENCY},
    }
    rules = Rules(latency_s=SLOW_LATENCY_S, slow=SLOW, slow_factor=SLOW_FACTOR)
    bench.input(records)

    def run(name: str, limits: dict[str, float | str]) -> Section:
        number = list(cases).index(name)
        job = bench.job(f"stragglers-{number}", rules, records, limits={"concurrency": SLOW_CONCURRENCY, **limits})
        return _packed(job, job.run(0), records)

    title = f"stragglers: {records:,} records, 10 % of calls take 20 times as long"
    return joined(title, side_by_side(cases, run))


def _packed(job: Job, cost: Cost, records: int) -> Section:
    """Perfect packing: all places busy with the same calls until the end."""
    books = job.lane.books()
    packed_s = books["work_s"] / SLOW_CONCURRENCY
    calls_s = books["ended_at"] - books["first_at"]
    lost = job.rows(records).lost
    return Section(
        "",
        [
            at_most("first call to last answer, beside perfect packing", calls_s / packed_s, 1.3, "{:.2f}x"),
            at_most("the whole process", cost.wall_s / packed_s, 1.3, "{:.2f}x"),
            *([exactly("lost", lost, 0)] if lost else []),
        ],
        {"packed_s": packed_s, "calls_s": calls_s, "wall_s": cost.wall_s, "calls": books["calls"]},
    )


def budget(bench: Bench, full: bool) -> Section:
    """100 runs in this process; the cap falls somewhere in mid-run. The endpoint counts what it billed, hangs too."""
    seeds = range(BUDGET_RUNS)
    shares = asyncio.run(_spent(bench, seeds))
    worst = max(range(len(shares)), key=shares.__getitem__)
    passed = sum(share > 1 for share in shares)
    return Section(
        f"budget: {BUDGET_RUNS} runs, each with another cap, faults in half of them",
        [
            exactly("runs that passed the cap, by the endpoint's books", passed, 0),
            Row("the most that was used", f"{shares[worst]:.4f} of the cap"),
            at_least("used where nothing was lost, the least", min(shares[0::2]), 0.95, "{:.4f} of the cap"),
            Row("used in spite of faults, the least", f"{min(shares[1::2]):.4f} of the cap"),
        ],
        {"shares": shares},
    )


async def _spent(bench: Bench, seeds: range) -> list[float]:
    """The share of each run's cap that the endpoint billed."""
    from pipeline import RunOptions, Settings, arun

    found = []
    for seed in seeds:
        cap = 60_000 + 509 * seed
        rules = Rules(latency_s=0.01, usage_varies=True, faults=0.05 * (seed % 2), seed=seed)
        job = bench.job("budget", rules, 5_000, model={"timeout_s": 0.5 if seed % 2 else 10,
                               "parameters": {"max_completion_tokens": 60}},
                        limits={"budget_tokens": cap, "concurrency": 1 + seed * 7 % 64})  # fmt: skip
        summary = await arun(Settings.load(str(job.config)), RunOptions(quiet=True))
        if summary.exit_code != 3:
            raise RuntimeError(f"budget run {seed} ended with {summary.exit_code}")
        found.append(job.lane.books()["billed_tokens"] / cap)
    return found


def edit(bench: Bench, full: bool) -> Section:
    """The config file is edited in mid-run; what the endpoint sees of it."""
    cases: dict[str, Callable[[], Section]] = {
        "concurrency": lambda: _edited_concurrency(bench),
        "requests_per_minute": lambda: _edited_rate(bench),
    }
    return joined("edit: seconds until an edit of the config takes hold", side_by_side(cases, lambda _, run: run()))


def _edited_concurrency(bench: Bench) -> Section:
    steps = (8, 64, 16, 100)
    job = bench.job("edit-concurrency", Rules(latency_s=0.25), 100_000, limits={"concurrency": steps[0]})
    bench.input(100_000)
    edits = _edits(job, [{"concurrency": count} for count in steps[1:]])
    levels = job.lane.books()["levels"]
    rows = [
        _within(f"{old} to {new}", _held_since(levels, at, lambda count, n=new: 0.9 * n <= count <= n))
        for (old, new), at in zip(pairwise(steps), edits, strict=True)
    ]
    return Section("", rows, {"levels": levels, "edits": edits})


def _edited_rate(bench: Bench) -> Section:
    steps = (600, 3_000, 1_200, 4_800)
    job = bench.job("edit-rate", Rules(latency_s=0.1), 100_000, limits={"requests_per_minute": steps[0]})
    bench.input(100_000)
    edits = _edits(job, [{"requests_per_minute": rate} for rate in steps[1:]])
    books = job.lane.books()
    begin = [at + tenth / 10 for at in edits for tenth in range(40)]
    rates = [(at, rate_of(books, at, at + 1.0) * 60) for at in begin]
    rows = [
        _within(f"{old:,} to {new:,} a minute",
                _held_since([r for r in rates if r[0] < at + 4], at, lambda rate, n=new: abs(rate / n - 1) < 0.1))
        for (old, new), at in zip(pairwise(steps), edits, strict=True)
    ]  # fmt: skip
    return Section("", rows, {"rates": rates, "edits": edits})


def _edits(job: Job, changes: list[dict[str, float | str]]) -> list[float]:
    """Make the edits one by one in a run; gives when each was made. The run is killed 5.5 s after the last."""
    made: list[float] = []

    def over() -> bool:
        first_at, now = job.lane.books()["first_at"], time.monotonic()
        if first_at is None or now < (made[-1] if made else first_at - 1.5) + 5.5:
            return False
        if len(made) == len(changes):
            return True
        job.write(**changes[len(made)])
        made.append(now)
        return False

    job.until(over, look_s=0.1)
    return made


def _held_since(seen: list[Any], edited_at: float, good: Callable[[float], bool]) -> float | None:
    """Seconds from an edit until what was seen is good three times in a row; None: never."""
    after = [(at, value) for at, value in seen if at >= edited_at]
    for start in range(len(after) - 2):
        if all(good(value) for _, value in after[start : start + 3]):
            return float(after[start][0] - edited_at)
    return None


def _within(name: str, seconds: float | None) -> Row:
    return at_most(name, float("inf") if seconds is None else seconds, 2.0, "{:.1f} s")


def hanging(bench: Bench, full: bool) -> Section:
    """200 records that are never answered, wherever they stand in the file."""
    records = 1_000
    layouts = {
        "spread": (0, records, records // HUNG),
        "the first": (0, HUNG, 1),
        "the last": (records - HUNG, records, 1),
        "all there are": (0, HUNG, 1),
    }

    def run(name: str, hangs: tuple[int, int, int]) -> Section:
        return _hung(bench, name.replace(" ", "-"), hangs, HUNG if name == "all there are" else records)

    title = f"hanging: {HUNG} of {records:,} records are never answered, timeout_s = {HUNG_TIMEOUT_S:g}, "
    bench.input(records)
    return joined(f"{title}max_attempts = {HUNG_ATTEMPTS}", side_by_side(layouts, run))


def _hung(bench: Bench, name: str, hangs: tuple[int, int, int], records: int) -> Section:
    job = bench.job(f"hanging-{name}", Rules(latency_s=0.1, hangs=hangs), records,
                    limits={"concurrency": HUNG_CONCURRENCY, "max_attempts": HUNG_ATTEMPTS},
                    model={"timeout_s": HUNG_TIMEOUT_S})  # fmt: skip
    cost = job.run()
    with (job.folder / "failed.csv").open(newline="", encoding="utf-8-sig") as file:
        named = {int(row["id"][1:]) for row in csv.DictReader(file)}
    books = job.lane.books()
    last_s = books["ended_at"] - books["first_at"]
    wall_s = cost.wall_s
    return Section(
        "",
        [
            at_most("the whole run", wall_s, HUNG_TIMEOUT_S * HUNG_ATTEMPTS + FEW_S, "{:.1f} s"),
            exactly("named in failed.csv", len(named & set(range(*hangs))), HUNG),
            exactly("labelled", job.rows(records).rows, records - HUNG),
            exactly("exit code", cost.exit_code, 1),
        ],
        {"wall_s": wall_s, "last_call_s": last_s, "calls": books["calls"], "named": len(named)},
    )
