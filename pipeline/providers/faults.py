"""Foreign errors -> ours, by table. Nothing of the SDK, its HTTP library or its transport gets past this file.

The SDK wraps what its transport raises, so transport errors are judged by the innermost cause.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pipeline.errors import (
    CallError,
    CallTimeoutError,
    CredentialsError,
    QuotaError,
    RateLimitedError,
    RecordRefusedError,
    RequestShapeError,
    UnavailableError,
)
from pipeline.providers.headers import day_limit, retry_after_s

#: 429 and 402 bodies that no waiting mends.
QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated", "payment_required"}
)
#: 400 bodies that are about this record's content, not about the request's shape.
RECORD_CODES = frozenset(
    {
        "context_length_exceeded",
        "string_above_max_length",
        "content_policy_violation",
        "content_filter",
        "moderation_blocked",
        "invalid_prompt",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_url",
        "image_too_large",
        "image_parse_error",
        "unsupported_image",
        "invalid_base64",
        "invalid_audio",
        "unsupported_content",
    }
)
#: The Chat Completions parameters that are the same for every record.
SHAPE_PARAMS = re.compile(
    r"^(model|tools|tool_choice|parallel_tool_calls|response_format|temperature|top_p|seed|stop|n|logprobs|top_logprobs|"
    r"max_tokens|max_completion_tokens|reasoning_effort|service_tier|metadata|store|user|prompt_cache_key|verbosity|"
    r"presence_penalty|frequency_penalty|logit_bias|stream)\b"
)
#: Answers of a gateway that has waited for the model: it may have worked all the same, and be billed.
PERHAPS_BILLED = frozenset({408, 504})
#: So much of what a server said is told.
MOST_CHARS = 400
_KEY_SHAPE = re.compile(r"\bsk-[A-Za-z0-9_\-*]{6,}")


@cache
def foreign_errors() -> tuple[type[Exception], ...]:
    """The classes that a call may raise; asked for late, because importing the SDK takes half a second."""
    import aiohttp
    import httpx2
    import openai

    return (
        openai.OpenAIError,
        httpx2.HTTPError,
        httpx2.InvalidURL,
        httpx2.StreamError,
        aiohttp.ClientError,
        ssl.SSLError,
        OSError,  # TimeoutError is one
        EOFError,
    )


def translate(error: Exception, *, secret: str = "") -> CallError:
    """Our error for a foreign one. `secret` is cut out of every text."""
    import openai

    ours = _from_status(error) if isinstance(error, openai.APIStatusError) else _from_transport(error)
    # Cut only after scrubbing: the first half of a key is no longer known as one.
    ours.args = (scrub(str(ours), secret)[:MOST_CHARS],)
    return ours


def scrub(text: str, secret: str) -> str:
    """The text without the key or anything that looks like one."""
    if len(secret) >= 4:
        text = text.replace(secret, "***")
    return _KEY_SHAPE.sub("sk-***", text)


def _from_status(error: Any) -> CallError:
    status: int = error.status_code
    make = _BY_STATUS.get(status) or (_unavailable if status >= 500 or status < 400 else _bad_request)
    request_id = error.response.headers.get("x-request-id")
    ours = make(error)
    ours.status, ours.request_id = status, request_id
    ours.billed = status < 400 or status in PERHAPS_BILLED
    ours.retry_after_s = retry_after_s(error.response.headers)
    return ours


def _said(error: Any) -> str:
    """What the server said, in one line: `429 insufficient_quota: You exceeded ...`."""
    body = error.body if isinstance(error.body, Mapping) else {}
    message = body.get("message") if isinstance(body.get("message"), str) else str(error.body or error.message)
    text = " ".join(str(message)[:20_000].split())
    return f"{error.status_code} {_word(error.code) or _word(error.type)}: {text}".replace("  ", " ").replace(" :", ":")


def _word(value: Any) -> str:
    """A code, type or param of an error body. Servers put numbers, lists and objects there as well."""
    return str(value) if isinstance(value, str | int) else ""


def _rate_limited(error: Any) -> CallError:
    words = {_word(error.code), _word(error.type)}
    if words & QUOTA_CODES:
        return QuotaError(_said(error))
    told = day_limit(error.response.headers)
    return RateLimitedError(_said(error), scope="tokens" if "tokens" in words else "requests", day_limit=told)


def _bad_request(error: Any) -> CallError:
    code = _word(error.code)
    if code in RECORD_CODES:
        return RecordRefusedError(_said(error))
    if code in QUOTA_CODES:
        return QuotaError(_said(error))
    return RequestShapeError(_said(error), certain=bool(SHAPE_PARAMS.match(_word(error.param))))


def _unavailable(error: Any) -> CallError:
    return UnavailableError(_said(error))


def _credentials(error: Any) -> CallError:
    return CredentialsError(_said(error))


def _quota(error: Any) -> CallError:
    return QuotaError(_said(error))


def _too_large(error: Any) -> CallError:
    return RecordRefusedError(_said(error))


_BY_STATUS: Mapping[int, Callable[[Any], CallError]] = {
    400: _bad_request,
    401: _credentials,
    402: _quota,
    403: _credentials,
    404: _credentials,  # an unknown model, or an address that is no API
    405: _credentials,
    408: _unavailable,
    409: _unavailable,
    413: _too_large,
    422: _bad_request,
    425: _unavailable,
    429: _rate_limited,
}


def _from_transport(error: Exception) -> CallError:
    import aiohttp
    import httpx2

    cause = _innermost(error)
    said = " ".join(str(cause).split())
    what = f"{type(cause).__name__}: {said}" if said else type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError | ssl.CertificateError | aiohttp.ServerFingerprintMismatch):
        return CredentialsError(f"the server's certificate is not trusted: {what}")
    if isinstance(cause, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | httpx2.InvalidURL):
        return CredentialsError(f"model.base_url is not an address that can be called: {what}")
    if isinstance(cause, aiohttp.ConnectionTimeoutError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return UnavailableError(f"no connection in time: {what}")
    if isinstance(cause, TimeoutError | httpx2.TimeoutException):
        return CallTimeoutError(f"the server went silent: {what}", billed=True)
    return UnavailableError(f"the connection failed: {what}", billed=_was_connected(error))


def _was_connected(error: BaseException) -> bool:
    """Whether the request may have reached the server. What never left costs nothing, however long an outage is."""
    import aiohttp
    import httpx2

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, aiohttp.ClientConnectorError | httpx2.ConnectError):
            return False
        link = link.__cause__
    return True


def _innermost(error: Exception) -> Exception:
    """The first error of a chain of explicit causes that says something.

    Under a connection's timeout there is asyncio's own, which is that of any wait, and under that the cancel it used.
    """
    import httpx2

    while isinstance(cause := error.__cause__, Exception):
        if type(cause) is TimeoutError and isinstance(error, TimeoutError | httpx2.TimeoutException):
            break
        error = cause
    return error
