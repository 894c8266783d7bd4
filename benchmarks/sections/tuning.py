"""What is found without being told: the server's rate, the calls in flight that serve best, other users of the key."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.bench import Bench, Job, Lane
from benchmarks.process import Child
from benchmarks.rules import Limit, Rules
from benchmarks.sections.limits import joined, rate_of, side_by_side, slug
from benchmarks.tables import Row, Section, at_least, at_most

PER_MINUTE = 3_000
PER_S = PER_MINUTE / 60
#: What labelpipe's own default is: nobody has said anything.
DEFAULT_CONCURRENCY = 64
#: Seconds until a rate has to be found.
FOUND_S = 20.0
KNEE = 64


def _after(job: Job, seconds: float) -> dict[str, Any]:
    """The books after so long from the first call; the run is killed."""

    def over() -> bool:
        first_at = job.lane.books()["first_at"]
        return first_at is not None and time.monotonic() - first_at >= seconds

    return job.until(over, look_s=0.5)


def learned(bench: Bench, full: bool) -> Section:
    """No limits in the config, 3,000 a minute on the server. Buckets that could hold a minute start nearly empty."""
    seconds = 180.0 if full else 80.0
    cases = {
        "bucket of 60 s, x-ratelimit, ms": Limit("bucket", PER_MINUTE, 60, 0.1, headers=True, retry_after="ms"),
        "bucket of 60 s, x-ratelimit, s": Limit("bucket", PER_MINUTE, 60, 0.1, headers=True),
        "bucket of 1 s, x-ratelimit, ms": Limit("bucket", PER_MINUTE, 1, headers=True, retry_after="ms"),
        "bucket of 60 s, ms": Limit("bucket", PER_MINUTE, 60, 0.1, retry_after="ms"),
        "bucket of 1 s, s": Limit("bucket", PER_MINUTE, 1),
        "bucket of 1 s, no word": Limit("bucket", PER_MINUTE, 1, retry_after="none"),
    }
    bench.input(_records(seconds))

    def run(name: str, limit: Limit) -> Section:
        job = bench.job(f"learned-{slug(name)}", Rules(limit=limit, latency_s=0.2), _records(seconds),
                        limits={"concurrency": DEFAULT_CONCURRENCY})  # fmt: skip
        return _found(_after(job, seconds), seconds)

    title = f"learned: no limits in the config, the server gives {PER_MINUTE:,} a minute"
    return joined(title, side_by_side(cases, run))


def _records(seconds: float) -> int:
    return int(PER_S * seconds * 1.5) + PER_MINUTE


def _found(books: dict[str, Any], seconds: float) -> Section:
    begin = books["first_at"]
    share = rate_of(books, begin + FOUND_S, begin + seconds) / PER_S
    refused = books["endings"].get("limited", 0)
    return Section(
        "",
        [
            at_least("share used after 20 s", share, 0.95, "{:.3f}"),
            at_most("refusals", 100 * refused / books["calls"], 2.0, "{:.1f} % of calls"),
        ],
        {"share": share, "refused": refused, "calls": books["calls"]},
    )


def auto(bench: Bench, full: bool) -> Section:
    """`concurrency = "auto"` beside fixed ones, on servers that get slower beyond 64 in flight in three ways."""
    seconds, fixed = (180.0, (32, 48, 64, 96, 128, 192, 256)) if full else (60.0, (48, 64, 96, 256))
    kinds = {
        "served 64 at once": "queue",
        "latency doubled at 128 in flight, again at 192": "doubling",
        "latency twice as long from 65 on": "step",
    }

    def run(name: str, kind: str) -> Section:
        rules = Rules(latency_s=0.2, knee=KNEE, knee_kind=kind)
        best = max((_throughput(bench, rules, f"fixed-{kind}", count, 8.0, 2.0), count) for count in fixed)
        job = bench.job(f"auto-{kind}", rules, 100_000, limits={"concurrency": "auto", "concurrency_max": max(fixed)})
        return _settled(_after(job, seconds), seconds, *best)

    bench.input(100_000)
    return joined('auto: concurrency = "auto" beside the best fixed one', side_by_side(kinds, run))


def _throughput(bench: Bench, rules: Rules, name: str, concurrency: int, seconds: float, since_s: float) -> float:
    job = bench.job(f"{name}-{concurrency}", rules, 100_000, limits={"concurrency": concurrency})
    books = _after(job, seconds)
    return rate_of(books, books["first_at"] + since_s, books["first_at"] + seconds)


def _settled(books: dict[str, Any], seconds: float, best: float, concurrency: int) -> Section:
    begin, half = books["first_at"], seconds / 2
    share = rate_of(books, begin + half, begin + seconds) / best
    levels = [count for at, count in books["levels"] if at >= begin + half]
    slices = [rate_of(books, begin + half + 3 * at, begin + half + 3 * at + 3) / best for at in range(int(half / 3))]
    return Section(
        "",
        [
            at_least(f"throughput beside the best fixed one ({concurrency})", share, 0.75, "{:.2f}x"),
            at_least("the worst 3 s of the second half", min(slices), 0.6, "{:.2f}x"),
            Row("in flight in the second half: 5, 50, 95 %", " · ".join(str(_at(levels, p)) for p in (5, 50, 95))),
        ],
        {"share": share, "slices": slices, "best": best, "best_fixed": concurrency, "levels": levels},
    )


def _at(values: Sequence[int], percent: int) -> int:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


@dataclass(frozen=True, slots=True)
class Company:
    """When another client comes and goes, in seconds from the first call, and how long it all lasts."""

    comes_s: float
    goes_s: float
    ends_s: float


def shared(bench: Bench, full: bool) -> Section:
    """Another client uses half of the limit for a while. The bucket is not full, so that it ends within that while."""
    when = Company(20, 200, 320) if full else Company(10, 85, 115)
    cases = {
        "bucket of 60 s, x-ratelimit": Limit("bucket", PER_MINUTE, 60, 0.05, headers=True),
        "window of 60 s, x-ratelimit": Limit("window", PER_MINUTE, 60, headers=True),
        "bucket of 60 s, only 429s": Limit("bucket", PER_MINUTE, 60, 0.05, retry_after="ms"),
    }
    bench.input(_records(when.ends_s))

    def run(name: str, limit: Limit) -> Section:
        job = bench.job(f"shared-{slug(name)}", Rules(limit=limit, latency_s=0.2), _records(when.ends_s),
                        limits={"concurrency": DEFAULT_CONCURRENCY, "requests_per_minute": PER_MINUTE})  # fmt: skip
        other = bench.lane(f"other-{slug(name)}", Rules(limit=limit, shares=f"shared-{slug(name)}", latency_s=0.2))
        return _beside(bench, job, other, when, limit)

    return joined("shared: another client uses half of the limit for a while", side_by_side(cases, run))


def _beside(bench: Bench, job: Job, other: Lane, when: Company, limit: Limit) -> Section:
    mine = job.start()
    while (begin := job.lane.books()["first_at"]) is None:
        time.sleep(0.1)
    time.sleep(max(0.0, begin + when.comes_s - time.monotonic()))
    visitor = Child(["-m", "benchmarks.contenders.steady", other.base_url, str(PER_MINUTE / 2),
                     str(when.goes_s - when.comes_s)], bench.folder / f"{job.log.stem}-other.log")  # fmt: skip
    visitor.wait()
    left_at = time.monotonic()
    mine.wait(until=lambda: time.monotonic() >= begin + when.ends_s, look_s=0.5)
    ours, theirs = job.lane.books(), other.books()
    together_s = (left_at - 60.0, left_at)
    total = (rate_of(ours, *together_s) + rate_of(theirs, *together_s)) / PER_S
    back = rate_of(ours, left_at + 5, begin + when.ends_s) / PER_S
    refused = ours["endings"].get("limited", 0), theirs["endings"].get("limited", 0)
    calls = ours["calls"], theirs["calls"]
    told = "taken back by ours from 5 s after"
    rows = [
        at_least("of the limit used by both, last 60 s together", total, 0.90, "{:.3f}"),
        at_least(told, back, 0.90, "{:.3f}"),
        at_most("refused of ours", 100 * refused[0] / calls[0], 2.0, "{:.1f} % of calls"),
        at_most("refused of the other's", 100 * refused[1] / calls[1], 5.0, "{:.1f} % of calls"),
    ]
    return Section(
        "",
        # A window counts a burst, and what the other has used, for another minute: shown without a target.
        rows if limit.headers and limit.kind == "bucket" else [Row(row.name, row.measured) for row in rows],
        {"total": total, "back": back, "refused": refused, "calls": calls},
    )
