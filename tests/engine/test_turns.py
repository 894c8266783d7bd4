"""Conversations: an answer is safe before anything is done with it, and nothing is done twice after a resume."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from engine_parts import FakeTask, answered, items, record, request
from hypothesis import given
from hypothesis import strategies as st
from talk_parts import Ledger, Stage, said

from pipeline.engine import (
    Asker,
    AskRules,
    Ending,
    InterviewContext,
    Job,
    Journal,
    Pool,
    PoolSizes,
    idempotency_key,
    read_again,
)
from pipeline.errors import (
    StoppedError,
    StoreError,
    UnavailableError,
)
from pipeline.limits import Admission, Gate
from pipeline.records import (
    Answer,
    Outcome,
    Request,
    Response,
    SavedAnswer,
    Status,
    ToolCall,
    Usage,
    ValidCall,
)
from pipeline.stats import Stats

RunOn = Callable[[Any], Any]


def play(run_on: RunOn, *steps: Response | Exception, **more: Any) -> tuple[Outcome, Stage]:
    async def main() -> tuple[Outcome, Stage]:
        stage = Stage(iter(steps), **more)
        return await stage.ask(), stage

    outcome, stage = run_on(main())
    assert stage.gate.unwritten == 0
    assert stage.gate.in_flight == 0
    return outcome, stage


# -- the order of things ---------------------------------------------------------------------------------------------


def test_each_answer_is_kept_before_its_callbacks_and_each_result_before_the_next(moved_clock: RunOn) -> None:
    outcome, stage = play(moved_clock, said("a", "b"), said("c"), said(text="Done."))
    assert stage.ledger.log == [
        "call",
        "kept 0 with 0",
        "callback a",
        "kept 0 with 1",
        "callback b",
        "kept 0 with 2",
        "call",
        "kept 1 with 0",
        "callback c",
        "kept 1 with 1",
        "call",
    ]
    assert outcome.label == {"said": ["a=result 0", "b=result 0", "c=result 1"], "reply": "Done."}
    assert len(set(stage.task.keys)) == 3


def test_a_single_answer_is_kept_before_its_callback_too(moved_clock: RunOn) -> None:
    outcome, stage = play(moved_clock, said("a"), max_turns=1)
    assert stage.ledger.log == ["call", "kept 0 with 0", "callback a"]
    assert outcome.status is Status.LABELLED


def test_without_a_callback_nothing_is_kept(moved_clock: RunOn) -> None:
    async def main() -> Stage:
        stage = Stage(iter([said("a")]), max_turns=1, has_callback=False)
        assert (await stage.ask()).status is Status.LABELLED
        return stage

    assert moved_clock(main()).ledger.log == ["call"]


def test_usage_attempts_and_repairs_are_those_of_all_turns(moved_clock: RunOn) -> None:
    outcome, stage = play(
        moved_clock, said("bad"), said("a"), UnavailableError("503"), said("bad"), said("b"), said(text="Done.")
    )
    assert (outcome.status, outcome.attempts, outcome.repairs) == (Status.LABELLED, 6, 2), "each turn may be repaired"
    assert outcome.usage == Usage(40, 10)
    assert [(one.calls, one.fault, one.response.usage) for one in stage.ledger.of()] == [
        (1, "invalid_label", Usage(8, 2)),
        (1, None, Usage(8, 2)),
        (2, "invalid_label", Usage(8, 2)),
        (1, None, Usage(8, 2)),
    ], "each answer is kept with what it alone took"
    assert outcome.request_digest == request(0).digest


def test_a_turn_that_was_repaired_leaves_no_trace_of_the_fault(moved_clock: RunOn) -> None:
    _, stage = play(moved_clock, said("a"), said("bad"), said("b"), said(text="Done."))
    said_to = [[message["content"] for message in asked.messages] for asked in stage.asked]
    assert said_to == [
        ["text 0"],
        ["text 0", "result 0"],
        ["text 0", "result 0", "again"],
        ["text 0", "result 0", "again", "result 1"],
    ]


def test_faults_of_each_turn_are_bounded(moved_clock: RunOn) -> None:
    outcome, _ = play(moved_clock, said("a"), said("bad"), said("bad"))
    assert (outcome.status, outcome.attempts) == (Status.REJECTED, 3)
    assert outcome.problem is not None
    assert outcome.problem.code == "invalid_label"


def test_the_last_turn_ends_it_in_any_case(moved_clock: RunOn) -> None:
    outcome, stage = play(moved_clock, said("a"), said("b"), said("c"))
    assert outcome.problem is not None
    assert (outcome.status, outcome.problem.code) == (Status.REJECTED, "unfinished")
    assert len(stage.asked) == 3
    assert "callback c" in stage.ledger.log, "what was called is called back"


# -- resumes ---------------------------------------------------------------------------------------------------------

TALK = (said("a", "b", name="r0"), said("c", name="r1"), said(text="Done.", name="r2"))


@pytest.fixture
def whole(moved_clock: RunOn) -> tuple[Outcome, Stage]:
    """A conversation that nothing has interrupted."""
    return play(moved_clock, *TALK)


def cut(turns: Sequence[SavedAnswer], *results: int) -> dict[str, list[SavedAnswer]]:
    """What a ledger has when the run ends in mid-way: so many results of each of the first turns."""
    return {"k0": [replace(turn, results=turn.results[:many]) for turn, many in zip(turns, results, strict=False)]}


@pytest.mark.parametrize("results", [(0,), (1,), (2,), (2, 0), (2, 1)])
def test_a_resume_goes_on_where_the_ledger_ends(
    moved_clock: RunOn, whole: tuple[Outcome, Stage], results: tuple[int, ...]
) -> None:
    before, first = whole
    outcome, stage = play(moved_clock, *TALK[len(results) :], saved=cut(first.ledger.of(), *results))
    assert outcome.label == before.label
    assert (outcome.usage, outcome.attempts, outcome.repairs) == (before.usage, before.attempts, before.repairs)
    assert stage.ledger.log.count("call") == 3 - len(results), "no answer is asked for again"
    assert stage.task.keys == first.task.keys[sum(results) :], "no result is asked for again, and keys are the same"
    assert [asked.messages for asked in stage.asked] == [asked.messages for asked in first.asked[len(results) :]]


def test_turns_of_another_request_are_not_gone_on_with(moved_clock: RunOn, whole: tuple[Outcome, Stage]) -> None:
    kept = [replace(turn, request_digest=b"another prompt..") for turn in whole[1].ledger.of()]
    _, stage = play(moved_clock, *TALK, saved={"k0": kept})
    assert stage.ledger.log.count("call") == 3


def test_what_followed_a_kept_answer_that_fits_no_more_is_not_gone_on_with(
    moved_clock: RunOn, whole: tuple[Outcome, Stage]
) -> None:
    turns = whole[1].ledger.of()
    turns[0] = replace(turns[0], response=said("bad"))
    outcome, stage = play(moved_clock, said("z"), said(text="Done."), saved={"k0": turns})
    assert outcome.label == {"said": ["z=result 0"], "reply": "Done."}
    assert len(stage.asked) == 2


# -- keys ------------------------------------------------------------------------------------------------------------

CALLS = st.builds(
    dict,
    key=st.text(max_size=3),
    request_digest=st.binary(min_size=1, max_size=2),
    request_id=st.none() | st.text(max_size=2),
    turn=st.integers(0, 2),
    place=st.integers(0, 2),
    tool=st.sampled_from("ab"),
    name=st.text(max_size=1),
    arguments=st.text(max_size=2),
)


def key_of(run: str, call: Mapping[str, Any]) -> str:
    facts = dict(call)
    one = ToolCall(facts.pop("name"), facts.pop("tool"), facts.pop("arguments"))
    return idempotency_key(run, valid_call=ValidCall(one.name, {}, one), **facts)


@given(CALLS, CALLS)
def test_keys_are_equal_for_the_same_call_and_for_no_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (key_of("run", one) == key_of("run", other)) == (one == other)
    assert key_of("run", one) != key_of("another", one)
    assert len(key_of("run", one)) == 32


def test_a_record_with_the_same_request_as_another_has_its_own_key_and_a_replay_has_it_too(moved_clock: RunOn) -> None:
    async def main() -> tuple[list[str], list[str]]:
        stage = Stage(iter([said("a", name="r0")]), max_turns=1)
        first = await stage.ask()
        copy = await stage.asker.finish(record(7), first)
        live = list(stage.task.keys)
        stage.task.keys.clear()
        for outcome in (first, copy):
            assert await read_again(stage.context, outcome, ()) == outcome
        return live, stage.task.keys

    live, again = moved_clock(main())
    assert len(set(live)) == 2
    assert again == live


# -- callbacks that break ------------------------------------------------------------------------------------


def test_of_several_calls_what_came_before_the_one_that_broke_is_kept(moved_clock: RunOn) -> None:
    outcome, stage = play(moved_clock, said("a", "boom", "c"), max_turns=1)
    assert outcome.problem is not None
    assert outcome.problem.code == "callback_error"
    assert stage.ledger.log == ["call", "kept 0 with 0", "callback a", "kept 0 with 1", "callback boom"]


# -- the journal -----------------------------------------------------------------------------------------------------


def kept(number: int) -> SavedAnswer:
    return SavedAnswer(f"k{number}", 0, b"", Response(Answer(), Usage(), "m"), 1, 0.0)


def test_who_waits_at_once_is_written_at_once(moved_clock: RunOn) -> None:
    ledger = Ledger()

    async def main() -> None:
        journal = Journal(ledger.keep, Gate(4))
        await asyncio.gather(*[journal.keep(kept(number)) for number in range(50)])
        first = asyncio.ensure_future(journal.keep(kept(50)))
        await asyncio.sleep(0.001)
        await asyncio.gather(first, *[journal.keep(kept(number)) for number in range(51, 60)])
        await journal.close()

    moved_clock(main())
    assert len(ledger.turns) == 60
    assert ledger.writes == [50, 1, 9]


def test_a_record_that_is_cancelled_is_written_all_the_same(moved_clock: RunOn) -> None:
    ledger = Ledger()

    async def main() -> None:
        journal = Journal(ledger.keep, Gate(4))
        waiting = asyncio.ensure_future(journal.keep(kept(0)))
        await asyncio.sleep(0.001)
        waiting.cancel()
        await journal.keep(kept(1))
        await journal.close()

    moved_clock(main())
    assert sorted(key for key, _ in ledger.turns) == ["k0", "k1"]


def test_an_error_reaches_all_who_wait_and_each_is_written_again(moved_clock: RunOn) -> None:
    ledger = Ledger(failures=1)
    gate = Gate(4)

    async def main() -> None:
        journal = Journal(ledger.keep, gate)
        await asyncio.gather(*[journal.keep(kept(number)) for number in range(3)])
        await journal.keep(kept(3))

    moved_clock(main())
    assert isinstance(gate.stopped, StoreError)
    assert [key for key, _ in ledger.turns] == ["k0", "k1", "k2", "k3"]
    assert gate.unwritten == 0


def test_a_ledger_that_cannot_be_written_for_a_moment_stops_the_run_and_loses_nothing(moved_clock: RunOn) -> None:
    outcome, stage = play(moved_clock, said("a"), max_turns=1, ledger=Ledger(failures=3))
    assert outcome.status is Status.LABELLED
    assert isinstance(stage.gate.stopped, StoreError)
    assert stage.ledger.log == ["call", "kept 0 with 0", "callback a"], "not called before the answer was safe"


def test_a_ledger_that_cannot_be_written_at_all_calls_nobody(moved_clock: RunOn) -> None:
    async def main() -> Stage:
        stage = Stage(iter([said("a")]), max_turns=1, ledger=Ledger(failures=10_000))
        with pytest.raises(StoppedError, match="the disk is full"):
            await stage.ask()
        return stage

    stage = moved_clock(main())
    assert stage.ledger.log == ["call"]
    assert stage.gate.unwritten == 0


def test_such_a_run_can_be_resumed(moved_clock: RunOn) -> None:
    async def main() -> tuple[Ending, list[Outcome]]:
        stage = Stage(iter([said("a")] * 9), ledger=Ledger(failures=10_000))
        written: list[Outcome] = []

        async def commit(outcomes: Sequence[Outcome]) -> None:
            written.extend(outcomes)

        jobs = items([Job(request(number)) for number in range(9)])
        return await Pool(jobs, stage.asker, commit, sizes=PoolSizes(workers=2)).run(), written

    assert moved_clock(main()) == (Ending.STOPPED, [])


def test_an_answer_keeps_its_place_until_it_is_safe(moved_clock: RunOn) -> None:
    """With four places and a ledger that hangs, no fifth call leaves: a kill costs four answers at the most."""

    async def main() -> int:
        stage = Stage(iter([said("a")] * 9))
        release = asyncio.Event()

        async def slow(turns: Sequence[SavedAnswer]) -> None:
            await release.wait()
            await Ledger.keep(stage.ledger, turns)

        stage.asker._journal = Journal(slow, stage.gate)
        asking = [asyncio.ensure_future(stage.asker.ask(request(number))) for number in range(9)]
        await asyncio.sleep(5)
        calls = len(stage.asked)
        release.set()
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await stage.asker._journal.close()
        return calls

    assert moved_clock(main()) == 4


# -- a deadline for a record -----------------------------------------------------------------------------------------


def test_a_record_that_keeps_failing_slowly_while_others_pass_is_given_up_at_its_deadline(moved_clock: RunOn) -> None:
    async def provider(asked: Request) -> Response:
        if asked.record.key == "k0":
            await asyncio.sleep(20)
            raise UnavailableError("503")
        await asyncio.sleep(0.5)
        return answered()

    async def main() -> Outcome:
        gate = Gate(4)
        rules = AskRules(max_attempts=1000, timeout_s=60, record_s=100)
        asker = Asker(
            provider,
            InterviewContext(FakeTask()),
            Admission(gate=gate),
            Stats(time.monotonic),
            rules=rules,
            rng=random.Random(1),
        )
        slow = asyncio.ensure_future(asker.ask(request(0)))
        number = 0
        while not slow.done():
            number += 1
            await asker.ask(request(number))
            assert number < 5000, "the run would never end"
        return slow.result()

    outcome = moved_clock(main())
    assert outcome.problem is not None
    assert (outcome.status, outcome.problem.code) == (Status.FAILED, "record_deadline")
    assert "not done in 100 s" in outcome.problem.message
    assert 3 <= outcome.attempts <= 6
