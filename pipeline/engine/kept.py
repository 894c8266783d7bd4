"""The driver of answers that are there: a copy of another record's, a replay. And callbacks, for every driver.

No call is made. What an answer means is the interview's, as it is for a live one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from pipeline.engine.interview import Interview, Wants
from pipeline.engine.terms import Terms
from pipeline.errors import AnswerError, CallbackError
from pipeline.records import Answer, KeptAnswer, Outcome, Record, Response, Usage

log = logging.getLogger("labelpipe")


async def call_back(terms: Terms, interview: Interview) -> bool:
    """Hand the next call to its callback. False: it has raised."""
    valid_call, call = interview.callback
    try:
        done = await terms.task.respond(valid_call, interview.record, call)
    except AnswerError as error:
        if isinstance(error, CallbackError):
            log.warning("callback raised", extra={"facts": {"key": interview.record.key, "error": str(error)}})
        interview.failed(error)
        return False
    interview.called_back(done)
    return True


async def copy(terms: Terms, record: Record, source: Outcome) -> Interview:
    """The interview of a record whose identical request was answered for `source`; its own callbacks are called."""
    assert source.answer is not None
    interview = Interview(terms, record, digest=source.request_digest or b"")
    interview.answered(_response(source, source.answer))
    await _call_all_back(terms, interview)
    return interview


async def read_again(terms: Terms, old: Outcome, kept: Sequence[KeptAnswer]) -> Outcome:
    """A record's outcome as its answers are read now; the same object where its conversation broke off.

    Callbacks are called again, with the keys that they had. A conversation is read with the results that the model was
    told then: others would make it another one.
    """
    assert old.answer is not None
    interview = Interview(terms, old.record, digest=old.request_digest or b"", key=old.asked_as)
    if terms.talks:
        _go_through(interview, old, old.answer, kept)
    else:
        interview.answered(_response(old, old.answer))
        await _call_all_back(terms, interview)
    if not interview.is_over:
        return old
    new = interview.outcome(old.finished_at)
    return replace(old, status=new.status, label=new.label, rows=new.rows, problem=new.problem)


def _go_through(interview: Interview, old: Outcome, last: Answer, kept: Sequence[KeptAnswer]) -> None:
    """The turns of a conversation, and its last words; what was asked again is no part of it."""
    # Some may be of a prompt before this one.
    turns = [one for one in kept if one.request_digest == old.request_digest and one.fault is None]
    for one in turns:
        if interview.wants is Wants.ANSWER:
            interview.answered(one.response, one.results)
    if interview.wants is Wants.ANSWER and not (turns and turns[-1].response.answer == last):
        interview.answered(_response(old, last))


async def _call_all_back(terms: Terms, interview: Interview) -> None:
    while interview.wants is Wants.CALLBACK:
        await call_back(terms, interview)


def _response(source: Outcome, answer: Answer) -> Response:
    """A kept answer as if it came now: it was paid for elsewhere."""
    return Response(answer, Usage(), source.model or "", source.request_id, cost_usd=0.0)
