"""Translates foreign errors into ours, by tables. Nothing of the SDK, its HTTP library, or its transport gets past it.

An answer that is an error is judged by its body first, and by its status if the body contains nothing known: errors
come inside a 200, and under the status of a gateway that could not read them. The SDK wraps what its transport raises,
so transport errors are judged by the innermost cause.
"""

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from pipeline.errors import (
    CallError,
    CallTimeoutError,
    CredentialsError,
    NoCompletionError,
    NoHostError,
    QuotaError,
    RateLimitedError,
    RecordRefusedError,
    RequestShapeError,
    TooLargeError,
    UnavailableError,
    UnknownRefusalError,
    UnusableCallError,
)
from pipeline.providers import error_patterns
from pipeline.providers.errorbody import ErrorFacts, read_error
from pipeline.providers.headers import day_limit, duration_s, retry_after_s
from pipeline.terminal import printable

#: Statuses of a gateway that has waited for the model, which may have worked anyway and be billed.
PERHAPS_BILLED = frozenset({408, 504})
#: The most characters of a server's message.
MOST_CHARS = 400
_KEY_SHAPE = re.compile(r"\bsk-[A-Za-z0-9_\-*]{6,}")


@cache
def foreign_errors() -> tuple[type[Exception], ...]:
    """Return the classes that a call may raise. Called late, because importing the SDK takes half a second."""
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
        OSError,  # includes TimeoutError
        EOFError,
    )


def translate(error: Exception, *, secrets: Sequence[str] = (), at: str = "") -> CallError:
    """Return our error for a foreign one, with `secrets` removed from all text. `at` is the address of the call."""
    import openai

    if isinstance(error, openai.APIStatusError):
        answer = error.response
        return refusal(answer.status_code, dict(answer.headers), read_error(answer.content), secrets=secrets, at=at)
    return _clean(_from_transport(error), secrets, at)


def refusal(
    status: int, headers: Mapping[str, str], facts: ErrorFacts, *, secrets: Sequence[str] = (), at: str = ""
) -> CallError:
    """Return our error for an answer that is one: a status from 300 on, or a success with an error in it.

    The names of `headers` are in lowercase.
    """
    if 300 <= status < 400:
        return _clean(_moved(status, headers.get("location", "")), secrets, at)
    fields = {**facts.fields, **headers}
    counts = _status_of(status, facts)
    ours = _judged(counts, fields, facts, sure=status < 300 and counts in _BY_NUMBER)
    code = "" if facts.code == str(status) else facts.code
    params = [name for name in dict.fromkeys(facts.params) if name not in facts.message_or_excerpt]
    about = f" ({', '.join(params[:3])})" if params else ""
    what = f"a {status} with an error in it: {code}" if status < 300 else f"{status} {code}"
    # Some servers begin the body with the status, as in "404: Not Found".
    message = re.sub(rf"^{status}:\s*", "", facts.message_or_excerpt) or facts.message_or_excerpt
    ours.args = (f"{what.strip(' :')}: {message}{about}",)
    request_id = headers.get("x-request-id")
    ours.status, ours.request_id = counts, None if request_id is None else scrub(request_id, secrets)
    ours.billed |= status < 300 or status in PERHAPS_BILLED
    ours.retry_after_s = _wait_s(fields, facts)
    ours.server_message = facts.text if facts.is_api or counts == 429 else ""
    ours.has_no_room = error_patterns.NO_ROOM.matches(status, facts)
    return _clean(ours, secrets, at)


def _moved(status: int, location: str) -> CallError:
    """Return the error for a redirect to another host, or from POST to GET."""
    return CredentialsError(f"{status}: the server redirects calls to {location or 'nowhere'}", status=status)


def _clean(ours: CallError, secrets: Sequence[str], at: str) -> CallError:
    # Cut only after scrubbing, because half a key would not be recognized.
    message = scrub(" ".join(str(ours).split()), secrets)[:MOST_CHARS]
    # If the address, the model, or the key is wrong, the address of the call helps to find out.
    ours.args = (
        f"{message} ({scrub(at, secrets)[:MOST_CHARS]})" if at and isinstance(ours, CredentialsError) else message,
    )
    return ours


