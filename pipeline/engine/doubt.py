"""Refusals: does the server mean this record, or everybody? One rule for all of them, by what others were answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.errors import (
    CallError,
    CredentialsError,
    NoCompletionError,
    NothingToAskError,
    RecordRefusedError,
    RequestShapeError,
    UnknownRefusalError,
)

#: Records that are refused one after another before it is everybody's, or their requests' shape.
IN_A_ROW = 5
#: The latter where no word can be sent that would tell,
SHAPE_EVIDENCE = 3
#: and in a run whose requests were answered in earlier sessions: what is retried may all be bad.
PROVEN_EVIDENCE = 30
#: So long nothing but refusals, after answers: less would be a moment's confusion at the server, and end the night.
DOUBT_S = 10.0
#: So long the same from a server that has never answered a call: it is no server for this.
NEVER_S = 60.0
#: Statuses of the moment (no capacity, somebody in between hung up): for everybody they are an outage, like a 503.
PASSING = frozenset({408, 424, 425, 460, 498, 499})
#: How often a record is asked that is refused while others pass, where the API itself said no to it.
MOST_TRIES = 3


@dataclass(slots=True)
class Shape:
    """What is known of one kind of request: how many were answered, and which records' were refused with a 400."""

    answers: int = 0
    refused: set[str] = field(default_factory=set)

    def is_refused(self, key: str, active: int, needed: int) -> bool:
        """Whether `needed` records were refused, or all that are in work (`active`); this one is another."""
        self.refused.add(key)
        return len(self.refused) >= min(needed, active)


@dataclass(slots=True)
class Refusals:
    """One refusal after another with nothing answered between: since when, and of which records."""

    is_page: bool = False
    sent_at: float = 0.0
    since: float = 0.0
    keys: set[str] = field(default_factory=set)

    def note(self, error: CallError, key: str, *, sent_at: float, now: float, passed_at: float) -> None:
        """One more. `passed_at` is when the last call left that was answered."""
        is_page = isinstance(error, NoCompletionError)
        if not self.keys or is_page is not self.is_page or passed_at > self.sent_at:
            self.is_page, self.sent_at, self.since = is_page, sent_at, now
            self.keys.clear()
        self.keys.add(key)

    def broken(self) -> None:
        """Something else happened: an answer, a 5xx, silence."""
        self.keys.clear()

    def are_everyones(self, now: float, active: int, *, answered: bool) -> bool:
        """Whether they have gone on for so long that it is everybody's. `answered`: the run has been answered before.

        A page in place of an answer is an outage then: a portal, or maintenance.
        """
        if answered:
            return not self.is_page and len(self.keys) >= min(IN_A_ROW, active) and now - self.since >= DOUBT_S
        return now - self.since >= NEVER_S


def is_certain(error: CallError) -> bool:
    """Whether the first call of a run that gets this ends it: no record can be the reason.

    A 403 may be about a text, a 4xx of a proxy about the moment.
    """
    return isinstance(error, CredentialsError) and error.status != 403


def tries_of(error: CallError, max_attempts: int) -> int:
    """How many such refusals end a record while others pass."""
    if isinstance(error, RecordRefusedError):
        return 1
    is_about_it = isinstance(error, RequestShapeError) or (isinstance(error, CredentialsError) and error.status == 403)
    return min(MOST_TRIES, max_attempts) if is_about_it else max_attempts


def is_hopeless(error: BaseException | None) -> bool:
    """Whether a stopped run had a cause that the user must mend before it can go on."""
    known = CredentialsError | RequestShapeError | UnknownRefusalError | NoCompletionError | NothingToAskError
    return isinstance(error, known)
