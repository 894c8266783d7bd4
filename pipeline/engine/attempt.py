"""One record's life between its first call and its outcome."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from pipeline.engine.brake import Brake
from pipeline.engine.hedge import Hedge
from pipeline.engine.judge import Judge
from pipeline.engine.life import Answerer, Prepare
from pipeline.engine.net import Net
from pipeline.engine.retry import Verdict, verdict_of
from pipeline.engine.rules import AskRules, most_of
from pipeline.engine.stretch import Stretch
from pipeline.engine.trial import Over, Trial
from pipeline.engine.turns import Responder, last_words
from pipeline.errors import (
    AnswerError,
    CallbackError,
    CallError,
    CallTimeoutError,
    MediaError,
    TruncatedError,
)
from pipeline.limits import Admission, Most, Permit, Price, cost_of
from pipeline.records import Answer, Labelled, Outcome, Ping, Problem, Record, Request, Response, Status
from pipeline.stats import Stats

log = logging.getLogger("labelpipe")


class Asker:
    """Asks the model about one record until there is an outcome."""

    def __init__(
        self,
        provider: Answerer,
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
        self._price = price
        self.prepare = prepare
        self.net = Net(admission.gate.stop)
        self.brake = Brake(lambda: self.judge.rules.stop_rejected, admission.gate.stop)
        self.judge = Judge(admission, stats, rules, ping=ping, max_turns=self._task.max_turns, rng=rng)
        self._stretch = Stretch(provider, self._task, admission, lambda: self.judge.rules, prepare)
        self._hedge = Hedge(stats, self.judge.tail)
        #: Told how many records wait or fail, when one more does.
        self.at_wait: Callable[[int], None] = lambda _: None
        # All state that changes, beside the judge's: how many records wait to be asked again, how many stand at the
        # door that have not failed, and a call for those that let them pass.
        self._waiting = self._fresh = 0
        self._turn = asyncio.Event()
        admission.gate.at_calm(self._turn.set)

    async def ask(self, request: Request) -> Outcome:
        """The record's outcome. Raises StoppedError when the run stops first: the record stays pending."""
        trial = Trial(request)
        self._responder.kept(trial)
        self.judge.active += 1
        try:
            outcome = await self._outcome_of(trial)
            await self._stretch.ended(request, outcome)
        except Exception as error:
            problem = self.net.caught(request.record, error)
            return self._outcome(trial, Status.REJECTED if trial.answer else Status.FAILED, problem=problem)
        else:
            return outcome
        finally:
            self.judge.active -= 1
            self.judge.failing -= trial.failing

    async def _outcome_of(self, trial: Trial) -> Outcome:
        try:
            if self.prepare is None or not trial.request.attachments:
                return self._outcome(trial, Status.LABELLED, labelled=await self._labelled(trial))
            async with self.prepare(trial.request) as trial.request:
                return self._outcome(trial, Status.LABELLED, labelled=await self._labelled(trial))
        except Over as over:
            return self._outcome(trial, over.status, problem=over.problem)
        except MediaError as error:
            trial.write_off(trial.kept)
            return self._outcome(trial, Status.REJECTED, problem=Problem(error.code, str(error)))

    def close(self) -> None:
        """Ask nothing more of the server; may be called twice."""
        self.judge.close()

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
                heard = await self.judge.hear(trial, failed, permit.sent_at)
            finally:
                # Given back before any waiting: a record that backs off must not hold others up.
                permit.close()
                if self._admission.gate.outage is None:
                    trial.busy_s += clock() - began_at
            wait_s = self.judge.after(trial, failed, permit.sent_at, heard)
            await self._wait(wait_s)

    async def _wait(self, seconds: float) -> None:
        """A record waits before it is asked again; its worker with it, so another one takes its place."""
        self._waiting += 1
        self.at_wait(max(self._waiting, self.judge.failing))
        try:
            if seconds:
                await self._admission.gate.pause(seconds)
        finally:
            self._waiting -= 1

    async def _permit(self, trial: Trial) -> Permit:
        gate = self._admission.gate
        # A probe is never the poison itself, as long as there are records that have not failed.
        while trial.failing and gate.outage is not None and self._fresh and gate.stopped is None:
            self._turn.clear()
            await self._turn.wait()
        is_fresh = not trial.failing
        self._fresh += is_fresh
        try:
            return await self._admission.acquire(trial.request.size_tokens, self._most(trial.request))
        finally:
            self._fresh -= is_fresh
            if is_fresh and not self._fresh:
                self._turn.set()

    async def _response(self, trial: Trial, permit: Permit) -> Response:
        percent = self.judge.rules.hedge_after_p
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
            async with asyncio.timeout(self.judge.rules.timeout_s):
                response = await self._provider(trial.request)
        except TimeoutError as error:
            told = f"no answer in {self.judge.rules.timeout_s:g} s"
            raise CallTimeoutError(told, billed=True) from error
        except CallError as error:
            # Here, where it is known whose permit it is: of two calls of a record one may be refused alone.
            if not error.billed:
                permit.unbilled()
            raise
        permit.settle(response.usage)
        self._admission.succeeded(response.usage, response.limits, response.latency_s, sent_at=permit.sent_at)
        self._stats.answered(response.usage, response.latency_s)
        self.judge.answered(trial)
        trial.usage += response.usage
        return response

    def _after_bad_answer(self, trial: Trial, answer: Answer, error: AnswerError) -> None:
        """Make the next request; or an ending is raised."""
        verdict = verdict_of(error)
        most = (
            min(1, self.judge.rules.max_repairs) if isinstance(error, TruncatedError) else self.judge.rules.max_repairs
        )
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
        outcome = Outcome(
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
            cost_usd=cost_of(self._price, trial.usage, answered=trial.answer is not None),
            latency_s=trial.latency_s,
            model=trial.model,
            request_id=trial.request_id,
            finished_at=time.time(),
            vote=trial.request.vote,
        )
        self.brake.ended(outcome)
        return outcome
