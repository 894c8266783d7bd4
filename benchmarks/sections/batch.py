"""Records through batches: their memory, and their CPU beside live calls, at the endpoint of `labelpipe rehearse`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.bench import Bench
from benchmarks.process import ROOT, Cost
from benchmarks.rules import Rules
from benchmarks.tables import Row, Section, at_most, exactly

TARGET_MB = 200.0
#: What an allocator needs to differ by between the sizes, and the names of the parts of a long run.
SAME_MB = 30.0
#: Live calls are made for so many records: they cost the same for each.
LIVE = 20_000


def batch(bench: Bench, full: bool) -> Section:
    """A short and a long run through batches, and a live one."""
    sizes = (100_000, 1_000_000) if full else (5_000, 50_000)
    live = _run(bench, LIVE, "live")
    costs = {records: _run(bench, records, "batch") for records in sizes}
    cpu_ms = {records: cost.cpu_s / records * 1000 for records, cost in costs.items()}
    live_ms = live.cpu_s / LIVE * 1000
    rows = [
        *(
            at_most(f"{records:,} records: peak resident set", cost.peak_mb, TARGET_MB, "{:.0f} MB")
            for records, cost in costs.items()
        ),
        at_most("grown between them", costs[sizes[1]].peak_mb - costs[sizes[0]].peak_mb, SAME_MB, "{:.0f} MB"),
        at_most("CPU a record, beside live calls", cpu_ms[sizes[1]] / live_ms, 1.0, "{:.2f}x"),
        Row("CPU a record, live", f"{live_ms:.3f} ms"),
        *(Row(f"CPU a record, {records:,} in batches", f"{took:.3f} ms") for records, took in cpu_ms.items()),
        *(exactly(f"{records:,} records: rows", _rows(bench, f"batch-{records}"), records) for records in sizes),
    ]
    figures = {str(records): {"peak_mb": cost.peak_mb, "cpu_s": cost.cpu_s} for records, cost in costs.items()}
    return Section("batch: records through batches", rows, {**figures, "live_cpu_s": live.cpu_s})


def _run(bench: Bench, records: int, lane: str) -> Cost:
    """A run at an endpoint of its own; its books end with it."""
    with _endpoint() as url:
        model = {"base_url": url, "lane": lane, "parameters": {"max_completion_tokens": 16}}
        job = bench.job(f"{lane}-{records}", Rules(), records, model=model, batch={"poll_s": 0.5})
        return job.run(0)


def _rows(bench: Bench, name: str) -> int:
    with (bench.folder / f"run-{name}" / "labels.csv").open("rb") as file:
        return sum(1 for _ in file) - 1


@contextmanager
def _endpoint() -> Iterator[str]:
    words = ["-m", "pipeline", "rehearse", "--port", "0", "--latency-ms", "0", "--batch-s", "0"]
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found is not None
        try:
            yield found.group()
        finally:
            process.send_signal(signal.SIGINT)
