"""One record's life, with plain functions as providers and a clock that moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from engine_parts import Rig, answered, request

import pipeline.errors
from pipeline.engine import backoff_s, verdict_of
from pipeline.errors import (
    AnswerError,
    CallError,
    CredentialsError,
    QuotaError,
    RateLimitedError,
    RecordRefusedError,
    RequestShapeError,
    StoppedError,
    UnavailableError,
)
from pipeline.records import Outcome, Request, Response, Status

RunOn = Callable[[Any], Any]


def test_every_error_has_a_verdict() -> None:
    leaves = [
        kind
        for kind in vars(pipeline.errors).values()
        if isinstance(kind, type) and issubclass(kind, CallError | AnswerError) and kind not in {CallError, AnswerError}
    ]
    assert len(leaves) >= 11
    assert [verdict_of(kind()) for kind in leaves]


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_backoff_doubles_up_to_its_cap(jitter: float) -> None:
    waits = [backoff_s(failures, jitter) for failures in range(1, 12)]
    assert waits == sorted(waits)
    assert 0.25 <= waits[0] <= 0.5
    assert 10 <= waits[-1] <= 20


def script(*steps: object) -> Callable[[Request], Any]:
    """A provider that goes through the steps: an exception is raised, a text is answered, the last one for ever."""
    left = list(steps)

    async def provider(_: Request) -> Response:
        await asyncio.sleep(0.01)
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, Exception):
            raise step
        return answered(str(step))

    return provider


def ask(run_on: RunOn, *steps: object, **rules: Any) -> Outcome:
    async def main() -> Any:
        return await Rig(script(*steps), **rules).asker.ask(request(0))

    outcome = run_on(main())
    assert isinstance(outcome, Outcome)
    return outcome


def test_an_invalid_answer_is_asked_again_with_its_fault(moved_clock: RunOn) -> None:
    outcome = ask(moved_clock, "bad", "bad", "good")

    assert (outcome.status, outcome.attempts, outcome.repairs) == (Status.LABELLED, 3, 2)
    assert outcome.usage.prompt == 24, "every answer was paid for"
    assert outcome.request_digest == request(0).digest, "the first request names what identical records share"


def test_repairs_are_bounded_and_the_answer_is_kept(moved_clock: RunOn) -> None:
    outcome = ask(moved_clock, "bad", max_repairs=2)

    assert (outcome.status, outcome.attempts) == (Status.REJECTED, 3)
    assert outcome.problem is not None
    assert outcome.problem.code == "invalid_label"
    assert outcome.answer is not None


def test_a_cut_answer_gets_more_room_once(moved_clock: RunOn) -> None:
    outcome = ask(moved_clock, "cut", max_repairs=5)
    assert (outcome.status, outcome.attempts) == (Status.REJECTED, 2)


@pytest.mark.parametrize(("step", "code"), [("no", "refused"), ("boom", "callback_error")])
def test_some_answers_end_a_record_at_once(moved_clock: RunOn, step: str, code: str) -> None:
    outcome = ask(moved_clock, step)

    assert outcome.problem is not None
    assert (outcome.status, outcome.attempts, outcome.problem.code) == (Status.REJECTED, 1, code)
    assert outcome.answer is not None, "a fixed callback can run again without a call"


def test_silence_is_a_timeout(moved_clock: RunOn) -> None:
    async def silent(_: Request) -> Response:
        await asyncio.sleep(10_000)
        return answered()

    async def main() -> Any:
        return await Rig(silent, timeout_s=5, max_attempts=2).asker.ask(request(0))

    outcome = moved_clock(main())
    assert (outcome.status, outcome.problem.code) == (Status.FAILED, "timeout")


def test_a_record_of_its_own_fault_is_given_up_while_others_are_labelled(moved_clock: RunOn) -> None:
    async def provider(asked: Request) -> Response:
        await asyncio.sleep(0.05)
        if asked.record.ordinal == 7:
            raise UnavailableError("500 server_error")
        return answered()

    async def main() -> list[Any]:
        rig = Rig(provider, max_attempts=6)
        return await asyncio.gather(*(rig.asker.ask(request(number)) for number in range(300)))

    outcomes = moved_clock(main())
    failed = [one for one in outcomes if one.status is not Status.LABELLED]
    assert [one.record.key for one in failed] == ["k7"]
    assert failed[0].status is Status.FAILED
    assert failed[0].problem.code == "unavailable"
    assert "500 server_error" in failed[0].problem.message
    assert 6 <= failed[0].attempts <= 8


@pytest.mark.parametrize("concurrency", [1, 4, 64])
def test_an_outage_loses_no_record_and_ends_soon_after(moved_clock: RunOn, concurrency: int) -> None:
    """30 s in which every call fails: all records are labelled, and work goes on within 5 s of its end."""
    first_after = []

    async def provider(_: Request) -> Response:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.05)
        if 1002 <= loop.time() < 1032:
            raise UnavailableError("503")
        if loop.time() >= 1032 and not first_after:
            first_after.append(loop.time() - 1032)
        return answered()

    async def main() -> tuple[list[Any], Rig]:
        rig = Rig(provider, concurrency=concurrency, max_attempts=3)
        count = 40 * concurrency + 40
        return await asyncio.gather(*(rig.asker.ask(request(number)) for number in range(count))), rig

    outcomes, rig = moved_clock(main())
    assert {one.status for one in outcomes} == {Status.LABELLED}
    assert first_after[0] < 5
    assert rig.gate.outages
    assert rig.gate.outage is None


def test_the_request_shape_aborts_only_before_the_first_answer(moved_clock: RunOn) -> None:
    async def refuses(_: Request) -> Response:
        await asyncio.sleep(0.01)
        raise RequestShapeError("400 invalid_request_error: no such thing")

    async def main() -> tuple[list[Any], Rig]:
        rig = Rig(refuses)
        asked = [rig.asker.ask(request(number)) for number in range(100)]
        return await asyncio.gather(*asked, return_exceptions=True), rig

    outcomes, rig = moved_clock(main())
    assert {type(one) for one in outcomes} == {StoppedError}
    assert rig.admission.calls <= 3
    assert isinstance(rig.gate.stopped, RequestShapeError)

    outcome = _after_an_answer(moved_clock, RequestShapeError("400 invalid_request_error"))
    assert outcome.status is Status.REJECTED


def _after_an_answer(run_on: RunOn, error: Exception) -> Outcome:
    async def main() -> Any:
        rig = Rig(script("good", error))
        await rig.asker.ask(request(0))
        return await rig.asker.ask(request(1))

    outcome = run_on(main())
    assert isinstance(outcome, Outcome)
    return outcome


def test_a_refused_record_is_rejected_and_the_rest_goes_on(moved_clock: RunOn) -> None:
    outcome = _after_an_answer(moved_clock, RecordRefusedError("400 context_length_exceeded"))
    assert outcome.status is Status.REJECTED
    assert outcome.problem is not None
    assert outcome.problem.code == "bad_request"


@pytest.mark.parametrize("error", [QuotaError("429 insufficient_quota"), CredentialsError("401 invalid_api_key")])
def test_what_is_hopeless_stops_at_once(moved_clock: RunOn, error: CallError) -> None:
    """Wrong key from the start: one call. Quota gone in mid-run: what was in flight."""

    async def main() -> Rig:
        rig = Rig(script(error))
        asked = [rig.asker.ask(request(number)) for number in range(100)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(one) for one in outcomes} == {StoppedError}
        return rig

    rig = moved_clock(main())
    assert rig.admission.calls == 1
    assert rig.gate.stopped is error


def test_a_rate_limit_is_waited_out_exactly_as_told_and_charged_to_nobody(moved_clock: RunOn) -> None:
    times = []

    async def provider(_: Request) -> Response:
        times.append(asyncio.get_running_loop().time())
        if len(times) <= 5:
            raise RateLimitedError("429", retry_after_s=0.12)
        return answered()

    async def main() -> Any:
        return await Rig(provider, max_attempts=1).asker.ask(request(0))

    outcome = moved_clock(main())
    assert outcome.status is Status.LABELLED
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(0.12 <= gap < 0.13 for gap in gaps[:5])


def test_a_request_that_never_fits_the_limit_is_given_up(moved_clock: RunOn) -> None:
    async def provider(asked: Request) -> Response:
        await asyncio.sleep(0.01)
        if asked.record.ordinal == 1:
            raise RateLimitedError("429: requested 90000, limit 30000", scope="tokens", retry_after_s=0.01)
        return answered()

    async def main() -> list[Any]:
        rig = Rig(provider, max_attempts=3)
        return await asyncio.gather(*(rig.asker.ask(request(number)) for number in range(5)))

    outcomes = moved_clock(main())
    assert [one.status for one in outcomes].count(Status.LABELLED) == 4
    assert outcomes[1].status is Status.FAILED
    assert "requested 90000" in outcomes[1].problem.message
