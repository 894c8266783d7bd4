"""The flex tier of the endpoint: which calls that ask for it find no room, and what they are told."""

from collections.abc import Mapping
from typing import Any

from pipeline.rehearsal.dice import Dice
from pipeline.rehearsal.replies import ErrorReply, Reply

FLEX = "flex"
#: Form -> what a call is told that finds no room: by OpenAI and Azure, and by Groq.
NO_ROOM: Mapping[str, Reply] = {
    "429": ErrorReply(429, "Resource unavailable. Please try again later.", "resource_unavailable").reply(),
    "498": ErrorReply(498, "Flex tier capacity exceeded.", "capacity_exceeded", code="capacity_exceeded").reply(),
}


def tier_of(asked: Mapping[str, Any]) -> str:
    """The tier that serves a call: flex for one that asks for it, else the standard one."""
    return FLEX if asked.get("service_tier") == FLEX else "default"


class FlexRoom:
    """Which calls find no room: a share of those that ask for flex, for so many seconds after the first call."""

    def __init__(self, share: float, seconds: float | None, form: str, *, seed: int) -> None:
        self._share = share
        self._seconds = seconds
        self._form = form
        self._seed = seed

    def refused(self, asked: Mapping[str, Any], record: str, attempt: int, since_s: float) -> Reply | None:
        """What the call is told that finds no room; None where it finds some. `since_s` is since the first call."""
        if not self._share or tier_of(asked) != FLEX or (self._seconds is not None and since_s >= self._seconds):
            return None
        has_room = Dice("flex", self._seed, record, attempt).unit() >= self._share
        return None if has_room else NO_ROOM[self._form]
