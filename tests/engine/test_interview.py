"""What answers mean for one record: the state machine alone, and that all who drive it come to the same label."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from engine_parts import FakeTask, answered, record, request
from hypothesis import given
from hypothesis import strategies as st
from talk_parts import Ledger, Stage, TalkTask, said

from pipeline.engine import Interview, InterviewContext, Wants, read_again
from pipeline.errors import CallbackError
from pipeline.records import Outcome, Problem, Response, Status, Usage

RunOn = Callable[[Any], Any]


def begun(task: FakeTask | None = None, *, max_repairs: int = 2, callbacks: bool = True) -> Interview:
    context = InterviewContext(task or FakeTask(), run_id="run", callbacks=callbacks)
    return Interview(context, record(0), request=request(0), max_repairs=max_repairs)


def told(interview: Interview, *steps: str | Response) -> Interview:
    """The interview, told of these answers; each call is called back with its arguments, `boom` breaks the callback."""
    for step in steps:
        assert interview.wants is Wants.ANSWER
        interview.answered(answered(step) if isinstance(step, str) else step)
        while interview.wants is Wants.CALLBACK:
            one, call = interview.callback
            if one.label["label"] == "boom":
                interview.failed(CallbackError("boom"))
            else:
                interview.called_back(replace(one, result=f"result {call.turn}"))
    return interview


@pytest.mark.parametrize(
    ("steps", "max_repairs", "status", "code", "repairs"),
    [
        (["good"], 2, Status.LABELLED, None, 0),
        (["bad", "good"], 2, Status.LABELLED, None, 1),
        (["bad", "bad", "good"], 2, Status.LABELLED, None, 2),
        (["bad", "bad", "bad"], 2, Status.REJECTED, "invalid_label", 2),
        (["bad"], 0, Status.REJECTED, "invalid_label", 0),
        (["cut", "good"], 2, Status.LABELLED, None, 1),
        (["cut", "cut"], 5, Status.REJECTED, "truncated", 1),
        (["no"], 2, Status.REJECTED, "refused", 0),
        (["boom"], 2, Status.REJECTED, "callback_error", 0),
        (["bad", "boom"], 2, Status.REJECTED, "callback_error", 1),
    ],
)
def test_what_answers_come_to(
    steps: Sequence[str], max_repairs: int, status: Status, code: str | None, repairs: int
) -> None:
    interview = told(begun(max_repairs=max_repairs), *steps)
    assert interview.is_over
    outcome = interview.outcome(1.0)
    assert (outcome.status, outcome.problem and outcome.problem.code, outcome.repairs) == (status, code, repairs)
    assert outcome.usage == Usage(8 * len(steps), 2 * len(steps)), "each answer counts"
    assert outcome.answer == answered(steps[-1]).answer
    assert outcome.finished_at == 1.0


@pytest.mark.parametrize(
    ("costs", "whole"), [([0.25], 0.25), ([0.25, 0.5], 0.75), ([0.25, None], None), ([None, 0.5], None), ([0.0], 0.0)]
)
def test_an_outcome_costs_what_its_answers_cost(costs: Sequence[float | None], whole: float | None) -> None:
    """Those that were asked again included, each at its own price."""
    steps = [answered("bad", cost_usd=cost) for cost in costs[:-1]] + [answered("good", cost_usd=costs[-1])]
    assert told(begun(), *steps).outcome(1.0).cost_usd == whole


def test_what_is_asked_again_shows_the_last_fault_alone() -> None:
    interview = told(begun(TalkTask([])), said("bad"))
    assert interview.request is not None
    assert [one["content"] for one in interview.request.messages] == ["text 0", "again"]
    told(interview, said("bad"))
    assert [one["content"] for one in interview.request.messages] == ["text 0", "again"]


def test_who_has_all_answers_makes_no_request() -> None:
    task = FakeTask()
    interview = Interview(InterviewContext(task), record(0), digest=b"d", max_repairs=1)
    told(interview, "bad", "good")
    assert (interview.request, task.repairs) == (None, 0)
    assert interview.outcome(1.0).request_digest == b"d"


def test_who_gives_up_says_how_it_ends() -> None:
    interview = told(begun(), "bad")
    interview.end(Status.FAILED, Problem("unavailable", "503"))
    assert interview.is_over
    outcome = interview.outcome(1.0)
    assert (outcome.status, outcome.problem) == (Status.FAILED, Problem("unavailable", "503"))
    assert outcome.answer == answered("bad").answer, "what was paid for is kept"


def test_an_answer_that_another_was_faster_than_is_paid_for_and_kept_with_that_one() -> None:
    interview = begun()
    interview.calls += 2
    interview.lost(answered("good", cost_usd=0.5))
    interview.answered(answered("bad", cost_usd=0.25))
    kept = interview.to_saved_answer(1.0)
    assert (kept.number, kept.calls, kept.response.usage, kept.response.cost_usd) == (0, 2, Usage(16, 4), 0.75)
    assert (interview.usage, interview.cost_usd) == (Usage(16, 4), 0.75)
    interview.calls += 1
    interview.answered(answered("bad", cost_usd=0.25))
    assert interview.to_saved_answer(1.0).response.cost_usd == 0.25, "once"


def test_without_callbacks_the_first_valid_answer_is_the_last() -> None:
    interview = begun(TalkTask([]), callbacks=False)
    interview.answered(said("a", text="Words."))
    assert interview.is_over
    assert interview.outcome(1.0).label == {"said": ["a=None"], "reply": "Words."}


# -- resumes ---------------------------------------------------------------------------------------------------------

#: An answer of a conversation: calls, among them faulty ones, or words.
STEPS = st.lists(
    st.lists(st.sampled_from(["a", "b", "bad"]), min_size=1, max_size=2).map(lambda calls: said(*calls, name="r"))
    | st.just(said(text="Done.", name="w")),
    min_size=1,
    max_size=7,
)


def driven(steps: Sequence[Response], kept: Sequence[Any] = ()) -> tuple[Interview, list[Any]]:
    """An interview driven to its end or through all steps, and what the ledger would have of it then."""
    interview, rows = begun(TalkTask([])), {one.number: one for one in kept}
    interview.resume(kept)
    left = list(steps)
    while not interview.is_over:
        if interview.wants is Wants.CALLBACK:
            one, call = interview.callback
            interview.called_back(replace(one, result=f"result {call.turn}"))
        elif left:
            interview.calls += 1
            interview.answered(replace(left.pop(0), cost_usd=0.5))
        else:
            break
        row = interview.to_saved_answer(1.0)
        rows = {number: one for number, one in rows.items() if number < row.number} | {row.number: row}
    return interview, list(rows.values())


@given(STEPS, st.integers(0, 7))
def test_a_resume_after_any_answer_is_the_same_interview(steps: list[Response], cut: int) -> None:
    whole, _ = driven(steps)
    _, kept = driven(steps[:cut])
    resumed, _ = driven(steps[cut:], kept)
    assert resumed.outcome(1.0) == whole.outcome(1.0)
    assert (resumed.wants, resumed.request, resumed.turn) == (whole.wants, whole.request, whole.turn)


@given(STEPS, st.integers(0, 7))
def test_answers_that_mean_nothing_any_more_stay_paid_for_through_every_kill(steps: list[Response], cut: int) -> None:
    """The prompt has changed; the next session is killed after its first answer, and the one after that goes on."""
    before, kept = driven(steps)
    old = [replace(one, request_digest=b"another prompt..") for one in kept]
    _, again = driven([said("bad")], old)
    _, again = driven(steps[:cut], again)
    after, _ = driven([], again)
    fresh, _ = driven([said("bad"), *steps[:cut]])
    assert after.usage == before.usage + fresh.usage
    assert after.cost_usd == pytest.approx((before.cost_usd or 0) + (fresh.cost_usd or 0))
    assert after.calls == before.calls + fresh.calls
    assert after.request == fresh.request


def test_an_answer_that_is_read_otherwise_now_is_gone_on_from_and_what_followed_it_is_written_off() -> None:
    """It was asked again, and a fixed rule takes it now; or the other way round."""
    _, kept = driven([said("bad"), said("a"), said("b")])
    mended = [replace(kept[0], response=replace(said("a"), cost_usd=0.5)), *kept[1:]]
    interview = begun(TalkTask([]))
    interview.resume(mended)
    assert interview.wants is Wants.CALLBACK, "what followed was said to a fault that is none"
    assert (interview.usage, interview.calls) == (Usage(24, 6), 3)
    row = interview.to_saved_answer(1.0)
    assert (row.number, row.response.usage, row.calls) == (0, Usage(24, 6), 3), "it carries what was written off"


# -- all drivers -----------------------------------------------------------------------------------------------------

SCRIPTS = st.lists(st.sampled_from(["a", "b", "bad", "a b"]), min_size=1, max_size=4)


@given(SCRIPTS, st.sampled_from([1, 3]), st.integers(0, 12))
def test_all_drivers_come_to_the_same_label(script: list[str], max_turns: int, cut: int) -> None:
    """Live, resumed after a kill at any write, replayed, copied, and previewed: for the same answers the same."""
    answers = [said(*step.split(), name=f"r{place}") for place, step in enumerate(script)]
    answers += [said("a", name="last"), *[said(text="Done.", name="end")] * 9]

    async def main() -> None:
        live, stage = await asked(answers, max_turns)
        resumed, _ = await asked(answers[len(rows := first(stage.ledger, cut)) :], max_turns, rows)
        assert plain(resumed) == plain(live)
        assert await read_again(stage.context, live, stage.ledger.of()) == live
        if max_turns == 1 and live.status is Status.LABELLED:
            copied = await stage.asker.finish(record(0), live)
            assert (copied.status, copied.label, copied.usage, copied.cost_usd) == (live.status, live.label, Usage(), 0)
            shown, _ = await asked(answers, max_turns, callbacks=False)
            assert shown.status is Status.LABELLED
            assert labels_in(shown) == labels_in(live), "but for what callbacks gave back"

    asyncio.run(main())


async def asked(
    answers: Sequence[Response], max_turns: int, kept: Sequence[Any] = (), *, callbacks: bool = True
) -> tuple[Outcome, Stage]:
    stage = Stage(
        iter(answers),
        saved={"k0": kept},
        max_turns=max_turns,
        rules={"max_repairs": 2},
        callbacks=callbacks,
        wait_s=0.0,
    )
    return await stage.ask(), stage


def first(ledger: Ledger, writes: int) -> list[Any]:
    """What the ledger had after so many writes."""
    rows: dict[int, Any] = {}
    for one in ledger.written[:writes]:
        rows = {number: row for number, row in rows.items() if number < one.number} | {one.number: one}
    return list(rows.values())


def plain(outcome: Outcome) -> Outcome:
    return replace(outcome, finished_at=0.0)


def labels_in(outcome: Outcome) -> list[str]:
    assert outcome.label is not None
    return [one.split("=")[0] for one in outcome.label["said"]]
