"""Opens the SDK's client once per run: it determines address, key, and headers, and calls use its transport.

`create()` costs 13 to 16 times the CPU of the HTTP call itself (measured in benchmarks/), mostly to copy options and to
build typed objects that a labeling run discards. So the SDK decides only once *what* is sent (address, key,
organization, headers). Each call then passes finished bytes to the transport below it. `errorbody` reads what the
server refuses, and `faults` judges it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl

from pipeline import codec
from pipeline.errors import CallError, ConfigError, NoCompletionError
from pipeline.providers.errorbody import read_body, read_error
from pipeline.providers.faults import foreign_errors, refusal, scrub, translate
from pipeline.providers.headers import named, says_simulated
from pipeline.providers.streamed_body import StreamedBody

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from yarl import URL


#: The names of headers that contain a secret.
SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|password|credential|session|signature", re.IGNORECASE)
#: A value that looks like a secret, whatever its header is called: one long word of letters and digits.
SECRET_VALUE = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w.+=~-]{12,}")
#: Redirects that keep method and body, and how many of them are followed.
KEEP_METHOD, MOST_REDIRECTS = frozenset({307, 308}), 5
#: A shorter value is part of too many words to remove it from a text. In "Bearer abc" the scheme is not a secret.
LEAST_SECRET_CHARS, LEAST_WORD_CHARS = 4, 8
PLAIN_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Where calls go, and the key, or the `token` function that returns one per call. A repr shows neither."""

    base_url: str | None = None
    api_key: str = field(default="", repr=False)
    token: Callable[[], Awaitable[str]] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 60.0
    max_connections: int = 64

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is removed from all messages: the key, and the headers' values and their long words, longest first."""
        values = {self.api_key, *self.headers.values()}
        words = {word for value in self.headers.values() for word in value.split() if len(word) >= LEAST_WORD_CHARS}
        return tuple(sorted((one for one in values | words if len(one) >= LEAST_SECRET_CHARS), key=len, reverse=True))

    @property
    def answer_secrets(self) -> tuple[str, ...]:
        """What is removed from each answer, whatever the request."""
        known = {self.api_key, *(value for name, value in self.headers.items() if SECRET_NAME.search(name))}
        words = {word for value in known for word in value.split() if len(word) >= LEAST_WORD_CHARS}
        return tuple(one for one in self.secrets if one in words or SECRET_VALUE.fullmatch(one))

    @property
    def answer_names(self) -> tuple[str, ...]:
        """What is removed from an answer if the request does not contain it: a name or an address may be a label.

        A short value, or a plain word, is part of too many labels.
        """
        names = (one for one in self.secrets if len(one) >= LEAST_WORD_CHARS and not PLAIN_WORD.fullmatch(one))
        return tuple(one for one in names if one not in self.answer_secrets)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the server reports about a model. `shutdown_date` is in the server's format, or None."""

    id: str
    shutdown_date: str | None


#: Raw headers as (name, value) byte pairs; and the result of a call: status, headers, content.
_Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
_Sent: TypeAlias = tuple[int, _Headers, bytes]


def load_sdk() -> None:
    """Import what the first call would import. It takes half a second, so the caller chooses when."""
    import openai
    import openai.resources.chat

    import pipeline.providers.wire  # noqa: F401

    openai.AsyncOpenAI  # noqa: B018 - and this too


#: If no connection is made within this share of the call's time, that is the error: a dead network is an outage, and
#: must not look like a server that accepts calls and stays silent.
CONNECT_SHARE = 0.8


