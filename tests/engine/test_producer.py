"""The feed: what is skipped, refused, asked, followed, or answered from the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest
from engine_parts import record, request
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import Job, Lookups, Producer
from pipeline.engine import producer as feed_module
from pipeline.engine.record_errors import RecordErrorHandler
from pipeline.errors import RenderError
from pipeline.records import Answer, Outcome, Problem, Record, Request, Status


def render(one: Record) -> Request:
    """The digest is that of the text: records with one text have one request."""
    text = one.fields.get("text")
    if text is None:
        raise RenderError("the prompt uses 'text', which the record lacks")
    return request(one.ordinal, digest=str(text).encode())


def feed_of(found: AsyncGenerator[list[Record], None], made: Callable[[Record], Request], lookups: Lookups) -> Producer:
    return Producer(found, made, lookups, RecordErrorHandler(lambda _: None))


async def batches(*found: Sequence[Record]) -> AsyncGenerator[list[Record], None]:
    for batch in found:
        yield list(batch)


def outcome_of(job: Job, status: Status = Status.LABELLED) -> Outcome:
    asked = job.request
    return Outcome(asked.record, status, {"label": "x"}, answer=Answer(), request_digest=asked.digest, attempts=1)


class Ledger:
    """What the feed asks: keys with an outcome, keys seen in this pass, answers by digest."""

    def __init__(self, done: Sequence[str] = ()) -> None:
        self.keys = set(done)
        self.seen: set[str] = set()
        self.answers: dict[bytes, Outcome] = {}
        self.asked_for: list[bytes] = []

    async def done(self, records: Sequence[Record]) -> set[str]:
        return {one.key for one in records} & self.keys

    async def repeated(self, records: Sequence[Record]) -> set[int]:
        again = set()
        for at, one in enumerate(records):
            if one.key in self.seen:
                again.add(at)
            self.seen.add(one.key)
        return again

    async def answered(self, digests: Sequence[bytes]) -> dict[bytes, Outcome]:
        self.asked_for += digests
        found = {digest: self.answers[digest] for digest in digests if digest in self.answers}
        await asyncio.sleep(0)  # what is committed now is no longer in what was found
        return found

    def lookups(self) -> Lookups:
        return Lookups(self.done, self.repeated, self.answered)


async def _all(producer: Producer) -> list[Job | Outcome]:
    return [item async for item in producer.items()]


def run(producer: Producer) -> list[Any]:
    return asyncio.run(_all(producer))


def test_records_that_are_done_are_skipped_and_the_order_is_kept() -> None:
    ledger = Ledger(done=["k1", "k3"])
    producer = feed_of(
        batches([record(n) for n in range(3)], [record(n) for n in range(3, 6)]), render, ledger.lookups()
    )
    assert [job.request.record.key for job in run(producer)] == ["k0", "k2", "k4", "k5"]
    assert producer.skipped == 2


def test_a_record_that_cannot_be_read_or_rendered_is_rejected_with_its_reason() -> None:
    bad = Record("in.jsonl", 0, "in.jsonl:1", {"raw": "{"}, 1, 1, Problem("unreadable", "line 1: not JSON"))
    producer = feed_of(batches([bad, record(1, other="x")]), render, Lookups(Ledger().done))
    first, second = run(producer)
    assert (first.status, first.problem, first.cost_usd) == (Status.REJECTED, bad.problem, 0.0)
    assert second.problem.code == "render_error"
    assert "'text'" in second.problem.message
    assert second.finished_at > 0


def test_a_key_that_comes_again_gets_a_name_of_its_own_and_is_not_asked() -> None:
    ledger = Ledger()
    again = Record("in.jsonl", 7, "k0", {"text": "other"}, 8, 8)
    first, second = run(feed_of(batches([record(0), again]), render, ledger.lookups()))
    assert isinstance(first, Job)
    assert second.problem.code == "duplicate_key"
    assert second.record.key == "(in.jsonl:8)"
    assert "'k0'" in second.problem.message


def test_without_dedupe_every_record_is_asked() -> None:
    same = [record(n, text="same") for n in range(3)]
    jobs = run(feed_of(batches(same), render, Lookups(Ledger().done)))
    assert [job.followers for job in jobs] == [[], [], []]


def test_identical_requests_follow_the_first_within_a_batch_and_across() -> None:
    same = [record(n, text="same") for n in range(4)]
    jobs = run(feed_of(batches(same[:2], same[2:]), render, Ledger().lookups()))
    assert len(jobs) == 1
    assert [one.key for one in jobs[0].followers] == ["k1", "k2", "k3"]


def test_an_answer_of_the_ledger_is_the_source_and_asks_nothing() -> None:
    ledger = Ledger()
    ledger.answers[b"same"] = source = outcome_of(Job(render(record(9, text="same"))))
    jobs = run(feed_of(batches([record(1, text="same"), record(2, text="same")]), render, ledger.lookups()))
    assert [job.source for job in jobs] == [source, source]


@pytest.mark.parametrize(("status", "from_it"), [(Status.LABELLED, True), (Status.REJECTED, False)])
def test_an_answer_that_is_not_written_yet_is_used_too(status: Status, from_it: bool) -> None:
    async def main() -> tuple[Job, Job]:
        same = [record(n, text="same") for n in range(2)]
        items = feed_of(batches(same[:1], same[1:]), render, Ledger().lookups()).items()
        first = await anext(items)
        assert isinstance(first, Job)
        first.outcome = outcome_of(first, status)
        second = await anext(items)
        assert isinstance(second, Job)
        return first, second

    first, second = asyncio.run(main())
    assert (second.source is first.outcome) is from_it
    assert first.followers == []


def test_followers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_FOLLOWERS", 3)
    jobs = run(feed_of(batches([record(n, text="same") for n in range(6)]), render, Ledger().lookups()))
    assert [len(job.followers) for job in jobs] == [3, 0, 0]


def test_a_record_is_not_asked_again_when_its_twin_is_settled_while_the_feed_waits() -> None:
    """The second twin was looked up in the ledger while the first was on its way, and its turn came when the first had
    been written and forgotten: it was in neither place, and asked again."""

    async def main() -> list[Any]:
        ledger = Ledger()
        records = [record(0, text="same"), *[record(n) for n in range(1, 9)], record(9, text="same")]
        producer = feed_of(batches(records), render, ledger.lookups())
        items = producer.items()
        first = await anext(items)
        assert isinstance(first, Job)
        first.outcome = outcome_of(first)
        ledger.answers[b"same"] = first.outcome
        producer.settled([first.outcome])
        return [first, *[item async for item in items]]

    jobs = asyncio.run(main())
    assert [job.request.digest for job in jobs].count(b"same") == 1
    assert [one.key for one in jobs[0].followers] == ["k9"]


def test_nor_when_it_is_settled_while_the_ledger_is_read() -> None:
    """Read before the commit, joined after it: whoever is being asked has to be looked at first."""

    async def main() -> Job:
        ledger = Ledger()
        producer = feed_of(batches([record(0, text="same")], [record(1, text="same")]), render, ledger.lookups())
        items = producer.items()
        first = await anext(items)
        assert isinstance(first, Job)
        second = asyncio.ensure_future(anext(items, None))
        await asyncio.sleep(0)
        first.outcome = outcome_of(first)
        ledger.answers[b"same"] = first.outcome
        producer.settled([first.outcome])
        assert await second is None
        return first

    assert [one.key for one in asyncio.run(main()).followers] == ["k1"]


@given(st.lists(st.integers(0, 5), max_size=40), st.lists(st.integers(0, 30), max_size=30), st.integers(1, 9))
def test_each_text_is_asked_once_and_each_record_answered_once(texts: list[int], settles: list[int], size: int) -> None:
    """Whenever answers are settled: no text is asked twice, and no record is left out or comes twice."""

    async def main() -> tuple[list[Job], list[str]]:
        ledger, asked, covered = Ledger(), [], []
        found = [record(number, text=f"t{text}") for number, text in enumerate(texts)]
        producer = feed_of(
            batches(*[found[at : at + size] for at in range(0, len(found), size)]), render, ledger.lookups()
        )
        waiting: list[Job] = []
        turn = 0
        async for job in producer.items():
            assert isinstance(job, Job)
            covered.append(job.request.record.key)
            if job.source is None:
                asked.append(job)
                waiting.append(job)
            turn += 1
            if turn in settles and waiting:
                done = waiting.pop(0)
                done.outcome = outcome_of(done)
                ledger.answers[done.request.digest] = done.outcome
                producer.settled([done.outcome])
        return asked, covered + [one.key for job in asked for one in job.followers]

    asked, covered = asyncio.run(main())
    digests = [job.request.digest for job in asked]
    assert len(digests) == len(set(digests))
    assert sorted(covered) == sorted(f"k{number}" for number in range(len(texts)))
