"""What the door asks about the server's limits, whoever knows the answers: this process, or a coordinator of several.

A resource is what one limit is about, such as one key at one server. It answers two questions: how much may be sent
now, and what a refusal means. It never touches the gate: the door puts its answers into force.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pipeline.errors import RateLimitedError
from pipeline.records import ServerLimits


@dataclass(frozen=True, slots=True)
class Hold:
    """Everyone waits: nothing leaves before `until`, by the run's clock. `then_one`: after it, one call goes first."""

    until: float
    reason: str
    then_one: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a refusal means.

    `alone_s`: only the call's own record waits, for so many seconds; 0: it is about everyone.
    `hold`: until when everyone waits; None: nothing is to be waited for that is not waited for already.
    `shrink`: more is refused than answered, so fewer calls should be in flight.
    """

    alone_s: float = 0.0
    hold: Hold | None = None
    shrink: bool = False


@dataclass(frozen=True, slots=True)
class Rate:
    """Units a minute: the limit in force, what the config says, and what was learned of the server. None: no limit.

    `is_estimate`: no header states what was learned; it was estimated from refusals.
    """

    per_minute: float | None = None
    configured: float | None = None
    learned: float | None = None
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class ResourceState:
    """What is known of the server's limits.

    `asked_for_s` is how long the server asked to wait, however little of it is heard; `refused_since` is the moment
    since when it refuses and answers nothing. `excused`: it named a moment, hours away, until which it refuses.
    `day_s` is how long its own limit a day holds the run still, and `day_reason` says so with the moment.
    """

    requests: Rate = field(default_factory=Rate)
    tokens: Rate = field(default_factory=Rate)
    asked_for_s: float = 0.0
    refused_since: float | None = None
    excused: bool = False
    day_s: float = 0.0
    day_reason: str = ""


class Resource(Protocol):
    """Says how much may be sent, and what refusals mean. `now` and `sent_at` are the run's clock in seconds.

    For each call the door awaits `acquire`, then reports `sent`, then `answered` or `refused` where it came to that,
    and `give_back` once its tokens are known. All methods but `acquire` return at once.
    """

    async def acquire(self, tokens: int) -> None:
        """Return when one more call of about `tokens` may leave. Calls that come later wait behind it.

        After `release` it returns at once. If it is cancelled while it waits, nothing is taken.
        """
        ...

    def give_back(self, tokens: int) -> None:
        """A call used so many tokens less than it acquired; a negative number: so many more."""
        ...

    def skip_pause(self, seconds: float) -> bool:
        """For so long nothing could leave for other reasons, so that time is not to be made up for.

        Gives whether what was acquired before may still be sent. If it may not, the door acquires again.
        """
        ...

    def on_send(self, now: float, in_flight: int) -> None:
        """A call leaves; `in_flight` calls are under way, this one included."""
        ...

    def on_answer(self, tokens: int, limits: ServerLimits | None, now: float, sent_at: float) -> Hold | None:
        """An answer came that used `tokens`; `limits` is what its headers say. Gives what everyone has to wait for."""
        ...

    def on_refusal(self, error: RateLimitedError, now: float, sent_at: float, in_flight: int) -> Verdict:
        """A 429 came. Gives who has to wait, and for how long."""
        ...

    def configure(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """The config has other caps now (None: none). They hold for a call too that already waits in `acquire`."""
        ...

    def release(self) -> None:
        """The run is stopping: whoever waits in `acquire` returns, and nothing is sent any more."""
        ...

    def state(self, now: float) -> ResourceState:
        """What is known now, for the screen, the summary, and the outage limit."""
        ...
