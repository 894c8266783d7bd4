"""What the endpoint sends: a reply, OpenAI's error object, and how each API writes its requests and answers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.codec import dumps

Body = Mapping[str, Any]

JSON_TYPE = "application/json"
#: rounding of binary fractions may leave a bucket this much short of what it was promised to hold
SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer but for the headers that every answer has; `wire` names a fault that keeps it from arriving."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    wire: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error in OpenAI's words."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    def reply(self) -> Reply:
        """The error as it is sent."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return Reply(self.status, dumps({"error": error}), retry_after_s=self.retry_after_s)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ErrorReply:
    """A 400 about the request."""
    return ErrorReply(400, message, "invalid_request_error", param, code)


def whole_ms(seconds: float) -> int:
    """Milliseconds, rounded up: who waits so long has waited long enough."""
    return max(0, math.ceil(seconds * 1000 - SLACK))


def retry_headers(seconds: float) -> dict[str, str]:
    """How long to wait, to the millisecond, and in the whole seconds that HTTP knows."""
    ms = whole_ms(seconds)
    return {"Retry-After": str(-(-ms // 1000)), "retry-after-ms": str(ms)}


@dataclass(frozen=True, slots=True)
class ApiFormat:
    """`read` gives the request of Chat Completions, or what is wrong with it; `write` the answer for a completion and
    the request as it came; `named` says an error about the request in this API's names.
    """

    read: Callable[[Body], Body | ErrorReply]
    write: Callable[[Mapping[str, Any], Body], Mapping[str, Any]]
    named: Callable[[ErrorReply], ErrorReply]


CHAT = ApiFormat(lambda body: body, lambda completion, _: completion, lambda error: error)
