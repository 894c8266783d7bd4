"""Before a record can be asked nothing is written; where none will ever be, the run is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
from engine_parts import record, request

from pipeline.engine import Beginning, Job, Lookups, Producer
from pipeline.engine.beginning import ENOUGH
from pipeline.engine.record_errors import RecordErrorHandler
from pipeline.errors import NothingToAskError, RenderError
from pipeline.readers import ReadProgress
from pipeline.records import Outcome, Problem, Record, Request

GOOD, BAD, WORSE = "good", "bad", "worse"


class Input:
    """Records of these kinds, and how many of them were read."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds, self.read = kinds, 0

    async def batches(self) -> AsyncGenerator[list[Record], None]:
        made = [_record(at, kind) for at, kind in enumerate(self.kinds)]
        for start in range(0, len(made), 100):
            batch = made[start : start + 100]
            self.read += len(batch)
            yield batch


def _record(at: int, kind: str) -> Record:
    made = record(at, text=kind)
    return replace(made, problem=Problem("unreadable", "torn")) if kind == WORSE else made


def render(one: Record) -> Request:
    if one.fields["text"] == BAD:
        raise RenderError(f"record {one.ordinal} lacks a field")
    return request(one.ordinal)


def fed(kinds: Sequence[str], *, done: int = 0, **more: bool) -> tuple[list[str], Input]:
    """What is handed on of such an input, `done` records of which have an outcome."""
    found = Input(kinds)

    async def known(records: Sequence[Record]) -> set[str]:
        return {one.key for one in records if one.ordinal < done}

    producer = Producer(
        found.batches(),
        render,
        Lookups(known),
        RecordErrorHandler(lambda _: None),
        Beginning(["in.csv"], ReadProgress().describe_empty, **more),
    )
    return asyncio.run(_gathered(producer)), found


async def _gathered(producer: Producer) -> list[str]:
    return [_told(item) async for item in producer.items()]


def _told(item: Job | Outcome) -> str:
    return GOOD if isinstance(item, Job) else BAD if item.problem and item.problem.code == "render_error" else WORSE


def test_bad_records_at_the_top_are_rejected_once_one_can_be_asked() -> None:
    for kinds in ([BAD, WORSE, GOOD, BAD], [BAD] * (ENOUGH - 100) + [GOOD], [GOOD] + [BAD] * 2 * ENOUGH):
        handed, _ = fed(kinds)
        assert handed == kinds, "all of them, in their order"


def test_many_that_are_bad_for_one_reason_stop_the_run_before_anything_is_written() -> None:
    found = Input([BAD] * 10 * ENOUGH)
    beginning = Beginning(["in.csv"], ReadProgress().describe_empty)
    producer = Producer(found.batches(), render, Lookups(_nobody), RecordErrorHandler(lambda _: None), beginning)
    with pytest.raises(NothingToAskError) as caught:
        asyncio.run(_gathered(producer))
    assert found.read == ENOUGH, "the rest is not even read"
    assert str(caught.value) == (
        "in.csv: none of the first 1,000 records can be asked (render_error 1,000). The first: record 0 lacks a field. "
        "Nothing was sent or written: fix the config or the input (limits.stop_rejected = 0 rejects them and continues)"
    )


async def _nobody(_records: Sequence[Record]) -> set[str]:
    return set()


def test_records_that_are_bad_in_several_ways_do_not_stop_it() -> None:
    kinds = [BAD] * ENOUGH + [GOOD]
    kinds[7] = WORSE
    assert fed(kinds)[0] == kinds


@pytest.mark.parametrize(
    ("kinds", "words"),
    [([], "the input has no records.*: in.csv"), ([BAD, WORSE, BAD], r"none of its 3 records .*render_error 2, unr")],
)
def test_an_input_without_one_record_that_can_be_asked(kinds: list[str], words: str) -> None:
    with pytest.raises(NothingToAskError, match=words):
        fed(kinds)


def test_somebody_may_want_them_rejected_however_many_they_are() -> None:
    kinds = [BAD] * 2 * ENOUGH
    assert fed(kinds, lenient=True)[0] == kinds
    with pytest.raises(NothingToAskError, match="no records"):
        fed([], lenient=True)


def test_the_few_that_are_left_of_an_earlier_session_do_not_stop_it() -> None:
    assert fed([GOOD, BAD, BAD], done=2)[0] == [BAD]


def test_in_a_run_that_was_answered_bad_records_are_records_like_others() -> None:
    assert fed([BAD, WORSE, BAD], over=True)[0] == [BAD, WORSE, BAD]


def test_an_empty_input_is_no_end_of_a_run_that_has_labels() -> None:
    with pytest.raises(NothingToAskError, match="the input has no records"):
        fed([], over=True)
    assert fed([GOOD], over=True, done=1)[0] == []
