"""Defines the parts of a run that are sent as one batch each, and the records in them."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.records import JSON, Problem, Record, SavedAnswer

#: The folder of the parts' input files: run folder/batches/000001.jsonl.
FOLDER = "batches"


class PartState(enum.StrEnum):
    """The progress of a part. Each state names the last step that is known to be complete."""

    PACKED = "packed"
    UPLOADED = "uploaded"
    CREATED = "created"
    ENDED = "ended"
    FETCHED = "fetched"
    READ = "read"
    CLOSED = "closed"


class ItemState(enum.StrEnum):
    """What is known about a record's line in its part."""

    #: Its line is in the part, and its answer is unknown.
    WAITING = "waiting"
    #: Its answer is saved.
    ANSWERED = "answered"
    #: The server refused its line; `problem` is the reason.
    REFUSED = "refused"
    #: It must be asked again: no answer came, through no fault of the record.
    AGAIN = "again"
    #: It has no line: another record's identical request is in a part.
    FOLLOWS = "follows"
    #: Nothing waits for its answer anymore. The cost is counted when the answer comes.
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Part:
    """One input file of the Batch API and the batch that is made from it.

    `begun`: the action after `state` has begun, and its answer may have been lost. `tokens` estimates what the part
    queues; `most_usd` and `most_tokens` are the worst case of all its lines. `most_usd` is None if no price is known.
    `facts` is the server's last report about the batch. `books` counts the lines by result, and their usage.
    """

    number: int
    state: PartState
    lines: int
    bytes: int
    sha256: str
    endpoint: str
    tokens: int
    most_usd: float | None
    most_tokens: int
    packed_at: float
    begun: bool = False
    file_id: str = ""
    batch_id: str = ""
    sent_at: float | None = None
    ended_at: float | None = None
    facts: Mapping[str, JSON] = field(default_factory=dict)
    books: Mapping[str, JSON] = field(default_factory=dict)

    def as_dict(self) -> dict[str, JSON]:
        """Return plain values for JSON, with times as Unix times; `server` is the status that the server reports."""
        return {
            "part": self.number,
            "state": self.state.value,
            "server": self.facts.get("status"),
            "batch_id": self.batch_id,
            "records": self.lines,
            "done": self.facts.get("done"),
            "tokens": self.tokens,
            "sent_at": self.sent_at,
            "ended_at": self.ended_at,
            "expires_at": self.facts.get("expires_at"),
            "moved_at": self.facts.get("moved_at"),
            "lines": dict(self.books.get("lines") or {}),
            "cost_usd": self.books.get("cost_usd"),
        }

    @property
    def took_s(self) -> float | None:
        """How many seconds the API took for the batch; None unless the batch is completed."""
        if self.sent_at is None or self.ended_at is None or self.facts.get("status") != "completed":
            return None
        return self.ended_at - self.sent_at

    @property
    def was_split(self) -> bool:
        """Whether the part was split before it was sent, so that it never became a batch."""
        return bool(self.books.get("split"))

    @property
    def is_open(self) -> bool:
        """Whether some of its answers are not in the ledger yet."""
        return self.state not in (PartState.READ, PartState.CLOSED)

    @property
    def is_sent(self) -> bool:
        """Whether its file has been or is being sent, and not all of its answers are in the ledger."""
        return self.is_open and (self.begun or self.state is not PartState.PACKED)

    @property
    def is_unsent(self) -> bool:
        """Whether it is certain that no batch was made from it."""
        return self.state is PartState.PACKED or (self.state is PartState.UPLOADED and not self.begun)

    @property
    def is_at_server(self) -> bool:
        """Whether the API is working on it, so that it may cost something that is not in the ledger yet."""
        may_be = self.state is PartState.UPLOADED and self.begun
        return may_be or self.state in (PartState.CREATED, PartState.ENDED, PartState.FETCHED)


@dataclass(frozen=True, slots=True)
class Item:
    """A record in a part. `place` is the 0-based place of its line; -1 if it has none.

    `number` counts the record's earlier answers; `digest` is the digest of its first request. `tries` counts how often
    its line failed because of the server.
    """

    record: Record
    part: int
    place: int
    number: int
    digest: bytes
    state: ItemState = ItemState.WAITING
    tries: int = 0
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class LineResult:
    """The result of one line of a part."""

    place: int
    state: ItemState
    answer: SavedAnswer | None = None
    problem: Problem | None = None
    is_try: bool = False
