"""Decides what a failed call means for its record and for the run, by how other calls fare."""

import asyncio
import logging
import random
from typing import NoReturn

from pipeline.engine.flex import Flex
from pipeline.engine.health import CheckResult, HealthCheck
from pipeline.engine.history import CallHistory, Over
from pipeline.engine.refusal_evidence import (
    IN_A_ROW,
    PASSING,
    PROVEN_EVIDENCE,
    SHAPE_EVIDENCE,
    QuotaEvidence,
    RefusalStreak,
    RequestShapeStats,
    is_certain,
    tries_of,
    used_up_error,
)
from pipeline.engine.retry import RETRY_AFTER_MAX_S, Verdict, backoff_s, verdict_of
from pipeline.engine.rules import AskRules
from pipeline.errors import (
    CallError,
    CallTimeoutError,
    CredentialsError,
    NoCompletionError,
    NoHostError,
    NoRoomError,
    RateLimitedError,
    RecordRefusedError,
    RequestShapeError,
    StoppedError,
    TooLargeError,
    UnknownRefusalError,
)
from pipeline.limits import Admission
from pipeline.records import Ping, Problem, Status
from pipeline.stats import Stats

log = logging.getLogger("labelpipe")

#: This many failures without an explanation (no other record was answered, and there is no outage) are free.
FREE_FAILURES = 2
#: Refusals by rate limit are free this many times `max_attempts`; a request larger than the limit never passes.
FREE_REFUSALS = 10
#: The same if the message mentions a size: a second refusal is no coincidence.
SIZE_REFUSALS = 2
#: With at most this many records in work, a refused one is the only one that could be answered.
FEW_LEFT = 4
#: If this many health checks in a row are answered, the server is up, and a record that gets a 5xx is to blame. One
#: could be luck, in an outage that lets one call in ten through.
SURE_WORDS = 3
#: If this many records are given up in a row with no other answered in between, health checks prove nothing anymore.
#: Whatever makes records' answers has an outage, and the rest of the input must not be given up for it.
MOST_GIVEN_UP = 500
#: If this many records are refused for their content in a row with no other answered in between, that is in doubt too.
MOST_REJECTED = 10
NEVER_ANSWERED = "a server is there, and no call was ever answered by a model"


