"""What a failed call means for its record and for the run, by what others are answered meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import NoReturn

from pipeline.engine.doubt import (
    IN_A_ROW,
    PASSING,
    PROVEN_EVIDENCE,
    SHAPE_EVIDENCE,
    Refusals,
    Shape,
    UsedUp,
    is_certain,
    tries_of,
)
from pipeline.engine.life import Heard, LookForLife
from pipeline.engine.retry import Verdict, backoff_s, verdict_of
from pipeline.engine.rules import AskRules
from pipeline.engine.trial import Over, Trial
from pipeline.errors import (
    CallError,
    CallTimeoutError,
    CredentialsError,
    NoCompletionError,
    NoHostError,
    QuotaError,
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

#: How long a server's word on one call is heard at the most.
RETRY_AFTER_MAX_S = 60.0
#: Failures that nothing explains (no other record was answered, no outage was found) are free this often.
FREE_FAILURES = 2
#: Refusals by rate limit are free this many times `max_attempts`; a request larger than the limit itself never passes.
FREE_REFUSALS = 10
#: The same where its words speak of a size: the second tells that it is no chance.
SIZE_REFUSALS = 2
#: With no more records than these in work a refused one is the only one that could be answered.
FEW_LEFT = 4
#: So many words answered in a row, and the server is up: whoever gets a 5xx then is to blame for it. In an outage that
#: lets one call in ten through, one word would be luck.
SURE_WORDS = 3
#: So many records given up one after another, and no other answered between: words prove nothing any more. It is an
#: outage of whatever makes records' answers, and what is left of the input must not be given up for it.
MOST_GIVEN_UP = 500
#: So many records refused for what is in them one after another, and no other answered between: that is doubted too.
MOST_REJECTED = 10
USED_UP = "every call is refused in the same words, for longer than a limit a minute lasts, and no moment is named"
NEVER_ANSWERED = "a server is there, and no call was ever answered by a model"


class Judge:
    """Decides whose fault a failed call is: this record's or everybody's."""

    def __init__(
        self,
        admission: Admission,
        stats: Stats,
        rules: AskRules,
        *,
        ping: Ping | None,
        max_turns: int,
        rng: random.Random | None,
    ) -> None:
        self._admission = admission
        self._gate = admission.gate
        self._stats = stats
        self._max_turns = max_turns
        self._life = LookForLife(ping, admission)
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self.rules = rules
        #: Whether earlier sessions of the run were answered.
        self.proven = False
        # All state that changes: whether no more records come, how many are being asked, how many of them failed at
        # their last call, how many were given up and how many rejected since one was answered, the refusals one after
        # another, the same words to all, and what is known of first requests and those that go on.
        self.tail = asyncio.Event()
        self.active = 0
        self.failing = 0
        self._given_up = 0
        self._rejected = 0
        self._refusals = Refusals()
        self._used_up = UsedUp()
        self._shapes = (Shape(), Shape())

    def close(self) -> None:
        """Ask nothing more of the server; may be called twice."""
        self._life.close()

    def answered(self, trial: Trial) -> None:
        """The model has answered it."""
        self._shape_of(trial).answers += 1
        self._given_up = self._rejected = 0
        self.failing -= trial.failing
        trial.failing = False
        trial.doubted_at, trial.doubts = None, 0

    # -- evidence ------------------------------------------------------------------------------------------------

    async def hear(self, trial: Trial, error: CallError, sent_at: float) -> Heard | None:
        """What a word to the server came to, where nothing else tells whose fault the failure is.

        Without it a few hundred records that hang, or that make the server answer 5xx, would be an outage, and hold the
        run for hours.
        """
        if not self._is_open_question(trial, error, sent_at):
            return None
        clock, life = asyncio.get_running_loop().time, self._life
        heard = await life.heard_since(sent_at, trial.request)
        needed = 1 if isinstance(error, CallTimeoutError) or self._is_refusal(trial, error) else SURE_WORDS
        while heard is not None and heard.is_answered and life.answered_in_a_row < needed:
            heard = await life.heard_since(clock(), trial.request)
        if heard is not None and heard.is_answered:
            self._gate.proved_alive(clock(), heard.sent_at)
            self._shapes[0].answers += 1
            self._rejected = 0
        return heard

    def _is_open_question(self, trial: Trial, error: CallError, sent_at: float) -> bool:
        if self._given_up >= MOST_GIVEN_UP and not self._is_refusal(trial, error):
            return False
        if isinstance(error, RateLimitedError):
            return error.is_of_size and trial.refusals_of_size > 0 and not self._others_passed(trial, error, sent_at)
        if isinstance(error, CallTimeoutError):
            return not self._is_its_own(trial)
        doubtful = self._gate.is_doubtful(trial.request.record.key, self.active - 1)
        if not self._is_refusal(trial, error):
            is_open = verdict_of(error) in (Verdict.RETRY, Verdict.DOUBT) and not self._is_its_own(trial)
            # In an outage whoever fails for the first time is no poison.
            return is_open and doubtful and (self._gate.outage is None or trial.failing)
        if not self._can_ask(trial) or self._others_passed(trial, error, sent_at):
            return False
        if self._was_answered:
            return doubtful or trial.doubted_at is not None
        return self.proven or not is_certain(error)

    def _is_its_own(self, trial: Trial) -> bool:
        """Whether others were answered since the record's calls began to fail."""
        return self._gate.blames(trial.answers_before, max(0, self.failing - trial.failing))

    def _is_refusal(self, trial: Trial, error: CallError) -> bool:
        if isinstance(error, RecordRefusedError):
            # A gateway may say of a key that is blocked what it says of a text.
            is_odd = self._rejected >= MOST_REJECTED and self._can_ask(trial)
            return is_odd and (self._was_answered or self.proven)
        return verdict_of(error) is Verdict.DOUBT and error.status not in PASSING

    @property
    def _was_answered(self) -> bool:
        """Whether the model has answered in this session: a record, or a word."""
        return self._gate.passed_at > float("-inf")

    def _others_passed(self, trial: Trial, error: CallError, sent_at: float) -> bool:
        """Whether a call of its kind was answered that left after this record's refused one, or after it was charged.

        One that left before may have passed before the key was taken away.
        """
        if isinstance(error, RequestShapeError) and not self._shape_of(trial).answers:
            return False
        return self._gate.passed_at > (sent_at if trial.doubted_at is None else trial.doubted_at)

    def _shape_of(self, trial: Trial) -> Shape:
        """A request that goes on with a conversation looks otherwise than a first one, and may be refused for that."""
        return self._shapes[trial.turn > 0]

    # -- verdicts ------------------------------------------------------------------------------------------------

    def after(self, trial: Trial, error: CallError, sent_at: float, heard: Heard | None) -> float:
        """Seconds to wait before the next call; or an ending is raised. `heard`: what `hear` gave."""
        verdict = verdict_of(error)
        if isinstance(error, CallTimeoutError):
            self._admission.timed_out(sent_at)
        self._stats.call_failed(error.code, billed=error.billed)
        log.info(
            "call failed",
            extra={"facts": {"key": trial.request.record.key, "call": trial.calls, "code": error.code,
                             "verdict": verdict.value, "error": str(error), "request_id": error.request_id}},
        )  # fmt: skip
        if self._used_up.note(error, now=asyncio.get_running_loop().time(), passed_at=self._gate.passed_at):
            self._abort(QuotaError(f"{USED_UP}; each time: {error}"))
        if isinstance(error, RateLimitedError):
            return self._cool_down(trial, error, sent_at, heard)
        if verdict is Verdict.ABORT:
            self._abort(error)
        if self._is_refusal(trial, error):
            return self._doubt(trial, error, sent_at, heard)
        if verdict is Verdict.REJECT:
            # A refusal of one record's content proves that somebody is there; that the model answers it does not.
            self._rejected += 1
            self._gate.refused(asyncio.get_running_loop().time(), sent_at)
            raise Over(Status.REJECTED, Problem(error.code, str(error)))
        return self._retry(trial, error, sent_at, heard)

    def _abort(self, error: CallError) -> NoReturn:
        self._gate.stop(error)
        raise StoppedError(str(error)) from error

    def _cool_down(self, trial: Trial, error: RateLimitedError, sent_at: float, heard: Heard | None) -> float:
        if error.is_of_size:
            passed = heard is not None and heard.is_answered
            passed |= bool(trial.refusals_of_size) and self._gate.last_success_at > trial.refused_at
            trial.refusals_of_size += 1
            if passed and trial.refusals_of_size >= SIZE_REFUSALS:
                raise Over(Status.REJECTED, Problem(TooLargeError.code, str(error)))
        wait_s = self._admission.refused(error, sent_at)
        # A refusal says something about this record when others were answered since the one before; or when so few are
        # left that nobody else could be. While everybody is refused it says nothing.
        others_pass = self._gate.last_success_at > trial.refused_at
        trial.refusals += (others_pass or self.active <= FEW_LEFT) and not self._admission.is_excused
        trial.refused_at = asyncio.get_running_loop().time()
        if trial.refusals >= FREE_REFUSALS * self.rules.max_attempts:
            told = f"refused {trial.refusals} times by the rate limit; last: {error}"
            raise Over(Status.FAILED, Problem(error.code, told))
        return wait_s

    def _retry(self, trial: Trial, error: CallError, sent_at: float, heard: Heard | None) -> float:
        now = asyncio.get_running_loop().time()
        if not isinstance(error, NoCompletionError | NoHostError):
            self._refusals.broken()
        elif self._is_everyones(trial, error, sent_at):
            self._abort(error)
        own = self._failed(trial, error, sent_at, now, proved=self._proves_own(error, heard))
        if self._gate.outage is not None and not own:
            return 0.0  # the gate does the waiting
        trial.free += not own
        if own or trial.free > FREE_FAILURES:
            trial.charged += 1
        if trial.charged >= self.rules.max_attempts:
            self._given_up += 1
            told = f"given up after {trial.calls} calls; last: {error}"
            raise Over(Status.FAILED, Problem(error.code, told))
        if own and trial.busy_s >= (deadline_s := self.rules.deadline_of(self._max_turns)):
            told = f"not done in {deadline_s:g} s, {trial.calls} calls; last: {error}"
            raise Over(Status.FAILED, Problem("record_deadline", told))
        return self._wait_s(trial, error)

    def _proves_own(self, error: CallError, heard: Heard | None) -> bool:
        """Whether a word says that the failure is the record's: the server is up."""
        if heard is None:
            return False
        if isinstance(error, CallTimeoutError):
            # Who is there at all would have answered, if only with a no.
            return heard.is_answered or heard.is_refused
        return heard.is_answered

    def _failed(self, trial: Trial, error: CallError, sent_at: float, now: float, *, proved: bool) -> bool:
        """Tell the gate of it. True: the failure is the record's own."""
        self.failing += not trial.failing
        trial.failing = True
        gate = self._gate
        was_open = gate.outage is None and not gate.settling(now)
        # At the end of the input there may be few left who could be answered: one is enough to say that others are.
        passed_over = self.tail.is_set() and gate.outage is None and gate.answers > trial.answers_before
        if proved or (passed_over and isinstance(error, CallTimeoutError)):
            return True
        own = gate.failed(
            trial.request.record.key,
            sent_at=sent_at,
            # What was answered says nothing of a refusal: it may have left before all were refused.
            answers_before=gate.answers if self._is_refusal(trial, error) else trial.answers_before,
            failing=self.failing - 1,
            others=self.active - 1,
            reason=str(error),
            now=now,
        )
        if gate.outage is not None and was_open:
            log.warning("outage begins", extra={"facts": {"reason": str(error)}})
        return own

    def _wait_s(self, trial: Trial, error: CallError) -> float:
        self._stats.retried(error.code)
        # A 503 that says when to come back is heard for this record; what holds for everyone is the outage's part.
        told_s = min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
        # Who has waited in vain for an answer has waited enough.
        silent = isinstance(error, CallTimeoutError)
        failures = trial.charged + trial.free + trial.doubts
        wait_s = told_s if silent else max(told_s, backoff_s(failures, self._rng.random()))
        trial.busy_s += wait_s
        return wait_s

    # -- refusals ------------------------------------------------------------------------------------------------

    def _doubt(self, trial: Trial, error: CallError, sent_at: float, heard: Heard | None) -> float:
        """A refusal is the record's where others pass meanwhile; everybody's where nobody does, one after another."""
        now = asyncio.get_running_loop().time()
        passed = heard is not None and heard.is_answered
        if passed or self._others_passed(trial, error, sent_at) or self._speaks_for_itself(trial, error):
            trial.doubted_at = now
            trial.doubts += 1
            if trial.doubts + 1 >= tries_of(error, self.rules.max_attempts):
                self._reject(trial, error)
            return self._wait_s(trial, error)
        if trial.doubted_at is None:
            trial.doubted_at = sent_at
        if self._is_from_the_start(trial, error, heard) or self._is_everyones(trial, error, sent_at):
            self._abort(error)
        self._failed(trial, error, sent_at, now, proved=False)
        if self._gate.outage is not None:
            return 0.0
        trial.free += 1
        if trial.free >= self.rules.max_attempts + FREE_FAILURES and not self._can_ask(trial):
            self._reject(trial, error)  # nobody else is there who could tell
        return self._wait_s(trial, error)

    def _can_ask(self, trial: Trial) -> bool:
        """Whether there is a word that would tell. Of those that go on with a conversation only once some passed."""
        return self._life.can_ask and (trial.turn == 0 or self._shape_of(trial).answers > 0)

    def _reject(self, trial: Trial, error: CallError) -> NoReturn:
        if isinstance(error, UnknownRefusalError):
            raise Over(Status.FAILED, Problem(error.code, f"given up after {trial.calls} calls; last: {error}"))
        code = error.code if isinstance(error, RecordRefusedError) else RecordRefusedError.code
        raise Over(Status.REJECTED, Problem(code, str(error)))

    def _is_from_the_start(self, trial: Trial, error: CallError, heard: Heard | None) -> bool:
        """Whether no such request passes: none was answered yet, and it is nothing that a record could bring about."""
        if isinstance(error, RequestShapeError):
            return self._is_shape(trial, error)
        if self._was_answered or not isinstance(error, CredentialsError):
            return False
        if not self.proven and (is_certain(error) or not self._can_ask(trial)):
            return True
        return heard is not None and heard.is_refused

    def _is_shape(self, trial: Trial, error: RequestShapeError) -> bool:
        """Whether no request of this kind passes: several records say so, and a small one with the same tools."""
        shape, by_word = self._shape_of(trial), self._can_ask(trial)
        if shape.answers:
            return False
        needed = IN_A_ROW if by_word else PROVEN_EVIDENCE if self.proven else SHAPE_EVIDENCE
        if not error.certain and not shape.is_refused(trial.request.record.key, self.active, needed):
            return False
        return not by_word or (self._life.last is not None and self._life.last.is_refused)

    def _speaks_for_itself(self, trial: Trial, error: CallError) -> bool:
        """Whether a refusal that nobody else can explain any more is the record's: few are left, and no word tells."""
        if self._can_ask(trial) or is_certain(error):
            return False
        if isinstance(error, RequestShapeError) and not self._shape_of(trial).answers:
            return self.proven and self.tail.is_set() and self.active < PROVEN_EVIDENCE
        return trial.doubts > 0 or (self.tail.is_set() and self.active < IN_A_ROW)

    def _is_everyones(self, trial: Trial, error: CallError, sent_at: float) -> bool:
        """Whether nobody passes any more, or ever did: the same to all, for long enough, and to a word too."""
        now, refusals = asyncio.get_running_loop().time(), self._refusals
        refusals.note(error, trial.request.record.key, sent_at=sent_at, now=now, passed_at=self._gate.passed_at)
        if not refusals.are_everyones(now, self.active, answered=self.proven or self._was_answered):
            return False
        if isinstance(error, NoCompletionError):
            error.args = (f"{NEVER_ANSWERED}; look at model.base_url. Each time: {error}",)
        if refusals.is_page:
            return True
        if not self._can_ask(trial):
            return len(refusals.keys) > 1
        # Between failures a word may meet one each time.
        return refusals.others > 0 or self._life.refused_at >= refusals.sent_at
