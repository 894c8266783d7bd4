"""Limits a single process: keeps the config's caps, and learns the rest from the server's answers."""

from __future__ import annotations

from pipeline.errors import RateLimitedError
from pipeline.limits.backoff import Backoff
from pipeline.limits.meters import Meter
from pipeline.limits.pace import Pace
from pipeline.limits.resource import Hold, Rate, ResourceState, Verdict
from pipeline.limits.retry_scope import RetryScope
from pipeline.records import ServerLimits, format_limit
from pipeline.units import MINUTE_RESET_S, duration


class LocalResource:
    """Two meters at the learned rates, and the waits that refusals ask for. None: the config has no limit."""

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        # Mutable state: these parts.
        self._request_pace = Pace(requests_per_minute)
        self._token_pace = Pace(tokens_per_minute)
        self._requests = Meter(requests_per_minute)
        self._tokens = Meter(tokens_per_minute)
        self._backoff = Backoff()
        self._scope = RetryScope()

    async def acquire(self, tokens: int) -> None:
        """Return when both meters have room."""
        self._set_meters()
        if self._requests.is_limited:
            await self._requests.acquire()
        if self._tokens.is_limited:
            await self._tokens.acquire(tokens)

    def give_back(self, tokens: int) -> None:
        """Correct an estimate."""
        self._tokens.refund(tokens)

    def skip_pause(self, seconds: float) -> bool:
        """Exclude a pause, so that the meters do not catch it up. Returns True: what was acquired does not expire."""
        self._requests.skip(seconds)
        self._tokens.skip(seconds)
        return True

    def on_send(self, now: float, in_flight: int) -> None:
        """Note that a call leaves."""
        self._request_pace.on_send(now)
        self._token_pace.on_send(now)
        self._scope.on_send(now, in_flight)

    def on_answer(self, tokens: int, limits: ServerLimits | None, now: float, sent_at: float) -> Hold | None:
        """Learn from an answer and its headers. Return what all calls must wait for."""
        self._backoff.on_answer(sent_at)
        self._scope.on_answer()
        self._request_pace.on_answer(1, now, sent_at)
        self._token_pace.on_answer(tokens, now, sent_at)
        return None if limits is None else self.on_headers(limits, now)

    def return_unused(self, requests: int, tokens: int) -> None:
        """Give back requests and tokens that were acquired and will not be sent."""
        self._requests.refund(requests)
        self._tokens.refund(tokens)

    def on_headers(self, limits: ServerLimits, now: float) -> Hold | None:
        """Apply the headers of an answer. Return what all calls must wait for."""
        requests, tokens = self._request_pace, self._token_pace
        requests.on_headers(limits.limit_requests, limits.reset_requests_s, limits.remaining_requests)
        tokens.on_headers(limits.limit_tokens, limits.reset_tokens_s, limits.remaining_tokens)
        self._set_meters()
        hold, none_left = None, self._backoff.on_none_left
        if limits.remaining_requests == 0 and limits.reset_requests_s:
            hold = none_left(
                "request is", limits.reset_requests_s, now, format_limit(limits.limit_requests, "requests")
            )
        if limits.remaining_tokens == 0 and limits.reset_tokens_s:
            other = none_left("tokens are", limits.reset_tokens_s, now, format_limit(limits.limit_tokens, "tokens"))
            hold = other if hold is None or other.until > hold.until else hold
        return hold

    def on_refusal(self, error: RateLimitedError, now: float, sent_at: float, in_flight: int) -> Verdict:
        """Return the verdict: all wait as long as the server asks, or else ever longer, unless that is useless."""
        pace = self._token_pace if error.scope == "tokens" else self._request_pace
        wait_s = self._backoff.wait_s(error.retry_after_s)
        is_for_all = self._scope.is_for_all(wait_s, sent_at, now, in_flight)
        # A longer wait is not about a rate per minute.
        is_baseline = wait_s <= MINUTE_RESET_S and pace.on_refusal(now, sent_at, wait_s)
        if is_baseline or not is_for_all:
            return Verdict(alone_s=wait_s)
        return self._backoff.on_refusal(error.retry_after_s, sent_at, now, error.day_limit)

    def configure(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Set other caps from the config."""
        self._request_pace.configured = requests_per_minute
        self._token_pace.configured = tokens_per_minute
        self._set_meters()

    def _set_meters(self) -> None:
        """Set the meters to the rates of the paces, also for a call that already waits."""
        self._requests.set_limit(self._request_pace.per_minute)
        self._tokens.set_limit(self._token_pace.per_minute)

    def release(self) -> None:
        """Let all waiters go."""
        self._requests.release()
        self._tokens.release()

    def state(self, now: float) -> ResourceState:
        """Return what is known now."""
        backoff = self._backoff
        day_s = max(0.0, backoff.day.until - now)
        return ResourceState(
            requests=_rate(self._request_pace),
            tokens=_rate(self._token_pace),
            asked_for_s=max(0.0, backoff.asked_until - now),
            refused_since=backoff.refused_since,
            excused=backoff.is_excused(now),
            day_s=day_s,
            day_reason=f"{backoff.day.text} is used up until {backoff.day.moment} ({duration(day_s)})" if day_s else "",
        )


def _rate(pace: Pace) -> Rate:
    return Rate(pace.per_minute, pace.configured, pace.learned, pace.is_estimate)