class Client:
    """An `AsyncOpenAI` without retries, and a faster path for calls."""

    def __init__(self, options: ClientOptions) -> None:
        import httpx2
        from multidict import CIMultiDict
        from openai import AsyncOpenAI, DefaultAioHttpClient, OpenAIError
        from yarl import URL

        from pipeline.providers.wire import Wire, refuse_proxy

        self._options = options
        self._tokens: tuple[str, ...] = ()
        self._hide(())
        self._answer_names = [
            (form, codec.dumps(one)[1:-1]) for one in options.answer_names for form in _as_sent([one])
        ]
        # One connection per call in flight, and a few for probes.
        self._wire = Wire(options.max_connections + 8, connect_timeout_s=CONNECT_SHARE * options.timeout_s)
        # A query (`?api-version=...`) follows the path of each call, and is not part of it.
        base_url, _, query = (options.base_url or "").partition("#")[0].partition("?")
        try:
            self.sdk: AsyncOpenAI = AsyncOpenAI(
                api_key=options.api_key if options.token is None else self._fresh_token,
                base_url=base_url or None,
                default_query=dict(parse_qsl(query, keep_blank_values=True)),
                default_headers=dict(options.headers),
                timeout=options.timeout_s,
                max_retries=0,  # ours know the limits, outages, and quotas; the SDK's do not
                http_client=DefaultAioHttpClient(transport=self._wire, follow_redirects=False),
            )
            self._base_url = str(self.sdk.base_url).rstrip("/")
            self._query = f"?{query}" if query else ""
            refuse_proxy(URL(self._base_url))
        except (OpenAIError, httpx2.InvalidURL, ValueError) as error:
            raise ConfigError(f"model.base_url or the key cannot be used: {error}") from error
        minted = {**self.sdk.auth_headers, **self.sdk.default_headers}
        # X-Stainless headers describe the SDK's own way of calling.
        self._headers = CIMultiDict(
            (name, value)
            for name, value in minted.items()
            if isinstance(value, str) and (name in options.headers or not name.lower().startswith("x-stainless-"))
        )
        for name, value in self._headers.items():
            if any(ord(letter) < 32 for letter in value):
                raise ConfigError(f"the header {name} holds a line break: look at the key's end and at model.headers")
        self._make_url = URL
        self._urls: dict[str, URL] = {}

    def _hide(self, tokens: tuple[str, ...]) -> None:
        """Remove these tokens from all messages from now on, like the key."""
        self._tokens = tokens
        self.secrets = (*tokens, *self._options.secrets)
        self._answer_secrets = _as_sent([*tokens, *self._options.answer_secrets])

    async def _fresh_token(self) -> str:
        """Return the current token; empty if calls have a key."""
        if self._options.token is None:
            return ""
        token = await self._options.token()
        if token not in self._tokens[:1]:
            self._hide((token, *self._tokens[:1]))  # a late answer may still contain the previous one
            self._headers["Authorization"] = f"Bearer {token}"
        return token

    async def post(self, path: str, body: bytes | StreamedBody) -> tuple[_Headers, bytes]:
        """Return headers and content of the server's 2xx answer. Raises a CallError for anything else."""
        url = self._url(path)
        for _ in range(MOST_REDIRECTS):
            try:
                if self._options.token is not None:
                    await self._fresh_token()
                status, headers, content = await self._wire.post(url, self._headers, body)
            except foreign_errors() as error:
                # From None: the SDK's error has the whole body, which may contain the key, and tracebacks show it.
                raise translate(error, secrets=self.secrets, at=f"POST {self._base_url}{path}") from None
            # Follow a redirect that keeps the call unchanged and stays on the same host.
            target = same_host(url, named(headers).get("location")) if status in KEEP_METHOD else None
            if target is None:
                break
            url = target
        if not 200 <= status < 300:
            raise self._refusal((status, headers, content), f"POST {self._base_url}{path}")
        return headers, self._covered(content, body)

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self._make_url(f"{self._base_url}{path}{self._query}")
        return url

    async def _success(self, at: str, call: Callable[[], Awaitable[_Sent]]) -> tuple[_Headers, bytes]:
        """Return headers and content of a call. Raises a CallError if it is not a success."""
        try:
            await self._fresh_token()
            sent = await call()
        except foreign_errors() as error:
            raise translate(error, secrets=self.secrets, at=at) from None
        if 200 <= sent[0] < 300:
            return sent[1:]
        raise self._refusal(sent, at)

    def _covered(self, content: bytes, sent: bytes | StreamedBody) -> bytes:
        """Return an answer without the secrets: a model, or a server that echoes the request, may repeat them."""
        found = [secret for secret in self._answer_secrets if secret in content]
        for form, plain in self._answer_names:
            if form in content and not any(plain in text for text in _texts(sent)):
                found.append(form)
        for secret in found:
            content = content.replace(secret, b"***")
        return content

    def covered(self, content: bytes) -> bytes:
        """Return an answer without the secrets if the request is unknown."""
        return self._covered(content, content)

    def _refusal(self, sent: _Sent, at: str) -> CallError:
        status, headers, content = sent
        return refusal(status, named(headers), read_error(content), secrets=self.secrets, at=at)

    async def upload(self, path: str, file: Path, name: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """Upload a file in blocks, with form fields, and return the answer. Raises a CallError."""
        at = f"POST {self._base_url}{path}"
        url = self._url(path)
        _, content = await self._success(at, lambda: self._wire.upload(url, self._headers, file, name, fields))
        try:
            facts = codec.loads(content)
        except codec.JSONDecodeError:
            facts = None
        if not isinstance(facts, dict):
            raise NoCompletionError(f"{at} gives no object but {scrub(str(content[:80]), self.secrets)}", status=200)
        return facts

    async def download(self, path: str, to: Path) -> bool:
        """Download to a file in blocks, and return whether the content is simulated. Raises a CallError."""
        url = self._make_url(f"{self._base_url}{path}{self._query}")  # not cached: each file has its own
        headers, _ = await self._success(
            f"GET {self._base_url}{path}", lambda: self._wire.download(url, self._headers, to)
        )
        return says_simulated(headers)

    async def model(self, name: str) -> ModelInfo:
        """Return the model, if the server has it for this key. Free of charge. Raises a CallError."""
        try:
            model: Any = await self.sdk.models.retrieve(name)
        except foreign_errors() as error:
            raise translate(error, secrets=self.secrets, at=f"GET {self._base_url}/models/{name}") from None
        facts = model.to_dict() if hasattr(model, "to_dict") else model
        if isinstance(facts, dict) and isinstance(facts.get("id"), str):
            shutdown = facts.get("shutdown_date")
            return ModelInfo(id=facts["id"], shutdown_date=None if shutdown is None else str(shutdown))
        raise self._no_model(name, facts)

    async def list_batches(self) -> None:
        """Request the latest batch. Free of charge. Raises a CallError."""
        await self._list("batches", self.sdk.batches.list(limit=1))

    async def list_models(self) -> None:
        """Request the list of models. Free of charge. Raises a CallError."""
        await self._list("models", self.sdk.models.list())

    async def _list(self, of: str, page: Awaitable[Any]) -> None:
        try:
            listed = await page
        except foreign_errors() as error:
            raise translate(error, secrets=self.secrets, at=f"GET {self._base_url}/{of}") from None
        if not isinstance(getattr(listed, "data", None), list):
            raise NoCompletionError(f"{self._base_url}/{of} is no list of {of}", status=200)

    def _no_model(self, name: str, facts: Any) -> CallError:
        """Return the error for an answer that is not a model. The SDK returns a page as text: it is not an API."""
        at = f"{self._base_url}/models/{name}"
        if isinstance(facts, dict) and facts.get("error"):
            return refusal(200, {}, read_body({"error": facts["error"]}), secrets=self.secrets, at=f"GET {at}")
        message = scrub(str(facts), self.secrets)[:80]
        return NoCompletionError(f"{at} is no model but {message!r}", status=200)

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        await self.sdk.close()
        await self._wire.aclose()


def _texts(sent: bytes | StreamedBody) -> Sequence[bytes]:
    return (sent,) if isinstance(sent, bytes) else sent.texts


def _as_sent(secrets: Sequence[str]) -> list[bytes]:
    """Return the secrets in all forms of JSON, and of JSON in a JSON text, like arguments."""
    spelled = set(secrets)
    for _ in range(2):
        spelled |= {form for one in spelled for form in (codec.dumps(one).decode()[1:-1], one.replace("/", "\\/"))}
    return sorted((one.encode() for one in spelled), key=len, reverse=True)


def same_host(url: URL, location: str | None) -> URL | None:
    """Return the target of a redirect if it is on the same host and does not give up TLS, else None."""
    try:
        target = url.join(type(url)(location or ""))
        ports = {url.port, target.port}
    except ValueError:
        return None
    upgraded = (url.scheme, target.scheme) == ("http", "https")
    same = url.host == target.host and (upgraded or (url.scheme == target.scheme and len(ports) == 1))
    return target if location and same else None
