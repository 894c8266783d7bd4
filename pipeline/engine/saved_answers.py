"""The driver for existing answers: a copy of another record's, or a replay. Also runs callbacks for every driver.

It makes no calls. The interview decides what an answer means, as for a live one.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from pipeline.engine.interview import Interview, Wants
from pipeline.engine.interview_context import InterviewContext
from pipeline.engine.panel import VOTE_COLUMNS
from pipeline.errors import AnswerError, CallbackError
from pipeline.records import JSON, Answer, Outcome, Problem, Record, Response, SavedAnswer, Status, Usage

log = logging.getLogger("labelpipe")


async def call_back(context: InterviewContext, interview: Interview) -> bool:
    """Pass the next call to its callback. Return False if it raised."""
    valid_call, call = interview.callback
    try:
        done = await context.task.run_callback(valid_call, interview.record, call)
    except AnswerError as error:
        if isinstance(error, CallbackError):
            log.warning("callback raised", extra={"facts": {"key": interview.record.key, "error": str(error)}})
        interview.failed(error)
        return False
    interview.called_back(done)
    return True


async def copy(context: InterviewContext, record: Record, source: Outcome) -> Interview:
    """Return the interview of a record whose identical request has `source`. Calls the record's own callbacks."""
    assert source.answer is not None
    interview = Interview(context, record, digest=source.request_digest or b"", votes=_votes_of(source))
    interview.answered(_response(source, source.answer))
    await _call_all_back(context, interview)
    return interview


async def read_again(
    context: InterviewContext, old: Outcome, saved: Sequence[SavedAnswer], max_repairs: int = 0
) -> Outcome:
    """Return a record's outcome as its answers are parsed now; the same object if its conversation broke off.

    Callbacks are called again, with the same keys. A conversation is read with the results that the model received
    then, because other results would change it. With votes, all answers are read, including those that were asked
    again. An answer that is still invalid after `max_repairs` repairs is an abstention.
    """
    assert old.answer is not None
    # A copy, and a label from before there were votes, has no votes of its own.
    votes = None if saved and context.panel is not None else _votes_of(old)
    interview = Interview(
        context,
        old.record,
        digest=old.request_digest or b"",
        key=old.asked_as,
        max_repairs=max_repairs if votes is None else 0,
        votes=votes,
    )
    if context.keeps_answers:
        _go_through(interview, old, old.answer, saved, votes=votes is None)
    else:
        interview.answered(_response(old, old.answer))
    if not context.talks:
        while interview.wants is Wants.ANSWER:  # a vote without an answer, or with an unusable one
            status = Status.REJECTED if old.problem is None else old.status
            interview.give_up(status, old.problem or Problem("unfinished", "a vote is missing"))
        await _call_all_back(context, interview)
    if not interview.is_over:
        return old
    new = interview.outcome(old.finished_at)
    return replace(old, status=new.status, label=new.label, rows=new.rows, problem=new.problem)


def _go_through(interview: Interview, old: Outcome, last: Answer, saved: Sequence[SavedAnswer], *, votes: bool) -> None:
    """Read a conversation's turns and last words, without what was asked again; or all answers that led to votes."""
    # Some may belong to an earlier prompt.
    turns = [one for one in saved if one.request_digest == old.request_digest and (one.fault is None or votes)]
    for one in turns:
        interview.skip_to(one)
        if interview.wants is Wants.ANSWER:
            interview.answered(one.response, one.results)
    is_kept = any((one.response.answer, one.response.request_id) == (last, old.request_id) for one in turns)
    if votes and (cast := _votes_of(old).get("votes")):
        is_kept = cast[-1] is None  # a cache on the way returns the same answer again, with the same name
    if interview.wants is Wants.ANSWER and not is_kept:
        interview.answered(_response(old, last))


def _votes_of(source: Outcome) -> dict[str, JSON]:
    """Return the vote columns of a record."""
    return {name: value for name, value in (source.label or {}).items() if name in VOTE_COLUMNS}


async def _call_all_back(context: InterviewContext, interview: Interview) -> None:
    while interview.wants is Wants.CALLBACK:
        await call_back(context, interview)


def _response(source: Outcome, answer: Answer) -> Response:
    """Return a saved answer as if it came now, already paid for."""
    return Response(answer, Usage(), source.model or "", source.request_id, cost_usd=0.0)
