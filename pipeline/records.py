"""The nouns that flow through a run: frozen data, no behaviour beyond itself."""

from __future__ import annotations

import enum
import functools
import operator
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

JSON = Any  #: what `codec.loads` gives: dict, list, str, int, float, bool or None


class Status(enum.StrEnum):
    """How a record ended."""

    #: a valid label was given
    LABELLED = "labelled"
    #: it was read or answered, but no valid label came of it
    REJECTED = "rejected"
    #: no answer ever came
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a record has no label: a short code and a sentence for a person."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to label.

    `ordinal` is 0-based over all the run's inputs, and below 0 for gold that is mixed into them; `line` is the 1-based
    line (for Parquet: row) in `source`; `digest` is a signed 64-bit hash of the content, by which a changed record is
    noticed: equal ones mean equal fields. A record that could not be read has a `problem`; its fields are then what
    could be saved of it, as `{"raw": ...}`.
    """

    source: str
    ordinal: int
    key: str
    fields: Mapping[str, JSON]
    line: int
    digest: int
    problem: Problem | None = None

    @property
    def is_canary(self) -> bool:
        """Whether it is gold, asked to measure the run, and no part of what the run labels."""
        return self.ordinal < 0


@dataclass(frozen=True, slots=True)
class Attachment:
    """A picture, sound or document that a prompt shows. `kind` is image, audio or document.

    `source` is what the record says: a path, an https address or a data URL. It is read just before the call.
    """

    kind: str
    source: str
    options: Mapping[str, JSON] = field(default_factory=dict)


class Blob:
    """Bytes in a message, which go out as base64 after `prefix`.

    As text it is its name and size only: no digest, log or ledger ever holds the bytes.
    """

    __slots__ = ("data", "name", "prefix")

    def __init__(self, data: bytes, *, name: str, prefix: str = "") -> None:
        self.data = data
        self.name = name
        self.prefix = prefix

    def __str__(self) -> str:
        return f"[{self.name}, {len(self.data):,} bytes]"

    __repr__ = __str__


#: The parameter that names the tier a call is to be served at, and the cheaper tier that may have no room.
SERVICE_TIER, FLEX = "service_tier", "flex"

#: The parameters that bound the length of an answer; where a request has both, the first one counts.
ROOM_PARAMETERS = ("max_completion_tokens", "max_tokens")


def room_in(parameters: Mapping[str, JSON]) -> int | None:
    """The most tokens that an answer to a request with these parameters may have; None where nothing bounds it."""
    for name in ROOM_PARAMETERS:
        value = parameters.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None


#: The `tool_choice` of a request whose function is not offered: the answer's content is to be its arguments.
BY_SCHEMA = "schema"


@dataclass(frozen=True, slots=True)
class Request:
    """What the model is asked for one record.

    `messages`, `tools`, `tool_choice` (or BY_SCHEMA) and `parameters` are in the Chat Completions form. `size_tokens`
    is an estimate of prompt plus expected output. `digest` (16 bytes) is equal for requests that are identical.
    In `messages` a content part `{"type": "attachment", "index": n}` stands for `attachments[n]`; in the request that
    is really sent the parts themselves stand there, with a Blob for their bytes. `media_tokens` is what these can cost
    at the most; `size_tokens` holds the estimate of it.
    """

    record: Record
    model: str
    messages: tuple[Mapping[str, JSON], ...]
    tools: tuple[Mapping[str, JSON], ...]
    tool_choice: JSON
    parameters: Mapping[str, JSON]
    size_tokens: int
    digest: bytes
    attachments: tuple[Attachment, ...] = ()
    media_tokens: int = 0

    @property
    def room(self) -> int | None:
        """The most tokens that its answer may have; None where nothing bounds it."""
        return room_in(self.parameters)


@dataclass(frozen=True, slots=True)
class Usage:
    """Model tokens of one or more calls.

    `cached` (read from the server's prompt cache) and `cache_write` (written to it) are parts of `prompt`, `reasoning`
    is part of `completion`.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    cache_write: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    @property
    def counts(self) -> tuple[int, ...]:
        """The arguments that made it."""
        return self.prompt, self.completion, self.cached, self.reasoning, self.cache_write

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(operator.add, self.counts, other.counts))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*map(operator.sub, self.counts, other.counts))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call of an answer. `arguments` is the model's text: never trusted to be JSON.

    `readings` names what was read in it although the server did not send it as it should.
    """

    id: str
    name: str
    arguments: str
    readings: tuple[str, ...] = ()


#: The finish_reason of an answer in which the server itself found no call that it could hand on; `text` is what the
#: model wrote. Groq says so by a 400 of this name.
UNUSABLE_CALL = "tool_use_failed"
#: The finish_reason of an answer that a content filter took.
FILTERED = "content_filter"


@dataclass(frozen=True, slots=True)
class CallbackContext:
    """What a callback is told about the call that it answers.

    `idempotency_key` is the same whenever the same call of the same record's answer is handed to the callback again,
    and no other call has it. `turn` is 0-based; `tool` is the function's name.
    """

    idempotency_key: str
    turn: int
    tool: str


#: The key of an assistant's message that holds `Answer.items`. Only the dialect that made them sends them.
ITEMS = "items"


@functools.lru_cache(maxsize=64)
def _words(finish_reason: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", finish_reason.lower()))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, as far as a label can be read from it; kept in the ledger as it came.

    `items` is the whole of it in the API's own form, where the next turn of a conversation must hold more than the text
    and the calls: reasoning that only the server can read. No outcome keeps them.
    """

    calls: tuple[ToolCall, ...] = ()
    text: str | None = None
    refusal: str | None = None
    finish_reason: str | None = None
    items: tuple[Mapping[str, JSON], ...] = ()

    @property
    def ending(self) -> frozenset[str]:
        """The words of the finish_reason, in lower case: Gemini says `content_filter: SAFETY`."""
        return _words(self.finish_reason) if self.finish_reason else frozenset()

    @property
    def has_words(self) -> bool:
        """Whether it holds a text, not only blanks."""
        return bool(self.text and self.text.strip())


