"""Handles a call: reads it, admits or refuses it, draws its fate, waits, answers, and logs it. Knows no HTTP."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pipeline.codec import dumps
from pipeline.rehearsal.call_log import ANSWERED, REFUSED, CallEnding, CallLog, RecordCalls
from pipeline.rehearsal.completions import CompletionGenerator
from pipeline.rehearsal.faults import (
    COMPLETION_FAULTS,
    CONNECTION_FAULTS,
    FLEX,
    FLEX_REFUSALS,
    REPLY_FAULTS,
    draw_kind,
    tier_of,
)
from pipeline.rehearsal.options import RehearsalOptions
from pipeline.rehearsal.rate_limits import RateLimiter
from pipeline.rehearsal.replies import ApiFormat, ErrorReply, Reply
from pipeline.rehearsal.request_parser import Call, RequestParser
from pipeline.rehearsal.seeded_random import SeededRandom

#: Calls slow down above `max_in_flight` and are refused above this multiple of it.
_CROWD = 2
#: Faults that make a call free.
_UNBILLED = frozenset((*REPLY_FAULTS, "reset", "hang"))


@dataclass(frozen=True, slots=True)
class CallFate:
    """The random part of one call: its fault, if any, and the factor of its latency."""

    kind: str | None
    pace: float


class FaultInjector:
    """Draws by (seed, record, attempt), so that a run is reproducible whatever the order of its calls."""

    def __init__(self, options: RehearsalOptions) -> None:
        self._options = options
        self._faults = dict(sorted(options.faults.items()))
        self._certain = not (self._faults or options.latency_jitter or options.slow_share)

    def draw(self, record: str, attempt: int, text: str) -> CallFate:
        """Draw the fate of a record's n-th call that passed the limits. `text` is the text of its user messages."""
        options = self._options
        poisoned = next((kind for part, kind in options.poison.items() if part in text), None)
        if self._certain:
            return CallFate(poisoned, options.slow_factor if poisoned == "slow" else 1.0)
        rng = SeededRandom("fault", options.seed, record, attempt)
        kind = poisoned or draw_kind(self._faults, rng.unit(), self._faults)
        pace = 1.0 + options.latency_jitter * (2.0 * rng.unit() - 1.0)
        if rng.unit() < options.slow_share or kind == "slow":
            pace *= options.slow_factor
        return CallFate(kind, pace)


