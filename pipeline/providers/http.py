"""Makes one HTTP call per request, in the format of one API."""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from pipeline import codec
from pipeline.errors import UnusableCallError
from pipeline.providers.api import Api
from pipeline.providers.chat import CHAT
from pipeline.providers.client import Client, ClientOptions, ModelInfo
from pipeline.providers.faults import scrub
from pipeline.providers.forms import as_call, asked_as
from pipeline.providers.headers import request_id_and_limits, says_simulated
from pipeline.providers.streamed_body import streamed_body
from pipeline.records import JSON, UNUSABLE_CALL, Answer, Request, Response, Usage

#: Returns fields to add to the body's `metadata`, for the rehearsal endpoint.
Annotate = Callable[[Request], Mapping[str, str]]
#: The most characters to keep of a server's name for a call or a model.
MOST_ID_CHARS = 200


class HttpProvider:
    """Answers requests by calls of one API. `forms` has the form of the call for each model (see module `forms`)."""

    def __init__(
        self,
        options: ClientOptions,
        api: Api = CHAT,
        *,
        annotate: Annotate | None = None,
        forms: Mapping[str, str] | None = None,
    ) -> None:
        self._options = options
        self.api = api
        self._annotate = annotate
        self._forms = forms or {}
        self._client: Client | None = None
        #: whether the answers report that they are simulated; None before the first one
        self.simulated: bool | None = None

    @property
    def client(self) -> Client:
        """The SDK's client, made at first use (importing it takes half a second)."""
        if self._client is None:
            self._client = Client(self._options)
        return self._client

    async def __call__(self, request: Request) -> Response:
        """Return the model's answer. Raises a CallError; never retries."""
        shaped, client = self._shaped(request), self.client
        body = self._body(shaped, request)
        sent = streamed_body(body) if request.media_tokens else codec.dumps(body)
        started = time.perf_counter()
        try:
            headers, content = await client.post(self.api.path, sent)
        except UnusableCallError as error:
            return unusable(request.model, error, time.perf_counter() - started)
        latency_s = time.perf_counter() - started
        if self.simulated is None:
            self.simulated = says_simulated(headers)
        answer, usage, model, service_tier = self.api.read(content, client.secrets)
        if request.tools and not shaped.tools:
            answer = as_call(answer, request.tools[0]["function"]["name"])
        request_id, limits = request_id_and_limits(headers)
        return Response(
            answer,
            usage,
            _name(model or request.model, client.secrets),
            None if request_id is None else scrub(request_id, client.secrets)[:MOST_ID_CHARS],
            latency_s,
            limits,
            service_tier,
        )

    def body(self, request: Request) -> dict[str, JSON]:
        """Return the body of a request."""
        return self._body(self._shaped(request), request)

    def _shaped(self, request: Request) -> Request:
        return asked_as(request, self._forms.get(request.model))

    def _body(self, shaped: Request, request: Request) -> dict[str, JSON]:
        body = self.api.body(shaped)
        if self._annotate is not None:
            body["metadata"] = {**body.get("metadata", {}), **self._annotate(request)}
        return body

    async def ping(self, request: Request) -> Usage:
        """Send a request for no record, to see if the model answers, and return its usage. Raises a CallError."""
        try:
            _, content = await self.client.post(self.api.path, codec.dumps(self.api.body(self._shaped(request))))
        except UnusableCallError:
            return Usage()  # the model has written something
        return self.api.read(content, self.client.secrets).usage

    async def model(self, name: str) -> ModelInfo:
        """Return what the server reports about the model. Free of charge. Raises a CallError."""
        return await self.client.model(name)

    async def has_models(self) -> None:
        """Require that the server lists its models for this key. Free of charge. Raises a CallError."""
        await self.client.list_models()

    async def has_batches(self) -> None:
        """Require that the server offers batches for this key. Free of charge. Raises a CallError."""
        await self.client.list_batches()

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        if self._client is not None:
            await self._client.close()


@lru_cache(maxsize=64)
def _name(model: str, secrets: tuple[str, ...]) -> str:
    return scrub(model, secrets)[:MOST_ID_CHARS]


def unusable(model: str, error: UnusableCallError, latency_s: float) -> Response:
    """Return the model's text in which the server found no call, as an answer without a label."""
    answer = Answer(text=error.generated or None, finish_reason=UNUSABLE_CALL)
    return Response(answer, Usage(), model, error.request_id, latency_s)
