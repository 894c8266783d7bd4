"""Decides whether a refusal is about one record or everybody: one rule for all, by how others are answered."""

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

#: If this many records are refused in a row, everybody is refused, or the shape of their requests is.
IN_A_ROW = 5
#: The number for the latter if no health check can be sent,
SHAPE_EVIDENCE = 3
#: and in a run whose requests were answered in earlier sessions, because the retried ones may all be bad.
PROVEN_EVIDENCE = 30
#: Seconds of nothing but refusals, after answers. Less may be a brief fault of the server, and would end the run.
DOUBT_S = 10.0
#: The same for a server that has never answered a call: it is not a server for this.
NEVER_S = 60.0
#: Temporary statuses (no capacity, a hang-up on the way). If everybody gets them, it is an outage, like a 503.
PASSING = frozenset({408, 424, 425, 460, 498, 499})
#: Seconds of equal messages with no answer and no Retry-After: a minute limit would have passed several times. Also for
#: a key that is refused between failures: a login service that is down causes that too, and comes back.
USED_UP_S = 10 * 60.0
#: The same if the message is about a minute limit: others who use the key may have used it up.
RATE_USED_UP_S = 30 * 60.0
#: If nothing was sent for this long, the run was idle, and earlier messages no longer count.
RESTED_S = 60.0
USED_UP = "every call is refused in the same words, for longer than a limit a minute lasts, and no moment is named"
EMPTY = "calls were answered before, and for ten minutes each one has come back empty"
_OF_A_RATE = re.compile(r"rate.?limit|too many requests|per.?(min|sec)|\b[RT]P[MS]\b|slow down", re.IGNORECASE)
#: A temporary lack of capacity is an outage, however long it lasts.
_OF_THE_MOMENT = re.compile(
    r"overload|capacity|\bbusy\b|temporar|high (demand|load|traffic)|unavailable|maintenance|concurren|queue|starting"
    r"|loading|again (later|shortly|soon)|in a (few|moment)|upstream|internal",
    re.IGNORECASE,
)
#: How often a record is asked that the API itself refuses while others pass.
MOST_TRIES = 3


@dataclass(slots=True)
class RequestShapeStats:
    """One kind of request: how many were answered, and the records that were refused with a 400."""

    answers: int = 0
    refused: set[str] = field(default_factory=set)

    def is_refused(self, key: str, active: int, needed: int) -> bool:
        """Whether `needed` records were refused, or all `active` ones in work. Counts this one."""
        self.refused.add(key)
        return len(self.refused) >= min(needed, active)


@dataclass(slots=True)
class RefusalStreak:
    """Refusals in a row with no answer in between: since when, and of which records."""

    is_page: bool = False
    refusals: int = 0
    others: int = 0
    sent_at: float = 0.0
    since: float = 0.0
    keys: set[str] = field(default_factory=set)
    is_of_key: bool = False

    def note(self, error: CallError, key: str, *, sent_at: float, now: float, passed_at: float) -> None:
        """Add a refusal. `passed_at` is when the last answered call was sent."""
        is_page = isinstance(error, NoCompletionError | NoHostError)
        if not self.keys or is_page is not self.is_page or passed_at > self.sent_at:
            self.is_page, self.sent_at, self.since = is_page, sent_at, now
            self.is_of_key, self.refusals, self.others = True, 0, 0
            self.keys.clear()
        self.is_of_key &= isinstance(error, CredentialsError)
        self.refusals += 1
        self.keys.add(key)

    def broken(self) -> None:
        """Note another failure: a 5xx, a timeout. It does not clear refusals of the key."""
        self.others += 1
        if not self.is_of_key or self.others > 2 * self.refusals + IN_A_ROW:
            self.keys.clear()

    def are_everyones(self, now: float, active: int, *, answered: bool) -> bool:
        """Whether they have lasted long enough to be everybody's. `answered`: the run was answered before.

        Then a page in place of an answer is an outage: a portal, or maintenance.
        """
        if answered:
            patience_s = USED_UP_S if self.others else DOUBT_S
            return not self.is_page and len(self.keys) >= min(IN_A_ROW, active) and now - self.since >= patience_s
        return now - self.since >= NEVER_S


@dataclass(slots=True)
class QuotaEvidence:
    """The same message for every call, with no answer in between and no time given: a quota under an unknown name.

    This is for a 429, an API's error in a success, or a completion without a choice. Other errors have their own rules.
    """

    words: str = ""
    since: float = 0.0
    last_at: float = 0.0

    def note(self, error: CallError, *, now: float, passed_at: float) -> bool:
        """Add a failure. Return whether they have lasted so long that waiting does not help."""
        if error.status is None:
            return False  # a timeout or a broken connection proves nothing
        words = "" if error.retry_after_s else _used_up_words(error)
        if words != self.words or passed_at >= self.since or now - self.last_at > RESTED_S:
            self.words, self.since = words, now
        self.last_at = now
        patience_s = RATE_USED_UP_S if _OF_A_RATE.search(words) else USED_UP_S
        return bool(words) and now - self.since >= patience_s


def used_up_error(error: CallError) -> CallError:
    """Return the error that stops the run if `QuotaEvidence` is complete."""
    if isinstance(error, NoCompletionError):
        error.args = (f"{EMPTY}. Each time: {error}",)
        return error
    return QuotaError(f"{USED_UP}; each time: {error}")


def _used_up_words(error: CallError) -> str:
    """Return the message without what may vary between calls; empty if it may be about anything else."""
    is_word = type(error) in (UnavailableError, NoCompletionError) and error.status == 200
    if not (is_word or isinstance(error, RateLimitedError)) or _OF_THE_MOMENT.search(error.server_message):
        return ""
    return re.sub(r"\S*\d\S*", "#", error.server_message)


def is_certain(error: CallError) -> bool:
    """Whether this error ends a run at its first call, because no record can be the reason.

    A 403 may be about a text, and a proxy's 4xx may be temporary.
    """
    return isinstance(error, CredentialsError) and error.status != 403


def tries_of(error: CallError, max_attempts: int) -> int:
    """Return how many such refusals end a record while others pass."""
    if isinstance(error, RecordRefusedError):
        return 1
    is_about_it = isinstance(error, RequestShapeError) or (isinstance(error, CredentialsError) and error.status == 403)
    return min(MOST_TRIES, max_attempts) if is_about_it else max_attempts


def is_hopeless(error: BaseException | None) -> bool:
    """Whether the user must fix the cause of the stop before the run can continue."""
    known = (
        CredentialsError | RequestShapeError | UnknownRefusalError | NoCompletionError | NoHostError | NothingToAskError
    )
    return isinstance(error, known)
