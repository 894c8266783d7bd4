"""A run in shards beside one process: under one limit, and without any."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, Job
from benchmarks.rules import Limit, Rules
from benchmarks.sections.limits import PER_MINUTE
from benchmarks.tables import Row, Section, at_least, at_most, exactly

SHARDS = 4
#: How long the limited runs last, and how many records the others have: quick form and full form.
SECONDS, SECONDS_FULL = 60, 180
RECORDS, RECORDS_FULL = 8_000, 100_000


def scale(bench: Bench, full: bool) -> Section:
    """One process and four shards, under 6,000 requests a minute and without a limit. One after the other."""
    limited = int(PER_MINUTE / 60 * (SECONDS_FULL if full else SECONDS))
    free = RECORDS_FULL if full else RECORDS
    rows, figures = list[Row](), dict[str, Any]()
    for shards in (None, SHARDS):
        name = f"{shards} shards" if shards else "one process"
        rules = Rules(limit=Limit("bucket", PER_MINUTE, 1))
        job = bench.job(f"limited-{shards or 1}", rules, limited, limits={"requests_per_minute": PER_MINUTE},
                        shards=shards)  # fmt: skip
        share, refused = _used(job, limited)
        rows += [
            at_least(f"{name}: share of the limit that is used", share, 0.97, "{:.3f}"),
            at_most(f"{name}: refused", refused, 1.0, "{:.2f} % of calls"),
        ]
        job = bench.job(f"free-{shards or 1}", Rules(), free, shards=shards)
        figures[name] = {"share": share, "refused": refused, "per_s": _rate(job, free)}
        rows += [exactly(f"{name}: lost", job.rows(free).lost, 0)]
    beside = figures[f"{SHARDS} shards"]["per_s"] / figures["one process"]["per_s"]
    rows += [Row(f"{SHARDS} shards: records/s beside one process, without a limit", f"{beside:.2f}x")]
    return Section(f"scale: one process and {SHARDS} shards, 6,000 requests a minute and no limit", rows, figures)


def _used(job: Job, records: int) -> tuple[float, float]:
    """The share of the limit that passed from the first call to the last, and the refused calls in percent."""
    rate = _rate(job, records)
    books = job.lane.books()
    return rate / (PER_MINUTE / 60), 100 * books["endings"].get("limited", 0) / books["calls"]


def _rate(job: Job, records: int) -> float:
    """Records a second from the first call to the last: starting four processes is another matter."""
    job.run(0)
    books = job.lane.books()
    return (records - 1) / float(books["last_at"] - books["first_at"])