def scrub(text: str, secrets: Sequence[str]) -> str:
    """Remove the secrets and anything that looks like a key from the text, and escape terminal control characters."""
    for secret in secrets:
        text = text.replace(secret, "***")
    if "sk-" in text:
        text = _KEY_SHAPE.sub("sk-***", text)
    return printable(text)


def _status_of(status: int, facts: ErrorFacts) -> int:
    """Return the status that counts: the body's inside a 200, or a limit or a bill that a gateway's status hides."""
    if status < 300:
        return next(iter(facts.statuses), status)
    hidden = [one for one in facts.statuses if one in (402, 429)]
    return hidden[0] if hidden and status in _HIDING else status


#: Statuses under which gateways were seen to pass on another server's 402 or 429.
_HIDING = frozenset({400, 422, 500, 502, 503})


def _judged(status: int, headers: Mapping[str, str], facts: ErrorFacts, *, sure: bool) -> CallError:
    """Return the error by the body or, if that contains nothing known, by the status.

    `sure`: the body itself contains this number, so its codes may refine it, but not its words.
    """
    is_larger = status == 429 and error_patterns.says_it_is_larger(facts.text)
    if is_larger or (status in (400, 413, 429) and error_patterns.is_above_limit(facts.text)):
        return TooLargeError()
    if error_patterns.UNUSABLE_CALL.matches(status, facts):
        return UnusableCallError(generated=facts.generated or "")
    for pattern, make in _BY_PATTERN:
        if pattern.codes & facts.words or (not sure and pattern.matches(status, facts)):
            return make(status, headers, facts)
    if sure:
        return _BY_NUMBER[status](status, headers, facts)
    if not facts.is_api and status in (400, 415, 422):
        return UnknownRefusalError()
    if status < 300 and facts.words & error_patterns.BAD_REQUEST:
        return _bad_request(status, headers, facts)
    make_by_status = _BY_STATUS.get(status) or (_unavailable if status >= 500 or status < 300 else _unknown)
    return make_by_status(status, headers, facts)


def _wait_s(headers: Mapping[str, str], facts: ErrorFacts) -> float | None:
    found = retry_after_s(headers)
    return found if found is not None else duration_s(error_patterns.again_after(facts.text))


def _rate_limited(_status: int, headers: Mapping[str, str], facts: ErrorFacts) -> CallError:
    scope = "tokens" if "tokens" in facts.words or "TPM" in facts.text else "requests"
    day = day_limit(headers)
    is_daily = error_patterns.DAY.matches(429, facts) or any("perday" in word for word in facts.words)
    if is_daily and (_wait_s(headers, facts) or 0.0) < LEAST_DAY_WAIT_S:
        # Its end is unknown, and a wait of minutes does not help.
        return QuotaError()
    return RateLimitedError(scope=scope, day_limit=day, is_of_size=error_patterns.is_of_size(facts.text))


#: A day limit may be a sliding one, whose waits are minutes. A wait of seconds does not mean the day.
LEAST_DAY_WAIT_S = 120.0


def _quota(_status: int, _headers: Mapping[str, str], facts: ErrorFacts) -> CallError:
    # At Alibaba, this code is the limit of tokens per minute (its page on rate limits).
    if "insufficient_quota" in facts.words and _ALIBABA.search(facts.text):
        return RateLimitedError(scope="tokens")
    return QuotaError()


_ALIBABA = re.compile(r"aliyun|alibabacloud|dashscope", re.IGNORECASE)


def _content(status: int, headers: Mapping[str, str], facts: ErrorFacts) -> CallError:
    is_account = not error_patterns.CONTENT.codes & facts.words and error_patterns.ACCOUNT.search(facts.text)
    return CredentialsError() if is_account else RecordRefusedError()


def _length(_status: int, _headers: Mapping[str, str], facts: ErrorFacts) -> CallError:
    if error_patterns.asks_for_more_than_fits(facts.text):
        return RequestShapeError(certain=True)
    return RecordRefusedError()


def _bad_request(_status: int, _headers: Mapping[str, str], facts: ErrorFacts) -> CallError:
    return RequestShapeError(certain=any(error_patterns.SHAPE_PARAMS.match(param) for param in facts.params))


def _record(_status: int, _headers: Mapping[str, str], _facts: ErrorFacts) -> CallError:
    return RecordRefusedError()


def _unavailable(_status: int, _headers: Mapping[str, str], _facts: ErrorFacts) -> CallError:
    return UnavailableError()


