"""What goes wrong on the way: an outage, faults, kills, the end of a quota."""

from __future__ import annotations

import random
import sqlite3
import time
from typing import Any

from benchmarks.bench import CONCURRENCY, Bench, Job
from benchmarks.rules import FAULTS, Rules
from benchmarks.sections.limits import rate_of
from benchmarks.tables import Row, Section, at_most, exactly

OUTAGE_S = 30.0
QUOTA = 1_000
KILLS = 3


def outage(bench: Bench, full: bool) -> Section:
    """30 s of 503 for all in mid-run."""
    records = 20_000
    job = bench.job("outage", Rules(outage_after=records // 3, outage_s=OUTAGE_S), records)
    cost = job.run()
    books, rows = job.lane.books(), job.rows(records)
    begin, end = books["outage"]
    after = [at for at, _, passed in books["bins"] if at >= end - 0.05 and passed]
    usual = rate_of(books, begin - 1.5, begin - 0.2)
    return Section(
        f"outage: {OUTAGE_S:.0f} s of 503 in the middle of {records:,} records",
        [
            exactly("lost", rows.lost, 0),
            at_most("end of the outage to the next call that passes", max(0.0, after[0] - end), 5.0, "{:.1f} s"),
            Row("end of the outage to 90 % of the rate before it", _told_back(books, end, usual)),
            Row("calls during the outage", f"{books['endings'].get('outage', 0):,}"),
            Row("exit code", str(cost.exit_code)),
        ],
        {
            "lost": rows.lost,
            "first_s": after[0] - end,
            "usual_per_s": usual,
        },
    )


def _told_back(books: dict[str, Any], end: float, usual: float) -> str:
    step_s = 0.5
    at = end
    while at + step_s <= books["last_at"]:
        if rate_of(books, at, at + step_s) >= 0.9 * usual:
            return f"{at + step_s - end:.1f} s"
        at += 0.1
    return "not before the end"


def faults(bench: Bench, full: bool) -> Section:
    """9 % of all calls fail, in eight ways."""
    records = 20_000 if full else 5_000
    job = bench.job("faults", Rules(faults=0.09), records, model={"timeout_s": 5})
    cost = job.run()
    books, rows = job.lane.books(), job.rows(records)
    failed = {name: books["endings"].get(name, 0) for name in FAULTS}
    return Section(
        f"faults: 9 % of calls fail ({', '.join(FAULTS)}), {records:,} records",
        [
            exactly("lost", rows.lost, 0),
            exactly("wrong", rows.wrong, 0),
            exactly("duplicates", rows.duplicates, 0),
            Row("failed calls", f"{sum(failed.values()):,} of {books['calls']:,}"),
            Row("exit code", str(cost.exit_code)),
        ],
        {"lost": rows.lost, "wrong": rows.wrong, "failed": failed, "exit_code": cost.exit_code},
    )


def kills(bench: Bench, full: bool) -> Section:
    """SIGKILL three times at random moments, then a run to the end."""
    records = 10_000
    job = bench.job("kills", Rules(), records)
    chance = random.Random(time.time_ns())
    asked_again = 0
    for number in range(KILLS):
        wanted = int(records * (number + chance.uniform(0.2, 1.0)) / (KILLS + 1))
        asked_again += _killed(job, wanted)
    cost = job.run()
    books, rows = job.lane.books(), job.rows(records)
    return Section(
        f"kills: SIGKILL {KILLS} times in {records:,} records",
        [
            exactly("lost", rows.lost, 0),
            exactly("duplicates", rows.duplicates, 0),
            exactly("asked again although in the ledger", asked_again, 0),
            at_most(f"paid twice (in flight at {KILLS} kills)", books["paid_twice"], KILLS * CONCURRENCY, "{:,.0f}"),
            Row("exit code", str(cost.exit_code)),
        ],
        {"lost": rows.lost, "duplicates": rows.duplicates, "paid_twice": books["paid_twice"], "again": asked_again},
    )


def _killed(job: Job, answers: int) -> int:
    """Run until so many answers were given, kill; gives how many calls were made for what the ledger held before."""
    before = _in_ledger(job)
    calls_before = job.lane.books(records=True).get("records", {}) if before else {}
    job.start().wait(until=lambda: job.lane.books()["answers"] >= answers)
    calls = job.lane.books(records=True)["records"]
    return sum(calls[number][0] - calls_before[number][0] for number in before)


def _in_ledger(job: Job) -> list[str]:
    """The numbers of the records that have an outcome, as the books name them."""
    path = job.folder / "ledger.db"
    if not path.exists():
        return []
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as ledger:
        keys = [str(key) for (key,) in ledger.execute("SELECT key FROM outcomes")]
    ledger.close()
    return [key[1:] for key in keys]


def quota(bench: Bench, full: bool) -> Section:
    """The quota ends after 1,000 answers."""
    job = bench.job("quota", Rules(quota_after=QUOTA), 20_000)
    cost = job.run()
    books, rows = job.lane.books(), job.rows(20_000)
    useless = books["endings"].get("quota", 0)
    return Section(
        f"quota: ends after {QUOTA:,} answers",
        [
            at_most("useless calls (what was in flight)", useless, CONCURRENCY, "{:,.0f}"),
            exactly("rows kept", rows.rows, QUOTA),
            exactly("exit code", cost.exit_code, 3),
            Row("the screen names the quota", "yes" if "quota" in cost.said else "no", "yes", "quota" in cost.said),
        ],
        {"useless": useless, "kept": rows.rows, "exit_code": cost.exit_code, "seconds": cost.wall_s},
    )
