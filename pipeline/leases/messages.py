"""What a shard and the lease server say to each other: JSON over HTTP, one exchange at a time for each shard.

Times are ages in milliseconds, since no two machines have the same clock. Money is picodollars, so that sums are exact.
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

#: What a grant is worth: so long after it came, what is left of it goes back.
VALID_S = 1.0
#: What a request must have: whole numbers of 0 or more; lists of these, of a multiple of so many or of so many; types.
_COUNTS = ("shard", "shards", "number", "wants", "tokens", "unused", "in_flight")
_MULTIPLES = {"sent": 1, "answered": 3, "parts": 2}
_SIZES = {"spent": 2, "needs": 2, "room": 4, "refused_part": 3, "gold": 2}
_TYPES = {"corrected": int, "holds": bool, "proven": bool, "session": str}
_TYPES |= dict.fromkeys(("sent", "answered", "refused"), list)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429 that a shard got: how long ago, when its call had left, and what it said."""

    age_ms: int
    sent_age_ms: int
    scope: str = "requests"
    retry_after_s: float | None = None
    day_limit: str = ""

    def as_error(self) -> RateLimitedError:
        """The error that the limits judge."""
        return RateLimitedError(scope=self.scope, retry_after_s=self.retry_after_s, day_limit=self.day_limit)


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a shard asks for, and what has come of the grant before.

    It is `shard` of `shards`. `session` is another one for each process, `number` counts its exchanges: one that is
    asked again is answered as it was. `wants` requests of about `tokens` each; `unused` requests of the grants before
    were not sent. `sent` are the ages of calls that left; `answered` has age, age of sending and tokens used of each
    answer, in one list; `limits` is what the headers of the last one said. `corrected` tokens were estimated too much.
    `spent` is what the shard has spent at most, with what it `holds` for calls in flight; `needs` is that and what it
    must be able to set aside next: picodollars and tokens.
    `parts` are all its parts that may be in the server's queue of batches: number and tokens of each, in one list;
    `proven`: one of them has shown that the requests are right. `room` is the part that it wants to send: number,
    tokens, lines, and 1 where those count as requests of the day. `refused_part` is one for which the server had no
    room: number, tokens, lines. `gold` is how many labels of its gold records were right, and how many were compared.
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
        """What the headers said."""
        return None if self.limits is None else ServerLimits(**self.limits)

    def events(self) -> Iterator[tuple[int, str, Any]]:
        """What was reported: age in milliseconds, kind, values."""
        for age in self.sent:
            yield age, "sent", age
        for at in range(0, len(self.answered), 3):
            yield self.answered[at], "answered", self.answered[at : at + 3]
        for one in self.refused:
            yield one.age_ms, "refused", one


@dataclass(frozen=True, slots=True)
class Grant:
    """What a shard may do now.

    `words` are what it is ordered to set, by key.
    `requests` may leave within VALID_S. `caps` are what it may have spent in all, in picodollars and tokens; None: no
    cap. `shrink`: fewer calls should be in flight. `held_s` and `reason`: nothing is granted for so long. `stop`: the
    run is to end, as code and message. `short`: why what is needed will never be handed out. `state` is what is
    known of the server's limits, for the screen. `room`: the part may be sent; `is_too_large`: the one that was refused
    fits no queue. `queue` is what is known of the server's queue of batches. `gold` counts as in LeaseRequest, for the
    others.
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
        """What is known of the server's limits, at a moment of this process's clock."""
        if not self.state:
            return ResourceState()
        state = dict(self.state)
        since = state.pop("refused_since")
        rates: dict[str, Any] = {name: Rate(**state.pop(name)) for name in ("requests", "tokens")}
        return ResourceState(**state, **rates, refused_since=None if since is None else now - since)


@dataclass(frozen=True, slots=True)
class Job:
    """What all shards of a run have in common. `shards` is 0 as long as none has said how many there are.

    `digest` tells whether a shard's config asks what the others ask, `dealing` which time the run was dealt out. To a
    shard that was taken over: `fence` is greater than that of whoever had it before, and `spent` is what it may have
    spent, in picodollars and tokens.
    """

    run_id: str
    shards: int
    digest: str
    dealing: str = ""
    fence: int = 0
    spent: tuple[int, int] = (0, 0)


def to_bytes(words: LeaseRequest | Grant | Job) -> bytes:
    """As JSON; what is as it is without saying is left out."""
    usual = {one.name: one.default for one in fields(words)}
    return codec.dumps({name: value for name, value in asdict(words).items() if value != usual[name]})


def parse_request(data: bytes) -> LeaseRequest:
    """What a shard asks for. Raises InputError for what no shard of ours sends."""
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
    """What the lease server has said. Raises InputError for what is no grant."""
    return _read(Grant, data)


def parse_job(data: bytes) -> Job:
    """What the lease server says of the run. Raises InputError."""
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
