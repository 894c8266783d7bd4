"""How long nothing leaves after what a server says: as long as it asks, within bounds; without a word, ever longer."""

from __future__ import annotations

from pipeline.limits.gate import Gate
from pipeline.limits.pace import MINUTE_RESET_S

#: A 429 that says nothing about waiting: doubled with each one in a row. Waiting longer would miss the end by more.
BLIND_WAIT_S = 0.2
BLIND_WAIT_MAX_S = 4.0
#: A server's wait is heard for so long at a time; then one call asks again. So a wait of hours costs four refused calls
#: an hour, and one by mistake (of days, of thousands of years) no more than this.
HEARD_S = 15 * 60.0
#: After an answer that says "none left": its reset is when all of the limit is there again, and the next call may go
#: long before that. Beside another client on the same key whoever waits for the reset gets nothing.
REFILL_S = 0.1


class Waits:
    """Shuts the gate for a while. `now` is the run's clock in seconds."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        # All state that changes: until when the server asked to wait, heard or not; since when it refuses, answering
        # nothing (None: it answers); and what the blind waits are made of.
        self.asked_until = float("-inf")
        self.refused_since: float | None = None
        self._in_a_row = 0
        self._refused_at = float("-inf")
        self._answers = self._refusals = 0

    def answered(self) -> None:
        """An answer came."""
        self.refused_since = None
        self._in_a_row = 0
        self._answers += 1

    def used_up(self, what: str, reset_s: float, now: float) -> None:
        """An answer says that no `what` is left; to the end where it is a limit a day."""
        wait_s = reset_s if reset_s > MINUTE_RESET_S else min(reset_s, REFILL_S)
        self._hold(wait_s, f"the server says that no {what} left for now", now)

    def wait_s(self, told_s: float | None) -> float:
        """Seconds that a refusal asks for, as far as they are heard; where it says nothing, those of a blind one."""
        blind_s = min(BLIND_WAIT_S * 2.0 ** min(self._in_a_row, 10), BLIND_WAIT_MAX_S)
        return min(told_s or blind_s, HEARD_S)

    def refused(self, told_s: float | None, sent_at: float, now: float) -> None:
        """A 429 came. Of calls that were sent before the last one came only what they ask for is heard."""
        if self.refused_since is None:
            self.refused_since = now
        self._refusals += 1
        if told_s:
            self._hold(told_s, "429: the server's rate limit", now)
        if sent_at <= self._refused_at:
            return
        if not told_s:
            self._hold(self.wait_s(None), "429: the server's rate limit (it does not say for how long)", now)
        if self._refusals > self._answers:
            self._gate.shrink()
        self._refused_at = now
        self._in_a_row += 1
        self._answers = self._refusals = 0

    def _hold(self, wait_s: float, reason: str, now: float) -> None:
        self.asked_until = max(self.asked_until, now + wait_s)
        if wait_s > HEARD_S:
            self._gate.hold(now + HEARD_S, f"{reason} (it asks for longer; one call asks again then)", then_one=True)
        else:
            self._gate.hold(now + wait_s, reason)
