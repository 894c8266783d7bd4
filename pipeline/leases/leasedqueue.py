"""Gives a shard its share of the API's batch queue: asks the lease server for room, and reports what is in use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pipeline.leases.messages import Grant, LeaseRequest
from pipeline.limits import Budget
from pipeline.store import Part

#: Returns once the condition is false, or the run is ending.
Until = Callable[[Callable[[], bool]], Awaitable[None]]


class LeasedQueue:
    """The batch queue for the batch lane of a shard. `until` sends pending messages to the lease server."""

    is_shared = True

    def __init__(self, until: Until) -> None:
        self._wait_until_sent = until
        # Mutable state: pending requests and their answers, granted parts that are not at the server yet, all reserved
        # parts, what was reported, and the lease server's latest facts.
        self._room: list[int] | None = None
        self._refused: list[int] | None = None
        self._needs: tuple[int, int] | None = None
        self._is_granted = self._is_too_large = False
        self._granted_parts: dict[int, int] = {}
        self._reserved: dict[int, int] = {}
        self._reported: dict[int, int] | None = None
        self._is_proven = self._is_in_use = False
        self._facts: dict[str, Any] = {}
        self.is_short = False
        self._at_news: Callable[[], None] = lambda: None

    # -- what the lane calls ---------------------------------------------------------------------------------------

    @property
    def proven(self) -> bool:
        """Whether a batch of any shard has shown that the requests are valid."""
        return bool(self._facts.get("proven"))

    @property
    def is_learned(self) -> bool:
        """Whether the API has refused a batch of any shard because its queue was full."""
        return bool(self._facts.get("is_learned"))

    @property
    def most_lines(self) -> int | None:
        """The most lines that a part may have, as far as known."""
        return self._facts.get("most_lines")

    def begin(self, at_news: Callable[[], None]) -> None:
        """Start. `at_news` is called when another shard has changed the state of the queue."""
        self._at_news, self._is_in_use = at_news, True

    async def take(self, part: Part, others: Sequence[Part], *, counts: bool) -> bool:
        """Ask for room for a part, and for its requests of the day if it `counts`. Returns whether it is granted."""
        if part.number in self._granted_parts or part.number in self._reserved:
            return True
        self._is_granted = False
        self._room = [part.number, part.tokens, part.lines, int(counts)]
        await self._wait_until_sent(lambda: self._room is not None)
        self._room = None
        return self._is_granted

    async def refused(self, part: Part, others: Sequence[Part]) -> bool:
        """Report that the API had no room for a part. Returns whether the part alone is too large."""
        self._granted_parts.pop(part.number, None)
        self._reserved.pop(part.number, None)
        self._is_too_large = False
        self._refused = [part.number, part.tokens, part.lines]
        await self._wait_until_sent(lambda: self._refused is not None)
        self._refused = None
        return self._is_too_large

    def hold(self, parts: Sequence[Part], *, proven: bool) -> None:
        """Report what is, or may be, in the API's queue. A part counts until it is reported as closed."""
        here = {part.number: part for part in parts if part.is_open}
        self._granted_parts = {
            number: tokens
            for number, tokens in self._granted_parts.items()
            if number in here and here[number].is_unsent
        }
        begun = {number: part.tokens for number, part in here.items() if part.begun or part.is_at_server}
        self._reserved = {**self._granted_parts, **begun}
        self._is_proven = proven

    async def top_up(self, budget: Budget, usd: float, tokens: int) -> bool:
        """Whether the budget has room for this amount, after asking the lease server for what is missing."""
        self.is_short = False
        if not budget.has_room(usd, tokens):
            self._needs = budget.exactly_beside(usd, tokens)
            await self._wait_until_sent(lambda: self._needs is not None)
            self._needs = None
        return budget.has_room(usd, tokens)

    # -- messages --------------------------------------------------------------------------------------------------

    @property
    def is_pending(self) -> bool:
        """Whether a message should be sent at once."""
        is_news = self._is_in_use and (self._reserved != self._reported or self._is_proven > self.proven)
        return self._room is not None or self._refused is not None or self._needs is not None or is_news

    @property
    def needs(self) -> tuple[int, int] | None:
        """The total that the shard must be allowed to spend, including its next part."""
        return self._needs

    def request_fields(self) -> dict[str, Any]:
        """Return the fields of the next request."""
        if not self._is_in_use:
            return {}
        self._reported = dict(self._reserved)
        parts = [one for pair in self._reported.items() for one in pair]
        return {"parts": parts, "proven": self._is_proven, "room": self._room, "refused_part": self._refused}

    def on_grant(self, request: LeaseRequest, grant: Grant) -> None:
        """Apply the answer of the lease server."""
        if request.room is not None and self._room == request.room:
            self._is_granted, self._room = grant.room, None
            if grant.room:
                self._granted_parts[request.room[0]] = request.room[1]
                self._reserved[request.room[0]] = request.room[1]
        if request.refused_part is not None and self._refused == request.refused_part:
            self._is_too_large, self._refused = grant.is_too_large, None
        if request.needs is not None and request.needs == self._needs:
            self.is_short, self._needs = bool(grant.short), None
        before, self._facts = self._facts, grant.queue or self._facts
        is_news = before.get("version") != self._facts.get("version")
        if is_news:
            self._at_news()
