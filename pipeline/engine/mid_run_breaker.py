"""Stops a run that gets no more labels: records that had one are asked again, to see if the server has changed.

The records alone cannot distinguish a hard part of a file from a model that has begun to decline everything.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from pipeline.engine.first_records_breaker import FIRST_RECORDS, ONE_REASON, TO_CHANGE, last_of
from pipeline.engine.health import CHECK_MESSAGES, CHECK_TOKENS, Answerer, Prepare
from pipeline.engine.interview_context import TaskPart
from pipeline.engine.rules import AskRules, most_of
from pipeline.errors import AnswerError, CallbackError, CallError, MediaError, NoLabelError, RefusalError
from pipeline.limits import Admission
from pipeline.records import Outcome, Request, Status

#: Labeled records that are asked again; all must fail for the same reason.
WITNESSES = 3
#: If this many callbacks fail in a row, something they use, such as a database, is gone. The answers are saved, so
#: stopping late costs little, and no callback is repeated for a record that went well.
CALLBACKS = 100
#: Reasons that lie in the answer; the others have evidence of their own.
OF_ANSWERS = frozenset({"no_tool_call", "invalid_json", "invalid_label", "truncated", "refused", "unfinished"})


class MidRunBreaker:
    """Stops a run whose answers are no longer labels."""

    def __init__(
        self,
        provider: Answerer,
        task: TaskPart,
        admission: Admission,
        rules: Callable[[], AskRules],
        prepare: Prepare | None,
    ) -> None:
        self._provider = provider
        self._task = task
        self._admission = admission
        self._rules = rules
        self._prepare = prepare
        # Mutable state: the last labeled requests, how many records got no label since and why, how many it takes to
        # ask again, and whether that is in progress.
        self._witnesses: deque[Request] = deque(maxlen=WITNESSES)
        self._length = 0
        self._codes: Counter[str] = Counter()
        self._enough = FIRST_RECORDS
        self._is_asking = False

    def ended(self, request: Request, outcome: Outcome) -> str | None:
        """Note a record's outcome. Return the reason to `judge` if records must be asked again now, else None."""
        if outcome.status is Status.LABELLED:
            self._witnesses.append(request)
            self._length, self._enough = 0, FIRST_RECORDS
            self._codes.clear()
            return None
        if outcome.problem is None or not outcome.attempts:
            return None
        self._length += 1
        self._codes[outcome.problem.code] += 1
        if self._codes[CallbackError.code] == self._length >= CALLBACKS and self._rules().stop_rejected:
            self._admission.gate.stop(_error(outcome, CallbackError.code, self._length))
            return None
        code, count = self._codes.most_common(1)[0]
        is_due = self._length >= self._enough and count >= ONE_REASON * self._length and code in OF_ANSWERS
        is_due &= outcome.problem.code == code and not self._is_asking and self._rules().stop_rejected > 0
        return code if is_due else None

    async def judge(self, request: Request, outcome: Outcome, code: str) -> None:
        """Ask again, and stop the run if the server has changed."""
        self._is_asking = True
        try:
            await self._judge(request, outcome, code)
        finally:
            self._is_asking = False

    async def _judge(self, request: Request, outcome: Outcome, code: str) -> None:
        length, witnesses = self._length, list(self._witnesses)
        if not witnesses and code == RefusalError.code:
            # A model that declines a health check declines everything. Other faults of that answer prove nothing.
            witnesses = [
                replace(request, messages=CHECK_MESSAGES, attachments=(), media_tokens=0, size_tokens=CHECK_TOKENS)
            ]
        found = await asyncio.gather(*map(self._problem_of, witnesses))
        if found and set(found) == {code} and self._length >= length:
            who = "Records that had a label were" if self._witnesses else "A health check was"
            self._admission.gate.stop(_error(outcome, code, length, who))
        self._enough = 2 * length

    async def _problem_of(self, request: Request) -> str | None:
        """Return what is wrong with a new answer to this request; None: nothing, or no answer."""
        permit = await self._admission.acquire_health_check(request.size_tokens, most_of(request))
        if permit is None:
            return None
        try:
            async with AsyncExitStack() as stack, asyncio.timeout(self._rules().timeout_s):
                sent = request
                if self._prepare is not None and request.attachments:
                    sent = await stack.enter_async_context(self._prepare(request))
                response = await self._provider(sent)
            permit.settle(response.usage)
            self._task.parse_calls(response.answer, request.record)
        except AnswerError as error:
            return error.code
        except CallError as error:
            if not error.billed:
                permit.release()
        except (TimeoutError, MediaError):
            return None
        finally:
            permit.close()
        return None


def _error(outcome: Outcome, code: str, length: int, who: str = "") -> NoLabelError:
    """Return the error that stops the run. `who` was asked again, with the same result."""
    sentences = [f"none of the last {length} records got a label, for one reason: {code}"]
    sentences += [f"{who} asked too, with the same result: the server has changed"] if who else []
    sentences += [TO_CHANGE[code]] if code in TO_CHANGE else []
    return NoLabelError(". ".join([*sentences, *last_of(outcome)]), reason=code, is_late=True)
