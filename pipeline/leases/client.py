"""Represents a shard at the lease server: sends only calls that are granted, and reports their results."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field

import aiohttp

from pipeline.errors import InputError, InternalError, LabelpipeError, RateLimitedError, SetupError
from pipeline.leases.goldcounts import SharedGoldCounts
from pipeline.leases.leasedqueue import LeasedQueue
from pipeline.leases.messages import VALID_S, Grant, Job, LeaseRequest, Refusal, parse_grant, parse_job, to_bytes
from pipeline.limits import Budget, BudgetReachedError, DayLimitReachedError, Hold, ResourceState, TokenBound, Verdict
from pipeline.records import ServerLimits
from pipeline.runlog import log_event

#: Seconds between reports of the results of calls, at most.
REPORT_S = 0.25
#: Seconds until an exchange without an answer is repeated, growing up to the second number.
RETRY_S, RETRY_MOST_S = 0.1, 2.0
#: The timeout of an exchange. The server answers within a second or two.
EXCHANGE_S = 10.0
#: Seconds between the heartbeats of a shard that has nothing to report.
BEAT_S = 2.0
#: How long a shard that ends waits until the lease server has its last report.
CLOSE_S = 5.0
#: The variables with the token, and with the id of the process that started this shard, which it does not outlive.
TOKEN_ENV, PARENT_ENV = "LEASES_TOKEN", "LEASES_PARENT"
#: How long a refused record waits if the response does not say.
BLIND_WAIT_S = 0.2


class DrainedShardError(LabelpipeError):
    """The lease server has ended the run. The same command resumes it."""

    code = "drained"


@dataclass(slots=True)
class _Report:
    """The calls since the last exchange. Times are those of the event loop. All fields are mutable."""

    unused: int = 0
    corrected: int = 0
    sent: list[float] = field(default_factory=list)
    answered: list[tuple[float, float, int]] = field(default_factory=list)
    refused: list[tuple[float, float, RateLimitedError]] = field(default_factory=list)
    limits: ServerLimits | None = None


class LeaseClient:
    """The `Resource` of a shard. It admits only the calls that the lease server at `url` grants.

    It sees the API's limits as the lease server does, which can also end the run of the shard.
    """

    def __init__(self, url: str, token: str, shard: int, shards: int) -> None:
        self._url, self._token, self._shard, self._shards = url.rstrip("/"), token, shard, shards
        self._session = secrets.token_hex(8)
        #: The share of the API's batch queue that the lease server grants.
        self.queue = LeasedQueue(self._until_answered)
        #: The results of gold records in all shards.
        self.gold = SharedGoldCounts()
        self._http: aiohttp.ClientSession | None = None
        #: Called with each setting that the shard is ordered to change.
        self.order: Callable[[str, str], object] = lambda *_: None
        # Mutable state: the grants and the expiry of the latest permit, how many calls to ask for at once and their
        # size, what to report, and the latest message of the lease server.
        self._grants: deque[list[float]] = deque()
        self._permit_expires_at: float | None = None
        self._aim = self._tokens = 1
        self._used = self._in_flight = self._number = 0
        self._report = _Report()
        self._needs: tuple[int, int] | None = None
        self._budget: Budget | None = None
        self._stop: Callable[[LabelpipeError], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._last = Grant(-1)
        self._is_waiting = self.is_on_hold = self._shrink = self._released = self._is_last = False
        self._report_due, self._grant_came = asyncio.Event(), asyncio.Event()

    # -- messages --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Job]:
        """Exchange messages while the block lasts. Yields what all shards have in common. Raises SetupError."""
        async with self._connected() as self._http:
            try:
                yield await self._read_job(self._http.get(f"{self._url}/job"))
                await self._close()
            finally:
                if self._task is not None:
                    self._task.cancel()
                    await asyncio.wait({self._task})

    def _connected(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self._token}"}
        return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(EXCHANGE_S))

    async def job(self, *, take_over: bool) -> Job:
        """Return what all shards have in common, before the shard's run begins. Raises SetupError.

        With `take_over`, the lease server refuses the previous owner of this shard from now on.
        """
        async with self._connected() as http:
            if not take_over:
                return await self._read_job(http.get(f"{self._url}/job"))
            request = LeaseRequest(self._shard, self._shards, self._session, 0)
            return await self._read_job(http.post(f"{self._url}/claim", data=to_bytes(request)))

    async def _read_job(self, exchange: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> Job:
        try:
            async with exchange as response:
                text = await response.read()
                if response.status != 200:
                    raise SetupError(f"{self._url}: the lease server refused: {text.decode(errors='replace')[:200]}")
                return parse_job(text)
        except (aiohttp.ClientError, OSError, TimeoutError, InputError) as error:
            raise SetupError(
                f"{self._url}: there is no lease server ({error or type(error).__name__}). "
                "Start it with: labelpipe leases CONFIG --listen HOST:PORT"
            ) from error

    def refuse_other(self, job: Job, digest: str) -> None:
        """Raise SetupError if the lease server belongs to another run."""
        if job.shards not in (0, self._shards):
            raise SetupError(
                f"{self._url}: this lease server is for {job.shards} shards, and this is {self._shard}/{self._shards}"
            )
        if digest != job.digest:
            raise SetupError(
                f"{self._url}: this lease server is for another task or input than this config's. "
                "Start it with the config of the shards."
            )

    async def begin(self, stop: Callable[[LabelpipeError], None], budget: Budget | None) -> None:
        """Start exchanging messages. `stop` ends the run. The lease server sets the caps of the budget."""
        self._stop, self._budget = stop, budget
        if budget is not None:
            budget.set_exact_caps((0, 0))
        self._task = asyncio.create_task(self._exchange_forever(), name="leases")

    async def _close(self) -> None:
        """Send the last report and return unused grants."""
        if self._task is None:
            return
        self._released = self._is_last = True
        self._report_due.set()
        await asyncio.wait({self._task}, timeout=CLOSE_S)
        if not self._task.done():
            log_event("the lease server did not hear of the end", level=logging.WARNING, server=self._url)

    async def _exchange_forever(self) -> None:
        try:
            is_last = False
            while not is_last:
                await self._until_due()
                is_last = self._is_last
                request = self._build_request(is_last=is_last)
                self._apply_grant(await self._exchange(request), request)
        except LabelpipeError as error:
            self.end(error)
        except Exception as error:  # a bug here must not leave the shard waiting forever
            self.end(InternalError(f"the exchange with the lease server failed: {error!r}"))
            raise

    def hold(self, on_hold: bool) -> None:
        """Stop sending calls, or continue."""
        self.is_on_hold = on_hold
        self._grant_came.set()

    def end(self, error: LabelpipeError) -> None:
        """End the run of this shard."""
        if self._stop is not None:
            self._stop(error)
        self.release()

    async def _until_due(self) -> None:
        """Wait until a message is due: now if a call waits, soon after a result, or as a heartbeat."""
        loop = asyncio.get_running_loop()
        until = loop.time() + BEAT_S
        while self._number and not (self._wants() or self._needs is not None or self.queue.is_pending or self._is_last):
            self._report_due.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_S):
                    await self._report_due.wait()
            self._drop_expired(loop.time())
            if self._report != _Report() or self.gold.own != self.gold.reported or loop.time() >= until:
                return

    def _wants(self) -> int:
        """Return how many requests to ask for: none while at least half of the target is in stock."""
        if self._released or self.is_on_hold or not (self._is_waiting or self._used):
            return 0
        here = int(sum(left for left, _ in self._grants))
        return 0 if here > self._aim // 2 and not self._is_waiting else max(1, self._aim - here)

    def _build_request(self, *, is_last: bool) -> LeaseRequest:
        now = asyncio.get_running_loop().time()
        self._drop_expired(now)
        report, self._report = self._report, _Report()
        spent = None if self._budget is None else self._budget.exactly()
        needs = self._needs or self.queue.needs
        if self._budget is not None and spent is not None and needs is not None:
            self._budget.set_exact_caps(spent)  # the server takes the rest back if it is too little

        def age(moment: float) -> int:
            return max(0, round((now - moment) * 1000))

        request = LeaseRequest(
            self._shard,
            self._shards,
            self._session,
            self._number,
            wants=self._wants(),
            tokens=self._tokens,
            unused=report.unused,
            corrected=report.corrected,
            in_flight=self._in_flight,
            sent=[age(moment) for moment in report.sent],
            answered=[one for at, sent_at, used in report.answered for one in (age(at), age(sent_at), used)],
            limits=None if report.limits is None else asdict(report.limits),
            refused=[
                Refusal(age(at), age(sent_at), error.scope, error.retry_after_s, error.day_limit)
                for at, sent_at, error in report.refused
            ],
            spent=spent,
            holds=self._budget is not None and self._budget.holds,
            needs=needs,
            is_last=is_last,
            gold=self.gold.request_field(),
            **self.queue.request_fields(),
        )
        self._number += 1
        self._used = 0
        return request

    async def _exchange(self, request: LeaseRequest) -> Grant:
        """Send until the lease server answers. Raises LabelpipeError if it refuses this shard for good."""
        assert self._http is not None
        wait_s, body, is_logged = RETRY_S, to_bytes(request), False
        while True:
            _refuse_orphaned()
            try:
                async with self._http.post(f"{self._url}/lease", data=body) as response:
                    data = await response.read()
                if response.status == 200:
                    return parse_grant(data)
                why = data.decode(errors="replace")[:200]
                if response.status in (401, 409, 413):
                    raise DrainedShardError(f"{self._url}: the lease server refused this shard: {why}")
            except (aiohttp.ClientError, OSError, TimeoutError, InputError) as error:
                why = str(error) or type(error).__name__
            if not is_logged:
                log_event("the lease server does not answer", level=logging.WARNING, server=self._url, reason=why)
                is_logged = True
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MOST_S)

    def _apply_grant(self, grant: Grant, request: LeaseRequest) -> None:
        now = asyncio.get_running_loop().time()
        self._last = grant
        if grant.requests:
            self._grants.append([grant.requests, now + VALID_S])
        self._shrink = self._shrink or grant.shrink
        if self._budget is not None:
            self._budget.set_exact_caps(grant.caps)
        if self._needs == request.needs:
            self._needs = None
        self.queue.on_grant(request, grant)
        for key, value in grant.words.items():
            self.order(key, value)
        self.gold.on_grant(grant)
        if grant.stop is not None and not self._released:
            self.end(stopped_error(*grant.stop))
        self._grant_came.set()

    # -- what admission calls --------------------------------------------------------------------------------------

    async def acquire(self, tokens: int) -> None:
        """Wait until one more call may be sent."""
        self._permit_expires_at = None  # left from a call that was not sent, or that was for no record
        self._tokens += round((tokens - self._tokens) / 8) or (tokens > self._tokens) - (tokens < self._tokens)
        while not self._released:
            now = asyncio.get_running_loop().time()
            self._drop_expired(now)
            if self._grants and not self.is_on_hold:
                grant = self._grants[0]
                grant[0] -= 1
                self._permit_expires_at = grant[1]
                self._used += 1
                self._report.corrected += self._tokens - tokens
                if grant[0] < 1:
                    self._grants.popleft()
                if not self._grants:
                    self._report_due.set()
                return
            self._aim = min(2 * self._aim, 10_000) if self._used else self._aim
            self._is_waiting = True
            self._grant_came.clear()
            self._report_due.set()
            try:
                await self._grant_came.wait()
            finally:
                self._is_waiting = False

    def _drop_expired(self, now: float) -> None:
        while self._grants and self._grants[0][1] <= now:
            left, _ = self._grants.popleft()
            self._report.unused += int(left)
            self._aim = max(1, self._aim - int(left))

    def give_back(self, tokens: int) -> None:
        """Correct the estimate of a call's tokens."""
        self._report.corrected += tokens

    def skip_pause(self, seconds: float) -> bool:
        """Whether the acquired permit is still valid."""
        if self._permit_expires_at is None or asyncio.get_running_loop().time() < self._permit_expires_at:
            return True
        self._permit_expires_at = None
        self._report.unused += 1
        return False

    def on_send(self, now: float, in_flight: int) -> None:
        """Report that a call is sent."""
        self._permit_expires_at = None
        self._in_flight = in_flight
        self._report.sent.append(now)

    def on_answer(self, tokens: int, limits: ServerLimits | None, now: float, sent_at: float) -> Hold | None:
        """Report an answer. A shard that must wait gets no grants, so there is nothing to hold here."""
        self._report.answered.append((now, sent_at, tokens))
        self._report.limits = limits or self._report.limits
        return None

    def on_refusal(self, error: RateLimitedError, now: float, sent_at: float, in_flight: int) -> Verdict:
        """Report a 429 at once. The lease server decides its scope; only the refused record waits here."""
        self._report.refused.append((now, sent_at, error))
        self._report_due.set()
        shrink, self._shrink = self._shrink, False
        wait_s = BLIND_WAIT_S if error.retry_after_s is None else error.retry_after_s
        return Verdict(shrink=True) if shrink else Verdict(alone_s=max(wait_s, 0.001))

    def configure(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Do nothing, because the lease server has the limits."""

    def release(self) -> None:
        """Stop sending, because the run is ending."""
        self._released = True
        self._grant_came.set()

    async def top_up(self, budget: Budget, most: TokenBound) -> None:
        """Wait until the budget has room for this call, or calls in flight may make room. Otherwise, end the run."""
        while not (self._released or budget.fits(most)):
            self._needs = budget.exactly(most)
            await self._until_answered(lambda: self._needs is not None)
            if self._last.short and not budget.fits(most, alone=True):
                self.end(stopped_error(BudgetReachedError.code, self._last.short))

    async def _until_answered(self, is_pending: Callable[[], bool]) -> None:
        """Wait until the lease server has answered what is pending, or the run is ending."""
        while is_pending() and not self._released:
            self._grant_came.clear()
            self._report_due.set()
            await self._grant_came.wait()

    def state(self, now: float) -> ResourceState:
        """Return the API's limits as the lease server last reported them."""
        return self._last.state_at(now)


def _refuse_orphaned() -> None:
    if (parent := os.environ.get(PARENT_ENV)) and str(os.getppid()) != parent:
        raise DrainedShardError("the process that started this shard is gone; the same command resumes it")


def stopped_error(code: str, message: str) -> LabelpipeError:
    """Return the error of a run that the lease server ends. For a budget, the message begins with its config key."""
    if code == BudgetReachedError.code:
        return BudgetReachedError(message, key=message.partition(" ")[0], cap=0.0, spent=0.0, needed=0.0)
    return DayLimitReachedError(message) if code == DayLimitReachedError.code else DrainedShardError(message)
