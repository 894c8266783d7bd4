"""A 400 is about the request's kind when none of that kind was answered: first requests, and those that go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from engine_parts import FakeTask, Rig, answered, items, request

from pipeline.engine import Ending, Job, Pool, PoolSizes
from pipeline.engine.refusal_evidence import PROVEN_EVIDENCE, SHAPE_EVIDENCE
from pipeline.errors import RequestShapeError
from pipeline.records import Answer, LabelResult, Outcome, Record, Request, Response, Status, ValidCall

RunOn = Callable[[Any], Any]
CONCURRENCY = 8
#: Whether a request is refused with a 400: by its record's place and its turn.
Refuses = Callable[[int, int], bool]


class ShortTalk(FakeTask):
    """Two turns: a call, then words."""

    max_turns = 2

    def parse_calls(self, answer: Answer, record: Record, before: Sequence[ValidCall] = ()) -> tuple[ValidCall, ...]:
        return () if before else super().parse_calls(answer, record)

    def build_rows(self, said: Sequence[ValidCall], reply: str | None, record: Record) -> LabelResult:
        return LabelResult({"said": len(said)})

    def next_turn(self, request: Request, answer: Answer, said: Sequence[ValidCall]) -> Request:
        return replace(request, messages=(*request.messages, {"role": "tool", "content": "done"}))


def talked(
    run_on: RunOn, refuses: Refuses, count: int, *, certain: bool = False, proven: bool = False
) -> tuple[Any, list[Outcome], Any]:
    """How `count` conversations end, the outcomes, and the calls of each turn with the rig's reason to stop."""
    outcomes: list[Outcome] = []
    calls: Counter[int] = Counter()

    async def commit(batch: Any) -> None:
        outcomes.extend(batch)

    async def provider(asked: Request) -> Response:
        turn = len(asked.messages) - 1
        calls[turn] += 1
        await asyncio.sleep(0.1 if asked.record.ordinal else 0.05)  # the first record is ahead of the others
        if refuses(asked.record.ordinal, turn):
            raise RequestShapeError("400 invalid_request_error", certain=certain, status=400)
        return answered()

    async def main() -> tuple[Ending, Exception | None]:
        rig = Rig(provider, concurrency=CONCURRENCY, task=ShortTalk())
        rig.asker.judge.proven = proven
        jobs = items([Job(request(number)) for number in range(count)])
        pool = Pool(jobs, rig.asker, commit, sizes=PoolSizes.for_concurrency(CONCURRENCY, 30))
        async with asyncio.timeout(3600):
            ending = await pool.run()
        assert (rig.gate.in_flight, rig.gate.unwritten, rig.asker.judge.active) == (0, 0, 0)
        return ending, rig.gate.stopped

    ending, stopped = run_on(main())
    return ending, outcomes, (calls, stopped)


@pytest.mark.parametrize("turn", [0, 1])
def test_a_server_that_takes_no_request_of_a_kind_stops_the_run(moved_clock: RunOn, turn: int) -> None:
    """Each record was given up for it one by one, since first requests were answered: a whole input lost."""
    ending, outcomes, (calls, stopped) = talked(moved_clock, lambda _record, at: at == turn, 400)
    assert ending is Ending.STOPPED
    assert isinstance(stopped, RequestShapeError)
    assert outcomes == [], "all of them are pending, and go on where they were"
    assert calls[turn] <= SHAPE_EVIDENCE + CONCURRENCY, "what was in flight"
    assert calls[0] <= 3 * CONCURRENCY + 2, "one for each record that was in work"


@pytest.mark.parametrize("turn", [0, 1])
def test_a_certain_400_of_a_kind_stops_it_at_once(moved_clock: RunOn, turn: int) -> None:
    """One record is enough where the server names what is the same for all."""
    ending, _, (_, stopped) = talked(moved_clock, lambda record, at: at == turn and not record, 400, certain=True)
    assert ending is Ending.STOPPED
    assert isinstance(stopped, RequestShapeError)


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({0, 1}, id="the first"),
        pytest.param({*range(10, 14), *range(20, 100, 2)}, id="half of them, after others were answered"),
        pytest.param(set(range(0, 100, 5)), id="every fifth"),
        pytest.param({98, 99}, id="the last"),
    ],
)
def test_where_others_of_its_kind_are_answered_a_400_costs_one_record(
    moved_clock: RunOn, bad: set[int], turn: int
) -> None:
    ending, outcomes, (_, stopped) = talked(moved_clock, lambda record, at: at == turn and record in bad, 100)
    assert (ending, stopped) == (Ending.COMPLETE, None)
    found = {one.record.ordinal: one for one in outcomes}
    assert len(found) == len(outcomes) == 100
    assert {number for number, one in found.items() if one.status is Status.REJECTED} == bad
    assert {one.problem.code for one in outcomes if one.problem is not None} == {"bad_request"}


@pytest.mark.parametrize("left", [1, 2, PROVEN_EVIDENCE - 1, 400])
def test_the_last_few_of_a_run_that_was_answered_before_speak_for_themselves(moved_clock: RunOn, left: int) -> None:
    """A retry of one record that the server never takes stopped each session, and the run never came to its end."""
    ending, outcomes, (_, stopped) = talked(moved_clock, lambda _record, _turn: True, left, proven=True)
    if left < PROVEN_EVIDENCE:
        assert (ending, stopped) == (Ending.COMPLETE, None)
        assert [one.status for one in outcomes] == [Status.REJECTED] * left
    else:
        assert (ending, outcomes) == (Ending.STOPPED, []), "that many may be the address or the model of another server"
    ending, outcomes, (_, stopped) = talked(moved_clock, lambda _record, _turn: True, left)
    assert (ending, outcomes) == (Ending.STOPPED, [])
    assert isinstance(stopped, RequestShapeError)


def test_answers_to_what_goes_on_say_nothing_of_first_requests(moved_clock: RunOn) -> None:
    """The other way about: what was kept goes on, and each new conversation is refused."""

    async def main() -> tuple[Rig, list[Any]]:
        async def provider(asked: Request) -> Response:
            await asyncio.sleep(0.05)
            if len(asked.messages) == 1:
                raise RequestShapeError("400 invalid_request_error", status=400)
            return answered()

        rig = Rig(provider, concurrency=CONCURRENCY, task=ShortTalk())
        rig.asker.judge._shapes[1].answers = 100
        asking = (rig.asker.ask(request(number)) for number in range(20))
        return rig, await asyncio.gather(*asking, return_exceptions=True)

    rig, found = moved_clock(main())
    assert isinstance(rig.gate.stopped, RequestShapeError)
    assert not [one for one in found if isinstance(one, Outcome)]
