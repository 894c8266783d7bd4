"""The data that flows through a run: frozen classes without behavior beyond themselves."""

from __future__ import annotations

import enum
import functools
import operator
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

JSON = Any  #: What `codec.loads` returns: dict, list, str, int, float, bool, or None.


class Status(enum.StrEnum):
    """How a record ended."""

    #: The model gave a valid label.
    LABELLED = "labelled"
    #: The record was read or answered, but there is no valid label.
    REJECTED = "rejected"
    #: No answer ever came.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a record has no label: a short code, and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to label.

    `ordinal` is 0-based over all inputs of the run, and negative for gold that is mixed in. `line` is the 1-based line
    (for Parquet: row) in `source`. `digest` is a signed 64-bit hash of the content: equal digests mean equal fields, so
    it shows whether a record has changed. A record that cannot be read has a `problem`, and its fields are what could
    be recovered, as `{"raw": ...}`.
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
        """Whether the record is gold that measures the run, and not one of the records to label."""
        return self.ordinal < 0


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image, audio file, or document in a prompt. `kind` is image, audio, or document.

    `source` is the value in the record: a path, an https address, or a data URL. It is read just before the call.
    """

    kind: str
    source: str
    options: Mapping[str, JSON] = field(default_factory=dict)


class Blob:
    """Bytes in a message, sent as base64 after `prefix`.

    Its text form has only a name and a size, so no digest, log, or ledger contains the bytes.
    """

    __slots__ = ("data", "name", "prefix")

    def __init__(self, data: bytes, *, name: str, prefix: str = "") -> None:
        self.data = data
        self.name = name
        self.prefix = prefix

    def __str__(self) -> str:
        return f"[{self.name}, {len(self.data):,} bytes]"

    __repr__ = __str__


#: The parameter that names the service tier of a call, and the cheaper tier, which may have no room.
SERVICE_TIER, FLEX = "service_tier", "flex"

#: The parameters that limit the length of an answer. If a request has both, the first one counts.
ROOM_PARAMETERS = ("max_completion_tokens", "max_tokens")


def room_in(parameters: Mapping[str, JSON]) -> int | None:
    """Return the most tokens that an answer to such a request may have; None if nothing limits it."""
    for name in ROOM_PARAMETERS:
        value = parameters.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None


#: The `tool_choice` of a request that offers no function: the answer's content must be the arguments.
BY_SCHEMA = "schema"


@dataclass(frozen=True, slots=True)
class Request:
    """What the model is asked for one record.

    `messages`, `tools`, `tool_choice` (or BY_SCHEMA), and `parameters` are in the Chat Completions form. `size_tokens`
    is an estimate of the prompt plus the expected output. `digest` (16 bytes) is equal for identical requests.
    A content part `{"type": "attachment", "index": n}` in `messages` refers to `attachments[n]`. The request that is
    sent has the parts themselves instead, with a Blob for their bytes. `media_tokens` is the most that these can cost;
    `size_tokens` includes the estimate.
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
        """The most tokens that the answer may have; None if nothing limits it."""
        return room_in(self.parameters)


@dataclass(frozen=True, slots=True)
class Usage:
    """Model tokens of one or more calls.

    `cached` (read from the server's prompt cache) and `cache_write` (written to it) are parts of `prompt`; `reasoning`
    is a part of `completion`.
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
        """The constructor's arguments."""
        return self.prompt, self.completion, self.cached, self.reasoning, self.cache_write

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(operator.add, self.counts, other.counts))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*map(operator.sub, self.counts, other.counts))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call of an answer. `arguments` is the model's text, which may not be JSON.

    `readings` names what was accepted although the server did not send it in the right form.
    """

    id: str
    name: str
    arguments: str
    readings: tuple[str, ...] = ()


#: The finish_reason of an answer in which the server itself found no usable call; `text` is what the model wrote.
#: Groq reports it as a 400 with this name.
UNUSABLE_CALL = "tool_use_failed"
#: The finish_reason of an answer that a content filter removed.
FILTERED = "content_filter"


@dataclass(frozen=True, slots=True)
class CallbackContext:
    """The facts about the call that a callback receives.

    `idempotency_key` is the same whenever the callback receives the same call of the same record's answer again, and no
    other call has it. `turn` is 0-based; `tool` is the function's name.
    """

    idempotency_key: str
    turn: int
    tool: str


#: The key of an assistant's message that holds `Answer.items`. Only the API that made the items sends them.
ITEMS = "items"


@functools.lru_cache(maxsize=64)
def _words(finish_reason: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", finish_reason.lower()))


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of the model's answer that a label can be read from. The ledger saves them unchanged.

    `items` is the whole answer in the API's own form, if the next turn of a conversation must include more than the
    text and the calls, such as reasoning that only the server can read. Outcomes do not save it.
    """

    calls: tuple[ToolCall, ...] = ()
    text: str | None = None
    refusal: str | None = None
    finish_reason: str | None = None
    items: tuple[Mapping[str, JSON], ...] = ()

    @property
    def ending(self) -> frozenset[str]:
        """The words of the finish_reason in lowercase. Gemini, for example, sends `content_filter: SAFETY`."""
        return _words(self.finish_reason) if self.finish_reason else frozenset()

    @property
    def has_words(self) -> bool:
        """Whether the answer has a text that is not blank."""
        return bool(self.text and self.text.strip())


