"""Defines the messages between a shard and the lease server: JSON over HTTP, one exchange at a time for each shard.

Times are ages in milliseconds, because two machines never have the same clock. Money is in picodollars, so sums are
exact. Other versions refuse unknown keys, so the fields of these classes must not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from pipeline import codec
from pipeline.errors import InputError, RateLimitedError
from pipeline.limits import Rate, ResourceState
from pipeline.records import ServerLimits

_T = TypeVar("_T")

#: Seconds for which a grant is valid. Then what is left of it is returned.
VALID_S = 1.0
#: Checks of a request: whole numbers of 0 or more; lists of them, with a multiple of a length or a fixed one; types.
_COUNTS = ("shard", "shards", "number", "wants", "tokens", "unused", "in_flight")
_MULTIPLES = {"sent": 1, "answered": 3, "parts": 2}
_SIZES = {"spent": 2, "needs": 2, "room": 4, "refused_part": 3, "gold": 2}
_TYPES = {"corrected": int, "holds": bool, "proven": bool, "session": str}
_TYPES |= dict.fromkeys(("sent", "answered", "refused"), list)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429 that a shard received: its age, the age of the call, and the facts of the response."""

    age_ms: int
    sent_age_ms: int
    scope: str = "requests"
    retry_after_s: float | None = None
    day_limit: str = ""

    def as_error(self) -> RateLimitedError:
        """Return the error for the limits."""
        return RateLimitedError(scope=self.scope, retry_after_s=self.retry_after_s, day_limit=self.day_limit)


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a shard asks for, and what has happened since its last request.

    This is shard `shard` of `shards`. `session` is unique for each process, and `number` counts its exchanges. A
    repeated exchange gets the same answer. The shard `wants` this many requests of about `tokens` tokens each.
    `unused` requests of earlier grants were not sent. `sent` lists the ages of calls that were sent. `answered` is
    a flat list with age, age of the call, and tokens used for each answer. `limits` is from the headers of the last
    answer. `corrected` is by how many tokens the estimates were too high.

    `spent` is the most that the shard can have spent, including what it `holds` for calls in flight. `needs` is that
    plus what it must reserve next. Both are picodollars and tokens. `parts` lists number and tokens of each part that
    may be in the API's batch queue. `proven`: one of them has shown that the requests are valid. `room` is the part to
    send next: number, tokens, lines, and 1 if its lines count as requests of the day. `refused_part` is a part for
    which the API had no room: number, tokens, lines. `gold` is how many labels of gold records were right, and how many
    were compared.
    """

    shard: int
    shards: int
    session: str
    number: int
    wants: int = 0
    tokens: int = 1
    unused: int = 0
    corrected: int = 0
    in_flight: int = 0
    sent: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    limits: dict[str, Any] | None = None
    refused: list[Refusal] = field(default_factory=list)
    spent: tuple[int, int] | None = None
    holds: bool = False
    needs: tuple[int, int] | None = None
    is_last: bool = False
    parts: list[int] | None = None
    proven: bool = False
    room: list[int] | None = None
    refused_part: list[int] | None = None
    gold: list[int] | None = None

    @property
    def server_limits(self) -> ServerLimits | None:
        """The limits in the headers."""
        return None if self.limits is None else ServerLimits(**self.limits)

    def events(self) -> Iterator[tuple[int, str, Any]]:
        """Yield the reported events: age in milliseconds, kind, and values."""
        for age in self.sent:
            yield age, "sent", age
        for at in range(0, len(self.answered), 3):
            yield self.answered[at], "answered", self.answered[at : at + 3]
        for one in self.refused:
            yield one.age_ms, "refused", one


@dataclass(frozen=True, slots=True)
class Grant:
    """What a shard may do now.

    `requests` may be sent within VALID_S. `caps` is the most that the shard may have spent in total, in picodollars and
    tokens; None means no cap. `words` are the settings that the shard is ordered to change, by key. `shrink` asks for
    fewer calls in flight. Nothing is granted for `held_s` seconds, for this `reason`. `stop` ends the run, with a code
    and a message. `short` is why the shard will never get what it needs. `state` is what is known about the API's
    limits, for display. `room`: the part may be sent. `is_too_large`: the refused part fits no queue. `queue` is what
    is known about the API's batch queue. `gold` has the counts of the other shards.
    """

    number: int
    requests: int = 0
    caps: tuple[int | None, int | None] = (None, None)
    shrink: bool = False
    held_s: float = 0.0
    reason: str = ""
    stop: tuple[str, str] | None = None
    short: str = ""
    words: dict[str, str] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    room: bool = False
    is_too_large: bool = False
    queue: dict[str, Any] | None = None
    gold: Sequence[int] | None = None

    def state_at(self, now: float) -> ResourceState:
        """Return what is known about the API's limits, with times on this process's clock."""
        if not self.state:
            return ResourceState()
        state = dict(self.state)
        since = state.pop("refused_since")
        rates: dict[str, Any] = {name: Rate(**state.pop(name)) for name in ("requests", "tokens")}
        return ResourceState(**state, **rates, refused_since=None if since is None else now - since)


@dataclass(frozen=True, slots=True)
class Job:
    """What all shards of a run have in common. `shards` is 0 until the first shard has reported the number.

    `digest` identifies the task and the input, and `dealing` the division into shards. A shard that was taken over gets
    a `fence` greater than that of its previous owner, and what it may have `spent`, in picodollars and tokens.
    """

    run_id: str
    shards: int
    digest: str
    dealing: str = ""
    fence: int = 0
    spent: tuple[int, int] = (0, 0)


def to_bytes(words: LeaseRequest | Grant | Job) -> bytes:
    """Write the message as JSON, without fields that have their default value."""
    usual = {one.name: one.default for one in fields(words)}
    return codec.dumps({name: value for name, value in asdict(words).items() if value != usual[name]})


def parse_request(data: bytes) -> LeaseRequest:
    """Parse a shard's request. Raises InputError if it is not valid."""
    request = _read(LeaseRequest, data)
    values = {name: getattr(request, name) for name in LeaseRequest.__slots__}
    wrong = [name for name in _COUNTS if not _are_counts([values[name]])]
    lists = {name: value for name in (*_MULTIPLES, *_SIZES) if (value := values[name]) is not None}
    for name, value in lists.items():
        if not _are_counts(value) or len(value) % _MULTIPLES.get(name, 1) or len(value) != _SIZES.get(name, len(value)):
            wrong.append(name)
    wrong += [name for name, kind in _TYPES.items() if type(values[name]) is not kind]
    if wrong:
        details = ", ".join(f"{name} = {values[name]!r:.80}" for name in wrong)
        raise InputError(f"a shard's request cannot be used: {details}")
    if request.limits is not None:
        limits = asdict(_build(ServerLimits, request.limits))
        if not all(one is None or type(one) in (int, float) for one in limits.values()):
            raise InputError("expected numbers for limits")
    return replace(request, refused=[_refusal(one) for one in request.refused])


def _refusal(values: Any) -> Refusal:
    one = _build(Refusal, values)
    wait_s = one.retry_after_s
    if (
        not _are_counts((one.age_ms, one.sent_age_ms))
        or not (isinstance(one.scope, str) and isinstance(one.day_limit, str))
        or not (wait_s is None or (type(wait_s) in (int, float) and wait_s >= 0))
    ):
        raise InputError("expected ages, a scope, and a wait in seconds for a refusal")
    return one


def _are_counts(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(type(one) is int and one >= 0 for one in values)


def parse_grant(data: bytes) -> Grant:
    """Parse a grant. Raises InputError if it is not valid."""
    return _read(Grant, data)


def parse_job(data: bytes) -> Job:
    """Parse the description of the run. Raises InputError if it is not valid."""
    return _read(Job, data)


def _read(kind: type[_T], data: bytes) -> _T:
    try:
        values = codec.loads(data)
    except ValueError as error:
        raise InputError(f"expected JSON: {error}") from error
    return _build(kind, values)


def _build(kind: type[_T], values: Any) -> _T:
    if not isinstance(values, Mapping):
        raise InputError(f"expected an object, got {str(values)[:80]!r}")
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"expected the fields of {kind.__name__}: {error}") from error
