"""Decides which calls ask for the flex tier, and how long a record waits while the server has no capacity there.

Nothing here waits. A call that has waited for its patience is sent without a tier, that is, at the standard one. If no
call has had capacity for that long, other calls do not wait at all, and one per minute tries again. A call that flex
did not answer in time counts as waiting since it was sent.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import replace

from pipeline.engine.history import CallHistory
from pipeline.engine.retry import RETRY_AFTER_MAX_S, backoff_s
from pipeline.engine.rules import AskRules
from pipeline.errors import CallError, CallTimeoutError, NoRoomError
from pipeline.records import FLEX, SERVICE_TIER, Request, Response
from pipeline.stats import Stats

log = logging.getLogger("labelpipe")

#: Multiplies the backoff after a failure: capacity returns more slowly than a server does.
BACKOFFS = 3
#: Tries per second of all waiting records together: a call without capacity counts against the minute and day limits.
TRIES_PER_S = 2.0
#: This many calls in a row without capacity show that it affects all; fewer may have met one busy machine.
IN_A_ROW = 5
#: If it affects all, and for longer than the patience, one call tries flex this often.
TRY_AGAIN_S = 60.0
#: OpenAI's status for a flex call that takes too long.
REQUEST_TIMEOUT = 408


class Flex:
    """The flex tier in one session."""

    def __init__(self, rules: Callable[[], AskRules], stats: Stats, rng: random.Random) -> None:
        self._rules = rules
        self._stats = stats
        self._rng = rng
        # Mutable state: when a call was last answered, since when none has had capacity and how many had none since,
        # when one may try anyway, and how many records wait for capacity.
        self._answered_at = float("-inf")
        self._full_since = float("inf")
        self._in_a_row = 0
        self._tries_at = float("-inf")
        self._waiting = 0

    @property
    def _patience_s(self) -> float | None:
        return self._rules().flex_patience_s

    def sent(self, history: CallHistory, now: float) -> Request:
        """Return the record's request as it is sent now: for the flex tier, or without one."""
        request = history.request
        if self._patience_s is None or SERVICE_TIER in request.parameters or not self._asks(history, now):
            return request
        return replace(request, parameters={**request.parameters, SERVICE_TIER: FLEX})

    def _asks(self, history: CallHistory, now: float) -> bool:
        if history.no_room_since is not None and self._left_s(history.no_room_since, now) <= 0:
            return False
        if not self._is_full(now):
            return True
        is_news = self._tries_at < self._full_since
        if not is_news and now < self._tries_at:
            return False
        self._tries_at = now + TRY_AGAIN_S
        if is_news:
            log.warning("no room at flex", extra={"facts": {"calls": self._in_a_row, "for_s": now - self._full_since}})
        return not is_news

    def _left_s(self, since: float, now: float) -> float:
        """Return the rest of the patience that began at `since`."""
        return since + (self._patience_s or 0.0) - now

    def _is_full(self, now: float) -> bool:
        """Whether no record should wait for capacity anymore."""
        return self._in_a_row >= IN_A_ROW and self._left_s(self._full_since, now) <= 0

    def has_none_for(self, history: CallHistory, error: CallError) -> bool:
        """Whether its call asked for flex, and found no capacity or got no answer in time."""
        is_late = isinstance(error, CallTimeoutError) or error.status == REQUEST_TIMEOUT
        was_flex = history.sent is not None and history.sent is not history.request
        return isinstance(error, NoRoomError) or (is_late and was_flex)

    def refused(self, history: CallHistory, error: CallError, now: float, sent_at: float) -> float:
        """Note that flex had none for the call sent at `sent_at`. Return the seconds to wait before the next call."""
        since = now if isinstance(error, NoRoomError) else sent_at
        self._stats.record_retry(error.code)
        self._full_since = min(self._full_since, max(since, self._answered_at))
        self._in_a_row += 1
        if history.no_room_since is None:
            history.no_room_since = since
            self._waiting += 1
        history.no_room += 1
        if self._is_full(now):
            return 0.0
        told_s = min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
        own_s = BACKOFFS * backoff_s(history.no_room, self._rng.random())
        wait_s = max(told_s, own_s, self._waiting / TRIES_PER_S if self._in_a_row >= IN_A_ROW else 0.0)
        return max(0.0, min(wait_s, self._left_s(history.no_room_since, now)))

    def answered(
        self, history: CallHistory, response: Response, standard_usd: float | None, *, is_flex: bool, now: float
    ) -> None:
        """Note an answered call, for flex or not. `standard_usd` is what it would cost at the standard tier."""
        if self._patience_s is None or SERVICE_TIER in history.request.parameters:
            return
        if is_flex:
            self._answered_at, self._full_since, self._in_a_row = now, float("inf"), 0
        self.ended(history)
        at_flex = is_flex and response.service_tier == FLEX
        self._stats.flex["answers" if at_flex else "other" if is_flex else "standard"] += 1
        if at_flex and response.cost_usd is not None and standard_usd is not None:
            self._stats.flex_usd += response.cost_usd
            self._stats.flex_saved_usd += standard_usd - response.cost_usd

    def ended(self, history: CallHistory) -> None:
        """Note that the record no longer waits for capacity."""
        self._waiting -= history.no_room_since is not None
        history.no_room, history.no_room_since = 0, None

    def text(self, now: float) -> str:
        """Return the text for the progress line; empty if there is capacity."""
        if self._is_full(now):
            return "no room at flex: calls go out at the standard tier"
        return f"{self._waiting:,} waiting for room at flex" if self._waiting else ""