def _unknown(_status: int, _headers: Mapping[str, str], _facts: ErrorFacts) -> CallError:
    return UnknownRefusalError()


def _credentials(_status: int, _headers: Mapping[str, str], _facts: ErrorFacts) -> CallError:
    return CredentialsError()


_Make = Callable[[int, Mapping[str, str], ErrorFacts], CallError]
#: The first match counts.
_BY_PATTERN: Sequence[tuple[error_patterns.ErrorPattern, _Make]] = (
    (error_patterns.QUOTA, _quota),
    (error_patterns.LENGTH, _length),
    (error_patterns.CONTENT, _content),
    (error_patterns.MEDIA, _record),
    (error_patterns.USED_UP, _quota),
    (error_patterns.RATE, _rate_limited),
    (error_patterns.CREDENTIALS, _credentials),
)
#: The meaning of the number in `error.code` of a success. Gateways that answer this way use 403 for moderation.
_BY_NUMBER: Mapping[int, _Make] = {401: _credentials, 402: _quota, 403: _record, 429: _rate_limited}
_BY_STATUS: Mapping[int, _Make] = {
    400: _bad_request,
    401: _credentials,
    402: _quota,
    403: _credentials,
    404: _credentials,  # an unknown model, or an address that is not an API
    405: _credentials,
    408: _unavailable,
    409: _unavailable,
    410: _credentials,
    413: _record,
    414: _record,
    415: _bad_request,
    422: _bad_request,
    425: _unavailable,
    429: _rate_limited,
    431: _bad_request,  # all calls have the same headers
    451: _bad_request,  # a country, or a text
}


def _from_transport(error: Exception) -> CallError:
    import aiohttp
    import httpx2

    cause = _innermost(error)
    message = " ".join(str(cause).split())
    what = f"{type(cause).__name__}: {message}" if message else type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError | ssl.CertificateError | aiohttp.ServerFingerprintMismatch):
        return CredentialsError(f"the server's certificate is not trusted: {what}")
    if isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None) in _NO_TLS:
        return CredentialsError(f"the server does not speak TLS: {what}")
    if _TLS_ALERT in message:
        return CredentialsError(f"the server speaks TLS but was called without it: {what}")
    if isinstance(cause, aiohttp.http_exceptions.ContentEncodingError) or "decode content-encoding" in message:
        return NoCompletionError(f"an answer that cannot be decompressed: {what}", status=200, billed=True)
    if isinstance(cause, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | httpx2.InvalidURL):
        return CredentialsError(f"model.base_url is not an address that can be called: {what}")
    if isinstance(cause, aiohttp.ConnectionTimeoutError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return UnavailableError(f"no connection in time: {what}")
    if isinstance(cause, TimeoutError | httpx2.TimeoutException):
        return CallTimeoutError(f"the server went silent: {what}", billed=True)
    kind = NoHostError if _missing_host(error) else UnavailableError
    return kind(f"{_what_failed(error)}: {what}", billed=_was_connected(error))


#: OpenSSL's reasons for an answer that is not TLS.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"})
#: The beginning of a TLS server's answer to a call without TLS, as aiohttp shows the bytes.
_TLS_ALERT = "\\x15\\x03"


def _what_failed(error: Exception) -> str:
    import aiohttp

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
            return "the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) failed"
        link = link.__cause__
    host = _missing_host(error)
    return f"there is no host {host}" if host else "the connection failed"


def _missing_host(error: Exception) -> str | None:
    """Return the host that does not resolve, if any."""
    import aiohttp

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, aiohttp.ClientConnectorDNSError):
            return link.host
        link = link.__cause__
    return None


def _was_connected(error: BaseException) -> bool:
    """Whether the request may have reached the server. If not, it costs nothing, however long an outage is."""
    import aiohttp
    import httpx2

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, aiohttp.ClientConnectorError | httpx2.ConnectError):
            return False
        link = link.__cause__
    return True


def _innermost(error: Exception) -> Exception:
    """Return the innermost informative error of a chain of explicit causes.

    Below a connection's timeout is asyncio's own, which any wait can raise, and below that the cancel that it used.
    """
    import httpx2

    while isinstance(cause := error.__cause__, Exception):
        if type(cause) is TimeoutError and isinstance(error, TimeoutError | httpx2.TimeoutException):
            break
        error = cause
    return error
