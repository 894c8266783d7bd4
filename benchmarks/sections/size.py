"""What must not grow with the file: memory, and the wait before a resumed run's first call."""

from __future__ import annotations

from benchmarks.bench import Bench, Job
from benchmarks.rules import Rules
from benchmarks.tables import Row, Section, at_most, exactly

TARGET_MB = 150.0
#: "The same at both": what an allocator needs to differ by is allowed.
SAME_MB = 15.0
DONE, NEW = 200_000, 2_000


def memory(bench: Bench, full: bool) -> Section:
    """Peak resident memory of a short and of a long run."""
    sizes = (5_000, 500_000 if full else 50_000)
    peaks = {records: _peak_mb(bench, records) for records in sizes}
    grown_mb = peaks[sizes[1]] - peaks[sizes[0]]
    return Section(
        "memory: peak resident set",
        [
            *(at_most(f"{records:,} records", peak, TARGET_MB, "{:.0f} MB") for records, peak in peaks.items()),
            at_most("grown between them", grown_mb, SAME_MB, "{:.0f} MB"),
        ],
        {str(records): peak for records, peak in peaks.items()},
    )


def _peak_mb(bench: Bench, records: int) -> float:
    return bench.job(f"memory-{records}", Rules(), records).run(0).peak_mb


def resume(bench: Bench, full: bool) -> Section:
    """A run of 200,000 records done is given 2,000 new ones at the end of its file."""
    job = bench.job("resume", Rules(), DONE + NEW)
    filled = bench.contender("fill", job.config, str(DONE))
    first_s, session_s, calls = _resumed(job)
    rows = job.rows(DONE + NEW)
    return Section(
        f"resume: {DONE:,} records done, {NEW:,} new at the end of the file",
        [
            at_most("process start to first new call", first_s, 10.0, "{:.1f} s"),
            Row("the whole resumed session", f"{session_s:.1f} s"),
            exactly("calls", calls, NEW),
            exactly("lost", rows.lost, 0),
            Row("for scale: the filling run, without a network", f"{DONE / filled.wall_s:,.0f} records/s"),
        ],
        {"first_call_s": first_s, "session_s": session_s, "fill_s": filled.wall_s, "fill_cpu_s": filled.cpu_s},
    )


def _resumed(job: Job) -> tuple[float, float, int]:
    cost = job.run(0)
    books = job.lane.books()
    return books["first_at"] - cost.began_at, cost.wall_s, books["calls"]
