"""Answers that an earlier session has paid for, on their way from the ledger to the record that goes on from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from engine_parts import answered, record, request

from pipeline.engine import Job, Lookups, Producer
from pipeline.engine.record_errors import RecordErrorHandler
from pipeline.records import Outcome, Record, SavedAnswer
from pipeline.store import Ledger

COUNT, BATCH = 3_000, 256


def kept(number: int) -> SavedAnswer:
    return SavedAnswer(f"k{number}", 0, request(number).digest, answered(cost_usd=0.5), 1, 1.0)


async def batches(count: int) -> AsyncGenerator[list[Record], None]:
    for begin in range(0, count, BATCH):
        yield [record(number) for number in range(begin, min(begin + BATCH, count))]


async def nothing_done(_: Sequence[Record]) -> set[str]:
    return set()


def test_many_are_looked_up_a_batch_of_records_at_a_time(tmp_path: Path) -> None:
    """So many land at once where a batch is collected: they never are in memory together."""
    most = 0

    async def main() -> int:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            await ledger.keep_answers([kept(number) for number in range(COUNT)])

            async def look_up(records: Sequence[Record]) -> Mapping[str, Sequence[SavedAnswer]]:
                nonlocal most
                found = await ledger.answers_of([one.key for one in records])
                most = max(most, len(found))
                return found

            lookups = Lookups(done=nothing_done, saved=look_up)
            producer = Producer(
                batches(COUNT), lambda one: request(one.ordinal), lookups, RecordErrorHandler(lambda _: None)
            )
            right = 0
            async for item in producer.items():
                assert isinstance(item, Job)
                right += list(item.saved) == [kept(item.request.record.ordinal)]
            return right

    assert asyncio.run(main()) == COUNT
    assert most == BATCH


def test_a_record_that_has_begun_follows_nobody_and_others_follow_it() -> None:
    """Its answers were paid for: with `task.dedupe` they would be lost to a record that begins anew."""

    async def look_up(_: Sequence[Record]) -> Mapping[str, Sequence[SavedAnswer]]:
        return {"k1": [kept(1)]}

    async def none_answered(_: Sequence[bytes]) -> Mapping[bytes, Outcome]:
        return {}

    async def main() -> list[tuple[str, int, list[str]]]:
        lookups = Lookups(done=nothing_done, answered=none_answered, saved=look_up)
        same = request(0).digest
        producer = Producer(
            batches(3), lambda one: request(one.ordinal, digest=same), lookups, RecordErrorHandler(lambda _: None)
        )
        jobs = [item async for item in producer.items() if isinstance(item, Job)]
        return [(job.request.record.key, len(job.saved), sorted(one.key for one in job.followers)) for job in jobs]

    assert asyncio.run(main()) == [("k1", 1, ["k0", "k2"])]
