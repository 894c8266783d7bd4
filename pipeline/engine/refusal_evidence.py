"""Refusals: does the server mean this record, or everybody? One rule for all of them, by what others were answered."""

import re
from dataclasses import dataclass, field

from pipeline.errors import (
    CallError,
    CredentialsError,
    NoCompletionError,
    NoHostError,
    NothingToAskError,
    QuotaError,
    RateLimitedError,
    RecordRefusedError,
    RequestShapeError,
    UnavailableError,
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
#: So long the same words and not one answer, no wait told: a limit a minute would have passed several times. Also a key
#: that is refused between failures: a login service that is away does so too, and comes back.
USED_UP_S = 10 * 60.0
#: The same where the words are those of a limit a minute: others on the key may have left nothing of it.
RATE_USED_UP_S = 30 * 60.0
#: Nothing was sent for so long: the run rested, and what was said before says nothing of now.
RESTED_S = 60.0
USED_UP = "every call is refused in the same words, for longer than a limit a minute lasts, and no moment is named"
EMPTY = "calls were answered before, and for ten minutes each one has come back empty"
_OF_A_RATE = re.compile(r"rate.?limit|too many requests|per.?(min|sec)|\b[RT]P[MS]\b|slow down", re.IGNORECASE)
#: No room at the moment is an outage, however long it lasts.
_OF_THE_MOMENT = re.compile(
    r"overload|capacity|\bbusy\b|temporar|high (demand|load|traffic)|unavailable|maintenance|concurren|queue|starting"
    r"|loading|again (later|shortly|soon)|in a (few|moment)|upstream|internal",
    re.IGNORECASE,
)
#: How often a record is asked that is refused while others pass, where the API itself said no to it.
MOST_TRIES = 3


@dataclass(slots=True)
class RequestShapeStats:
    """What is known of one kind of request: how many were answered, and which records' were refused with a 400."""

    answers: int = 0
    refused: set[str] = field(default_factory=set)

    def is_refused(self, key: str, active: int, needed: int) -> bool:
        """Whether `needed` records were refused, or all that are in work (`active`); this one is another."""
        self.refused.add(key)
        return len(self.refused) >= min(needed, active)


@dataclass(slots=True)
class RefusalStreak:
    """One refusal after another with nothing answered between: since when, and of which records."""

    is_page: bool = False
    refusals: int = 0
    others: int = 0
    sent_at: float = 0.0
    since: float = 0.0
    keys: set[str] = field(default_factory=set)
    is_of_key: bool = False

    def note(self, error: CallError, key: str, *, sent_at: float, now: float, passed_at: float) -> None:
        """One more. `passed_at` is when the last call left that was answered."""
        is_page = isinstance(error, NoCompletionError | NoHostError)
        if not self.keys or is_page is not self.is_page or passed_at > self.sent_at:
            self.is_page, self.sent_at, self.since = is_page, sent_at, now
            self.is_of_key, self.refusals, self.others = True, 0, 0
            self.keys.clear()
        self.is_of_key &= isinstance(error, CredentialsError)
        self.refusals += 1
        self.keys.add(key)

    def broken(self) -> None:
        """Something else happened: a 5xx, silence. A refusal of the key is not washed away by it."""
        self.others += 1
        if not self.is_of_key or self.others > 2 * self.refusals + IN_A_ROW:
            self.keys.clear()

    def are_everyones(self, now: float, active: int, *, answered: bool) -> bool:
        """Whether they have gone on for so long that it is everybody's. `answered`: the run has been answered before.

        A page in place of an answer is an outage then: a portal, or maintenance.
        """
        if answered:
            patience_s = USED_UP_S if self.others else DOUBT_S
            return not self.is_page and len(self.keys) >= min(IN_A_ROW, active) and now - self.since >= patience_s
        return now - self.since >= NEVER_S


@dataclass(slots=True)
class QuotaEvidence:
    """The same words to every call with nothing answered between, and no moment named: a quota of a name unknown here.

    A 429, an API's word inside a success, or a completion without a choice. The other errors have rules of their own.
    """

    words: str = ""
    since: float = 0.0
    last_at: float = 0.0

    def note(self, error: CallError, *, now: float, passed_at: float) -> bool:
        """One more failure. True: it has gone on for so long that waiting does not help."""
        if error.status is None:
            return False  # silence and a broken connection say nothing of it
        words = "" if error.retry_after_s else _used_up_words(error)
        if words != self.words or passed_at >= self.since or now - self.last_at > RESTED_S:
            self.words, self.since = words, now
        self.last_at = now
        patience_s = RATE_USED_UP_S if _OF_A_RATE.search(words) else USED_UP_S
        return bool(words) and now - self.since >= patience_s


def used_up_error(error: CallError) -> CallError:
    """What the run stops with where `UsedUp` says so."""
    if isinstance(error, NoCompletionError):
        error.args = (f"{EMPTY}. Each time: {error}",)
        return error
    return QuotaError(f"{USED_UP}; each time: {error}")


def _used_up_words(error: CallError) -> str:
    """The words without what may differ from call to call; empty where they may be about anything else."""
    is_word = type(error) in (UnavailableError, NoCompletionError) and error.status == 200
    if not (is_word or isinstance(error, RateLimitedError)) or _OF_THE_MOMENT.search(error.server_message):
        return ""
    return re.sub(r"\S*\d\S*", "#", error.server_message)


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
    """Whether a stopped run had a cause that the user must fix before it can continue."""
    known = (
        CredentialsError | RequestShapeError | UnknownRefusalError | NoCompletionError | NoHostError | NothingToAskError
    )
    return isinstance(error, known)
