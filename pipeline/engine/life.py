"""What no single record can tell of the server: whether it is there, and whether it takes such requests at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pipeline.errors import CallError, LabelpipeError

log = logging.getLogger("labelpipe")

#: A short call that is about no record. Raises CallError.
Ping = Callable[[], Awaitable[None]]
#: A server that is there says so in this time.
PING_S = 10.0
#: So long after a ping that was not answered none is sent again.
PING_AGAIN_S = 5.0


#: Records whose requests all get a 400 before it is taken for the requests' shape,
SHAPE_EVIDENCE = 3
#: and in a run whose requests were answered in earlier sessions: those that are retried may all be bad.
PROVEN_EVIDENCE = 30


@dataclass(slots=True)
class Shape:
    """What is known of one kind of request: how many were answered, and which records' were refused with a 400."""

    answers: int = 0
    refused: set[str] = field(default_factory=set)

    def is_refused(self, key: str, active: int, *, proven: bool, tail: bool) -> bool | None:
        """Whether this record's 400 is about all requests of its kind; None: that cannot be told yet.

        Only as long as none of them was answered in this session. `active` records are in work; `proven`: earlier
        sessions of the run were answered; `tail`: no more records come. Few that are left of a run that was answered
        speak for themselves.
        """
        needed = PROVEN_EVIDENCE if proven else SHAPE_EVIDENCE
        if self.answers or (proven and tail and active < needed):
            return False
        self.refused.add(key)
        return len(self.refused) >= min(needed, active) or None


class LookForLife:
    """Asks the server a word when records get no answer; all who want to know share one call."""

    def __init__(self, ping: Ping | None, on_alive: Callable[[], None]) -> None:
        self._ping = ping
        self._on_alive = on_alive
        # All state that changes: the last sign of life, when the last ping ended in vain, and the one under way.
        self._alive_at = float("-inf")
        self._in_vain_at = float("-inf")
        self._pinging: asyncio.Task[None] | None = None

    async def found_since(self, moment: float) -> bool:
        """Whether the server has answered a ping that was sent after `moment`, in the loop's time."""
        if self._ping is None:
            return False
        now = asyncio.get_running_loop().time()
        if self._alive_at <= moment and now - self._in_vain_at >= PING_AGAIN_S:
            if self._pinging is None:
                self._pinging = asyncio.create_task(self._once(self._ping), name="ping")
            pinging = self._pinging
            await asyncio.wait({pinging})
            if not pinging.cancelled():
                pinging.result()
        return self._alive_at > moment

    def close(self) -> None:
        """Nobody wants to know any more; may be called twice."""
        if self._pinging is not None:
            self._pinging.cancel()

    async def _once(self, ping: Ping) -> None:
        clock = asyncio.get_running_loop().time
        sent_at = clock()
        try:
            async with asyncio.timeout(PING_S):
                await ping()
            alive, told = True, "answered"
        except CallError as error:
            # A refusal is an answer too; a 5xx and a broken connection are not.
            alive, told = error.status is not None and error.status < 500, str(error)
        except TimeoutError:
            alive, told = False, f"no answer in {PING_S:g} s"
        except LabelpipeError as error:  # the budget has no room for it
            alive, told = False, str(error)
        finally:
            self._pinging = None
        log.info("ping", extra={"facts": {"alive": alive, "told": told}})
        if alive:
            self._alive_at = sent_at
            self._on_alive()
        else:
            self._in_vain_at = clock()
