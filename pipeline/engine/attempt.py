"""The live driver: calls the model for one record, under the rules and with admission, until there is an outcome."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from pipeline.engine.first_records_breaker import FirstRecordsBreaker
from pipeline.engine.health import Answerer, Prepare
from pipeline.engine.hedge import Hedge
from pipeline.engine.history import CallHistory, Over
from pipeline.engine.interview import Interview, Wants
from pipeline.engine.interview_context import InterviewContext
from pipeline.engine.journal import Journal
from pipeline.engine.judge import Judge
from pipeline.engine.mid_run_breaker import MidRunBreaker
from pipeline.engine.record_errors import RecordErrorHandler
from pipeline.engine.rules import AskRules, most_of
from pipeline.engine.saved_answers import call_back, copy
from pipeline.errors import CallError, CallTimeoutError, MediaError, NoRoomError
from pipeline.limits import Admission, Permit, Tariff, TokenBound
from pipeline.records import Outcome, Ping, Problem, Record, Request, Response, SavedAnswer, Status
from pipeline.stats import Stats

log = logging.getLogger("labelpipe")


#: Takes over an interview's request to have it answered later, and returns whether it did. Raises Over if that was
#: tried and failed for good.
Later = Callable[[Interview], Awaitable[bool]]


class _PutOffError(Exception):
    """The record's request is answered later."""


