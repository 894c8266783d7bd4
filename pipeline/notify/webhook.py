"""Posts to a webhook. Its address is a secret, so every reason is in our own words."""

import base64
import http.client
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from pipeline import codec
from pipeline.errors import ConfigError
from pipeline.records import JSON
from pipeline.version import __version__

#: If a server asks for a longer pause, the post is not retried.
LONGEST_WAIT_S = 30.0
#: Chat services truncate longer messages, and an environment variable has room for only 128 KiB.
TEXT_CHARS = 3_000


@dataclass(frozen=True, slots=True)
class Webhook:
    """A valid address, without the login that it may have contained."""

    url: str = field(repr=False)
    authorization: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class PostFailure:
    """Why a post failed. `passing`: another attempt may succeed, after `wait_s` or more."""

    text: str
    passing: bool
    wait_s: float = 0.0


def webhook_of(url: str | None) -> Webhook | None:
    """Check the address. Raises a ConfigError that does not show it."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(
            "notify.url must be a whole address that begins with http:// or https://; "
            "the value is not shown, because it may be a secret"
        )
    login, _, host = parts.netloc.rpartition("@")
    address = parts._replace(netloc=host, fragment="").geturl()
    token = base64.b64encode(unquote(login).encode()).decode()
    return Webhook(address, f"Basic {token}" if login else None)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which would send the facts elsewhere and turn the post into an empty GET."""

    def redirect_request(self, *_args: object, **_named: object) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for HTTP(S) only, with the environment's proxy."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _NoRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def post(webhook: Webhook, body: bytes, timeout_s: float) -> PostFailure | None:
    """Post once. Return None if it was accepted. Blocks. `timeout_s` limits each wait of the socket."""
    headers = {"Content-Type": "application/json", "User-Agent": f"labelpipe/{__version__}"}
    if webhook.authorization is not None:
        headers["Authorization"] = webhook.authorization
    request = urllib.request.Request(webhook.url, data=body, headers=headers, method="POST")  # noqa: S310 - checked
    try:
        with _opener().open(request, timeout=timeout_s):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return _refusal(error.code, error.headers.get("Retry-After"))
    except (OSError, http.client.HTTPException) as error:
        return PostFailure(_reason(error), passing=True)


def _refusal(status: int, retry_after: str | None) -> PostFailure:
    if 300 <= status < 400:
        return PostFailure(f"answered {status}: redirects are not followed", passing=False)
    passing = status >= 500 or status in {408, 425, 429}
    wait_s = float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0
    return PostFailure(f"answered {status}", passing and wait_s <= LONGEST_WAIT_S, wait_s)


def _reason(error: BaseException) -> str:
    """Explain it in our own words: a foreign text may repeat the address."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    for kind, words in _REASONS:
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return type(error).__name__


_REASONS: Sequence[tuple[type[BaseException], str]] = (
    (TimeoutError, "no answer in time"),
    (ConnectionRefusedError, "the connection was refused"),
    (ConnectionError, "the connection broke"),
    (socket.gaierror, "the host's name was not found"),
    (ssl.SSLCertVerificationError, "the certificate was not accepted"),
    (ssl.SSLError, "no secure connection"),
    (http.client.HTTPException, "the answer was no HTTP"),
)


def slack_body(message: Mapping[str, JSON]) -> bytes:
    """Return the body: the text for Slack and similar services, and the unchanged facts under "labelpipe".

    A text may repeat a server's, so it is escaped: `<!channel>` in it notifies nobody.
    """
    text = plain(str(message["text"]))
    for char, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, escaped)
    return codec.dumps({"text": text, "labelpipe": message})


def plain(text: str) -> str:
    """Return a text that every environment and service accepts."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")[:TEXT_CHARS]
