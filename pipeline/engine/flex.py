"""The flex tier: which calls ask for it, and how long a record waits while the server has no room there.

Arithmetic only, nothing here waits. A call that has waited for its patience goes out without a tier, which is the
standard one. Where no call has had room for so long, the others do not wait at all, and one a minute tries again. A
call that flex did not answer in time has waited since it was sent.
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

#: How many times the backoff of a failure is waited: room comes back slower than a server does.
BACKOFFS = 3
#: Tries a second of all that wait, together: a call without room counts against the limits a minute and a day.
TRIES_PER_S = 2.0
#: Calls without room one after another that say it is so for all; fewer may have met one busy machine.
IN_A_ROW = 5
#: Where it is so for all, and has been for longer than the patience, one call tries flex this often.
TRY_AGAIN_S = 60.0
#: What OpenAI answers to a flex call that takes too long.
REQUEST_TIMEOUT = 408


class Flex:
    """The flex tier in one session."""

    def __init__(self, rules: Callable[[], AskRules], stats: Stats, rng: random.Random) -> None:
        self._rules = rules
        self._stats = stats
        self._rng = rng
        # All state that changes: when a call was answered last, since when none has had room, how many had none since,
        # when one may try all the same, and how many records wait for room.
        self._answered_at = float("-inf")
        self._full_since = float("inf")
        self._in_a_row = 0
        self._tries_at = float("-inf")
        self._waiting = 0

    @property
    def _patience_s(self) -> float | None:
        return self._rules().flex_patience_s

    def sent(self, history: CallHistory, now: float) -> Request:
        """The record's request as it is sent now: for the flex tier, or without one."""
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
        """What is left of the patience that began then."""
        return since + (self._patience_s or 0.0) - now

    def _is_full(self, now: float) -> bool:
        """Whether nobody is to wait for room any more."""
        return self._in_a_row >= IN_A_ROW and self._left_s(self._full_since, now) <= 0

    def has_none_for(self, history: CallHistory, error: CallError) -> bool:
        """Whether its call asked for flex, and found no room there or no answer in time."""
        is_late = isinstance(error, CallTimeoutError) or error.status == REQUEST_TIMEOUT
        asked = history.sent is not None and history.sent is not history.request
        return isinstance(error, NoRoomError) or (is_late and asked)

    def refused(self, history: CallHistory, error: CallError, now: float, sent_at: float) -> float:
        """Flex had none for its call that was sent then. Gives the seconds to wait before the next one."""
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
        """A call was answered, which had asked for flex or not; at the standard tier it would cost `standard_usd`."""
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
        """The record does not wait for room any more."""
        self._waiting -= history.no_room_since is not None
        history.no_room, history.no_room_since = 0, None

    def text(self, now: float) -> str:
        """What the progress line says of it; empty where there is room."""
        if self._is_full(now):
            return "no room at flex: calls go out at the standard tier"
        return f"{self._waiting:,} waiting for room at flex" if self._waiting else ""
