"""Parts of a run that are sent as one batch each, and the records in them, as data."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.records import JSON, Problem, Record, SavedAnswer

#: Parts whose input file was made by this name: run folder/batches/000001.jsonl.
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

    #: its line is in the part, and nothing is known of its answer
    WAITING = "waiting"
    #: its answer is among the kept answers
    ANSWERED = "answered"
    #: the server refused its line; `problem` says why
    REFUSED = "refused"
    #: it is to be asked again: no answer came, through no fault of the record
    AGAIN = "again"
    #: it has no line: the identical request of another record is in a part
    FOLLOWS = "follows"
    #: nobody waits for its answer any more; what it costs is counted when it comes
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Part:
    """One input file of the Batch API and the batch that is made of it.

    `begun`: the act after `state` was begun, and its answer may have been lost. `tokens` is the estimate of what it
    queues, `most_usd` and `most_tokens` the worst case of all its lines; `most_usd` is None where no price is known.
    `facts` is what the server said of the batch last. `books` counts its lines by how they ended, and what they used.
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
        """Plain values, for JSON: its state, counts, and moments as Unix times; `server` is the server's own word."""
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
        """How many seconds the API took for the batch, or None unless the batch is completed."""
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
        """Whether it is certain that no batch was made of it."""
        return self.state is PartState.PACKED or (self.state is PartState.UPLOADED and not self.begun)

    @property
    def is_at_server(self) -> bool:
        """Whether the API is working on it, so that it may cost something that is not in the ledger yet."""
        may_be = self.state is PartState.UPLOADED and self.begun
        return may_be or self.state in (PartState.CREATED, PartState.ENDED, PartState.FETCHED)


@dataclass(frozen=True, slots=True)
class Item:
    """A record in a part. `place` is that of its line, from 0; -1 where it has none.

    `number` counts the record's answers before this one; `digest` is that of the record's first request. `tries` is how
    often its line came to nothing through a fault of the server's.
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