@dataclass(frozen=True, slots=True)
class ValidCall:
    """One valid call of an answer: the tool, the label in it, and what its callback returned.

    `extra` are further columns; `result` is what the model receives in a conversation. `readings` names what was
    accepted although it was not in the right form.
    """

    tool: str
    label: Mapping[str, JSON]
    call: ToolCall
    extra: Mapping[str, JSON] = field(default_factory=dict)
    result: JSON = None
    readings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelResult:
    """The label of a record. `rows` is None if the record is one row; otherwise `label` is common to each of `rows`."""

    label: Mapping[str, JSON]
    rows: tuple[Mapping[str, JSON], ...] | None = None


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The values of the `x-ratelimit-*` headers of an answer; None for an absent header. Times are in seconds."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None


def format_limit(limit: int | None, what: str) -> str:
    """Format a limit, like 200 requests; empty if it is unknown."""
    return f"{limit:,} {what}" if limit is not None and 0 < limit < 10**12 else ""


@dataclass(frozen=True, slots=True)
class Response:
    """One answered call.

    `service_tier` is the tier that the server reports. The caller computes `cost_usd`; None if it is unknown because
    there is no price, or because the answer does not report its usage.
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
    """An answer of a record that has not ended. The ledger has it before anything is done with it.

    `number` counts the record's answers from 0; `request_digest` is the digest of its first request. `fault` is the
    code of what was wrong with the answer, None if it was valid. `results` holds `{"extra": ..., "result": ...}` for
    each of its calls that a callback has answered so far. `calls` is how many calls it took. The usage and cost of
    `response`, `calls`, and `repairs` include earlier answers that were paid for in vain. `at` is a Unix time.
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
        """Return the answer with the cost of another one that nothing is made of, so that it stays counted."""
        cost_usd = add_usd(self.response.cost_usd, lost.cost_usd)
        response = replace(self.response, usage=self.response.usage + lost.usage, cost_usd=cost_usd)
        return replace(self, response=response, calls=self.calls + calls, repairs=self.repairs + repairs)


def add_usd(one: float | None, other: float | None) -> float | None:
    """Return the sum of both amounts; None if one of them is unknown."""
    return None if one is None or other is None else one + other


#: Sends a request that belongs to no record, and returns its usage. Raises a CallError.
Ping = Callable[[Request], Awaitable[Usage]]


@runtime_checkable
class Provider(Protocol):
    """Answers requests: an API, a substitute for one, or a wrapper around another provider."""

    @property
    def simulated(self) -> bool | None:
        """Whether the answers report that they are simulated; None if they have not reported it either way."""

    @property
    def ping(self) -> Ping | None:
        """Asks whether the server answers at all; None if there is nothing to ask."""

    async def __call__(self, request: Request) -> Response:
        """Return the answer. Raises a CallError; never retries."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one record ended: a row of the ledger.

    `label` holds the label columns (and a callback's extra columns) of a LABELLED record, otherwise None.
    `rows` is None if the record is one row; otherwise `label` is common to each of `rows`.
    `answer` is the last answer, saved so that it can be read again without a call.
    `copied_from` names the record whose identical request was asked instead of this one's. `asked_as` is the name that
    the record had when it was asked, if it has a new one since; callbacks know it by the old name.
    `finished_at` is seconds since 1970-01-01 UTC. `usage` and `cost_usd` are the sums over all answers, including those
    that were asked again; `cost_usd` is None if one of them is unknown.
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


#: The codes of records without a label, as in failed.csv, in the ledger, and for `retry --only`.
#: docs/failures.md explains each of them.
RECORD_CODES = frozenset(
    {
        "bad_request", "callback_error", "duplicate_key", "empty_text", "internal_error", "invalid_answer",
        "invalid_json", "invalid_label", "media_error", "no_key", "no_tool_call", "rate_limited", "record_deadline",
        "refused", "render_error", "timeout", "too_large", "truncated", "unavailable", "unfinished", "unreadable",
        "left_out",
    }
)  # fmt: skip

#: The problem of a record that `verify` reads and that the run does not take, by [input]. No outcome has it.
LEFT_OUT = "left_out"

#: No call was made for these. Asking again changes nothing while input and config are the same.
UNASKED_CODES = frozenset({"duplicate_key", "empty_text", "media_error", "no_key", "render_error", "unreadable"})


def is_left_out(record: Record) -> bool:
    """Whether the run does not take the record."""
    return record.problem is not None and record.problem.code == LEFT_OUT
