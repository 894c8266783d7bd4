"""One record's life between its first call and its outcome."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from pipeline.engine.hedge import Hedge
from pipeline.engine.life import LookForLife, Ping, Shape
from pipeline.engine.net import Net
from pipeline.engine.retry import Verdict, backoff_s, verdict_of
from pipeline.engine.rules import AskRules, most_of
from pipeline.engine.trial import Over, Trial
from pipeline.engine.turns import Responder, last_words
from pipeline.errors import (
    AnswerError,
    CallbackError,
    CallError,
    CallTimeoutError,
    MediaError,
    RateLimitedError,
    RequestShapeError,
    StoppedError,
    TruncatedError,
    UnavailableError,
)
from pipeline.limits import Admission, Most, Permit, Price
from pipeline.records import Answer, Labelled, Outcome, Problem, Record, Request, Response, Status
from pipeline.stats import Stats

log = logging.getLogger("labelpipe")

#: One call: a Request in, a Response out, or a CallError.
Provider = Callable[[Request], Awaitable[Response]]
#: Makes the request that is sent (pictures are read in) and holds what that takes until the record has its outcome.
#: Raises MediaError.
Prepare = Callable[[Request], AbstractAsyncContextManager[Request]]

#: How long a server's word on one call is heard at the most.
RETRY_AFTER_MAX_S = 60.0
#: Failures that nothing explains (no other record was answered, no outage was found) are free this often.
FREE_FAILURES = 2
#: Refusals by rate limit are free this many times `max_attempts`; a request larger than the limit itself never passes.
FREE_REFUSALS = 10
#: With no more records than these in work a refused one is the only one that could be answered.
FEW_LEFT = 4
#: What a ping may use at most: a few words there and back.
PING_TOKENS = 64


class Asker:
    """Asks the model about one record until there is an outcome."""

    def __init__(
        self,
        provider: Provider,
        responder: Responder,
        admission: Admission,
        stats: Stats,
        *,
        rules: AskRules,
        price: Price | None = None,
        prepare: Prepare | None = None,
        ping: Ping | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._provider = provider
        self._task = responder.task
        self._responder = responder
        self._admission = admission
        self._stats = stats
        self.rules = rules
        self._price = price
        self._prepare = prepare
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self.net = Net(admission.gate.stop)
        # All state that changes: how many records are being asked, how many of them failed at their last call, and
        # which said 400 before any such request was answered: a first one, or one that goes on.
        self.active = 0
        self.tail = asyncio.Event()
        self._hedge = Hedge(stats, self.tail)
        self._failing = 0
        self._life = LookForLife(ping and partial(self._within_budget, ping), self._proved_alive)
        self._shapes = (Shape(), Shape())
        #: Whether earlier sessions of the run were answered.
        self.proven = False

    async def ask(self, request: Request) -> Outcome:
        """The record's outcome. Raises StoppedError when the run stops first: the record stays pending."""
        trial = Trial(request)
        self._responder.kept(trial)
        self.active += 1
        try:
            return await self._outcome_of(trial)
        except Exception as error:
            problem = self.net.caught(request.record, error)
            return self._outcome(trial, Status.REJECTED if trial.answer else Status.FAILED, problem=problem)
        finally:
            self.active -= 1
            self._failing -= trial.failing

    async def _outcome_of(self, trial: Trial) -> Outcome:
        try:
            if self._prepare is None or not trial.request.attachments:
                return self._outcome(trial, Status.LABELLED, labelled=await self._labelled(trial))
            async with self._prepare(trial.request) as trial.request:
                return self._outcome(trial, Status.LABELLED, labelled=await self._labelled(trial))
        except Over as over:
            return self._outcome(trial, over.status, problem=over.problem)
        except MediaError as error:
            trial.write_off(trial.kept)
            return self._outcome(trial, Status.REJECTED, problem=Problem(error.code, str(error)))

    def close(self) -> None:
        """Ask nothing more of the server; may be called twice."""
        self._life.close()

    def handed_over(self) -> None:
        """A paid outcome goes to the writer."""
        self._admission.gate.handed_over()

    def written(self, count: int) -> None:
        """So many paid outcomes are in the ledger."""
        self._admission.gate.written(count)

    async def finish(self, record: Record, source: Outcome) -> Outcome:
        """The outcome of a record whose identical request was answered for `source`: no call, but its own callback."""
        assert source.answer is not None
        problem, labelled = None, None
        try:
            said = self._task.calls(source.answer, record)
            said = await self._responder.again(said, record, digest=source.request_digest, request_id=source.request_id)
            labelled = self._task.labelled(said, source.answer.text, record)
        except AnswerError as error:
            problem = Problem(error.code, str(error))
        except Exception as error:
            problem = self.net.caught(record, error)
        return Outcome(
            record=record,
            status=Status.REJECTED if labelled is None else Status.LABELLED,
            label=None if labelled is None else labelled.label,
            rows=None if labelled is None else labelled.rows,
            problem=problem,
            answer=source.answer,
            request_digest=source.request_digest,
            model=source.model,
            request_id=source.request_id,
            cost_usd=0.0,
            finished_at=time.time(),
            copied_from=source.record.key,
        )

    async def _labelled(self, trial: Trial) -> Labelled:
        """Turn after turn, until the model has said all that is wanted."""
        record = trial.request.record
        while True:
            answer = trial.take_kept() if trial.kept else await self._answered(trial)
            try:
                said = self._task.calls(answer, record, trial.said)
                said = await self._responder.respond(trial, answer, said)
                trial.said += said
                if not said or trial.turn + 1 >= self._task.max_turns:
                    return self._task.labelled(trial.said, last_words(answer, said, self._task), record)
            except AnswerError as error:
                self._after_bad_answer(trial, answer, error)
            else:
                trial.go_on(self._task.next_turn(trial.request, answer, said))

    async def _answered(self, trial: Trial) -> Answer:
        """One answer, over as many calls as it takes."""
        clock = asyncio.get_running_loop().time
        while True:
            permit = await self._permit(trial)
            began_at = clock()
            try:
                return trial.answered(await self._response(trial, permit))
            except CallError as error:
                failed = error
            finally:
                # Given back before any waiting: a record that backs off must not hold others up.
                permit.close()
                if self._admission.gate.outage is None:
                    trial.busy_s += clock() - began_at
            if isinstance(failed, CallTimeoutError) and not self._is_its_own(trial):
                # Does the server answer anybody? Else a few hundred records that hang would be an outage, and keep the
                # run from ending for hours.
                await self._life.found_since(permit.sent_at)
            wait_s = self._after_failed_call(trial, failed, permit.sent_at)
            if wait_s:
                await self._admission.gate.pause(wait_s)

    def _is_its_own(self, trial: Trial) -> bool:
        """Whether others were answered since the record's calls began to fail."""
        return self._admission.gate.blames(trial.answers_before, max(0, self._failing - trial.failing))

    async def _within_budget(self, ping: Ping) -> None:
        """The ping, where the budget has a few tokens left for it."""
        budget = self._admission.budget
        reservation = None if budget is None else budget.reserve(PING_TOKENS, PING_TOKENS)
        if budget is not None and reservation is None:
            raise UnavailableError("no tokens are left for it for now")
        try:
            await ping()
        finally:
            if reservation is not None:
                reservation.close()

    def _proved_alive(self) -> None:
        self._admission.gate.proved_alive(asyncio.get_running_loop().time())

    async def _permit(self, trial: Trial) -> Permit:
        return await self._admission.acquire(trial.request.size_tokens, self._most(trial.request))

    async def _response(self, trial: Trial, permit: Permit) -> Response:
        percent = self.rules.hedge_after_p
        if percent is None:
            return await self._call(trial, permit)
        return await self._hedge.answer(
            percent, permit, lambda other: self._call(trial, other), lambda: self._permit(trial)
        )

    def _most(self, request: Request) -> Most | None:
        """What the call can use at most; not worked out where no budget asks for it."""
        return None if self._admission.budget is None else most_of(request)

    async def _call(self, trial: Trial, permit: Permit) -> Response:
        trial.calls += 1
        if not trial.failing:
            trial.answers_before = self._admission.gate.answers
        try:
            async with asyncio.timeout(self.rules.timeout_s):
                response = await self._provider(trial.request)
        except TimeoutError as error:
            told = f"no answer in {self.rules.timeout_s:g} s"
            raise CallTimeoutError(told, billed=True) from error
        except CallError as error:
            # Here, where it is known whose permit it is: of two calls of a record one may be refused alone.
            if not error.billed:
                permit.unbilled()
            raise
        permit.settle(response.usage)
        self._admission.succeeded(response.usage, response.limits, response.latency_s, sent_at=permit.sent_at)
        self._stats.answered(response.usage, response.latency_s)
        self._shape_of(trial).answers += 1
        trial.usage += response.usage
        self._failing -= trial.failing
        trial.failing = False
        return response

    # -- verdicts ------------------------------------------------------------------------------------------------

    def _after_failed_call(self, trial: Trial, error: CallError, sent_at: float) -> float:
        """Seconds to wait before the next call; or an ending is raised."""
        verdict = verdict_of(error)
        if isinstance(error, CallTimeoutError):
            self._admission.timed_out(sent_at)
        self._stats.call_failed(error.code, billed=error.billed)
        log.info(
            "call failed",
            extra={"facts": {"key": trial.request.record.key, "call": trial.calls, "code": error.code,
                             "verdict": verdict.value, "error": str(error), "request_id": error.request_id}},
        )  # fmt: skip
        if verdict is Verdict.COOL_DOWN:
            assert isinstance(error, RateLimitedError)
            return self._cool_down(trial, error, sent_at)
        if verdict is Verdict.RETRY:
            return self._retry(trial, error, sent_at)
        is_everyones = verdict is Verdict.ABORT if verdict is not Verdict.SUSPECT else self._is_shape(trial, error)
        if is_everyones:
            self._abort(error)
        if is_everyones is None:
            return self._after_suspicion(trial)
        self._server_is_up(sent_at)
        raise Over(Status.REJECTED, Problem(error.code, str(error)))

    def _cool_down(self, trial: Trial, error: RateLimitedError, sent_at: float) -> float:
        wait_s = self._admission.refused(error, sent_at)
        # A refusal says something about this record when others were answered since the one before; or when so few are
        # left that nobody else could be. While everybody is refused it says nothing.
        others_pass = self._admission.gate.last_success_at > trial.refused_at
        trial.refusals += (others_pass or self.active <= FEW_LEFT) and not self._admission.is_excused
        trial.refused_at = asyncio.get_running_loop().time()
        if trial.refusals >= FREE_REFUSALS * self.rules.max_attempts:
            told = f"refused {trial.refusals} times by the rate limit; last: {error}"
            raise Over(Status.FAILED, Problem(error.code, told))
        return wait_s

    def _retry(self, trial: Trial, error: CallError, sent_at: float) -> float:
        now = asyncio.get_running_loop().time()
        self._failing += not trial.failing
        trial.failing = True
        gate = self._admission.gate
        was_open = gate.outage is None and not gate.settling(now)
        # At the end of the input there may be few left who could be answered: one is enough to say that others are.
        passed_over = self.tail.is_set() and gate.outage is None and gate.answers > trial.answers_before
        own = (passed_over and isinstance(error, CallTimeoutError)) or gate.failed(
            trial.request.record.key,
            sent_at=sent_at,
            answers_before=trial.answers_before,
            failing=self._failing - 1,
            others=self.active - 1,
            reason=str(error),
            now=now,
        )
        if gate.outage is not None:
            if was_open:
                log.warning("outage begins", extra={"facts": {"reason": str(error)}})
            if not own:
                return 0.0  # the gate does the waiting
        trial.free += not own
        if own or trial.free > FREE_FAILURES:
            trial.charged += 1
        if trial.charged >= self.rules.max_attempts:
            told = f"given up after {trial.calls} calls; last: {error}"
            raise Over(Status.FAILED, Problem(error.code, told))
        if own and trial.busy_s >= (deadline_s := self.rules.deadline_of(self._task.max_turns)):
            told = f"not done in {deadline_s:g} s, {trial.calls} calls; last: {error}"
            raise Over(Status.FAILED, Problem("record_deadline", told))
        self._stats.retried(error.code)
        # A 503 that says when to come back is heard for this record; what holds for everyone is the outage's part.
        told_s = min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
        # Who has waited in vain for an answer has waited enough.
        silent = isinstance(error, CallTimeoutError)
        wait_s = told_s if silent else max(told_s, backoff_s(trial.charged + trial.free, self._rng.random()))
        trial.busy_s += wait_s
        return wait_s

    def _after_suspicion(self, trial: Trial) -> float:
        """Others are asked first: the door is first come, first served. A wait where it is the same records again."""
        trial.charged += 1
        if trial.charged < 2:
            return 0.0
        return backoff_s(trial.charged, self._rng.random())

    def _is_shape(self, trial: Trial, error: CallError) -> bool | None:
        """Whether a 400 is about every request of its kind; None: that cannot be told yet."""
        assert isinstance(error, RequestShapeError)
        shape, key = self._shape_of(trial), trial.request.record.key
        if error.certain and not shape.answers:
            return True
        return shape.is_refused(key, self.active, proven=self.proven, tail=self.tail.is_set())

    def _shape_of(self, trial: Trial) -> Shape:
        """A request that goes on with a conversation looks otherwise than a first one, and may be refused for that."""
        return self._shapes[trial.turn > 0]

    def _abort(self, error: CallError) -> None:
        self._admission.gate.stop(error)
        raise StoppedError(str(error)) from error

    def _server_is_up(self, sent_at: float) -> None:
        """A refusal of one record's content proves that somebody is there; that the model answers it does not."""
        self._admission.gate.refused(asyncio.get_running_loop().time(), sent_at)

    def _after_bad_answer(self, trial: Trial, answer: Answer, error: AnswerError) -> None:
        """Make the next request; or an ending is raised."""
        verdict = verdict_of(error)
        most = min(1, self.rules.max_repairs) if isinstance(error, TruncatedError) else self.rules.max_repairs
        if verdict is not Verdict.REPAIR or trial.repairs_here >= most:
            if isinstance(error, CallbackError):
                log.warning("callback raised", extra={"facts": {"key": trial.request.record.key, "error": str(error)}})
            raise Over(Status.REJECTED, Problem(error.code, str(error))) from error
        trial.repairs += 1
        trial.repairs_here += 1
        self._stats.retried(error.code)
        trial.results = []
        trial.write_off(trial.kept)  # what followed an answer that fits no more follows no more
        trial.kept = []
        trial.request = self._task.repair(trial.request, answer, error, base=trial.base)

    # -- the ending ----------------------------------------------------------------------------------------------

    def _outcome(
        self, trial: Trial, status: Status, *, labelled: Labelled | None = None, problem: Problem | None = None
    ) -> Outcome:
        if labelled is not None:
            self.net.passed()
        return Outcome(
            record=trial.request.record,
            status=status,
            label=None if labelled is None else labelled.label,
            rows=None if labelled is None else labelled.rows,
            problem=problem,
            answer=trial.answer,
            request_digest=trial.digest,
            attempts=trial.calls,
            repairs=trial.repairs,
            usage=trial.usage,
            cost_usd=None if self._price is None else self._price.cost_usd(trial.usage),
            latency_s=trial.latency_s,
            model=trial.model,
            request_id=trial.request_id,
            finished_at=time.time(),
            vote=trial.request.vote,
        )
