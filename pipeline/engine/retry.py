"""Defines what an error means for its record and for the run (a table), and how long to wait (a pure function)."""

import enum

from pipeline.errors import (
    CallbackError,
    CallTimeoutError,
    CredentialsError,
    InvalidAnswerError,
    LabelpipeError,
    NoCompletionError,
    NoHostError,
    NoRoomError,
    NotCalledError,
    QuotaError,
    RateLimitedError,
    RecordRefusedError,
    RefusalError,
    RequestShapeError,
    TooLargeError,
    TruncatedError,
    UnavailableError,
    UnfinishedError,
    UnknownRefusalError,
    UnusableCallError,
)

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 20.0
#: The longest that a server's wait for one call is followed.
RETRY_AFTER_MAX_S = 60.0


class Verdict(enum.Enum):
    """What follows from an error."""

    #: send the same request again after a wait
    RETRY = "retry"
    #: everyone waits, then the same request again; the record is not charged
    COOL_DOWN = "cool down"
    #: only the record waits, then the same request again, finally at the standard tier; nothing is charged
    WAIT = "wait"
    #: ask again and show the fault
    REPAIR = "repair"
    #: this record has no label; the run goes on
    REJECT = "reject"
    #: REJECT if others pass meanwhile, ABORT if all are refused in a row
    DOUBT = "doubt"
    #: the run cannot go on
    ABORT = "abort"


_TABLE: dict[type[LabelpipeError], Verdict] = {
    RateLimitedError: Verdict.COOL_DOWN,
    NoRoomError: Verdict.WAIT,
    UnavailableError: Verdict.RETRY,
    NoCompletionError: Verdict.RETRY,
    NoHostError: Verdict.RETRY,
    UnknownRefusalError: Verdict.DOUBT,
    CallTimeoutError: Verdict.RETRY,
    RecordRefusedError: Verdict.REJECT,
    TooLargeError: Verdict.REJECT,
    RequestShapeError: Verdict.DOUBT,
    UnusableCallError: Verdict.REPAIR,
    QuotaError: Verdict.ABORT,
    CredentialsError: Verdict.DOUBT,
    InvalidAnswerError: Verdict.REPAIR,
    TruncatedError: Verdict.REPAIR,
    RefusalError: Verdict.REJECT,
    UnfinishedError: Verdict.REJECT,
    CallbackError: Verdict.REJECT,
    NotCalledError: Verdict.REJECT,
}


def verdict_of(error: LabelpipeError) -> Verdict:
    """Return the verdict on an error of a call or an answer. Raises KeyError for any other."""
    return _TABLE[type(error)]


def backoff_s(failures: int, jitter: float) -> float:
    """Return the seconds to wait after the n-th failure in a row. They double each time, up to a cap.

    Half of the wait is fixed and half is random (`jitter` in [0, 1)), so that records that failed together do not
    return together.
    """
    full: float = min(BACKOFF_FIRST_S * 2 ** max(0, failures - 1), BACKOFF_MAX_S)
    return full * (0.5 + 0.5 * jitter)
