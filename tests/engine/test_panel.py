"""Votes on a label: when they are decided, and what the columns say; arithmetic and the interview alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from engine_parts import FakeTask, Rig, answered, record, request
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import Interview, InterviewContext, Panel, Wants, read_again
from pipeline.engine.panel import Ballot
from pipeline.errors import CredentialsError, StoppedError, UnavailableError
from pipeline.records import Outcome, Problem, Record, Request, Response, SavedAnswer, Status

NO = Problem("invalid_label", "no")


def ballots(text: str) -> list[Ballot]:
    """A ballot a letter; a dash abstains."""
    return [Ballot(None, problem=NO) if letter == "-" else Ballot({"label": letter}) for letter in text]


@pytest.mark.parametrize(
    ("size", "votes", "agreement", "needs_review"),
    [
        (3, "aa", 1.0, False),
        (3, "aba", 0.6667, False),
        (3, "abb", 0.6667, False),
        (3, "abc", 0.3333, True),
        (3, "-aa", 0.6667, False),
        (3, "a--", 0.3333, True),
        (3, "ab-", 0.3333, True),
        (2, "ab", 0.5, True),
        (5, "aaa", 1.0, False),
        (5, "abcab", 0.4, True),
        (5, "abcaa", 0.6, False),
    ],
)
def test_what_the_columns_say(size: int, votes: str, agreement: float, needs_review: bool) -> None:
    panel = Panel(size, ("label",))
    assert panel.winner(ballots(votes[:-1])) is None, "one vote fewer does not decide it"
    winner = panel.winner(ballots(votes))
    assert winner is not None
    assert winner.problem is None
    expected = [None if letter == "-" else letter for letter in votes]
    assert panel.columns_of(ballots(votes)) == {
        "agreement": agreement,
        "votes": expected,
        "needs_review": needs_review,
    }


@given(st.integers(2, 7).flatmap(lambda size: st.tuples(st.just(size), st.text("abc-", min_size=size, max_size=size))))
def test_votes_end_when_no_vote_can_change_the_label_and_not_before(case: tuple[int, str]) -> None:
    size, votes = case
    panel = Panel(size, ("label",))
    asked = next(count for count in range(1, size + 1) if panel.winner(ballots(votes[:count])) is not None)
    counts = Counter(votes[:asked].replace("-", ""))
    if asked < size:
        (value, most), *rest = counts.most_common()
        assert most > (rest[0][1] if rest else 0) + size - asked, "whatever else is said, it stands"
        whole = Counter(votes.replace("-", "")).most_common(2)
        assert whole[0][0] == value
    assert asked > size // 2


def begun(max_repairs: int = 0) -> Interview:
    context = InterviewContext(FakeTask(), run_id="run", callbacks=False, panel=Panel(3, ("label",)))
    return Interview(context, record(0), request=request(0), max_repairs=max_repairs)


def voted(*steps: str | Problem) -> tuple[Interview, Outcome]:
    interview = begun()
    for step in steps:
        assert interview.wants is Wants.ANSWER
        if isinstance(step, Problem):
            interview.give_up(Status.FAILED, step)
        else:
            interview.answered(answered(step))
    return interview, interview.outcome(1.0)


def test_one_record_stays_one_outcome_with_the_cost_of_all_votes() -> None:
    interview, outcome = voted("good", "fine", "good")
    assert interview.is_over
    assert outcome.label == {
        "label": "good", "agreement": 0.6667, "votes": ["good", "fine", "good"], "needs_review": False
    }  # fmt: skip
    assert outcome.usage.total == 30
    assert outcome.answer == answered("good").answer


def test_the_answer_that_stands_is_the_outcomes_and_a_later_one_is_kept_beside_it() -> None:
    """Only what is not in the outcome needs a row of its own."""
    interview, outcome = voted("good", "fine", "other")
    assert outcome.answer == answered("good").answer
    assert interview.needs_keeping
    assert not voted("good", "good")[0].needs_keeping


def test_a_vote_that_nothing_comes_of_is_an_abstention() -> None:
    _, outcome = voted("bad", Problem("timeout", "late"), "good")
    assert outcome.status is Status.LABELLED
    assert outcome.label is not None
    assert (outcome.label["votes"], outcome.label["needs_review"]) == ([None, None, "good"], True)


def test_where_all_abstain_the_last_says_why() -> None:
    _, outcome = voted("bad", "bad", Problem("timeout", "late"))
    assert (outcome.status, outcome.problem, outcome.label) == (Status.FAILED, Problem("timeout", "late"), None)


def test_each_vote_is_asked_with_the_first_request_whatever_was_repaired_before() -> None:
    interview = begun(max_repairs=1)
    first = interview.request
    interview.answered(answered("bad"))
    interview.answered(answered("good"))
    assert interview.request is first
    interview.answered(answered("bad"))
    assert interview.wants is Wants.ANSWER, "a vote is repaired as an answer is"
    interview.answered(answered("good"))
    assert interview.outcome(1.0).repairs == 2


def through(interview: Interview, steps: Sequence[str]) -> list[tuple[int, SavedAnswer]]:
    """Lead it to its end by these steps; gives what the ledger keeps, each with the number of steps until then."""
    kept = []
    for number, step in enumerate(steps, 1):
        if interview.is_over:
            break
        interview.calls += 1
        if step == "lost":
            interview.give_up(Status.FAILED, Problem("timeout", "late"))
            continue
        interview.answered(answered(step))
        if interview.needs_keeping:
            kept.append((number, interview.to_saved_answer(1.0)))
    return kept


SAID = st.lists(st.sampled_from(["good", "fine", "bad", "lost"]), min_size=9, max_size=9)


@given(SAID, st.integers(0, 8))
def test_a_killed_record_goes_on_where_it_was(steps: list[str], kept_count: int) -> None:
    """What the ledger keeps leads to the same request, the same votes and the same label.

    Nothing is kept of a vote to which no answer came: the votes after it must not move to its place.
    """
    whole, resumed = begun(2), begun(2)
    kept = through(whole, steps)[:kept_count]
    resumed.resume([one for _, one in kept])
    done = kept[-1][0] if kept else 0
    assert resumed.calls == done
    through(resumed, steps[done:])
    assert resumed.outcome(1.0) == whole.outcome(1.0)


@given(SAID)
def test_a_replay_counts_the_votes_as_they_were_cast(steps: list[str]) -> None:
    whole = begun(2)
    kept = [one for _, one in through(whole, steps)]
    before = whole.outcome(1.0)
    if before.answer is not None:
        after = asyncio.run(read_again(whole.context, before, kept, 2))
        assert (after.status, after.label) == (before.status, before.label)


def test_a_voter_gets_its_attempts_whatever_another_one_did(moved_clock: Callable[[Any], Any]) -> None:
    """The first model never answers this record; the second one is asked again after a single failure."""
    failures = {"m": 99, "second": 1, "third": 0}

    async def provider(asked: Request) -> Response:
        await asyncio.sleep(0.01)
        failures[asked.model] -= 1
        if failures[asked.model] >= 0:
            raise UnavailableError("503")
        return answered("good")

    voters = tuple(partial(voice, name) for name in ("second", "third"))

    async def main() -> Outcome:
        return await Rig(provider, panel=Panel(3, ("label",), voters), max_attempts=1).asker.ask(request(0))

    outcome: Outcome = moved_clock(main())
    assert outcome.label is not None
    assert outcome.label["votes"] == [None, "good", "good"]


def test_a_voters_model_that_nobody_knows_ends_the_run_at_its_first_call(moved_clock: Callable[[Any], Any]) -> None:
    """The run's own model answers all the while, which says nothing of the other one."""
    asked: list[str] = []

    async def provider(request: Request) -> Response:
        asked.append(request.model)
        if request.model == "second":
            raise CredentialsError("no such model", status=404)
        return answered("good")

    async def main() -> None:
        rig = Rig(provider, panel=Panel(2, ("label",), (partial(voice, "second"),)))
        with pytest.raises(StoppedError, match="no such model"):
            await rig.asker.ask(request(0))

    moved_clock(main())
    assert asked == ["m", "second"]


def voice(name: str, of: Record) -> Request:
    """The request of the voter with this model."""
    return replace(request(of.ordinal), model=name)
