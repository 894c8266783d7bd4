"""The SDK's client, opened once a run: address, key and headers are minted here, and calls leave through its transport.

`create()` costs 13 to 16 times the CPU of the HTTP call itself (measured in benchmarks/), most of it in copying options
and building typed objects that a labelling run throws away. So the SDK decides once *what* is sent (address, key,
organisation, headers); each call then hands ready bytes to the transport under it. What the server refuses is read by
the SDK again: errors are its own classes until `faults` turns them into ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, UnavailableError
from pipeline.providers.faults import foreign_errors, scrub, translate
from pipeline.providers.pieces import Pieces

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from yarl import URL


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Where calls go and with what key. `api_key` never appears in a repr."""

    base_url: str | None = None
    api_key: str = field(default="", repr=False)
    organization: str | None = None
    project: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 60.0
    max_connections: int = 64


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the server says about a model. `shutdown_date` is as the server writes it, or None."""

    id: str
    shutdown_date: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A 2xx answer: raw headers as (name, value) byte pairs, and the content."""

    headers: Sequence[tuple[bytes, bytes]]
    content: bytes


def load_sdk() -> None:
    """Import what the first call would import: half a second, better spent at a time of one's own choosing."""
    import openai
    import openai.resources.chat

    import pipeline.providers.wire  # noqa: F401

    openai.AsyncOpenAI  # noqa: B018 - and this too


#: A connection that cannot be made in this part of the call's time is told as such: a dead network is an outage, and
#: must not look like a server that takes calls and is silent.
CONNECT_SHARE = 0.8


class Client:
    """An `AsyncOpenAI` with its retries off, and the lean road beside it."""

    def __init__(self, options: ClientOptions) -> None:
        import httpx2
        from multidict import CIMultiDict
        from openai import AsyncOpenAI, DefaultAioHttpClient, OpenAIError
        from yarl import URL

        from pipeline.providers.wire import Wire

        self._options = options
        # One connection a call in flight, and a few for probes.
        self._wire = Wire(options.max_connections + 8, connect_timeout_s=CONNECT_SHARE * options.timeout_s)
        try:
            self.sdk: AsyncOpenAI = AsyncOpenAI(
                api_key=options.api_key,
                base_url=options.base_url,
                organization=options.organization,
                project=options.project,
                default_headers=dict(options.headers),
                timeout=options.timeout_s,
                max_retries=0,  # ours know the limits, the outage and the quota; the SDK's do not
                http_client=DefaultAioHttpClient(transport=self._wire),
            )
            self._base_url = str(self.sdk.base_url).rstrip("/")
            URL(self._base_url)
        except (OpenAIError, httpx2.InvalidURL, ValueError) as error:
            raise ConfigError(f"model.base_url or the key cannot be used: {error}") from error
        minted = {**self.sdk.auth_headers, **self.sdk.default_headers}
        self._headers = CIMultiDict({name: value for name, value in minted.items() if isinstance(value, str)})
        for name, value in self._headers.items():
            if any(ord(letter) < 32 for letter in value):
                raise ConfigError(f"the header {name} holds a line break: look at the key's end and at model.headers")
        self._make_url = URL
        self._urls: dict[str, URL] = {}

    async def post(self, path: str, body: bytes | Pieces) -> Reply:
        """The server's 2xx answer to `body`. Raises a CallError for anything else."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self._make_url(self._base_url + path)
        try:
            status, headers, content = await self._wire.post(url, self._headers, body)
            if 200 <= status < 300:
                return Reply(headers, content)
            raise self._refusal(str(url), status, headers, content)
        except foreign_errors() as error:
            # From None: the SDK's error holds the whole body, which may hold the key, and a traceback would show it.
            raise translate(error, secret=self._options.api_key) from None

    def _refusal(self, url: str, status: int, headers: Sequence[tuple[bytes, bytes]], content: bytes) -> APIStatusError:
        """The SDK's own reading of a refusal: its class by the status; code, type and param from the body."""
        import httpx2

        from pipeline.providers.wire import as_response

        response = as_response(httpx2.Request("POST", url), status, headers, content)
        return self.sdk._make_status_error_from_response(response)

    async def model(self, name: str) -> ModelInfo:
        """The model, if the server has it for this key. Free of charge. Raises a CallError."""
        try:
            model: Any = await self.sdk.models.retrieve(name)
        except foreign_errors() as error:
            raise translate(error, secret=self._options.api_key) from None
        if not hasattr(model, "model_extra"):
            # The SDK passes a page through as its text: an address that is no API, often one without its /v1.
            told = scrub(str(model), self._options.api_key)[:80]
            raise UnavailableError(f"{self._base_url}/models/{name} is no model but {told!r}", status=200)
        extra = getattr(model, "model_extra", None) or {}
        shutdown = getattr(model, "shutdown_date", None) or extra.get("shutdown_date")
        return ModelInfo(id=str(getattr(model, "id", name)), shutdown_date=None if shutdown is None else str(shutdown))

    async def close(self) -> None:
        """Close all connections; may be called twice."""
        await self.sdk.close()
        await self._wire.aclose()
