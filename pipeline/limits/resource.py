"""Defines what admission asks about a server's limits, whether this process answers or a coordinator of several.

A resource is the subject of one limit, such as one key at one server. It answers two questions: how much may be sent
now, and what a refusal means. It never touches the gate: admission applies its answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pipeline.errors import RateLimitedError
from pipeline.records import ServerLimits


@dataclass(frozen=True, slots=True)
class Hold:
    """A wait of all calls: nothing leaves before `until`, on the run's clock. `then_one`: then one call goes first."""

    until: float
    reason: str
    then_one: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a refusal means.

    `alone_s`: only the call's own record waits, for this many seconds; 0: it concerns all calls.
    `hold`: until when all calls wait; None: no new wait.
    `shrink`: more is refused than answered, so fewer calls should be in flight.
    """

    alone_s: float = 0.0
    hold: Hold | None = None
    shrink: bool = False


@dataclass(frozen=True, slots=True)
class Rate:
    """Units per minute: the limit in force, the config's, and the server's as it was learned. None: no limit.

    `is_estimate`: no header states what was learned; it was estimated from refusals.
    """

    per_minute: float | None = None
    configured: float | None = None
    learned: float | None = None
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class ResourceState:
    """What is known about the server's limits.

    `asked_for_s` is how long the server asked to wait, even if the run waits less. Since `refused_since` it has refused
    calls and answered none. `excused`: it named a time, hours away, until which it refuses. `day_s` is how long its own
    daily limit holds the run, and `day_reason` reports that with the time.
    """

    requests: Rate = field(default_factory=Rate)
    tokens: Rate = field(default_factory=Rate)
    asked_for_s: float = 0.0
    refused_since: float | None = None
    excused: bool = False
    day_s: float = 0.0
    day_reason: str = ""


class Resource(Protocol):
    """Decides how much may be sent, and what refusals mean. `now` and `sent_at` are the run's clock in seconds.

    For each call admission awaits `acquire`, then calls `on_send`, then `on_answer` or `on_refusal` if it came to that,
    and `give_back` once its tokens are known. All methods but `acquire` return at once.
    """

    async def acquire(self, tokens: int) -> None:
        """Return when one more call of about `tokens` may leave. Later calls wait behind it.

        After `release` it returns at once. If it is canceled while it waits, nothing is taken.
        """
        ...

    def give_back(self, tokens: int) -> None:
        """Give back the tokens that a call acquired and did not use; a negative number: take that many more."""
        ...

    def skip_pause(self, seconds: float) -> bool:
        """Exclude time in which nothing could leave for other reasons, so that it is not caught up.

        Return whether what was acquired before may still be sent. If not, admission acquires again.
        """
        ...

    def on_send(self, now: float, in_flight: int) -> None:
        """Note that a call leaves. `in_flight` includes it."""
        ...

    def on_answer(self, tokens: int, limits: ServerLimits | None, now: float, sent_at: float) -> Hold | None:
        """Note an answer that used `tokens`; `limits` is from its headers. Return what all calls must wait for."""
        ...

    def on_refusal(self, error: RateLimitedError, now: float, sent_at: float, in_flight: int) -> Verdict:
        """Note a 429. Return who must wait, and for how long."""
        ...

    def configure(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Set other caps from the config (None: none). They also apply to a call that already waits in `acquire`."""
        ...

    def release(self) -> None:
        """Let all waiters in `acquire` go: the run is stopping, and nothing more is sent."""
        ...

    def state(self, now: float) -> ResourceState:
        """Return what is known now, for the screen, the summary, and the outage limit."""
        ...
