"""Decides which shard may send next, what a refusal means, and what the budget still allows.

The limits are those of a single process. Calls are granted one at a time, as the rate limits allow, to the shards in
turn, and a shard receives several at once. Everything that shards report is evaluated here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from pipeline.errors import InputError
from pipeline.leases.budgets import Caps, ShardBudgets
from pipeline.leases.messages import VALID_S, Grant, LeaseRequest
from pipeline.leases.shardstate import ShardState
from pipeline.leases.sharedqueue import SharedQueue
from pipeline.limits import DayMeter, Hold, LocalResource

#: A shard gets its grants once they are all that it asked for, or after this many seconds.
SPAN_S = 0.1
#: A shard without grants is answered after this many seconds, so that it can report its results.
SILENT_S = 1.0
#: A silent shard's grants are taken back this many seconds after they have expired there.
GRACE_S = 2.0
#: A shard that was silent for this many seconds is no longer running, because it reports every few seconds.
ALIVE_S = 10.0
#: A shard that lacks money waits this many seconds for others to return some, and asks again.
LACK_S = 0.25
#: After the API made everyone wait, one call goes first, alone for at most this many seconds.
ALONE_S = 5.0
#: The day's limit is checked again after this many seconds, because machines sleep and clocks are set.
LOOK_S = 60.0


class LeaseService:
    """Grants calls to shards, under the limits of one run. `work` must run concurrently.

    `shards` is their number. If it is 0, the first shard reports it, and `counted` is called with it. `day` counts the
    requests of all shards. With `stop_at_day_limit`, the run ends instead of waiting for the next day.
    """

    def __init__(
        self,
        shards: int,
        resource: LocalResource,
        day: DayMeter,
        budgets: ShardBudgets,
        queue: SharedQueue,
        *,
        stop_at_day_limit: bool = False,
        counted: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.resource, self.budgets, self.queue = resource, budgets, queue
        self._day = day
        self.stop_at_day_limit = stop_at_day_limit
        self._counted = counted
        # Mutable state: the number of shards and the state of each, the time of the first report, the queue of shards
        # that ask, and the calls in flight; the hold, whether a result has come since, whether the run is paused, why
        # it ends, why there is no more money, and which settings shards must change.
        self.shards = shards
        self._shards: dict[int, ShardState] = {}
        self._first_report_at: float | None = None
        self._waiting: deque[ShardState] = deque()
        self._in_flight = 0
        self._changed, self._report_came = asyncio.Event(), asyncio.Event()
        self._current_hold = Hold(float("-inf"), "")
        self._day_hold: Hold | None = None
        self.is_paused = False
        #: Why nothing more is granted: code and message.
        self.stopped: tuple[str, str] | None = None
        self.short = ""
        self.overrides: dict[str, str] = {}

    # -- requests and their answers --------------------------------------------------------------------------------

    async def lease(self, request: LeaseRequest) -> Grant:
        """Answer a request. A repeated request gets the same answer. Raises InputError."""
        if not self.shards and 1 <= request.shard <= request.shards:
            self._counted(request.shards)
            self.shards = request.shards
        if request.shards != self.shards or not 1 <= request.shard <= self.shards:
            raise InputError(f"shard {request.shard}/{request.shards}: this run has {self.shards or 'no'} shards")
        shard = self._shards.setdefault(request.shard, ShardState())
        async with shard.lock:
            if request.session == shard.session and request.number == shard.number and shard.last is not None:
                return shard.last
            if request.number == 0 or not shard.session:  # a restarted lease server knows no session
                self._take_back(shard)
                shard.begin(request.session)
            elif request.session != shard.session or request.number != shard.number + 1:
                raise InputError(
                    f"shard {request.shard}: exchange {request.number} is not the next one of this session"
                )
            shard.number = request.number
            self._report(shard, request)
            short = await self._settle_budget(shard, request)
            queue = await self._queue_fields(request)
            await self._wait_for_grants(shard, request)
            grant = self._granted(shard, request, short)
            shard.last = replace(grant, **queue, gold=self._gold_of_others(shard, request))
            return shard.last

    async def spent_before_takeover(self, shard: int) -> tuple[int, int]:
        """Return what a shard may have spent, in picodollars and tokens, after its current exchange."""
        if shard in self._shards:
            async with self._shards[shard].lock:
                pass
        usd, tokens = self.budgets.caps_of(shard)
        return usd or 0, tokens or 0

    def _gold_of_others(self, shard: ShardState, request: LeaseRequest) -> Sequence[int] | None:
        """Store the shard's gold counts, and return those of the other shards."""
        shard.gold = (request.gold[0], request.gold[1]) if request.gold else shard.gold
        others = [one.gold for one in self._shards.values() if one is not shard]
        right, compared = sum(one[0] for one in others), sum(one[1] for one in others)
        return [right, compared] if compared else None

    def _report(self, shard: ShardState, request: LeaseRequest) -> None:
        """Apply the reported events in the order in which they happened."""
        now = asyncio.get_running_loop().time()
        self._first_report_at = now if self._first_report_at is None else self._first_report_at
        shard.last_report_at, shard.is_over = now, request.is_last
        shard.has_begun = shard.has_begun or request.wants > 0
        self._in_flight += request.in_flight - shard.in_flight
        shard.tokens, shard.in_flight = max(1, request.tokens), request.in_flight
        unused = min(request.unused, shard.out)
        shard.out -= min(shard.out, len(request.sent) + unused)
        if request.is_last:  # the rest of its grants will not be sent
            unused, shard.out = unused + shard.out, 0
        self._return(shard, unused)
        if request.corrected:
            self.resource.give_back(request.corrected)
        in_flight = self._in_flight
        for _, kind, values in sorted(request.events(), key=lambda one: -one[0]):
            if kind == "sent":
                self.resource.on_send(now - values / 1000, in_flight)
            elif kind == "answered":
                age, sent_age, tokens = values
                self._hold(self.resource.on_answer(tokens, None, now - age / 1000, now - sent_age / 1000))
            else:
                at, sent_at = now - values.age_ms / 1000, now - values.sent_age_ms / 1000
                verdict = self.resource.on_refusal(values.as_error(), at, sent_at, in_flight)
                shard.shrink = shard.shrink or verdict.shrink
                self._hold(verdict.hold)
        if (limits := request.server_limits) is not None:
            self._hold(self.resource.on_headers(limits, now))
        if request.answered or request.refused:
            self._report_came.set()
        if self.stop_at_day_limit and (reason := self.resource.state(now).day_reason):
            self.stop("day_limit", f"{reason}; the same command resumes then")

    async def _settle_budget(self, shard: ShardState, request: LeaseRequest) -> str:
        """Adjust the shard's part of the budget. If the shard will never get what it needs, returns why."""
        if request.spent is None:
            return ""
        shard.spent, shard.holds = request.spent, request.holds
        known = shard.last.caps if shard.last is not None else (None, None)
        pairs = zip(self.budgets.caps, known, strict=True)
        shard.is_bound = request.number == 0 or not any(cap is not None and was is None for cap, was in pairs)
        if request.number == 0:
            await self.budgets.begin(request.shard, request.spent)
        if request.is_last:
            await self.budgets.hand_back(request.shard, request.spent)
        if request.needs is None or (unit := await self._missing_unit(request, request.needs)) is None:
            return ""
        # The rest is too little for this shard's next call, but may be enough for another's.
        await self.budgets.hand_back(request.shard, request.spent)
        await asyncio.sleep(LACK_S)
        if (unit := await self._missing_unit(request, request.needs)) is None or self._may_come_back():
            return ""
        self.short = self.budgets.describe_shortage(unit)
        return self.short

    async def _queue_fields(self, request: LeaseRequest) -> dict[str, Any]:
        """Return the fields of the grant that are about batches."""
        is_open = self.stopped is None and not self.is_paused
        fields, lacks = await self.queue.on_request(request, self._day, is_open=is_open)
        if lacks and self.stop_at_day_limit and not (self.queue.parts or self._in_flight):
            self.stop("day_limit", f"{lacks}; the same command resumes tomorrow (UTC)")
        return fields

    async def _missing_unit(self, request: LeaseRequest, needs: tuple[int, int]) -> int | None:
        """Return the unit that is short, if the shard cannot be granted what it needs."""
        at_work = self._at_work()
        for number, one in at_work.items():  # count what was spent before there was a cap
            await self.budgets.begin(number, one.spent)
        if not all(one.is_bound for one in at_work.values()):
            return 0
        return await self.budgets.fill(request.shard, needs, self.shards)

    def _may_come_back(self) -> bool:
        """Whether a shard may return money: a running one, or one that a new lease server has not heard from yet."""
        at_work = self._at_work()
        if any(not one.is_bound or one.holds or self.budgets.unspent(n, one.spent) for n, one in at_work.items()):
            return True
        is_new = asyncio.get_running_loop().time() - (self._first_report_at or 0.0) < ALIVE_S
        return is_new and not all(number in self._shards for number in self.budgets.by_shard)

    def _at_work(self) -> dict[int, ShardState]:
        now = asyncio.get_running_loop().time()
        return {n: one for n, one in self._shards.items() if not one.is_over and now - one.last_report_at < ALIVE_S}

    @property
    def at_work(self) -> dict[int, str]:
        """The session of each running shard that has asked for calls."""
        return {number: one.session for number, one in self._at_work().items() if one.has_begun}

    @property
    def silent_for_s(self) -> dict[int, float]:
        """The seconds since the last report of each shard that has not ended."""
        now = asyncio.get_running_loop().time()
        return {number: now - one.last_report_at for number, one in self._shards.items() if not one.is_over}

    async def _wait_for_grants(self, shard: ShardState, request: LeaseRequest) -> None:
        """Wait for everything that is wanted. With some grants, wait only a moment; with none, a bit longer."""
        shard.wants = 0 if request.is_last else request.wants
        shard.came.clear()
        shard.full.clear()
        if not shard.wants or self.stopped is not None or shard.credit >= shard.wants:
            return
        if shard.credit:
            shard.came.set()
        shard.is_asking = True
        if shard not in self._waiting:
            self._waiting.append(shard)
        self._changed.set()
        try:
            await _wait(shard.full, SPAN_S)
            await _wait(shard.came, SILENT_S - SPAN_S)
        finally:
            shard.is_asking = False

    def _granted(self, shard: ShardState, request: LeaseRequest, short: str) -> Grant:
        now = asyncio.get_running_loop().time()
        requests, shard.credit = shard.credit, 0
        if self.stopped is not None:
            self._return(shard, requests)
            requests = 0
        shard.out += requests
        shard.expires_at = float("inf") if request.is_last else now + SILENT_S + VALID_S + GRACE_S
        shrink, shard.shrink = shard.shrink, False
        words = self.overrides if shard.has_begun and shard.overrides is not self.overrides else {}
        shard.overrides = self.overrides if shard.has_begun else None  # earlier, it would ignore them
        wait_s = max(0.0, self._current_hold.until - now)
        return Grant(
            request.number,
            requests,
            self.budgets.caps_of(request.shard),
            shrink=shrink,
            held_s=wait_s,
            reason=("paused by order" if self.is_paused else self._current_hold.reason if wait_s else ""),
            stop=self.stopped,
            short=short,
            words=words,
            state=self.state(now),
        )

    def state(self, now: float) -> dict[str, Any]:
        """Return what is known about the API's limits, with times as ages in seconds."""
        known = asdict(self.resource.state(now))
        for name in ("requests", "tokens"):
            known[name].pop("is_estimate")  # shards of earlier versions refuse unknown keys
        since = known["refused_since"]
        return {**known, "refused_since": None if since is None else now - since}

    # -- orders ----------------------------------------------------------------------------------------------------

    def stop(self, code: str, message: str) -> None:
        """Grant nothing more, and report the reason to each shard."""
        self.stopped = self.stopped or (code, message)
        for shard in self._shards.values():
            shard.full.set()
            shard.came.set()
        self._changed.set()

    def set_paused(self, paused: bool) -> None:
        """Pause or resume granting."""
        self.is_paused = paused
        self._changed.set()

    def set_caps(self, caps: Caps) -> None:
        """Change the caps of the budget."""
        self.budgets.caps = caps
        self.short = ""

    def set_day_limit(self, limit: int | None, *, stop: bool) -> None:
        """Change the limit of requests per day."""
        self.stop_at_day_limit = stop
        self._day.set_limit(limit)
        self._current_hold = Hold(float("-inf"), "")
        self._changed.set()

    # -- granting --------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Grant calls one at a time, as the limits allow, to the shards in turn. Never returns."""
        while True:
            await self._wait_for_demand()
            shard = self._waiting[0]
            await self.resource.acquire(shard.tokens)
            await self._wait_until_open()  # a hold may have begun meanwhile
            # If the shard was answered meanwhile, it gets this call with its next exchange.
            shard.credit += 1
            shard.came.set()
            self._waiting.rotate(-1)
            if shard.credit >= shard.wants or not shard.is_asking:
                self._waiting.remove(shard)
                shard.full.set()
            if self._current_hold.then_one:
                await self._send_one_alone()

    async def _wait_for_demand(self) -> None:
        """Wait until a shard asks, nothing is on hold, and a request of the day was taken."""
        while True:
            while self._waiting and not self._waiting[0].is_asking:
                self._waiting.popleft()
            if not self._waiting or self.stopped is not None:
                await self._sleep(LOOK_S)
                continue
            await self._wait_until_open()
            if self._waiting and self._waiting[0].is_asking and not await self._day_wait_s():
                return

    async def _wait_until_open(self) -> None:
        """Wait until nothing is on hold. The rate limits do not make up for that time."""
        loop = asyncio.get_running_loop()
        began = now = loop.time()
        while self.is_paused or now < self._current_hold.until:
            await self._sleep(LOOK_S if self.is_paused else self._current_hold.until - now)
            now = loop.time()
        if now > began:
            self.resource.skip_pause(now - began)

    async def _sleep(self, seconds: float) -> None:
        """Wait this long, or until something changes."""
        self._changed.clear()
        await _wait(self._changed, seconds)

    async def _day_wait_s(self) -> float:
        """Take one request of the day. Returns 0, or how long to wait for the next one."""
        limit = self._day.limit
        wait_s = await self._day.take()
        if not wait_s or self._day.limit != limit:  # the limit changed meanwhile
            return wait_s
        reason = f"the {self._day.limit or 0:,} requests a day are used up"
        if self.stop_at_day_limit:
            self.stop("day_limit", f"{reason}; the same command resumes tomorrow (UTC)")
        self._current_hold = self._day_hold = Hold(asyncio.get_running_loop().time() + min(wait_s, LOOK_S), reason)
        return wait_s

    async def _send_one_alone(self) -> None:
        """Wait for the result of the one call that was granted after a hold, before granting more."""
        self._current_hold = Hold(self._current_hold.until, self._current_hold.reason)
        self._report_came.clear()
        await _wait(self._report_came, ALONE_S)

    def _hold(self, hold: Hold | None) -> None:
        if hold is not None and hold.until > self._current_hold.until:
            self._current_hold = hold
            self._changed.set()

    # -- returned grants -------------------------------------------------------------------------------------------

    def take_back_expired(self) -> None:
        """Take back the grants of silent shards. Call it about once a second."""
        now = asyncio.get_running_loop().time()
        for shard in self._shards.values():
            if now > shard.expires_at and not shard.is_asking:
                self._take_back(shard)

    def _take_back(self, shard: ShardState) -> None:
        self._return(shard, shard.out + shard.credit)
        self._in_flight -= shard.in_flight
        shard.out = shard.credit = shard.in_flight = 0
        shard.expires_at = float("inf")
        if shard.last is not None:  # a repeated exchange must not get calls that others have now
            shard.last = Grant(shard.last.number, caps=shard.last.caps, stop=self.stopped)

    def _return(self, shard: ShardState, requests: int) -> None:
        if requests:
            self.resource.return_unused(requests, requests * shard.tokens)
            self._day.return_unused(requests)
            if self._current_hold is self._day_hold:  # the day has room again
                self._current_hold = Hold(float("-inf"), "")
                self._changed.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, but at most this long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
