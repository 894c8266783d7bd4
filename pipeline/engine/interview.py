"""Decides what answers mean for one record, from an answer through its calls and callbacks to a label.

An interview never waits, and knows no clock, no limits, and no server. A driver reads what it wants, and supplies that:

    interview = Interview(context, record, request=request)
    while not interview.is_over:
        if interview.wants is Wants.ANSWER:
            interview.answered(...)      # a Response to interview.request
        else:
            interview.called_back(...)   # the callback's result for interview.callback; or interview.failed(error)
    outcome = interview.outcome(now)

The drivers are the live caller (`attempt`), the reader of saved answers (`saved_answers`), and the preview, which is
the live caller without callbacks.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.engine.interview_context import InterviewContext, idempotency_key
from pipeline.engine.panel import Ballot
from pipeline.engine.retry import Verdict, verdict_of
from pipeline.errors import AnswerError, RenderError, TruncatedError
from pipeline.records import (
    JSON,
    CallbackContext,
    LabelResult,
    Outcome,
    Problem,
    Record,
    Request,
    Response,
    SavedAnswer,
    Status,
    Usage,
    ValidCall,
    add_usd,
)


class Wants(enum.Enum):
    """What an interview waits for."""

    #: an answer to its request
    ANSWER = "answer"
    #: a callback's result for its next call
    CALLBACK = "callback"
    #: nothing; it is over
    NOTHING = "nothing"


class Interview:
    """One record from its first answer to its outcome.

    `request` is None if the driver has all answers; then no further requests are made either. `digest` is the digest of
    the record's first request, which identical records share. `key` is the name that the record had when it was asked,
    if it has a new one since. The driver counts the record's calls in `calls`.
    """

    __slots__ = (
        "_ballots", "_base", "_before", "_calls_before", "_calls_here", "_done", "_first", "_given", "_has_gap",
        "_key", "_labelled", "_lost", "_max_repairs", "_problem", "_status", "_task", "_valid_calls", "_votes",
        "_winner", "answers", "calls", "context", "cost_usd", "digest", "fault", "record", "repairs", "repairs_here",
        "request", "response", "turn", "usage", "wants",
    )  # fmt: skip

    def __init__(
        self,
        context: InterviewContext,
        record: Record,
        *,
        request: Request | None = None,
        digest: bytes = b"",
        key: str | None = None,
        max_repairs: int = 0,
        votes: Mapping[str, JSON] | None = None,
    ) -> None:
        self.context = context
        self._task = context.task
        self.record = record
        self._key = record.key if key is None else key
        self.digest = digest if request is None else request.digest
        self._max_repairs = max_repairs
        # Mutable state. What it waits for, and the request to answer:
        self.wants = Wants.ANSWER
        self.request = request
        # what came: the last answer and its fault, the number of answers, and their totals;
        self.response: Response | None = None
        self.fault: AnswerError | None = None
        self.answers = self.calls = self.repairs = 0
        self.usage = _NO_USAGE
        self.cost_usd: float | None = 0.0
        # the calls of the last answer and of earlier ones; answers paid for in vain, and the answer they are saved
        # with;
        self._calls_here = self._calls_before = 0
        self._lost: tuple[int, list[tuple[Response, int, int]]] | None = None
        # the conversation: its turn, the number of messages at the turn's start, its repairs, the calls of earlier
        # turns, those of the last answer, and the ones that a callback has answered;
        self.turn = 0
        self._base = 0 if request is None else len(request.messages)
        self.repairs_here = 0
        self._before: list[ValidCall] = []
        self._valid_calls: tuple[ValidCall, ...] = ()
        self._done: list[ValidCall] = []
        # the votes: the first request, the ballots, whether one has no answer, earlier callback results for the winner,
        # the winner, and the values of the vote columns (None: not decided yet);
        self._first: Request | None = None
        self._ballots: list[Ballot] = []
        self._has_gap = False
        self._given: Sequence[Mapping[str, JSON]] = ()
        self._winner: Response | None = None
        self._votes = {} if votes is None and context.panel is None else votes
        # the ending.
        self._status = Status.FAILED
        self._labelled: LabelResult | None = None
        self._problem: Problem | None = None

    def answered(self, response: Response, results: Sequence[Mapping[str, JSON]] = ()) -> None:
        """Take an answer. `results` are what callbacks returned earlier for its first calls."""
        self._calls_here, self._calls_before = self.calls - self._calls_before, self.calls
        self._take(response, results)

    def called_back(self, valid_call: ValidCall) -> None:
        """Take the callback's result for the call in `callback`."""
        self._done.append(valid_call)
        self._go_on()

    def failed(self, error: AnswerError) -> None:
        """Take the callback's error."""
        self._bad(error)

    def end(self, status: Status, problem: Problem) -> None:
        """End without a label: the driver gives up, or the record's media cannot be read."""
        self.wants = Wants.NOTHING
        self._status, self._problem = status, problem

    def give_up(self, status: Status, problem: Problem) -> None:
        """Note that no answer will come to this request. If others vote too, it is an abstention.

        The ledger has no row for that abstention, so it uses up a number: the numbers of later votes show the gap.
        """
        if self._votes is None:
            if self._lost is not None and self._lost[0] == self.answers:
                self._lost = (self.answers + 1, self._lost[1])
            self.answers += 1
            self._has_gap = True
        self._abstain(status, problem)

    def resume(self, saved: Sequence[SavedAnswer]) -> None:
        """Take the answers that an earlier session paid for, as long as they mean the same as then.

        The others belong to a prompt that has changed since, or follow an answer that is parsed differently now.
        """
        for place, one in enumerate(saved):
            self.skip_to(one)
            if self.wants is not Wants.ANSWER or one.request_digest != self.digest:
                return self.write_off(saved[place:])
            self.calls += one.calls
            self.repairs += one.repairs
            self.answered(one.response, one.results)
            if (self.fault is None) != (one.fault is None):
                return self.write_off(saved[place + 1 :])
        return None

    def skip_to(self, saved: SavedAnswer) -> None:
        """Abstain for the unanswered votes before this answer."""
        while self._votes is None and self.wants is Wants.ANSWER and self.answers < saved.number:
            self.give_up(Status.FAILED, _NO_VOTE)

    def write_off(self, saved: Sequence[SavedAnswer]) -> None:
        """Count answers that were paid for and can no longer be used."""
        for one in saved:
            self._lose(one.response, one.calls, one.repairs + (one.fault is not None))

    def lost(self, response: Response) -> None:
        """Count an answer to a call that was slower than another; `answered` receives the other one."""
        self._lose(response)

    @property
    def is_over(self) -> bool:
        """Whether it needs nothing more."""
        return self.wants is Wants.NOTHING

    @property
    def callback(self) -> tuple[ValidCall, CallbackContext]:
        """The next call for a callback, and the context that the callback receives."""
        place = len(self._done)
        valid_call, response = self._valid_calls[place], self.decided
        name = idempotency_key(
            self.context.run_id,
            self._key,
            request_digest=self.digest,
            request_id=None if response is None else response.request_id,
            turn=self.turn,
            place=place,
            valid_call=valid_call,
        )
        return valid_call, CallbackContext(name, self.turn, valid_call.tool)

    @property
    def needs_keeping(self) -> bool:
        """Whether the ledger needs the last answer: the record goes on, or a replay could not place it otherwise."""
        return not self.is_over or self._has_gap or self.decided is not self.response

    @property
    def decided(self) -> Response | None:
        """The answer that the label is read from: the last one, or that of the winning vote."""
        return self._winner or self.response

    @property
    def readings(self) -> list[str]:
        """The names of what was accepted in the last answer although its form was wrong."""
        return sorted({reading for one in self._valid_calls for reading in one.readings})

    def to_saved_answer(self, at: float) -> SavedAnswer:
        """Return the last answer as the ledger saves it until the record ends. `at` is a Unix time."""
        assert self.response is not None
        saved = SavedAnswer(
            key=self.record.key,
            number=self.answers - 1,
            request_digest=self.digest,
            response=self.response,
            calls=self._calls_here,
            at=at,
            fault=None if self.fault is None else self.fault.code,
            results=tuple([{"extra": one.extra, "result": one.result} for one in self._done]),
        )
        for lost in self._lost[1] if self._lost is not None and self._lost[0] == saved.number else ():
            saved = saved.carrying(*lost)
        return saved

    def outcome(self, at: float) -> Outcome:
        """Return how the record ended. `at` is a Unix time."""
        response, labelled = self.decided, self._labelled
        return Outcome(
            record=self.record,
            status=self._status,
            label=None if labelled is None else {**labelled.label, **self._votes} if self._votes else labelled.label,
            rows=None if labelled is None else labelled.rows,
            problem=self._problem,
            answer=None if response is None else response.answer,
            request_digest=self.digest,
            attempts=self.calls,
            repairs=self.repairs,
            usage=self.usage,
            cost_usd=self.cost_usd,
            latency_s=0.0 if response is None else response.latency_s,
            model=None if response is None else response.model or None,
            request_id=None if response is None else response.request_id,
            finished_at=at,
        )

    # -- steps ---------------------------------------------------------------------------------------------------

    def _lose(self, response: Response, calls: int = 0, repairs: int = 0) -> None:
        self.usage += response.usage
        self.cost_usd = add_usd(self.cost_usd, response.cost_usd)
        self.calls += calls
        self._calls_before += calls
        self.repairs += repairs
        # The ledger saves it with the next row that is written, which replaces theirs.
        number = self.answers - (self.wants is Wants.CALLBACK)
        if self._lost is None or self._lost[0] != number:
            self._lost = (number, [])
        self._lost[1].append((response, calls, repairs))

    def _take(self, response: Response, results: Sequence[Mapping[str, JSON]]) -> None:
        self.response = response
        self._first = self._first or self.request
        self.usage = response.usage if self.usage is _NO_USAGE else self.usage + response.usage
        self.cost_usd = add_usd(self.cost_usd, response.cost_usd)
        self.answers += 1
        self.fault, self._valid_calls, self._done = None, (), []
        try:
            self._valid_calls = self._task.parse_calls(response.answer, self.record, self._before)
        except AnswerError as error:
            self._bad(error)
            return
        self._given = results
        if self._votes is None:
            self._vote()
        else:
            self._call_back()

    def _vote(self) -> None:
        """Cast a vote for the valid answer, one of several."""
        assert self.context.panel is not None
        try:
            labelled = self._task.build_rows(self._valid_calls, self._last_words(self._valid_calls), self.record)
        except AnswerError as error:
            self._bad(error)
        else:
            self._cast(Ballot(self.context.panel.value_of(labelled.label), self._valid_calls, self.response))

    def _abstain(self, status: Status, problem: Problem) -> None:
        if self._votes is None:
            self._cast(Ballot(None, problem=problem, status=status))
        else:
            self.end(status, problem)

    def _cast(self, ballot: Ballot) -> None:
        panel = self.context.panel
        assert panel is not None
        self._first = self._first or self.request
        self._ballots.append(ballot)
        winner = panel.winner(self._ballots)
        if winner is None:
            self._next_vote()
        elif winner.problem is not None:
            self._votes = {}
            self.end(winner.status, winner.problem)
        else:
            self._votes, self._winner = panel.columns_of(self._ballots), winner.response
            self._valid_calls = winner.valid_calls
            self._call_back()

    def _next_vote(self) -> None:
        assert self.context.panel is not None
        self.wants, self.repairs_here = Wants.ANSWER, 0
        if self._first is None:
            return
        try:
            self.request = self.context.panel.request(self.record, len(self._ballots), self._first)
            self._base = len(self.request.messages)
        except RenderError as error:
            self.give_up(Status.REJECTED, Problem(error.code, str(error)))

    def _call_back(self) -> None:
        if self._given:  # earlier callback results remain valid: the ledger has them
            self._done = [
                replace(one, extra=saved["extra"], result=saved["result"])
                for one, saved in zip(self._valid_calls, self._given, strict=False)
            ]
        self._go_on()

    def _go_on(self) -> None:
        """Continue after a valid answer: callbacks, then the next turn or the label."""
        valid_calls: Sequence[ValidCall] = self._valid_calls
        if self.context.calls_back:
            if len(self._done) < len(valid_calls):
                self.wants = Wants.CALLBACK
                return
            valid_calls = self._done
        self._before += valid_calls
        if valid_calls and self.turn + 1 < self.context.max_turns:
            self._next_turn(valid_calls)
            return
        try:
            self._labelled = self._task.build_rows(self._before, self._last_words(valid_calls), self.record)
        except AnswerError as error:
            self._bad(error)
        else:
            self.wants, self._status = Wants.NOTHING, Status.LABELLED

    def _next_turn(self, valid_calls: Sequence[ValidCall]) -> None:
        if self.request is not None and self.response is not None:
            self.request = self._task.next_turn(self.request, self.response.answer, valid_calls)
            self._base = len(self.request.messages)
        self.turn += 1
        self.repairs_here = 0
        self.wants = Wants.ANSWER

    def _last_words(self, valid_calls: Sequence[ValidCall]) -> str | None:
        """Return the model's final text; None if a conversation was cut off while it still made calls."""
        response = self.decided
        if (valid_calls and self.context.talks) or response is None:
            return None
        return response.answer.text or ""

    def _bad(self, error: AnswerError) -> None:
        """Reject the answer: ask again and show its fault, or end."""
        self.fault = error
        most = min(1, self._max_repairs) if isinstance(error, TruncatedError) else self._max_repairs
        if verdict_of(error) is not Verdict.REPAIR or self.repairs_here >= most or self._winner is not None:
            self._abstain(Status.REJECTED, Problem(error.code, str(error)))
            return
        self.repairs += 1
        self.repairs_here += 1
        self.wants = Wants.ANSWER
        if self.request is not None and self.response is not None:
            self.request = self._task.repair(self.request, self.response.answer, error, base=self._base)


_NO_USAGE = Usage()
_NO_VOTE = Problem("unfinished", "a vote is missing")
