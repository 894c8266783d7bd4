"""Defines replies, OpenAI's error object, and the formats of the APIs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.codec import dumps

Body = Mapping[str, Any]

JSON_TYPE = "application/json"
#: Rounding of binary fractions may leave a bucket this much below its promised level.
SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response without its common headers. `wire` names a fault that keeps it from arriving."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    wire: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error in OpenAI's form."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    def reply(self) -> Reply:
        """Return the error as it is sent."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return Reply(self.status, dumps({"error": error}), retry_after_s=self.retry_after_s)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ErrorReply:
    """Return a 400 about the request."""
    return ErrorReply(400, message, "invalid_request_error", param, code)


def whole_ms(seconds: float) -> int:
    """Return milliseconds, rounded up, so that a client that waits this long has waited long enough."""
    return max(0, math.ceil(seconds * 1000 - SLACK))


def retry_headers(seconds: float) -> dict[str, str]:
    """Return how long to wait, in milliseconds and in HTTP's whole seconds."""
    ms = whole_ms(seconds)
    return {"Retry-After": str(-(-ms // 1000)), "retry-after-ms": str(ms)}


@dataclass(frozen=True, slots=True)
class ApiFormat:
    """How an API writes its requests and answers.

    `read` converts a request to Chat Completions, or returns its error. `write` converts a completion to an answer to
    the original request. `named` translates an error about the request to the names of this API.
    """

    read: Callable[[Body], Body | ErrorReply]
    write: Callable[[Mapping[str, Any], Body], Mapping[str, Any]]
    named: Callable[[ErrorReply], ErrorReply]


CHAT = ApiFormat(lambda body: body, lambda completion, _: completion, lambda error: error)
