"""Sends a health check, a call for no record: is the model there, and does it accept requests of this kind at all?"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from pipeline.engine.rules import most_of
from pipeline.errors import (
    CallError,
    LabelpipeError,
    NoCompletionError,
    RateLimitedError,
    RecordRefusedError,
    UnavailableError,
)
from pipeline.limits import Admission
from pipeline.records import JSON, Ping, Request, Response

log = logging.getLogger("labelpipe")

#: Answers a Request with a Response or a CallError.
Answerer = Callable[[Request], Awaitable[Response]]
#: Makes the request that is sent, with its media loaded, and holds their memory until the record has its outcome.
#: Raises MediaError.
Prepare = Callable[[Request], AbstractAsyncContextManager[Request]]
#: What a health check asks.
CHECK_MESSAGES: tuple[dict[str, JSON], ...] = ({"role": "user", "content": "Answer with OK."},)
#: A health check's tokens, without the tools.
CHECK_TOKENS = 64
#: A server that is up answers within this time.
PING_S = 10.0
#: After an unanswered health check, none is sent for this long.
PING_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a health check. `error` is None if it was answered. `sent_at` is in the loop's time."""

    sent_at: float
    error: LabelpipeError | None

    @property
    def is_answered(self) -> bool:
        """Whether the key, the model name, and requests of this kind are accepted."""
        return self.error is None

    @property
    def is_refused(self) -> bool:
        """Whether a server refused it. A 5xx, a broken connection, a page, or a rate limit is not a refusal."""
        error = self.error
        if not isinstance(error, CallError) or isinstance(error, NoCompletionError | RateLimitedError):
            return False
        if isinstance(error, RecordRefusedError):
            return True  # whatever its status
        return error.status is not None and 400 <= error.status < 500


class HealthCheck:
    """Sends a health check when records get no answer. All who need the result share one call."""

    def __init__(self, ping: Ping | None, admission: Admission) -> None:
        self._ping = ping
        self._admission = admission
        # Mutable state: the last result, when the last refused check was sent, how many were answered in a row, when
        # one last failed, and the one in flight.
        self.last: CheckResult | None = None
        self.refused_at = float("-inf")
        self.answered_in_a_row = 0
        self._in_vain_at = float("-inf")
        self._pinging: asyncio.Task[None] | None = None

    @property
    def can_ask(self) -> bool:
        """Whether health checks are possible: a function in place of the API has none."""
        return self._ping is not None

    async def result_since(self, moment: float, request: Request) -> CheckResult | None:
        """Return the result of a check sent since `moment` (in the loop's time), with the tools of this request."""
        if self._ping is None:
            return None
        if self._last_since(moment) is None and asyncio.get_running_loop().time() - self._in_vain_at >= PING_AGAIN_S:
            if self._pinging is None:
                self._pinging = asyncio.create_task(self._once(self._ping, request), name="ping")
            pinging = self._pinging
            await asyncio.wait({pinging})
            if not pinging.cancelled():
                pinging.result()
        return self._last_since(moment)

    def _last_since(self, moment: float) -> CheckResult | None:
        return self.last if self.last is not None and self.last.sent_at >= moment else None

    def refused_lately(self) -> CheckResult | None:
        """Return the last result if it is a recent refusal: the server is up, and is not asked again for a while."""
        last = self.last
        is_new = last is not None and asyncio.get_running_loop().time() - last.sent_at < PING_S
        return last if is_new and last is not None and last.is_refused else None

    def close(self) -> None:
        """Cancel the check in flight. May be called twice."""
        if self._pinging is not None:
            self._pinging.cancel()

    async def _once(self, ping: Ping, request: Request) -> None:
        clock = asyncio.get_running_loop().time
        sent_at = clock()
        error: LabelpipeError | None = None
        try:
            async with asyncio.timeout(PING_S):
                await self._under_limits(ping, request)
        except TimeoutError:
            error = UnavailableError(f"no answer in {PING_S:g} s")
        except LabelpipeError as caught:
            error = caught
        finally:
            self._pinging = None
        log.info("ping", extra={"facts": {"answered": error is None, "told": str(error or "answered")}})
        self.last = CheckResult(sent_at, error)
        if self.last.is_refused:
            self.refused_at = sent_at
        self.answered_in_a_row = 0 if error else self.answered_in_a_row + 1
        if error is not None:
            self._in_vain_at = clock()

    async def _under_limits(self, ping: Ping, request: Request) -> None:
        """Send the check, in place of the call that has just failed, under every other limit."""
        word = replace(request, messages=CHECK_MESSAGES, attachments=(), media_tokens=0, size_tokens=CHECK_TOKENS)
        permit = await self._admission.acquire_health_check(CHECK_TOKENS, most_of(word))
        if permit is None:
            raise UnavailableError("no call may be sent for it now")
        try:
            permit.settle(await ping(word))
        except CallError as error:
            if not error.billed:
                permit.release()
            raise
        finally:
            permit.close()
