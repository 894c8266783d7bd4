"""How much of an allowed rate is used, and what a promise that is too high costs. Cases run side by side: they idle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from benchmarks.bench import Bench, Job
from benchmarks.process import Cost
from benchmarks.rules import Limit, Rules
from benchmarks.tables import Row, Section, at_least, at_most, exactly

_T = TypeVar("_T")
PER_MINUTE = 6_000
GIVEN = PER_MINUTE / 2
#: How long a promise is measured once the first content is gone: quick form and full form.
MEASURED_S, MEASURED_FULL_S = 45.0, 120.0


def side_by_side(cases: Mapping[str, _T], run: Callable[[str, _T], Section]) -> dict[str, Section]:
    """Each case's section, all run at once."""
    with ThreadPoolExecutor(len(cases)) as pool:
        found = {name: pool.submit(run, name, case) for name, case in cases.items()}
        return {name: future.result() for name, future in found.items()}


def joined(title: str, sections: Mapping[str, Section]) -> Section:
    """One section of many; each row names its case."""
    rows = [Row(f"{name}: {row.name}", row.measured, row.target, row.passed) for name, section in sections.items()
            for row in section.rows]  # fmt: skip
    return Section(title, rows, {name: section.figures for name, section in sections.items()})


def utilisation(bench: Bench, full: bool) -> Section:
    """6,000 requests a minute in the config, on servers that enforce just that."""
    seconds = 180 if full else 60
    cases = {
        "bucket of 60 s": Limit("bucket", PER_MINUTE, 60),
        "bucket of 1 s": Limit("bucket", PER_MINUTE, 1),
        "window of 60 s": Limit("window", PER_MINUTE, 60),
        "window of 1 s": Limit("window", PER_MINUTE, 1),
    }

    def run(name: str, limit: Limit) -> Section:
        job = bench.job(f"use-{slug(name)}", Rules(limit=limit), int(PER_MINUTE / 60 * seconds),
                        limits={"requests_per_minute": PER_MINUTE})  # fmt: skip
        return _used(job, job.run(0), strict=_is_strict(limit))

    bench.input(int(PER_MINUTE / 60 * seconds))
    return joined(f"utilisation: 6,000 requests a minute, kept for {seconds} s", side_by_side(cases, run))


def _is_strict(limit: Limit) -> bool:
    """A second counted to the call, without any give: jitter on the way alone is refused. Shown without a target."""
    return limit.kind == "window" and limit.span_s <= 1


def _judged(rows: Sequence[Row], *, strict: bool) -> list[Row]:
    return [Row(row.name, row.measured) for row in rows] if strict else list(rows)


def _used(job: Job, cost: Cost, *, strict: bool) -> Section:
    books = job.lane.books()
    allowed = PER_MINUTE / 60
    share = (books["calls"] - 1) / (books["last_at"] - books["first_at"]) / allowed
    since_start = books["calls"] / (books["last_at"] - cost.began_at) / allowed
    refused = books["endings"].get("limited", 0)
    return Section(
        "",
        _judged(
            [
                at_least("share used, first to last call", share, 0.97, "{:.3f}"),
                Row("share used, from process start", f"{since_start:.3f}"),
                exactly("429s", refused, 0),
            ],
            strict=strict,
        ),
        {"share": share, "since_start": since_start, "refused": refused, "cpu_s": cost.cpu_s},
    )


@dataclass(frozen=True, slots=True)
class Promise:
    """What the server really gives, and how long a run must be to see it."""

    limit: Limit
    first_s: float


def promises(bench: Bench, full: bool) -> Section:
    """6,000 a minute in the config, 3,000 on the server. The quick form starts with a bucket that is not full."""
    filled, window_s = (1.0, 60.0) if full else (0.15, 10.0)
    measured_s = MEASURED_FULL_S if full else MEASURED_S
    # At twice the rate a bucket is emptied in as many seconds as its content is worth.
    big = Promise(Limit("bucket", GIVEN, 60, filled), 60 * filled)
    cases = {
        "bucket of 60 s": big,
        "bucket of 60 s, x-ratelimit": Promise(Limit("bucket", GIVEN, 60, filled, headers=True), 60 * filled),
        "bucket of 1 s": Promise(Limit("bucket", GIVEN, 1), 1),
        "bucket of 1 s, retry-after-ms": Promise(Limit("bucket", GIVEN, 1, retry_after="ms"), 1),
        "bucket of 1 s, x-ratelimit": Promise(Limit("bucket", GIVEN, 1, headers=True), 1),
        f"window of {window_s:.0f} s": Promise(Limit("window", GIVEN, window_s), window_s),
        "window of 1 s": Promise(Limit("window", GIVEN, 1), 1),
        "bucket of 1 s, no hints": Promise(Limit("bucket", GIVEN, 1, retry_after="none"), 1),
    }
    records = {name: int(GIVEN / 60 * (2 * case.first_s + measured_s)) for name, case in cases.items()}
    for count in records.values():
        bench.input(count)  # before the threads begin: it is written once

    def run(name: str, case: Promise) -> Section:
        job = bench.job(f"promise-{slug(name)}", Rules(limit=case.limit), records[name],
                        limits={"requests_per_minute": PER_MINUTE})  # fmt: skip
        job.run(0)
        return _kept(job, case, records[name])

    return joined("promises: the config says 6,000 a minute, the server gives 3,000", side_by_side(cases, run))


def _kept(job: Job, case: Promise, records: int) -> Section:
    books = job.lane.books()
    spent_at = books["spent_at"] or books["first_at"] + case.first_s
    if case.limit.kind == "window":  # its first content is gone when the log has moved on once
        spent_at = max(spent_at, books["first_at"] + case.limit.span_s)
    passed = [(at, count) for at, _, count in books["bins"] if at > spent_at]
    share = sum(count for _, count in passed) / (books["last_at"] - spent_at) / (GIVEN / 60)
    refused = books["endings"].get("limited", 0)
    rows = job.rows(records)
    return Section(
        "",
        _judged(
            [
                at_least("share used", share, 0.90, "{:.3f}"),
                at_most("refusals", 100 * refused / books["calls"], 5.0, "{:.1f} % of calls"),
                *([exactly("lost", rows.lost, 0)] if rows.lost else []),
            ],
            strict=_is_strict(case.limit),
        ),
        {"share": share, "refused": refused, "calls": books["calls"], "measured_s": books["last_at"] - spent_at},
    )


def slug(name: str) -> str:
    """A name that a file may have."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def rate_of(books: Mapping[str, Any], since: float, until: float) -> float:
    """Calls a second that passed in a span."""
    passed: int = sum(count for at, _, count in books["bins"] if since <= at < until)
    return passed / (until - since)
