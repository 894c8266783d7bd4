"""Counts the votes on one label: who is asked, when it is decided, and what the vote columns contain.

Votes stay inside one record: each is an answer of its interview, and the record has one outcome and one row. The
interview asks for missing votes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline import codec
from pipeline.records import JSON, Problem, Record, Request, Response, Status, ValidCall

#: The result of a vote, after the label's columns and the callback's.
VOTE_COLUMNS = ("agreement", "votes", "needs_review")


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote. `value` is what is compared. An abstention has a `problem` and a final `status` instead.

    `text` is the same for equal values, and None for an abstention.
    """

    value: Mapping[str, JSON] | None
    valid_calls: tuple[ValidCall, ...] = ()
    response: Response | None = None
    problem: Problem | None = None
    status: Status = Status.REJECTED
    text: bytes | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", None if self.value is None else codec.canonical(self.value))


@dataclass(frozen=True, slots=True)
class Panel:
    """The voters. A record has at most `size` votes.

    `columns` are the label columns in which votes are compared. `voters` make the requests of the second and later
    votes; without them, each vote is another answer to the record's own request. A label needs a person's review if it
    is a tie, or if the share of agreeing votes is below `review_below`.
    """

    size: int
    columns: tuple[str, ...]
    voters: tuple[Callable[[Record], Request], ...] = ()
    review_below: float = 0.6

    def request(self, record: Record, place: int, first: Request) -> Request:
        """Return the request of the vote at the 0-based place. `first` is the record's own. Raises RenderError."""
        return self.voters[place - 1](record) if self.voters and place else first

    def value_of(self, label: Mapping[str, JSON]) -> dict[str, JSON]:
        """Return the compared part of a label."""
        return {name: label.get(name) for name in self.columns}

    def winner(self, ballots: Sequence[Ballot]) -> Ballot | None:
        """Return the winning ballot once no further vote can change the winning value; None before.

        It is the last ballot for the most frequent value or, in a tie, for the value that came first. If all abstain,
        it is an abstention.
        """
        left = self.size - len(ballots)
        if len(ballots) <= left:
            return None
        counts = _counts(ballots)
        if not counts:
            return None if left else ballots[-1]
        value = max(counts, key=counts.__getitem__)  # of equal counts, the value that was counted first
        if left and counts.pop(value) <= max(counts.values(), default=0) + left:
            return None
        return next(ballot for ballot in reversed(ballots) if ballot.text == value)

    def columns_of(self, ballots: Sequence[Ballot], standing: Mapping[str, JSON] | None = None) -> dict[str, JSON]:
        """Return the VOTE_COLUMNS for the ballots of a decided record.

        `agreement` is the share of all votes, including abstentions, for the winning value: `standing`, or the most
        frequent one. `votes` lists the values in the order of the votes, with null for an abstention.
        """
        counts = _counts(ballots)
        own = counts.get(codec.canonical(standing), 0) if standing else max(counts.values())
        agreement = own / len(ballots)
        tie = sum(count >= own for count in counts.values()) > 1
        votes = [self._vote_value(ballot.value) for ballot in ballots]
        return dict(zip(VOTE_COLUMNS, (round(agreement, 4), votes, tie or agreement < self.review_below), strict=True))

    def renamed(self, label: Mapping[str, JSON], column: str, new: Callable[[JSON], JSON]) -> Mapping[str, JSON]:
        """Return the renamed label with its votes renamed and counted again."""
        votes: JSON = label.get("votes")
        if not isinstance(votes, list) or column not in self.columns:
            return label
        is_bare = len(self.columns) == 1
        values = [{column: vote} if is_bare and vote is not None else vote for vote in votes]
        ballots = [Ballot(value and {**value, column: new(value.get(column))}) for value in values]
        return {**label, **self.columns_of(ballots, self.value_of(label))}

    def _vote_value(self, value: Mapping[str, JSON] | None) -> JSON:
        """Return a value for the column `votes`: bare if only one column is compared."""
        return None if value is None else value[self.columns[0]] if len(self.columns) == 1 else dict(value)


def _counts(ballots: Sequence[Ballot]) -> dict[bytes, int]:
    counts: dict[bytes, int] = {}
    for ballot in ballots:
        if ballot.text is not None:
            counts[ballot.text] = counts.get(ballot.text, 0) + 1
    return counts
