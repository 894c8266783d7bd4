"""The one door that every call passes: the gate, the day, the meters; one waiter at a time, first come first served."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pipeline.errors import LabelpipeError, RateLimitedError
from pipeline.limits.day import DayMeter
from pipeline.limits.gate import Gate, Outage
from pipeline.limits.meters import Meter
from pipeline.limits.pace import Pace
from pipeline.records import ServerLimits, Usage

#: A 429 that says nothing about waiting: doubled with each one in a row. Waiting longer would miss the end by more.
BLIND_WAIT_S = 0.2
BLIND_WAIT_MAX_S = 4.0


@dataclass(frozen=True, slots=True)
class DoorState:
    """What can be seen of the door, for the progress line. `per_minute` is the request limit in force."""

    in_flight: int
    concurrency: int
    requests_per_minute: float | None
    tokens_per_minute: float | None
    outage: Outage | None
    held_for_s: float
    held_reason: str


class DayLimitReachedError(LabelpipeError):
    """The requests a day that the config allows are used up."""

    code = "day_limit"


class Permit:
    """The right to one call. `settle` corrects the token estimate; `close` must always follow."""

    __slots__ = ("_admission", "_estimate", "_size", "sent_at")

    def __init__(self, admission: Admission, estimate: int, size: int, sent_at: float) -> None:
        self._admission = admission
        self._estimate, self._size = estimate, size
        self.sent_at = sent_at

    def settle(self, usage: Usage) -> None:
        """The call used this many tokens."""
        self._admission._settle(self._estimate, self._size, usage)

    def close(self) -> None:
        """The call ended, however."""
        self._admission.gate.leave()


class Admission:
    """Permits for calls, under every limit at once."""

    def __init__(
        self,
        *,
        gate: Gate,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        day: DayMeter | None = None,
        stop_at_day_limit: bool = False,
    ) -> None:
        self.gate = gate
        self.request_pace = Pace(requests_per_minute)
        self.token_pace = Pace(tokens_per_minute)
        self._requests = Meter(requests_per_minute)
        self._tokens = Meter(tokens_per_minute, weighted=True)
        self._day = day
        self._stop_at_day_limit = stop_at_day_limit
        self._door = asyncio.Lock()
        # All state that changes, beside the parts above.
        self.calls = 0
        self.refusals = 0
        self._refused_in_a_row = 0
        self._refused_at = float("-inf")
        self._answered_since = self._refused_since = 0
        self._tokens_ratio = 1.0
        for meter in (self._requests, self._tokens):
            gate.at_stop(meter.release)

    async def acquire(self, size_tokens: int) -> Permit:
        """A permit for one call of about `size_tokens`. Raises StoppedError once the run is stopping."""
        async with self._door:
            size = max(1, round(size_tokens * self._tokens_ratio))
            loop = asyncio.get_running_loop()
            await self._pass(size, loop)
            now = loop.time()
            self.gate.enter(now)
        self.calls += 1
        return Permit(self, size_tokens, size, now)

    async def _pass(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for gate, day and meters. If the gate shut meanwhile, from the start, the slots kept."""
        while True:
            await self.gate.wait()
            if self._day is not None and not await self._take_day(self._day, loop):
                continue
            break
        self._requests.set_limit(self.request_pace.per_minute)
        self._tokens.set_limit(self.token_pace.per_minute)
        await self._requests.acquire()
        await self._tokens.acquire(size)
        await self.gate.wait()

    async def _take_day(self, day: DayMeter, loop: asyncio.AbstractEventLoop) -> bool:
        wait_s = await day.take()
        if not wait_s:
            return True
        reason = f"the {day.limit:,} requests a day are used up"
        if self._stop_at_day_limit:
            self.gate.stop(DayLimitReachedError(f"{reason}; the same command goes on tomorrow (UTC)"))
        self.gate.hold(loop.time() + wait_s, f"{reason}; waiting for the next day (UTC)")
        return False

    # -- what the answers say ------------------------------------------------------------------------------------

    def succeeded(self, usage: Usage, limits: ServerLimits | None) -> None:
        """An answer came."""
        now = asyncio.get_running_loop().time()
        self._refused_in_a_row = 0
        self._answered_since += 1
        self.gate.succeeded(now)
        self.request_pace.accept(1, now)
        self.token_pace.accept(usage.total, now)
        if limits is not None:
            self._learn(limits, now)

    def _learn(self, limits: ServerLimits, now: float) -> None:
        self.request_pace.tell(limits.limit_requests, limits.reset_requests_s)
        self.token_pace.tell(limits.limit_tokens, limits.reset_tokens_s)
        if limits.remaining_requests == 0 and limits.reset_requests_s:
            self.gate.hold(now + limits.reset_requests_s, "the server says that no request is left for now")
        if limits.remaining_tokens == 0 and limits.reset_tokens_s:
            self.gate.hold(now + limits.reset_tokens_s, "the server says that no tokens are left for now")

    def refused(self, error: RateLimitedError, sent_at: float) -> None:
        """A 429 came: everyone waits exactly as long as the server says; without a word, longer each time.

        Calls that were sent before the last refusal came tell nothing new: only their Retry-After is heard.
        """
        now = asyncio.get_running_loop().time()
        self.refusals += 1
        self._refused_since += 1
        self.gate.refused(now)
        pace = self.token_pace if error.scope == "tokens" else self.request_pace
        pace.refuse(now, sent_at)
        if error.retry_after_s:
            self.gate.hold(now + error.retry_after_s, "429: the server's rate limit")
        if sent_at > self._refused_at:
            self._refused_anew(now, blind=not error.retry_after_s)

    def _refused_anew(self, now: float, *, blind: bool) -> None:
        if self._refused_since > self._answered_since:
            self.gate.shrink()
        if blind:
            wait_s = min(BLIND_WAIT_S * 2 ** min(self._refused_in_a_row, 10), BLIND_WAIT_MAX_S)
            self.gate.hold(now + wait_s, "429: the server's rate limit (it does not say for how long)")
        self._refused_at = now
        self._refused_in_a_row += 1
        self._answered_since = self._refused_since = 0

    def _settle(self, estimate: int, size: int, usage: Usage) -> None:
        if not usage.total:
            return
        self._tokens.refund(size - usage.total)
        # A slow average: one odd record must not bend the estimate for all.
        ratio = usage.total / max(1, estimate)
        self._tokens_ratio += 0.05 * (min(max(ratio, 0.1), 10.0) - self._tokens_ratio)

    def state(self) -> DoorState:
        """What the door looks like now."""
        now = asyncio.get_running_loop().time()
        return DoorState(
            in_flight=self.gate.in_flight,
            concurrency=self.gate.concurrency,
            requests_per_minute=self.request_pace.per_minute,
            tokens_per_minute=self.token_pace.per_minute,
            outage=self.gate.outage,
            held_for_s=max(0.0, self.gate.held_until - now),
            held_reason=self.gate.held_reason,
        )

    async def close(self) -> None:
        """Give back what was reserved and not used; may be called twice."""
        if self._day is not None:
            await self._day.close()
