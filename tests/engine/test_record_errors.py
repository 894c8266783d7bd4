"""The net under one record: what nobody foresaw is that record's, and many in a row stop the run."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from engine_parts import FakeTask, Rig, answered, record, request

from pipeline.engine.record_errors import MOST_IN_A_ROW, RecordErrorHandler
from pipeline.errors import LabelpipeError, StoppedError, StoreError
from pipeline.records import Attachment, LabelResult, Outcome, Record, Request, Response, Status

RunOn = Callable[[Any], Any]


class Broken(FakeTask):
    """Reading the answer fails as nobody foresaw."""

    def build_rows(self, said: Any, reply: str | None, record: Record) -> LabelResult:
        raise TypeError("a number was not expected here")


async def good(_: Request) -> Response:
    return answered()


async def broken(_: Request) -> Response:
    raise ValueError("Port could not be cast to integer value")


def test_an_error_that_nobody_foresaw_is_that_records_outcome(
    moved_clock: RunOn, caplog: pytest.LogCaptureFixture
) -> None:
    outcome: Outcome = moved_clock(Rig(broken).asker.ask(request(7)))

    assert outcome.status is Status.FAILED, "no answer came"
    assert outcome.problem is not None
    assert outcome.problem.code == "internal_error"
    assert "ValueError: Port could not" in outcome.problem.message
    facts = next(one.facts for one in caplog.records if one.message == "internal error")  # type: ignore[attr-defined]
    assert facts["key"] == "k7"
    assert "in broken" in facts["trace"]


def test_the_answer_that_was_paid_for_is_kept(moved_clock: RunOn) -> None:
    outcome: Outcome = moved_clock(Rig(good, task=Broken()).asker.ask(request(1)))

    assert (outcome.status, outcome.usage.prompt) == (Status.REJECTED, 8)
    assert outcome.answer is not None


def test_a_copy_of_an_answer_has_the_net_too(moved_clock: RunOn) -> None:
    async def main() -> Outcome:
        rig = Rig(good, task=Broken())
        source = Outcome(record(1), Status.LABELLED, {"label": "good"}, answer=answered().answer)
        return await rig.asker.finish(record(2), source)

    outcome: Outcome = moved_clock(main())
    assert outcome.problem is not None
    assert outcome.problem.code == "internal_error"


def test_loading_has_the_net_too(moved_clock: RunOn) -> None:
    def opened(_: Request) -> AbstractAsyncContextManager[Request]:
        raise ValueError("chr() arg not in range")

    rig = Rig(good)
    rig.asker.prepare = opened
    outcome: Outcome = moved_clock(rig.asker.ask(replace(request(1), attachments=(Attachment("image", "x"),))))
    assert outcome.problem is not None
    assert outcome.problem.code == "internal_error"


def test_many_in_a_row_stop_the_run_and_the_last_stays_pending(moved_clock: RunOn) -> None:
    async def main() -> tuple[list[Outcome], LabelpipeError | None]:
        rig = Rig(broken)
        outcomes = [await rig.asker.ask(request(number)) for number in range(MOST_IN_A_ROW - 1)]
        with pytest.raises(StoppedError, match="labelpipe itself failed"):
            await rig.asker.ask(request(99))
        return outcomes, rig.gate.stopped

    outcomes, stopped = moved_clock(main())
    assert len(outcomes) == MOST_IN_A_ROW - 1
    assert stopped is not None
    assert stopped.code == "internal_error"
    assert "20 records in a row" in str(stopped)


def test_one_that_goes_well_between_begins_the_count_anew() -> None:
    stopped: list[LabelpipeError] = []
    error_handler = RecordErrorHandler(stopped.append)
    for number in range(3 * MOST_IN_A_ROW):
        error_handler.handle(record(number), ValueError("x"))
        if number % 10 == 0:
            error_handler.on_label()
    assert not stopped


@pytest.mark.parametrize(
    "error",
    [StoppedError(), StoreError("full"), OSError(errno.ENOSPC, "No space left"), OSError(errno.EMFILE, "files")],
)
def test_what_is_the_runs_goes_through(error: Exception) -> None:
    with pytest.raises(type(error)):
        RecordErrorHandler(lambda _: None).handle(record(1), error)


def test_a_trace_is_bounded() -> None:
    def deep(number: int) -> int:
        return deep(number + 1)

    with pytest.raises(RecursionError) as handle:
        deep(0)
    problem = RecordErrorHandler(lambda _: None).handle(record(1), handle.value)
    assert "RecursionError" in problem.message
    assert len(RecordErrorHandler(lambda _: None).handle(record(1), ValueError("x" * 10**6)).message) < 500
