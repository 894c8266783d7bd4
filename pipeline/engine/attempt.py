"""One record's life between its first call and its outcome."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline import codec
from pipeline.engine.retry import Verdict, backoff_s, verdict_of
from pipeline.engine.trial import Over, Trial
from pipeline.errors import (
    AnswerError,
    CallbackError,
    CallError,
    CallTimeoutError,
    CredentialsError,
    RateLimitedError,
    RequestShapeError,
    StoppedError,
    TruncatedError,
)
from pipeline.limits import Admission, Most, Permit, Price, prompt_bound
from pipeline.records import JSON, Answer, Outcome, Problem, Record, Request, Response, Status
from pipeline.stats import Stats

log = logging.getLogger("labelpipe")

#: One call: a Request in, a Response out, or a CallError.
Provider = Callable[[Request], Awaitable[Response]]

#: How long a server's word on one call is heard at the most.
RETRY_AFTER_MAX_S = 60.0
#: Latencies that must be known before a call can be said to take long.
HEDGE_KNOWN = 20
#: Until then it is looked again this often.
HEDGE_LOOK_S = 1.0
#: Failures that nothing explains (no other record was answered, no outage was found) are free this often.
FREE_FAILURES = 2
#: Refusals by rate limit are free this many times `max_attempts`; a request larger than the limit itself never passes.
FREE_REFUSALS = 10
#: With no more records than these in work a refused one is the only one that could be answered.
FEW_LEFT = 4
#: The first calls of a run that all say 400 before it is taken for the request's shape.
SHAPE_EVIDENCE = 3


class TaskPart(Protocol):
    """What the engine needs of a task."""

    def read(self, answer: Answer, record: Record) -> dict[str, JSON]: ...
    def repair(self, request: Request, answer: Answer, error: AnswerError) -> Request: ...
    async def call_back(self, label: Mapping[str, JSON], record: Record) -> Mapping[str, JSON]: ...


@dataclass(frozen=True, slots=True)
class AskRules:
    """How often, and how long.

    `hedge_after_p`: at the end of the input, a call that takes longer than this percentile of all is asked a second
    time; None: never.
    """

    max_attempts: int = 6
    max_repairs: int = 2
    timeout_s: float = 60.0
    hedge_after_p: float | None = None


class Asker:
    """Asks the model about one record until there is an outcome."""

    def __init__(
        self,
        provider: Provider,
        task: TaskPart,
        admission: Admission,
        stats: Stats,
        *,
        rules: AskRules,
        price: Price | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._provider = provider
        self._task = task
        self._admission = admission
        self._stats = stats
        self.rules = rules
        self._price = price
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        # All state that changes: how many records are being asked, how many of them failed at their last call, and
        # which said 400 before any was answered.
        self.active = 0
        self.tail = asyncio.Event()
        self._failing = 0
        self._shape_evidence: set[str] = set()

    async def ask(self, request: Request) -> Outcome:
        """The record's outcome. Raises StoppedError when the run stops first: the record stays pending."""
        trial = Trial(request)
        self.active += 1
        try:
            label = await self._label(trial)
            return self._outcome(trial, Status.LABELLED, label=label)
        except Over as over:
            return self._outcome(trial, over.status, problem=over.problem)
        finally:
            self.active -= 1
            self._failing -= trial.failing

    def handed_over(self) -> None:
        """A paid outcome goes to the writer."""
        self._admission.gate.handed_over()

    def written(self, count: int) -> None:
        """So many paid outcomes are in the ledger."""
        self._admission.gate.written(count)

    async def finish(self, record: Record, source: Outcome) -> Outcome:
        """The outcome of a record whose identical request was answered for `source`: no call, but its own callback."""
        assert source.answer is not None
        problem, label = None, None
        try:
            label = self._task.read(source.answer, record)
            label = {**label, **await self._task.call_back(label, record)}
        except AnswerError as error:
            problem = Problem(error.code, str(error))
        return Outcome(
            record=record,
            status=Status.LABELLED if problem is None else Status.REJECTED,
            label=label if problem is None else None,
            problem=problem,
            answer=source.answer,
            request_digest=source.request_digest,
            model=source.model,
            cost_usd=0.0,
            finished_at=time.time(),
            copied_from=source.record.key,
        )

    async def _label(self, trial: Trial) -> dict[str, JSON]:
        while True:
            response = await self._answered(trial)
            try:
                label = self._task.read(response.answer, trial.request.record)
                return {**label, **await self._task.call_back(label, trial.request.record)}
            except AnswerError as error:
                self._after_bad_answer(trial, response.answer, error)

    async def _answered(self, trial: Trial) -> Response:
        """One answer, over as many calls as it takes."""
        while True:
            permit = await self._admission.acquire(trial.request.size_tokens, self._most(trial.request))
            try:
                return await self._first_answer(trial, permit)
            except CallError as error:
                if error.status is not None and 400 <= error.status < 500:
                    permit.unbilled()
                failed = error
            finally:
                # Given back before any waiting: a record that backs off must not hold others up.
                permit.close()
            wait_s = self._after_failed_call(trial, failed, permit.sent_at)
            if wait_s:
                await self._admission.gate.pause(wait_s)

    async def _first_answer(self, trial: Trial, permit: Permit) -> Response:
        """The answer of the call; at the end of the input, of a second one where the first takes long."""
        percent = self.rules.hedge_after_p
        if percent is None:
            return await self._call(trial, permit)
        first = asyncio.create_task(self._call(trial, permit), name="call")
        try:
            await self._while_usual(first, percent)
            return first.result() if first.done() else await self._hedged(trial, first)
        finally:
            first.cancel()
            await asyncio.wait({first})

    async def _while_usual(self, first: asyncio.Task[Response], percent: float) -> None:
        """Wait for the call; no longer than is usual, once the input has ended."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        tail = asyncio.ensure_future(self.tail.wait())
        try:
            await asyncio.wait({first, tail}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tail.cancel()
        while not first.done():
            # What is usual is known better with each answer of the others.
            usual_s = self._stats.latencies.percentile_s(percent)
            known = self._stats.latencies.count >= HEDGE_KNOWN and usual_s is not None
            left_s = (usual_s or 0.0) - (loop.time() - began_at) if known else HEDGE_LOOK_S
            if left_s < 0.001:  # less than a timer can tell
                return
            await asyncio.wait({first}, timeout=left_s)

    async def _hedged(self, trial: Trial, first: asyncio.Task[Response]) -> Response:
        """Ask a second time: the first answer wins, the other call is cancelled and counted."""
        permit = await self._second_permit(trial.request, first)
        if permit is None:
            return await first
        self._stats.retried("hedge")
        second = asyncio.create_task(self._call(trial, permit), name="hedge")
        try:
            await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
            winner, other = (first, second) if first.done() else (second, first)
            if winner.exception() is not None and not other.done():
                await asyncio.wait({other})
                winner = other
            return winner.result()
        finally:
            second.cancel()
            await asyncio.wait({second})
            permit.close()

    async def _second_permit(self, request: Request, first: asyncio.Task[Response]) -> Permit | None:
        """A permit beside that of the first call; None when that one ended sooner, or nothing is let through any more.

        Never waited for alone: the first call keeps its place until here, so where all places are such calls' the door
        would open to nobody.
        """
        wanted = asyncio.create_task(self._admission.acquire(request.size_tokens, self._most(request)), name="hedge")
        try:
            await asyncio.wait({first, wanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wanted.cancel()
            await asyncio.wait({wanted})
        if wanted.cancelled() or isinstance(wanted.exception(), StoppedError):
            return None
        permit = wanted.result()
        if not first.done():
            return permit
        permit.unbilled()
        permit.close()
        return None

    def _most(self, request: Request) -> Most | None:
        """What the call can use at most; not worked out where no budget asks for it."""
        if self._admission.budget is None:
            return None
        room = request.parameters.get("max_completion_tokens") or request.parameters.get("max_tokens") or 0
        return Most(prompt_bound(len(codec.dumps((request.messages, request.tools)))), int(room))

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
        permit.settle(response.usage)
        self._admission.succeeded(response.usage, response.limits, response.latency_s)
        self._stats.answered(response.usage, response.latency_s)
        trial.usage += response.usage
        trial.latency_s = response.latency_s
        trial.answer, trial.response = response.answer, response
        self._failing -= trial.failing
        trial.failing = False
        trial.free = 0
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
        if verdict is Verdict.ABORT or (verdict is Verdict.SUSPECT and self._is_shape(trial, error)):
            self._abort(error)
        if verdict is Verdict.SUSPECT and not self._stats.answers:
            return self._after_suspicion(trial)
        self._server_is_up()
        raise Over(Status.REJECTED, Problem(error.code, str(error)))

    def _cool_down(self, trial: Trial, error: RateLimitedError, sent_at: float) -> float:
        self._admission.refused(error, sent_at)
        # A refusal says something about this record when others were answered since the one before; or when so few are
        # left that nobody else could be. While everybody is refused it says nothing.
        others_pass = self._admission.gate.last_success_at > trial.refused_at
        trial.refusals += others_pass or self.active <= FEW_LEFT
        trial.refused_at = asyncio.get_running_loop().time()
        if trial.refusals >= FREE_REFUSALS * self.rules.max_attempts:
            told = f"refused {trial.refusals} times by the rate limit; last: {error}"
            raise Over(Status.FAILED, Problem(error.code, told))
        return 0.0

    def _retry(self, trial: Trial, error: CallError, sent_at: float) -> float:
        now = asyncio.get_running_loop().time()
        self._failing += not trial.failing
        trial.failing = True
        gate = self._admission.gate
        was_open = gate.outage is None
        own = gate.failed(
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
        self._stats.retried(error.code)
        # A 503 that says when to come back is heard for this record; what holds for everyone is the outage's part.
        told_s = min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
        return max(told_s, backoff_s(trial.charged + trial.free, self._rng.random()))

    def _after_suspicion(self, trial: Trial) -> float:
        """Others are asked first: the door is first come, first served. A wait where it is the same records again."""
        trial.charged += 1
        if trial.charged < 2:
            return 0.0
        return backoff_s(trial.charged, self._rng.random())

    def _is_shape(self, trial: Trial, error: CallError) -> bool:
        """Whether a 400 is about every request: only as long as no call of this run was answered."""
        if self._stats.answers:
            return False
        assert isinstance(error, RequestShapeError)
        self._shape_evidence.add(trial.request.record.key)
        return error.certain or len(self._shape_evidence) >= min(SHAPE_EVIDENCE, self.active)

    def _abort(self, error: CallError) -> None:
        self._admission.gate.stop(error)
        raise StoppedError(str(error)) from error

    def _server_is_up(self) -> None:
        """A refusal of one record's content proves that somebody is there; that the model answers it does not."""
        self._admission.gate.refused(asyncio.get_running_loop().time())

    def _after_bad_answer(self, trial: Trial, answer: Answer, error: AnswerError) -> None:
        """Make the next request; or an ending is raised."""
        verdict = verdict_of(error)
        most = min(1, self.rules.max_repairs) if isinstance(error, TruncatedError) else self.rules.max_repairs
        if verdict is not Verdict.REPAIR or trial.repairs >= most:
            if isinstance(error, CallbackError):
                log.warning("callback raised", extra={"facts": {"key": trial.request.record.key, "error": str(error)}})
            raise Over(Status.REJECTED, Problem(error.code, str(error))) from error
        trial.repairs += 1
        self._stats.retried(error.code)
        trial.request = self._task.repair(trial.request, answer, error)

    # -- the ending ----------------------------------------------------------------------------------------------

    def _outcome(
        self, trial: Trial, status: Status, *, label: Mapping[str, JSON] | None = None, problem: Problem | None = None
    ) -> Outcome:
        request, response = trial.request, trial.response
        return Outcome(
            record=request.record,
            status=status,
            label=label,
            problem=problem,
            answer=trial.answer,
            request_digest=trial.digest,
            attempts=trial.calls,
            repairs=trial.repairs,
            usage=trial.usage,
            cost_usd=None if self._price is None else self._price.cost_usd(trial.usage),
            latency_s=trial.latency_s,
            model=None if response is None else response.model,
            request_id=None if response is None else response.request_id,
            finished_at=time.time(),
            vote=request.vote,
        )


def is_hopeless(error: BaseException | None) -> bool:
    """Whether a stopped run had a cause that the user must mend before it can go on."""
    return isinstance(error, CredentialsError | RequestShapeError)