@dataclass(frozen=True, slots=True)
class ValidCall:
    """One valid call of an answer: the tool, the label in it, and what its callback gave back.

    `extra` are further columns; `result` is what the model is told of it in a conversation. `readings` names what was
    not as it should be and was read all the same.
    """

    tool: str
    label: Mapping[str, JSON]
    call: ToolCall
    extra: Mapping[str, JSON] = field(default_factory=dict)
    result: JSON = None
    readings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What a record came to. `rows` is None where it is one row; else each is a row to which `label` is common."""

    label: Mapping[str, JSON]
    rows: tuple[Mapping[str, JSON], ...] | None = None


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the `x-ratelimit-*` headers of an answer say. None where a header is absent. Times in seconds."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None


def format_limit(limit: int | None, what: str) -> str:
    """A limit in words, like 200 requests; empty where it is not known."""
    return f"{limit:,} {what}" if limit is not None and 0 < limit < 10**12 else ""


@dataclass(frozen=True, slots=True)
class Response:
    """One answered call.

    `service_tier` is the tier that the server says it used. `cost_usd` is worked out by whoever made the call; None
    where nobody knows it: no price, or an answer that does not tell its usage.
    """

    answer: Answer
    usage: Usage
    model: str
    request_id: str | None = None
    latency_s: float = 0.0
    limits: ServerLimits | None = None
    service_tier: str | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """An answer of a record that is not at its end: in the ledger before anything is done with it.

    `number` counts its record's answers from 0; `request_digest` is that of the record's first request. `fault` is the
    code of what was wrong with it, None where it was valid. `results` holds, for each of its calls that a callback has
    answered so far, `{"extra": ..., "result": ...}`. `calls` is how many calls it took to get it. What `response` has
    used and cost, `calls` and `repairs` include answers that were paid for in vain before it. `at` is a Unix time.
    """

    key: str
    number: int
    request_digest: bytes
    response: Response
    calls: int
    at: float
    fault: str | None = None
    results: tuple[Mapping[str, JSON], ...] = ()
    repairs: int = 0

    def carrying(self, lost: Response, calls: int = 0, repairs: int = 0) -> SavedAnswer:
        """With what an answer took that nothing is made of: it stays counted."""
        cost_usd = add_usd(self.response.cost_usd, lost.cost_usd)
        response = replace(self.response, usage=self.response.usage + lost.usage, cost_usd=cost_usd)
        return replace(self, response=response, calls=self.calls + calls, repairs=self.repairs + repairs)


def add_usd(one: float | None, other: float | None) -> float | None:
    """Both amounts together; None where one of them is not known."""
    return None if one is None or other is None else one + other


#: Sends a request that is about no record, and gives what it used. Raises a CallError.
Ping = Callable[[Request], Awaitable[Usage]]


@runtime_checkable
class Provider(Protocol):
    """Who answers requests: an API, what stands in its place, or one of these with something around it."""

    @property
    def simulated(self) -> bool | None:
        """Whether the answers say that they are simulated; None where they have not said it either way."""

    @property
    def ping(self) -> Ping | None:
        """Asks whether the server answers at all; None where nobody can be asked."""

    async def __call__(self, request: Request) -> Response:
        """The answer. Raises a CallError; never retries."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one record ended: the ledger's row.

    `label` holds the label columns (and a callback's extra columns) of a LABELLED record, else None.
    `rows` is None where a record is one row; else each is a row of its own, to which `label` is common.
    `answer` is the last answer that came, kept so that it can be read again without a call.
    `copied_from` names the record whose identical request was asked instead of this one's. `asked_as` is the name that
    the record had when it was asked, where it has another one since: callbacks know it by that.
    `finished_at` is seconds since 1970-01-01 UTC. `usage` and `cost_usd` are the sums over all its answers, those that
    were asked again included; `cost_usd` is None where that of one of them is unknown.
    """

    record: Record
    status: Status
    label: Mapping[str, JSON] | None = None
    rows: tuple[Mapping[str, JSON], ...] | None = None
    problem: Problem | None = None
    answer: Answer | None = None
    request_digest: bytes | None = None
    attempts: int = 0
    repairs: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    latency_s: float = 0.0
    model: str | None = None
    request_id: str | None = None
    finished_at: float = 0.0
    copied_from: str | None = None
    asked_as: str | None = None


#: The codes that a record without a label can have, in failed.csv, in the ledger and for `retry --only`.
#: docs/failures.md says what each means.
RECORD_CODES = frozenset(
    {
        "bad_request", "callback_error", "duplicate_key", "empty_text", "internal_error", "invalid_answer",
        "invalid_json", "invalid_label", "media_error", "no_key", "no_tool_call", "rate_limited", "record_deadline",
        "refused", "render_error", "timeout", "too_large", "truncated", "unavailable", "unfinished", "unreadable",
        "left_out",
    }
)  # fmt: skip

#: The problem of a record that `verify` reads and the run does not take, as [input] says. No outcome has it.
LEFT_OUT = "left_out"

#: No call was made for these: asking again changes nothing, as long as input and config are the same.
UNASKED_CODES = frozenset({"duplicate_key", "empty_text", "media_error", "no_key", "render_error", "unreadable"})


def is_left_out(record: Record) -> bool:
    """Whether the run does not take the record."""
    return record.problem is not None and record.problem.code == LEFT_OUT
