"""What the lease server decides: who may send next, what a refusal means, what the budget still allows.

The limits are those of one process, asked here for all shards: calls are granted one by one as the pace lets them
through, to the shards in turn, and reach a shard in bunches. What shards report is judged once, at this one place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import InputError
from pipeline.leases.purses import Purses
from pipeline.leases.words import VALID_S, Ask, Grant
from pipeline.limits import PICO_PER_USD, DayMeter, Hold, LocalResource
from pipeline.units import exact_dollars

#: A bunch is handed over once it is what was asked for, or after so long.
SPAN_S = 0.1
#: A shard for which nothing was granted is answered after so long, so that it can report what came of its calls.
SILENT_S = 1.0
#: What a silent shard holds goes back so long after it has expired there.
GRACE_S = 2.0
#: After a moment at which the server had everyone wait, one call goes first, for so long at most.
ALONE_S = 5.0
#: A day's limit is looked at again so often: machines sleep, and clocks are set.
LOOK_S = 60.0


@dataclass(slots=True, eq=False)
class _Shard:
    """One shard as the desk knows it. All of it changes."""

    session: str = ""
    number: int = -1
    wants: int = 0
    tokens: int = 1
    in_flight: int = 0
    credit: int = 0
    #: granted, and neither sent nor given back
    out: int = 0
    expires_at: float = float("inf")
    last: Grant | None = None
    is_asking: bool = False
    shrink: bool = False
    came: asyncio.Event = field(default_factory=asyncio.Event)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Desk:
    """Grants to shards, under the limits of one run. `work` has to run beside it.

    `shards` is how many there are; 0: the first one says it, and `counted` hears of it. `day` counts requests a day for
    all; `stop_at_day_limit`: the run ends when they are used up, and does not wait.
    """

    def __init__(
        self,
        shards: int,
        resource: LocalResource,
        day: DayMeter,
        purses: Purses,
        *,
        stop_at_day_limit: bool = False,
        counted: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.resource = resource
        self.purses = purses
        self._day = day
        self.stop_at_day_limit = stop_at_day_limit
        self._counted = counted
        # All state that changes: how many shards there are, each of them, those that ask in turn, the calls in flight;
        # what everyone waits for, whether something came back since, whether it is paused, and why the run ends.
        self.shards = shards
        self._shards: dict[int, _Shard] = {}
        self._turns: deque[_Shard] = deque()
        self._in_flight = 0
        self._work = asyncio.Event()
        self._held = Hold(float("-inf"), "")
        self._heard = asyncio.Event()
        self._paused = False
        self._stopped: tuple[str, str] | None = None

    # -- what shards say and get -----------------------------------------------------------------------------------

    async def lease(self, ask: Ask) -> Grant:
        """The answer to an exchange; the same one to an exchange that is asked again. Raises InputError."""
        if not self.shards and 1 <= ask.shard <= ask.shards:
            self._counted(ask.shards)
            self.shards = ask.shards
        if ask.shards != self.shards or not 1 <= ask.shard <= self.shards:
            raise InputError(f"shard {ask.shard}/{ask.shards}: this run has {self.shards or 'no'} shards")
        shard = self._shards.setdefault(ask.shard, _Shard())
        async with shard.lock:
            if ask.session == shard.session and ask.number == shard.number and shard.last is not None:
                return shard.last
            if ask.number == 0 or not shard.session:  # a lease server that was started again knows no session
                self._begin(shard, ask)
            elif ask.session != shard.session or ask.number != shard.number + 1:
                raise InputError(f"shard {ask.shard}: exchange {ask.number} is not the next one of this session")
            shard.number = ask.number
            self._report(shard, ask)
            short = await self._settle(ask)
            await self._wait_for_credit(shard, ask)
            shard.last = self._granted(shard, ask, short)
            return shard.last

    def _begin(self, shard: _Shard, ask: Ask) -> None:
        self._take_back(shard)
        shard.session, shard.last = ask.session, None

    def _report(self, shard: _Shard, ask: Ask) -> None:
        """Judge what has come of the calls, in the order in which it came."""
        now = asyncio.get_running_loop().time()
        self._in_flight += ask.in_flight - shard.in_flight
        shard.tokens, shard.in_flight = max(1, ask.tokens), ask.in_flight
        unused = min(ask.unused, shard.out)
        shard.out -= min(shard.out, len(ask.sent) + unused)
        self._return(shard, unused)
        if ask.corrected:
            self.resource.give_back(ask.corrected)
        in_flight = self._in_flight
        for _, kind, values in sorted(_events(ask), key=lambda one: -one[0]):
            if kind == "sent":
                self.resource.sent(now - values / 1000, in_flight)
            elif kind == "answered":
                age, sent_age, tokens = values
                self._hold(self.resource.answered(tokens, None, now - age / 1000, now - sent_age / 1000))
            else:
                at, sent_at = now - values.age_ms / 1000, now - values.sent_age_ms / 1000
                verdict = self.resource.refused(values.as_error(), at, sent_at, in_flight)
                shard.shrink = shard.shrink or verdict.shrink
                self._hold(verdict.hold)
        if (limits := ask.server_limits) is not None:
            self._hold(self.resource.learn(limits, now))
        if ask.answered or ask.refused:
            self._heard.set()
        if self.stop_at_day_limit and (reason := self.resource.state(now).day_reason):
            self.stop("day_limit", f"{reason}; the same command resumes then")

    async def _settle(self, ask: Ask) -> str:
        """The shard's part of the budget; why it is not what the shard needs, if so."""
        if ask.spent is not None and ask.number == 0:
            await self.purses.begin(ask.shard, ask.spent)
        if ask.is_last and ask.spent is not None:
            await self.purses.end(ask.shard, ask.spent)
        if ask.needs is not None and not await self.purses.fill(ask.shard, ask.needs, self.shards):
            return self._budget_text()
        return ""

    def _budget_text(self) -> str:
        (usd, tokens), handed = self.purses.caps, self.purses.handed
        told = []
        if usd is not None:
            out = exact_dollars(handed[0] / PICO_PER_USD)
            told.append(f"limits.budget_usd = {usd / PICO_PER_USD:g}: {out} is handed out")
        if tokens is not None:
            told.append(f"limits.budget_tokens = {tokens}: {handed[1]:,} are handed out")
        return f"{', and '.join(told)} to the shards, and one more call could cost more than what is left"

    async def _wait_for_credit(self, shard: _Shard, ask: Ask) -> None:
        """Return with all that is wanted, or after a moment with some of it, or after a longer one with nothing."""
        shard.wants = 0 if ask.is_last else ask.wants
        shard.came.clear()
        shard.full.clear()
        if not shard.wants or self._stopped is not None or shard.credit >= shard.wants:
            return
        if shard.credit:
            shard.came.set()
        shard.is_asking = True
        if shard not in self._turns:
            self._turns.append(shard)
        self._work.set()
        try:
            async with asyncio.timeout(SPAN_S):
                await shard.full.wait()
        except TimeoutError:
            pass
        try:
            async with asyncio.timeout(SILENT_S - SPAN_S):
                await shard.came.wait()
        except TimeoutError:
            pass
        finally:
            shard.is_asking = False

    def _granted(self, shard: _Shard, ask: Ask, short: str) -> Grant:
        now = asyncio.get_running_loop().time()
        requests, shard.credit = shard.credit, 0
        if self._stopped is not None:
            self._return(shard, requests)
            requests = 0
        shard.out += requests
        shard.expires_at = float("inf") if ask.is_last else now + SILENT_S + VALID_S + GRACE_S
        shrink, shard.shrink = shard.shrink, False
        held_s = max(0.0, self._held.until - now)
        return Grant(
            ask.number,
            requests,
            self.purses.caps_of(ask.shard),
            shrink=shrink,
            held_s=held_s,
            reason=("paused by order" if self._paused else self._held.reason if held_s else ""),
            stop=self._stopped,
            short=short,
            state=self.state(now),
        )

    def state(self, now: float) -> dict[str, Any]:
        """What is known of the server's limits; moments as ages in seconds."""
        known = self.resource.state(now)
        since = known.refused_since
        return {**asdict(known), "refused_since": None if since is None else now - since}

    # -- orders ----------------------------------------------------------------------------------------------------

    def stop(self, code: str, message: str) -> None:
        """Nothing more is granted; each shard hears why."""
        self._stopped = self._stopped or (code, message)
        for shard in self._shards.values():
            shard.full.set()
            shard.came.set()
        self._work.set()

    @property
    def stopped(self) -> tuple[str, str] | None:
        """Why nothing more is granted: code and message."""
        return self._stopped

    def set_paused(self, paused: bool) -> None:
        """Grant nothing until it is said otherwise."""
        self._paused = paused
        self._work.set()

    async def set_day_limit(self, limit: int | None, *, stop: bool) -> None:
        """Take over another limit a day."""
        self.stop_at_day_limit = stop
        self._day.set_limit(limit)
        self._held = Hold(float("-inf"), "")
        self._work.set()

    # -- granting --------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Grant for ever: one call after the other, as the limits let them through, to the shards in turn."""
        while True:
            await self._until_wanted()
            shard = self._turns[0]
            await self.resource.acquire(shard.tokens)
            await self._until_open()  # a wait may have begun meanwhile
            # A shard that was answered meanwhile gets it with its next exchange.
            shard.credit += 1
            shard.came.set()
            self._turns.rotate(-1)
            if shard.credit >= shard.wants or not shard.is_asking:
                self._turns.remove(shard)
                shard.full.set()
            if self._held.then_one:
                await self._one_alone()

    async def _until_wanted(self) -> None:
        """Return when a shard asks, nothing holds, and one request of the day is taken."""
        while True:
            while self._turns and not self._turns[0].is_asking:
                self._turns.popleft()
            if not self._turns or self._stopped is not None:
                await self._sleep(LOOK_S)
                continue
            await self._until_open()
            if self._turns and self._turns[0].is_asking and not await self._day_wait_s():
                return

    async def _until_open(self) -> None:
        """Return when nothing holds; the meters do not catch that time up."""
        loop = asyncio.get_running_loop()
        began = now = loop.time()
        while self._paused or now < self._held.until:
            await self._sleep(LOOK_S if self._paused else self._held.until - now)
            now = loop.time()
        if now > began:
            self.resource.shut(now - began)

    async def _sleep(self, seconds: float) -> None:
        """Wait so long, or until something is new."""
        self._work.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._work.wait()
        except TimeoutError:
            pass

    async def _day_wait_s(self) -> float:
        """Take one request of the day: 0, or how long there is none."""
        wait_s = await self._day.take()
        if not wait_s:
            return 0.0
        reason = f"the {self._day.limit or 0:,} requests a day are used up"
        if self.stop_at_day_limit:
            self.stop("day_limit", f"{reason}; the same command resumes tomorrow (UTC)")
        self._held = Hold(asyncio.get_running_loop().time() + min(wait_s, LOOK_S), reason)
        return wait_s

    async def _one_alone(self) -> None:
        """The first call after a wait shows whether it is over."""
        self._held = Hold(self._held.until, self._held.reason)
        self._heard.clear()
        try:
            async with asyncio.timeout(ALONE_S):
                await self._heard.wait()
        except TimeoutError:
            pass

    def _hold(self, hold: Hold | None) -> None:
        if hold is not None and hold.until > self._held.until:
            self._held = hold
            self._work.set()

    # -- what goes back --------------------------------------------------------------------------------------------

    def take_back_expired(self) -> None:
        """What silent shards hold: to be called about once a second."""
        now = asyncio.get_running_loop().time()
        for shard in self._shards.values():
            if now > shard.expires_at and not shard.is_asking:
                self._take_back(shard)

    def _take_back(self, shard: _Shard) -> None:
        self._return(shard, shard.out + shard.credit)
        self._in_flight -= shard.in_flight
        shard.out = shard.credit = shard.in_flight = 0
        shard.expires_at = float("inf")
        if shard.last is not None:  # an exchange that is asked again gets no calls that others have now
            shard.last = Grant(shard.last.number, caps=shard.last.caps, stop=self._stopped)

    def _return(self, shard: _Shard, requests: int) -> None:
        if requests:
            self.resource.unsent(requests, requests * shard.tokens)
            self._day.unsent(requests)


def _events(ask: Ask) -> Iterator[tuple[int, str, Any]]:
    """What was reported: age in milliseconds, kind, values."""
    for age in ask.sent:
        yield age, "sent", age
    for at in range(0, len(ask.answered), 3):
        yield ask.answered[at], "answered", ask.answered[at : at + 3]
    for one in ask.refused:
        yield one.age_ms, "refused", one
