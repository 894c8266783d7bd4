"""Admits calls through gate, day, resource, and budget: one waiter at a time, first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import LabelpipeError, RateLimitedError
from pipeline.limits.budget import Budget, BudgetReachedError, Reservation, Spend, TokenBound
from pipeline.limits.day import DayMeter
from pipeline.limits.gate import Gate, Outage
from pipeline.limits.hours import Hours
from pipeline.limits.line import Line
from pipeline.limits.local import LocalResource
from pipeline.limits.resource import Hold, Resource
from pipeline.limits.tuner import Tuner
from pipeline.records import ServerLimits, Usage


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """The state of admission, for the progress line. `requests_per_minute` is the limit in force.

    `asked_for_s` is how long the server asked to wait, even if the run waits less. Since `refused_since`, by the run's
    clock, it has refused calls and answered none. `resting`: a pause, the hours, or a daily limit lets nothing leave.
    `excused`: the server named a time, hours away, until which it refuses. `server_day_s` is how long its own daily
    limit holds the run.
    """

    in_flight: int
    concurrency: int
    requests_per_minute: float | None
    tokens_per_minute: float | None
    outage: Outage | None
    hold_s: float
    hold_reason: str
    requests_left_today: int | None = None
    requests_per_day: int | None = None
    asked_for_s: float = 0.0
    refused_since: float | None = None
    resting: bool = False
    excused: bool = False
    server_day_s: float = 0.0

    @property
    def waits_s(self) -> float:
        """How long the run will probably wait: until the time that was named, even if single calls ask earlier."""
        return max(self.hold_s, self.server_day_s) if self.hold_s > 0 else 0.0


#: Makes room for such a call in a budget that is part of a larger one.
TopUp = Callable[[Budget, TokenBound], Awaitable[None]]
#: Saves what a killed session may have spent, before it is spent.
SaveSpendBound = Callable[[Spend], Awaitable[None]]


class DayLimitReachedError(LabelpipeError):
    """The daily requests that the config or the server allows are used up."""

    code = "day_limit"


class Permit:
    """The right to make one call. `settle` or `release` reports its result; `close` must always follow."""

    __slots__ = ("_admission", "_estimate", "_has_place", "_reservation", "_size", "sent_at")

    def __init__(
        self,
        admission: Admission,
        estimate: int,
        size: int,
        sent_at: float,
        reservation: Reservation | None,
        *,
        has_place: bool = True,
    ) -> None:
        self._admission = admission
        self._estimate, self._size = estimate, size
        self._reservation = reservation
        self._has_place = has_place
        self.sent_at = sent_at

    def settle(self, usage: Usage, cost_usd: float | None = None) -> None:
        """Count the tokens that the call used, and its cost if that is known."""
        if self._has_place:  # the size of a health check says nothing about records
            self._admission._settle(self._estimate, self._size, usage)
        if self._reservation is not None:
            self._reservation.settle(usage, cost_usd)

    def release(self) -> None:
        """Free what is reserved: the server refused the call, so nothing was used."""
        if self._reservation is not None:
            self._reservation.release()

    def close(self) -> None:
        """End the call. If it was neither settled nor released, it may have been billed."""
        if self._reservation is not None:
            self._reservation.close()
        if self._has_place:
            self._admission.gate.leave()


def _give_back(permit: Permit) -> None:
    """Give back a permit whose waiter was canceled."""
    permit.release()
    permit.close()


class Admission:
    """Permits for calls, under all limits at once.

    `resource` decides what the server's limits let through and what refusals mean. None: one without a configured
    limit, which learns the server's.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        resource: Resource | None = None,
        day: DayMeter | None = None,
        stop_at_day_limit: bool = False,
        budget: Budget | None = None,
        save_spend_bound: SaveSpendBound | None = None,
        top_up: TopUp | None = None,
        tuner: Tuner | None = None,
        hours: Hours | None = None,
    ) -> None:
        self.gate = gate
        self.budget = budget
        self._save_spend_bound = save_spend_bound
        self._top_up = top_up
        self.tuner = tuner
        self.hours = hours
        self.resource: Resource = LocalResource() if resource is None else resource
        self._day = day
        self._stop_at_day_limit = stop_at_day_limit
        self._line: Line[Permit] = Line(_give_back)
        # Mutable state, in addition to the parts above.
        self.calls = 0
        self.refusals = 0
        self._tokens_ratio = 1.0
        self._rests_until = float("-inf")
        gate.at_stop(self.resource.release)

    @property
    def is_budget_shared(self) -> bool:
        """Whether the budget is part of a larger one, whose owner sets its caps."""
        return self._top_up is not None

    async def acquire(self, size_tokens: int, most: TokenBound | None = None) -> Permit:
        """Return a permit for a call of about `size_tokens`, at most `most`. Raises StoppedError if the run stops."""
        return await self._line.wait(lambda: self._admit(size_tokens, most))

    async def _admit(self, size_tokens: int, most: TokenBound | None) -> Permit:
        loop = asyncio.get_running_loop()
        size = max(1, round(size_tokens * self._tokens_ratio))
        now = await self._pass(size, loop)
        reservation = None
        if self.budget is not None and most is not None:
            reservation, now = await self._reserve(self.budget, most), loop.time()
        self.gate.enter(now)
        self.resource.on_send(now, self.gate.in_flight)
        self.calls += 1
        return Permit(self, size_tokens, size, now, reservation)

    async def acquire_health_check(self, size_tokens: int, most: TokenBound) -> Permit | None:
        """Return a permit for a health check, in the place of a call that has just failed; None: not now.

        It skips the line and passes in an outage, because it may show the end of it. All other limits apply to it.
        """
        loop, gate = asyncio.get_running_loop(), self.gate
        now = loop.time()
        if gate.stopped is not None or gate.paused or now < gate.current_hold.until:
            return None
        if self.hours is not None and not self._within(self.hours, now):
            return None
        if self._day is not None and not await self._take_day(self._day, loop):
            return None
        await self.resource.acquire(size_tokens)
        reservation = None if self.budget is None else self._try_reserve(self.budget, most)
        if self.budget is not None and reservation is not None:
            await self._save_before_spending(self.budget, reservation)
        elif self.budget is not None:
            return None
        return Permit(self, size_tokens, size_tokens, loop.time(), reservation, has_place=False)

    async def _pass(self, size: int, loop: asyncio.AbstractEventLoop) -> float:
        """Wait for gate, hours, day, and resource, and again for a gate that shut meanwhile. Return the time then."""
        began = loop.time()
        while True:
            await self.gate.wait()
            if self.hours is not None and not self._within(self.hours, loop.time()):
                continue
            if self._day is not None and not await self._take_day(self._day, loop):
                continue
            break
        self._rests_until = float("-inf")  # the rest may end earlier than expected, because clocks are set
        self.resource.skip_pause(loop.time() - began)
        while True:
            await self.resource.acquire(size)
            now = loop.time()
            if self.gate.is_open(now):
                return now
            await self.gate.wait()
            if self.resource.skip_pause(loop.time() - now):
                return loop.time()

    def _within(self, hours: Hours, now: float) -> bool:
        """Whether calls may leave by the wall clock."""
        moment = datetime.now().astimezone()
        wait_s = hours.wait_s(moment)
        if wait_s > 0:
            # Checked again each minute: machines sleep, and clocks are set.
            self._rest(now + wait_s, hours.waiting(moment), look_at=now + min(wait_s, 60.0))
            return False
        return True

    async def _reserve(self, budget: Budget, most: TokenBound) -> Reservation:
        """Reserve the worst case of a call once it fits. Stop the run if it can no longer fit."""
        while True:
            if self._top_up is not None:
                await self._top_up(budget, most)
            if (reservation := self._try_reserve(budget, most)) is not None:
                return await self._save_before_spending(budget, reservation)
            await self.gate.changed()
            await self.gate.wait()

    async def _save_before_spending(self, budget: Budget, reservation: Reservation) -> Reservation:
        """Return the reservation once it is saved that it may be spent."""
        try:
            bound = budget.bound_to_save()
            if bound is not None and self._save_spend_bound is not None:
                await self._save_spend_bound(bound)
        except BaseException:
            reservation.release()
            raise
        return reservation

    def _try_reserve(self, budget: Budget, most: TokenBound) -> Reservation | None:
        try:
            return budget.reserve(most.prompt, most.output)
        except BudgetReachedError as error:
            self.gate.stop(error)
            return None

    async def _take_day(self, day: DayMeter, loop: asyncio.AbstractEventLoop) -> bool:
        wait_s = await day.take()
        if not wait_s:
            return True
        reason = f"the {day.limit or 0:,} requests a day are used up"
        if self._stop_at_day_limit:
            self.gate.stop(DayLimitReachedError(f"{reason}; the same command resumes tomorrow (UTC)"))
        self._rest(loop.time() + wait_s, f"{reason}; continues on the next day (UTC)")
        return False

    def _rest(self, until: float, reason: str, look_at: float | None = None) -> None:
        """Let nothing leave, by the user's settings. `look_at` is when to check again, if that is before the end."""
        self._rests_until = until
        self.gate.set_hold(until if look_at is None else look_at, reason)

    def _end_rest(self) -> None:
        self._rests_until = float("-inf")
        self.gate.release_hold()

    def set_day_limit(self, limit: int | None, *, stop: bool = False) -> None:
        """Set another daily limit (None: none), and whether the run stops at it. Today's calls already count."""
        self._stop_at_day_limit = stop
        if self._day is not None:
            self._day.set_limit(limit)
        self._end_rest()

    def set_hours(self, hours: Hours | None) -> None:
        """Set other hours."""
        self.hours = hours
        self._end_rest()

    # -- what the answers say ------------------------------------------------------------------------------------

    def on_answer(
        self, usage: Usage, limits: ServerLimits | None, latency_s: float = 0.0, *, sent_at: float | None = None
    ) -> None:
        """Note an answer. `sent_at` is when its call was admitted; None: just now."""
        now = asyncio.get_running_loop().time()
        if self.tuner is not None:
            self.tuner.on_answer(latency_s, now, self.gate.in_flight + self.gate.unwritten)
            self._tune(self.tuner)
        self.gate.on_answer(now, sent_at)
        self._hold(self.resource.on_answer(usage.total, limits, now, now - latency_s))
        if limits is not None:
            self._stop_at_server_day(now)

    def _stop_at_server_day(self, now: float) -> None:
        """Stop the run at the server's daily limit, if it should end there."""
        if self._stop_at_day_limit and (reason := self.resource.state(now).day_reason):
            self.gate.stop(DayLimitReachedError(f"{reason}; the same command resumes then"))

    def on_refusal(self, error: RateLimitedError, sent_at: float) -> float:
        """Note a 429 and apply what the resource decides.

        Return the seconds that only its own record waits; 0 if it concerns all calls.
        """
        now = asyncio.get_running_loop().time()
        self.refusals += 1
        self.gate.on_refusal(now, sent_at)
        verdict = self.resource.on_refusal(error, now, sent_at, self.gate.in_flight)
        if verdict.alone_s:
            return verdict.alone_s
        self._hold(verdict.hold)
        if verdict.shrink:
            self.gate.shrink()
        self._stop_at_server_day(now)
        return 0.0

    def _hold(self, hold: Hold | None) -> None:
        if hold is not None:
            self.gate.set_hold(hold.until, hold.reason, then_one=hold.then_one)

    @property
    def is_excused(self) -> bool:
        """Whether a refusal now means nothing: the server has named a time, hours away, until which it refuses."""
        return self.resource.state(asyncio.get_running_loop().time()).excused

    def on_timeout(self, sent_at: float) -> None:
        """Note that no answer came in time."""
        now = asyncio.get_running_loop().time()
        if self.tuner is not None:
            self.tuner.on_answer(now - sent_at, now, self.gate.in_flight + self.gate.unwritten)
            self._tune(self.tuner)

    def _tune(self, tuner: Tuner) -> None:
        if tuner.limit != self.gate.concurrency:
            self.gate.set_concurrency(tuner.limit)

    def _settle(self, estimate: int, size: int, usage: Usage) -> None:
        total = usage.total
        if not total:
            return
        self.resource.give_back(size - total)
        # A slow average, so that one odd record does not distort the estimate for all.
        ratio = total / max(1, estimate)
        self._tokens_ratio += 0.05 * (min(max(ratio, 0.1), 10.0) - self._tokens_ratio)

    def state(self) -> AdmissionState:
        """Return the current state."""
        now = asyncio.get_running_loop().time()
        known = self.resource.state(now)
        return AdmissionState(
            in_flight=self.gate.in_flight,
            concurrency=self.gate.concurrency,
            requests_per_minute=known.requests.per_minute,
            tokens_per_minute=known.tokens.per_minute,
            outage=self.gate.outage,
            hold_s=max(0.0, self._rests_until - now, self.gate.current_hold.until - now),
            hold_reason=self.gate.current_hold.reason,
            requests_left_today=None if self._day is None else self._day.left_today,
            requests_per_day=None if self._day is None else self._day.limit,
            asked_for_s=known.asked_for_s,
            refused_since=known.refused_since,
            resting=self.gate.paused or now < self._rests_until,
            excused=known.excused,
            server_day_s=known.day_s,
        )

    async def close(self) -> None:
        """Give back what was reserved and not used, and save what is spent. May be called twice."""
        if self._day is not None:
            await self._day.close()
        if self.budget is not None and self.budget.needs_saving and self._save_spend_bound is not None:
            await self._save_spend_bound(self.budget.spent)