class Judge:
    """Decides whether a failed call is its record's fault or affects everybody."""

    def __init__(
        self,
        admission: Admission,
        stats: Stats,
        rules: AskRules,
        *,
        ping: Ping | None,
        most_answers: int,
        rng: random.Random | None,
    ) -> None:
        self._admission = admission
        self._gate = admission.gate
        self._stats = stats
        self._most_answers = most_answers
        self._health = HealthCheck(ping, admission)
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self.rules = rules
        self.flex = Flex(lambda: self.rules, stats, self._rng)
        #: Whether earlier sessions of the run were answered.
        self.proven = False
        # Mutable state: whether the input has ended, how many records are being asked, and how many of these failed at
        # their last call; how many were given up, and how many rejected, since the last answer; refusals in a row;
        # equal error messages; what is known about first and later requests; and the models that have answered.
        self.tail = asyncio.Event()
        self.active = 0
        self.failing = 0
        self._given_up = 0
        self._rejected = 0
        self._refusals = RefusalStreak()
        self._used_up = QuotaEvidence()
        self._shapes = (RequestShapeStats(), RequestShapeStats())
        self._models: set[str] = set()

    def close(self) -> None:
        """Stop health checks. May be called twice."""
        self._health.close()

    def answered(self, history: CallHistory) -> None:
        """Note the model's answer."""
        self._shape_of(history).answers += 1
        self._models.add(history.request.model)
        self._given_up = self._rejected = 0
        self.failing -= history.failing
        history.failing = False
        history.doubted_at, history.doubts = None, 0

    # -- evidence ------------------------------------------------------------------------------------------------

    async def check_health(self, history: CallHistory, error: CallError, sent_at: float) -> CheckResult | None:
        """Return the result of a health check if nothing else shows whose fault the failure is, else None.

        Otherwise a few hundred records that hang, or that make the server return a 5xx, would count as an outage and
        hold up the run for hours.
        """
        if not self._is_open_question(history, error, sent_at):
            return None
        clock, health, request = asyncio.get_running_loop().time, self._health, history.sent or history.request
        checked = await health.result_since(sent_at, request)
        if checked is None and isinstance(error, CallTimeoutError):
            checked = health.refused_lately()
        needed = 1 if isinstance(error, CallTimeoutError) or self._is_refusal(history, error) else SURE_WORDS
        while checked is not None and checked.is_answered and health.answered_in_a_row < needed:
            checked = await health.result_since(clock(), request)
        if checked is not None and checked.is_answered:
            self._gate.on_health_check(clock(), checked.sent_at)
            self._shapes[0].answers += 1
            self._rejected = 0
        return checked

    def _is_open_question(self, history: CallHistory, error: CallError, sent_at: float) -> bool:
        is_refusal = self._is_refusal(history, error)
        if self.flex.has_none_for(history, error) or (self._given_up >= MOST_GIVEN_UP and not is_refusal):
            return False
        if isinstance(error, RateLimitedError):
            return (
                error.is_of_size and history.refusals_of_size > 0 and not self._others_passed(history, error, sent_at)
            )
        if isinstance(error, CallTimeoutError):
            return not self._is_its_own(history)
        doubtful = self._gate.is_doubtful(history.request.record.key, self.active - 1)
        if not is_refusal:
            is_open = verdict_of(error) in (Verdict.RETRY, Verdict.DOUBT) and not self._is_its_own(history)
            # In an outage, a record's first failure is not its own fault.
            return is_open and doubtful and (self._gate.outage is None or history.failing)
        if not self._can_ask(history) or self._others_passed(history, error, sent_at):
            return False
        if self._was_answered:
            return doubtful or history.doubted_at is not None
        return self.proven or not is_certain(error)

    def _is_its_own(self, history: CallHistory) -> bool:
        """Whether others were answered since the record's calls began to fail."""
        return self._gate.blames(history.answers_before, max(0, self.failing - history.failing))

    def _is_refusal(self, history: CallHistory, error: CallError) -> bool:
        if isinstance(error, RecordRefusedError):
            # A gateway may use the same error for a blocked key as for a text.
            is_odd = self._rejected >= MOST_REJECTED and self._can_ask(history)
            return is_odd and (self._was_answered or self.proven)
        return verdict_of(error) is Verdict.DOUBT and error.status not in PASSING

    @property
    def _was_answered(self) -> bool:
        """Whether the model has answered a record or a health check in this session."""
        return self._gate.passed_at > float("-inf")

    def _others_passed(self, history: CallHistory, error: CallError, sent_at: float) -> bool:
        """Whether a call of its kind was answered that was sent after this record's refused call, or after its charge.

        A call that was sent before may have passed before the key was revoked.
        """
        if isinstance(error, RequestShapeError) and not self._shape_of(history).answers:
            return False
        return self._gate.passed_at > (sent_at if history.doubted_at is None else history.doubted_at)

    def _shape_of(self, history: CallHistory) -> RequestShapeStats:
        """Return the facts about requests of this kind: one that continues a conversation may be refused for that."""
        return self._shapes[history.turn > 0]

    # -- verdicts ------------------------------------------------------------------------------------------------

    def after(self, history: CallHistory, error: CallError, sent_at: float, checked: CheckResult | None) -> float:
        """Return the seconds to wait before the next call. Raises Over or StoppedError if there is none."""
        verdict = verdict_of(error)
        if isinstance(error, CallTimeoutError):
            self._admission.on_timeout(sent_at)
        log.info(
            "call failed",
            extra={"facts": {"key": history.request.record.key, "call": history.calls, "code": error.code,
                             "verdict": verdict.value, "error": str(error), "request_id": error.request_id}},
        )  # fmt: skip
        now = asyncio.get_running_loop().time()
        if self.flex.has_none_for(history, error):
            if isinstance(error, NoRoomError):
                self._gate.on_refusal(now, sent_at)  # a timeout proves nothing
            return self.flex.refused(history, error, now, sent_at)
        if self._used_up.note(error, now=now, passed_at=self._gate.passed_at):
            self._abort(used_up_error(error))
        if isinstance(error, RateLimitedError):
            return self._cool_down(history, error, sent_at, checked)
        if verdict is Verdict.ABORT:
            self._abort(error)
        if self._is_refusal(history, error):
            return self._doubt(history, error, sent_at, checked)
        if verdict is Verdict.REJECT:
            # A refusal of one record's content proves that a server is there, but not that the model answers.
            self._rejected += 1
            self._gate.on_refusal(now, sent_at)
            raise Over(Status.REJECTED, Problem(error.code, str(error)))
        return self._retry(history, error, sent_at, checked)

    def _abort(self, error: CallError) -> NoReturn:
        self._gate.stop(error)
        raise StoppedError(str(error)) from error

    def _cool_down(
        self, history: CallHistory, error: RateLimitedError, sent_at: float, checked: CheckResult | None
    ) -> float:
        if error.is_of_size:
            passed = checked is not None and checked.is_answered
            passed |= bool(history.refusals_of_size) and self._gate.last_success_at > history.refused_at
            history.refusals_of_size += 1
            if passed and history.refusals_of_size >= SIZE_REFUSALS:
                raise Over(Status.REJECTED, Problem(TooLargeError.code, str(error)))
        wait_s = self._admission.on_refusal(error, sent_at)
        # A refusal says something about this record only if others were answered since the previous one, or if so few
        # are left that no other could be. If everybody is refused, it says nothing.
        others_pass = self._gate.last_success_at > history.refused_at
        history.refusals += (others_pass or self.active <= FEW_LEFT) and not self._admission.is_excused
        history.refused_at = asyncio.get_running_loop().time()
        if history.refusals >= FREE_REFUSALS * self.rules.max_attempts:
            message = f"refused {history.refusals} times by the rate limit; last: {error}"
            raise Over(Status.FAILED, Problem(error.code, message))
        return wait_s

    def _retry(self, history: CallHistory, error: CallError, sent_at: float, checked: CheckResult | None) -> float:
        now = asyncio.get_running_loop().time()
        if not isinstance(error, NoCompletionError | NoHostError):
            self._refusals.broken()
        elif self._is_everyones(history, error, sent_at):
            self._abort(error)
        own = self._failed(history, error, sent_at, now, proved=self._proves_own(error, checked))
        if self._gate.outage is not None and not own:
            return 0.0  # the gate makes it wait
        history.free += not own
        if own:
            history.charged += 1
        elif self._nobody_passes(history):
            history.busy_s = 0.0  # the time that it waited while nobody was answered does not count
        elif history.free > FREE_FAILURES:
            history.charged += 1
            history.failing_since = sent_at
        if history.charged >= self.rules.max_attempts:
            self._given_up += 1
            message = f"gave up after {history.calls} calls; last error: {error}"
            raise Over(Status.FAILED, Problem(error.code, message))
        if own and history.busy_s >= (deadline_s := self.rules.deadline_of(self._most_answers)):
            message = f"not done in {deadline_s:g} s, {history.calls} calls; last: {error}"
            raise Over(Status.FAILED, Problem("record_deadline", message))
        return self._wait_s(history, error)

    def _nobody_passes(self, history: CallHistory) -> bool:
        """Whether nothing was answered that was sent since the record's calls began to fail, or since its charge.

        If refusals by rate limit occur between failures, there is no outage, and still no record is at fault. For a
        record that is alone, no other could show it.
        """
        return self._gate.passed_at <= history.failing_since and (self.active > 1 or self._is_refusing)

    @property
    def _is_refusing(self) -> bool:
        """Whether everybody was refused by rate limit, and nothing was answered since."""
        return self._admission.state().refused_since is not None

    def _proves_own(self, error: CallError, checked: CheckResult | None) -> bool:
        """Whether a health check proves the failure to be the record's own."""
        if checked is None:
            return False
        # A server that is up would have responded to a call that timed out, if only with a refusal.
        return checked.is_answered or (isinstance(error, CallTimeoutError) and checked.is_refused)

    def _failed(self, history: CallHistory, error: CallError, sent_at: float, now: float, *, proved: bool) -> bool:
        """Report it to the gate. Return whether the failure is the record's own."""
        self.failing += not history.failing
        history.failing = True
        gate = self._gate
        was_open = gate.outage is None and not gate.is_settling(now)
        # At the end of the input, few others may be left. One answer is enough to show that others pass.
        others_pass = gate.answers > history.answers_before and not self._is_refusing
        passed_over = self.tail.is_set() and gate.outage is None and others_pass
        if proved or (passed_over and isinstance(error, CallTimeoutError)):
            return True
        nobody_tells = self._is_refusal(history, error) or (self._is_refusing and self._nobody_passes(history))
        own = gate.on_failure(
            history.request.record.key,
            sent_at=sent_at,
            # Answers to calls sent before the refusals, or the failures, began prove nothing.
            answers_before=gate.answers if nobody_tells else history.answers_before,
            failing=self.failing - 1,
            others=self.active - 1,
            reason=str(error),
            now=now,
        )
        if gate.outage is not None and was_open:
            log.warning("outage begins", extra={"facts": {"reason": str(error)}})
        return own

    def _wait_s(self, history: CallHistory, error: CallError) -> float:
        self._stats.record_retry(error.code)
        # A 503's Retry-After applies to this record only; what affects everybody is part of the outage.
        wait_s = min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
        if not isinstance(error, CallTimeoutError):  # a timeout was wait enough
            wait_s = max(wait_s, backoff_s(history.charged + history.free + history.doubts, self._rng.random()))
        history.busy_s += wait_s
        return wait_s

    # -- refusals ------------------------------------------------------------------------------------------------

    def _doubt(self, history: CallHistory, error: CallError, sent_at: float, checked: CheckResult | None) -> float:
        """Decide a refusal: the record's own fault if others pass meanwhile, everybody's if all are refused."""
        if is_certain(error) and not self.proven and self._models and history.request.model not in self._models:
            self._abort(error)  # answers of the run's model say nothing about a voter's
        now = asyncio.get_running_loop().time()
        passed = checked is not None and checked.is_answered
        if passed or self._others_passed(history, error, sent_at) or self._speaks_for_itself(history, error):
            history.doubted_at = now
            history.doubts += 1
            if history.doubts + 1 >= tries_of(error, self.rules.max_attempts):
                self._reject(history, error)
            return self._wait_s(history, error)
        if history.doubted_at is None:
            history.doubted_at = sent_at
        if self._is_from_the_start(history, error, checked) or self._is_everyones(history, error, sent_at):
            self._abort(error)
        self._failed(history, error, sent_at, now, proved=False)
        if self._gate.outage is not None:
            return 0.0
        history.free += 1
        if history.free >= self.rules.max_attempts + FREE_FAILURES and not self._can_ask(history):
            self._reject(history, error)  # nothing else could show whose fault it is
        return self._wait_s(history, error)

    def _can_ask(self, history: CallHistory) -> bool:
        """Whether a health check would help. For later turns of a conversation, only after some have passed."""
        return self._health.can_ask and (history.turn == 0 or self._shape_of(history).answers > 0)

    def _reject(self, history: CallHistory, error: CallError) -> NoReturn:
        if isinstance(error, UnknownRefusalError):
            raise Over(Status.FAILED, Problem(error.code, f"gave up after {history.calls} calls; last error: {error}"))
        code = error.code if isinstance(error, RecordRefusedError) else RecordRefusedError.code
        raise Over(Status.REJECTED, Problem(code, str(error)))

    def _is_from_the_start(self, history: CallHistory, error: CallError, checked: CheckResult | None) -> bool:
        """Whether no such request passes: none was answered yet, and no record could cause this error."""
        if isinstance(error, RequestShapeError):
            return self._is_shape(history, error)
        if self._was_answered or not isinstance(error, CredentialsError):
            return False
        if not self.proven and (is_certain(error) or not self._can_ask(history)):
            return True
        return checked is not None and checked.is_refused

    def _is_shape(self, history: CallHistory, error: RequestShapeError) -> bool:
        """Whether requests of this kind never pass: several records show it, and a small one with the same tools."""
        shape, by_word = self._shape_of(history), self._can_ask(history)
        needed = IN_A_ROW if by_word else PROVEN_EVIDENCE if self.proven else SHAPE_EVIDENCE
        key = history.request.record.key
        if shape.answers or not (error.certain or shape.is_refused(key, self.active, needed)):
            return False
        return not by_word or (self._health.last is not None and self._health.last.is_refused)

    def _speaks_for_itself(self, history: CallHistory, error: CallError) -> bool:
        """Whether a refusal is the record's although nothing can confirm it: few are left, and no check is possible."""
        if self._can_ask(history) or is_certain(error):
            return False
        if isinstance(error, RequestShapeError) and not self._shape_of(history).answers:
            return self.proven and self.tail.is_set() and self.active < PROVEN_EVIDENCE
        return history.doubts > 0 or (self.tail.is_set() and self.active < IN_A_ROW)

    def _is_everyones(self, history: CallHistory, error: CallError, sent_at: float) -> bool:
        """Whether nothing passes anymore, or ever did: for all, for long enough, and for a health check too."""
        now, refusals = asyncio.get_running_loop().time(), self._refusals
        refusals.note(error, history.request.record.key, sent_at=sent_at, now=now, passed_at=self._gate.passed_at)
        if not refusals.are_everyones(now, self.active, answered=self.proven or self._was_answered):
            return False
        if isinstance(error, NoCompletionError):
            error.args = (f"{NEVER_ANSWERED}; look at model.base_url. Each time: {error}",)
        if refusals.is_page:
            return True
        if not self._can_ask(history):
            return len(refusals.keys) > 1
        # Between failures, each health check may meet one.
        return refusals.others > 0 or self._health.refused_at >= refusals.sent_at
