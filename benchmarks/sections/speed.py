"""Throughput and CPU beside the other contenders, and how fast the command line is there."""

from __future__ import annotations

from statistics import median

from benchmarks.bench import CONCURRENCY, Bench, Rows
from benchmarks.process import Child, Cost
from benchmarks.rules import Rules
from benchmarks.tables import Row, Section, at_least, at_most

RECORDS = 20_000


def throughput(bench: Bench, full: bool) -> Section:
    """20,000 records at 200 in flight. The quick form runs gather once: it takes as long as all others together."""
    floors, gathers, ours = [], [], []
    for number in range(3):
        floors.append(_floor(bench))
        ours.append(_ours(bench))
        if full or number == 1:
            gathers.append(_gather(bench))
    wall = {name: median(cost.wall_s for cost in costs) for name, costs in _named(floors, gathers, ours)}
    cpu = {name: median(cost.cpu_s for cost in costs) for name, costs in _named(floors, gathers, ours)}
    contenders = [
        Row(name, f"{RECORDS / wall[name]:,.0f} records/s, {cpu[name] / RECORDS * 1000:.2f} ms CPU a record")
        for name in ("floor", "gather", "labelpipe")
    ]
    return Section(
        f"throughput: {RECORDS:,} records, {CONCURRENCY} in flight, 50 ms a call (whole processes; medians)",
        [
            at_least("records/s beside gather", wall["gather"] / wall["labelpipe"], 3.0, "{:.2f}x"),
            Row("records/s beside floor", f"{wall['floor'] / wall['labelpipe']:.2f}x"),
            at_most("CPU a record beside floor", cpu["labelpipe"] / cpu["floor"], 5.0, "{:.2f}x"),
            Row("CPU a record beside gather", f"{cpu['labelpipe'] / cpu['gather']:.2f}x"),
            *contenders,
        ],
        {"wall_s": wall, "cpu_s": cpu, "records": RECORDS},
    )


def _named(floors: list[Cost], gathers: list[Cost], ours: list[Cost]) -> list[tuple[str, list[Cost]]]:
    return [("floor", floors), ("gather", gathers), ("labelpipe", ours)]


def _floor(bench: Bench) -> Cost:
    lane = bench.lane("floor", Rules())
    cost = bench.contender("floor", lane.base_url, bench.input(RECORDS), str(CONCURRENCY))
    _check(lane.books()["answered_records"] == RECORDS, "floor left records out", cost)
    return cost


def _gather(bench: Bench) -> Cost:
    lane = bench.lane("gather", Rules())
    output = bench.folder / "gather.csv"
    output.unlink(missing_ok=True)
    return bench.contender("gather", lane.base_url, bench.input(RECORDS), str(CONCURRENCY), output)


def _ours(bench: Bench) -> Cost:
    job = bench.job("throughput", Rules(), RECORDS)
    cost = job.run(0)
    _check(job.rows(RECORDS) == Rows(RECORDS, 0, 0, 0), "labelpipe's rows are not right", cost)
    return cost


def _check(good: bool, told: str, cost: Cost) -> None:
    """A fast wrong answer is no result."""
    if not good:
        raise RuntimeError(f"{told}: {cost.said[-1000:]}")


def startup(bench: Bench, full: bool) -> Section:
    """`labelpipe --help` beside an import of its command-line library, by turns."""
    ours, theirs = [], []
    for _ in range(21 if full else 11):
        theirs.append(Child(["-c", "import typer"], bench.folder / "typer.log").wait())
        ours.append(Child(["-m", "pipeline", "--help"], bench.folder / "help.log").wait())
    ratio = median(cost.cpu_s for cost in ours) / median(cost.cpu_s for cost in theirs)
    return Section(
        "startup: labelpipe --help (CPU, medians)",
        [
            at_most("beside python -c 'import typer'", ratio, 1.3, "{:.2f}x"),
            Row("labelpipe --help", f"{median(cost.cpu_s for cost in ours) * 1000:.0f} ms"),
            Row("python -c 'import typer'", f"{median(cost.cpu_s for cost in theirs) * 1000:.0f} ms"),
        ],
        {"ratio": ratio},
    )
