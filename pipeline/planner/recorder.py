"""A recorder of calls: how long they take, how many are refused, and which limits the server reports."""

import time
from collections.abc import Callable

from pipeline.errors import RateLimitedError
from pipeline.facts import Tier
from pipeline.records import Ping, Provider, Request, Response, ServerLimits, Usage

#: A limit whose count begins anew after more than this is one a day, else one a minute: seconds.
_DAY_FROM_S = 3_600.0


def tier_from(limits: ServerLimits | None) -> Tier:
    """The limits in an answer's headers. Servers give a minute's and a day's under one name: the reset tells which."""
    if limits is None:
        return Tier()
    a_day = _span_s(limits.limit_requests, limits.remaining_requests, limits.reset_requests_s) > _DAY_FROM_S
    tokens_a_day = _span_s(limits.limit_tokens, limits.remaining_tokens, limits.reset_tokens_s) > _DAY_FROM_S
    requests = limits.limit_requests or None
    return Tier(
        requests_per_minute=None if a_day else requests,
        requests_per_day=requests if a_day else None,
        tokens_per_minute=None if tokens_a_day else limits.limit_tokens or None,
    )


def _span_s(limit: int | None, remaining: int | None, reset_s: float | None) -> float:
    """Over how many seconds the limit counts: used units come back evenly. A minute where it cannot be told."""
    if not limit or remaining is None or not reset_s or remaining >= limit:
        return 60.0
    return reset_s * limit / (limit - remaining)


class CallRecorder:
    """A provider whose calls are counted; otherwise the same. Times are in seconds of `clock`."""

    def __init__(self, provider: Provider, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        # All state that changes.
        self.limits: ServerLimits | None = None
        self.calls = self.refused = 0
        self.busy_s = 0.0
        self.first_at: float | None = None
        self.last_at = 0.0
        self.usage = Usage()

    @property
    def simulated(self) -> bool | None:
        """What the provider says of itself."""
        return self._provider.simulated

    @property
    def ping(self) -> Ping | None:
        """The provider's; not counted, for it is about no record."""
        return self._provider.ping

    @property
    def seconds(self) -> float:
        """From the first call's begin to the last one's end."""
        return 0.0 if self.first_at is None else self.last_at - self.first_at

    async def __call__(self, request: Request) -> Response:
        """The provider's answer, or its error."""
        started = self._clock()
        self.first_at = started if self.first_at is None else self.first_at
        self.calls += 1
        try:
            response = await self._provider(request)
        except RateLimitedError:
            self.refused += 1
            raise
        finally:
            self.last_at = self._clock()
            self.busy_s += self.last_at - started
        self.usage += response.usage
        self.limits = response.limits or self.limits
        return response