class CallHandler:
    """Answers calls."""

    def __init__(self, options: RehearsalOptions, books: CallLog, clock: Callable[[], float]) -> None:
        self._options = options
        self._books = books
        self._parser = RequestParser(options)
        self._completions = CompletionGenerator(options.seed, options.accuracy)
        self._limits = RateLimiter(options, clock)
        self._faults = FaultInjector(options)
        self._granted = 0  # answers given or in progress, for quota_after

    async def serve(self, raw: bytes, is_gone: Callable[[], bool], api: ApiFormat) -> Reply:
        """Return the reply to a body. `is_gone` returns whether the client has disconnected meanwhile."""
        name, call = self._parser.read(raw, api)
        if isinstance(call, ErrorReply):
            known = None if name is None else self._books.entry(name)
            return self._close(known, "invalid", call.reply())
        entry = self._books.entry(call.record)
        refusal = self._refuse(call)
        if refusal:
            what, error = refusal
            return self._close(entry, what, self._with_limits(error.reply()))
        entry.served += 1
        full = self._refuse_flex(call, entry.served)
        if full:
            return self._close(entry, "no_room", self._with_limits(full))
        draw = self._faults.draw(call.record, entry.served, call.user_text)
        # Counted before the wait, so that answers in progress cannot exceed the quota.
        self._granted += draw.kind not in _UNBILLED
        if draw.kind != "429":
            await asyncio.sleep(self._latency_s(draw.pace))
        if draw.kind in _UNBILLED:
            return self._fail(entry, draw.kind)
        return self._answer(entry, call, draw.kind, is_gone(), api)

    def serve_line(self, raw: bytes, api: ApiFormat) -> Reply:
        """Return the reply to a line of a batch. No rate limit applies to it."""
        self._books.arrive()
        try:
            name, call = self._parser.read(raw, api)
            if isinstance(call, ErrorReply):
                return self._close(None if name is None else self._books.entry(name), "invalid", call.reply())
            entry = self._books.entry(call.record)
            entry.served += 1
            kind = self._faults.draw(call.record, entry.served, call.user_text).kind
            if kind in _UNBILLED:
                return self._fail(entry, "500" if kind in CONNECTION_FAULTS else kind)
            return self._answer(entry, call, None if kind == "cut" else kind, False, api)
        finally:
            self._books.leave()

    def _refuse(self, call: Call) -> tuple[str, ErrorReply] | None:
        """Return why the call is refused, as a kind for the log and a reply for the client; None if it is admitted."""
        if self._in_outage():
            return "outage", ErrorReply(503, "The service is unavailable: a simulated outage.", "server_error")
        quota = self._options.quota_after
        if quota is not None and self._granted >= quota:
            message = "You exceeded your current quota, please check your plan and billing details."
            return "quota", ErrorReply(429, message, "insufficient_quota", None, "insufficient_quota")
        room = self._options.max_in_flight
        if room is not None and self._books.in_flight > room * _CROWD:
            message = f"Too many requests at once: {self._books.in_flight} in flight."
            wait_s = self._latency_s(1.0)
            return REFUSED, ErrorReply(429, message, "requests", None, "rate_limit_exceeded", wait_s)
        short = self._limits.admit(call.limit_tokens)
        if short is None:
            return None
        message = short.message(call.model)
        return REFUSED, ErrorReply(429, message, short.type, None, "rate_limit_exceeded", short.wait_s)

    def _refuse_flex(self, call: Call, attempt: int) -> Reply | None:
        """Return the refusal of a flex call when the tier is full; None if there is room."""
        options = self._options
        is_over = options.flex_full_s is not None and self._books.since_first_s() >= options.flex_full_s
        if not options.flex_full or is_over or tier_of(call.request) != FLEX:
            return None
        has_room = SeededRandom("flex", options.seed, call.record, attempt).unit() >= options.flex_full
        return None if has_room else FLEX_REFUSALS[options.flex_form]

    def _in_outage(self) -> bool:
        outages = self._options.outages
        if not outages:
            return False
        since_s = self._books.since_first_s()
        return any(start <= since_s < end for start, end in outages)

    def _latency_s(self, pace: float) -> float:
        room = self._options.max_in_flight
        crowd = max(1.0, self._books.in_flight / room) if room else 1.0
        return self._options.latency_ms / 1000 * pace * crowd

    def _fail(self, entry: RecordCalls, kind: str) -> Reply:
        if kind in CONNECTION_FAULTS:
            return self._close(entry, kind, Reply(0, b"", wire=kind))
        return self._close(entry, kind, self._with_limits(REPLY_FAULTS[kind]))

    def _answer(self, entry: RecordCalls, call: Call, kind: str | None, gone: bool, api: ApiFormat) -> Reply:
        done = self._completions.complete(call, kind if kind in COMPLETION_FAULTS else None)
        body = dumps(api.write(done.body, call.request))
        if kind == "cut":
            self._books.close_call(entry, CallEnding("cut", 0, done.tokens, lost=True))
            return Reply(200, body, wire="cut")
        good = done.fault is None
        ending = CallEnding(done.fault or ANSWERED, 200, done.tokens, done.text if good else None, gone)
        self._books.close_call(entry, ending)
        return Reply(200, body, headers=self._limit_headers())

    def _close(self, entry: RecordCalls | None, what: str, reply: Reply) -> Reply:
        self._books.close_call(entry, CallEnding(what, reply.status))
        return reply

    def _with_limits(self, reply: Reply) -> Reply:
        return replace(reply, headers=self._limit_headers())

    def _limit_headers(self) -> Mapping[str, str]:
        return self._limits.headers() if self._options.headers else {}
