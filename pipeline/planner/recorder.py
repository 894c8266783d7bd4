"""Records how long calls take, how many are refused, and which limits the server reports."""

import time
from collections.abc import Callable

from pipeline.errors import RateLimitedError
from pipeline.facts import Tier
from pipeline.records import Ping, Provider, Request, Response, ServerLimits, Usage

#: A limit that resets after more seconds than this is daily; otherwise it is per minute.
_DAY_FROM_S = 3_600.0


def tier_from(limits: ServerLimits | None) -> Tier:
    """Read the limits of an answer's headers. Daily ones have the same names, and the reset times tell them apart."""
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
    """Return the seconds that the limit spans, assuming that used units return evenly; a minute if unknown."""
    if not limit or remaining is None or not reset_s or remaining >= limit:
        return 60.0
    return reset_s * limit / (limit - remaining)


class CallRecorder:
    """A provider that records the calls of another one. Times are in seconds of `clock`."""

    def __init__(self, provider: Provider, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        # Mutable state.
        self.limits: ServerLimits | None = None
        self.calls = self.refused = 0
        self.busy_s = 0.0
        self.first_at: float | None = None
        self.last_at = 0.0
        self.usage = Usage()

    @property
    def simulated(self) -> bool | None:
        """What the provider reports."""
        return self._provider.simulated

    @property
    def ping(self) -> Ping | None:
        """The provider's ping. It is not counted, because it belongs to no record."""
        return self._provider.ping

    @property
    def seconds(self) -> float:
        """The time from the start of the first call to the end of the last one."""
        return 0.0 if self.first_at is None else self.last_at - self.first_at

    async def __call__(self, request: Request) -> Response:
        """Return the provider's answer, or raise its error."""
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