class Asker:
    """Asks the model about one record until there is an outcome.

    `journal` saves paid answers of records that have not ended. `tariff` prices answers. `later` takes requests that
    are not answered now.
    """

    def __init__(
        self,
        provider: Answerer,
        context: InterviewContext,
        admission: Admission,
        stats: Stats,
        *,
        rules: AskRules,
        journal: Journal | None = None,
        tariff: Tariff | None = None,
        prepare: Prepare | None = None,
        ping: Ping | None = None,
        rng: random.Random | None = None,
        later: Later | None = None,
    ) -> None:
        self._provider = provider
        self._later = later
        self._context = context
        self._context_without_callbacks = context.without_callbacks()
        self._journal = journal
        self._admission = admission
        self._stats = stats
        self._tariff = tariff or Tariff(None)
        self.prepare = prepare
        self.error_handler = RecordErrorHandler(admission.gate.stop)
        self.first_records_breaker = FirstRecordsBreaker(lambda: self.judge.rules.stop_rejected, admission.gate.stop)
        self.judge = Judge(admission, stats, rules, ping=ping, most_answers=context.most_answers, rng=rng)
        self._mid_run_breaker = MidRunBreaker(provider, context.task, admission, lambda: self.judge.rules, prepare)
        self._hedge = Hedge(stats, self.judge.tail)
        #: Called with the number of records that wait or fail when it grows.
        self.at_wait: Callable[[int], None] = lambda _: None
        # Mutable state, besides the judge's: how many records wait for a retry, how many that have not failed wait for
        # admission, and an event for records that let these go first.
        self._waiting = self._fresh = 0
        self._turn = asyncio.Event()
        admission.gate.at_calm(self._turn.set)

    async def ask(self, request: Request, saved: Sequence[SavedAnswer] = ()) -> Outcome | None:
        """Return the record's outcome; None if its request is answered later. `saved` are its answers so far.

        Raises StoppedError if the run stops first; the record then stays pending.
        """
        # Callbacks are only for the run's own records.
        context = self._context_without_callbacks if request.record.is_canary else self._context
        interview = Interview(context, request.record, request=request, max_repairs=self.judge.rules.max_repairs)
        history = CallHistory(interview)
        if saved:  # a ledger of an older version lacks their cost
            saved = [replace(one, response=self._noted(one.response)) for one in saved]
        self.judge.active += 1
        try:
            if self.prepare is not None and request.attachments:
                await self._until_over_with_media(self.prepare(request), history, saved)
            else:
                await self._until_over(history, saved)
            outcome = self._ended(interview)
            if (code := self._mid_run_breaker.ended(request, outcome)) is not None:
                await self._mid_run_breaker.judge(request, outcome, code)
        except _PutOffError:
            return None
        except Exception as error:
            problem = self.error_handler.handle(request.record, error)
            interview.end(Status.REJECTED if interview.response else Status.FAILED, problem)
            return self._ended(interview)
        else:
            return outcome
        finally:
            self.judge.active -= 1
            self.judge.failing -= history.failing
            self.judge.flex.ended(history)

    async def _until_over_with_media(
        self, prepared: AbstractAsyncContextManager[Request], history: CallHistory, saved: Sequence[SavedAnswer]
    ) -> None:
        interview = history.interview
        try:
            async with prepared as interview.request:
                await self._until_over(history, saved)
        except MediaError as error:
            if interview.response is None:
                interview.write_off(saved)
            interview.end(Status.REJECTED, Problem(error.code, str(error)))

    async def _resume(self, interview: Interview, saved: Sequence[SavedAnswer]) -> None:
        interview.resume(saved)
        if interview.fault is not None and saved[-1].fault is None and self._journal is not None:
            # It came in a batch and had not been parsed. The next session must find it as it is parsed now.
            await self._journal.keep(interview.to_saved_answer(time.time()))
            self._tell(interview)

    async def _until_over(self, history: CallHistory, saved: Sequence[SavedAnswer]) -> None:
        """Supply answers and callback results until the interview is over."""
        interview, context = history.interview, history.interview.context
        if saved:
            await self._resume(interview, saved)
        while not interview.is_over:
            if interview.wants is Wants.ANSWER:
                try:
                    if self._later is not None and await self._later(interview):
                        raise _PutOffError
                    response = await self._answer(history)
                except Over as over:
                    request_before = interview.request
                    interview.give_up(over.status, over.problem)
                    if interview.request is not request_before:
                        history.begin_anew()  # one voter's failure says nothing about another voter
                    continue
                for other in history.came:
                    if other is not response:
                        interview.lost(other)
                history.came.clear()
                interview.answered(response)
                self._tell(interview)
                is_kept = interview.needs_keeping
            else:
                # A replay needs the turns of a conversation until its end.
                is_kept = await call_back(context, interview) and (context.talks or not interview.is_over)
            if is_kept and self._journal is not None:
                await self._journal.keep(interview.to_saved_answer(time.time()))

    def _tell(self, interview: Interview) -> None:
        """Record what was odd about the last answer: a fault to repair, or a form that was accepted anyway."""
        if interview.fault is not None:
            if interview.wants is Wants.ANSWER:
                self._stats.record_retry(interview.fault.code)
        elif readings := interview.readings:
            self._stats.record_readings(readings)
            log.info("read all the same", extra={"facts": {"key": interview.record.key, "with": readings}})

    def close(self) -> None:
        """Stop health checks. May be called twice."""
        self.judge.close()

    def handed_over(self) -> None:
        """Count a paid outcome for the writer."""
        self._admission.gate.on_answer_queued()

    def written(self, count: int) -> None:
        """Count paid outcomes in the ledger."""
        self._admission.gate.on_answers_written(count)

    async def finish(self, record: Record, source: Outcome) -> Outcome:
        """Return the outcome of a record whose identical request has `source`: no call, but its own callback."""
        interview = Interview(self._context, record)
        try:
            interview = await copy(self._context, record, source)
        except Exception as error:
            interview.end(Status.REJECTED, self.error_handler.handle(record, error))
        return replace(
            interview.outcome(time.time()),
            answer=source.answer,
            request_digest=source.request_digest,
            model=source.model,
            request_id=source.request_id,
            copied_from=source.record.key,
        )

    async def _answer(self, history: CallHistory) -> Response:
        """Return one answer, over as many calls as it takes."""
        clock = asyncio.get_running_loop().time
        while True:
            permit = await self._permit(history)
            percent = self.judge.rules.hedge_after_p
            try:
                if percent is None:
                    return await self._call(history, permit)
                return await self._hedge.answer(
                    percent, permit, lambda other: self._call(history, other), lambda: self._permit(history)
                )
            except CallError as error:
                failed = error
                checked = await self.judge.check_health(history, failed, permit.sent_at)
            finally:
                # Before any wait: a record that backs off must not block others.
                permit.close()
                if self._admission.gate.outage is None:
                    history.busy_s += clock() - permit.sent_at
            wait_s = self.judge.after(history, failed, permit.sent_at, checked)
            await self._wait(wait_s)

    async def _wait(self, seconds: float) -> None:
        """Wait before a retry. The worker waits too, so another one replaces it."""
        self._waiting += 1
        self.at_wait(max(self._waiting, self.judge.failing))
        try:
            if seconds:
                await self._admission.gate.pause(seconds)
        finally:
            self._waiting -= 1

    async def _permit(self, history: CallHistory) -> Permit:
        gate = self._admission.gate
        # While there are records that have not failed, one that may itself cause failures is never the probe.
        while history.failing and gate.outage is not None and self._fresh and gate.stopped is None:
            self._turn.clear()
            await self._turn.wait()
        is_fresh = not history.failing
        self._fresh += is_fresh
        try:
            return await self._admission.acquire(history.request.size_tokens, self._most(history.request))
        finally:
            self._fresh -= is_fresh
            if is_fresh and not self._fresh:
                self._turn.set()

    def _most(self, request: Request) -> TokenBound | None:
        """Return the most that the call can use; None without a budget, to save the computation."""
        return None if self._admission.budget is None else most_of(request)

    async def _call(self, history: CallHistory, permit: Permit) -> Response:
        history.interview.calls += 1
        if not history.failing:
            history.answers_before, history.failing_since = self._admission.gate.answers, permit.sent_at
        clock, rules, request = asyncio.get_running_loop().time, self.judge.rules, history.request
        if rules.flex_patience_s is not None:
            request = self.judge.flex.sent(history, clock())
        history.sent, is_flex = request, request is not history.request
        try:
            async with asyncio.timeout(rules.timeout_s):
                response = await self._provider(request)
        except TimeoutError as error:
            message = f"no answer in {rules.timeout_s:g} s"
            raise CallTimeoutError(message, billed=True) from error
        except CallError as error:
            # Release it here, where the permit is known: one of a record's two calls may be refused alone.
            if not error.billed:
                permit.release()
            if error.has_no_room and is_flex:
                raise NoRoomError(str(error), status=error.status, retry_after_s=error.retry_after_s,
                                  request_id=error.request_id, billed=error.billed) from error  # fmt: skip
            raise
        response = self._noted(response, request.model)
        permit.settle(response.usage, response.cost_usd)
        self._admission.on_answer(response.usage, response.limits, response.latency_s, sent_at=permit.sent_at)
        self._stats.record_answer(response.usage, response.latency_s)
        self.judge.answered(history)
        if rules.flex_patience_s is not None:
            standard_usd = self._tariff.cost_usd(response.usage, None, request.model)
            self.judge.flex.answered(history, response, standard_usd, is_flex=is_flex, now=clock())
        history.free = 0
        history.came.append(response)
        return response

    def _noted(self, response: Response, model: str = "") -> Response:
        """Return the answer with its cost, by the tier that the server reports, and with a name if it has none.

        The name is part of callbacks' keys.
        """
        cost_usd, name = response.cost_usd, response.request_id
        if cost_usd is None:
            cost_usd = self._tariff.cost_usd(response.usage, response.service_tier, model)
        if name and cost_usd == response.cost_usd:
            return response
        return replace(response, cost_usd=cost_usd, request_id=name or f"unnamed-{uuid.uuid4().hex}")

    def _ended(self, interview: Interview) -> Outcome:
        outcome = interview.outcome(time.time())
        if outcome.status is Status.LABELLED:
            self.error_handler.on_label()
        self.first_records_breaker.ended(outcome)
        return outcome
