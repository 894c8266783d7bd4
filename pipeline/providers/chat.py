"""Chat Completions: the body of a call, and the reading of its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from pipeline import codec
from pipeline.errors import CallError, NoCompletionError, UnavailableError
from pipeline.providers.client import Client, ClientOptions, ModelInfo
from pipeline.providers.faults import MOST_CHARS, scrub
from pipeline.providers.headers import request_id, says_simulated, server_limits
from pipeline.providers.pieces import pieces_of
from pipeline.records import JSON, Answer, Request, Response, ToolCall, Usage

PING = [{"role": "user", "content": "Answer with OK."}]
PING_MOST_TOKENS = 16
#: Fields that `annotate` adds to the body's `metadata`, for the rehearsal endpoint.
Annotate = Callable[[Request], Mapping[str, str]]


class ChatProvider:
    """One call a Request, through `POST /chat/completions`."""

    def __init__(self, options: ClientOptions, *, annotate: Annotate | None = None) -> None:
        self._options = options
        self._annotate = annotate
        self._client: Client | None = None
        #: whether the answers say that they are simulated; None until the first one came
        self.simulated: bool | None = None

    @property
    def client(self) -> Client:
        """The SDK's client, made at first use (importing it takes half a second)."""
        if self._client is None:
            self._client = Client(self._options)
        return self._client

    async def __call__(self, request: Request) -> Response:
        """The model's answer. Raises a CallError; never retries."""
        body = pieces_of(self._body(request)) if request.media_tokens else codec.dumps(self._body(request))
        started = time.perf_counter()
        raw = await self.client.post("/chat/completions", body)
        latency_s = time.perf_counter() - started
        completion = _completion(raw.content, self._options.api_key)
        if self.simulated is None:
            self.simulated = says_simulated(raw.headers)
        return Response(
            answer=_answer(_exact(completion, raw.content)["choices"][0]),
            usage=_usage(completion.get("usage")),
            model=str(completion.get("model") or request.model),
            request_id=request_id(raw.headers),
            latency_s=latency_s,
            limits=server_limits(raw.headers),
        )

    def _body(self, request: Request) -> dict[str, JSON]:
        body: dict[str, JSON] = {"model": request.model, "messages": request.messages}
        if request.tools:
            body["tools"] = request.tools
            body["tool_choice"] = request.tool_choice
        body.update(request.parameters)
        if self._annotate is not None:
            body["metadata"] = {**body.get("metadata", {}), **self._annotate(request)}
        return body

    async def ping(self, name: str) -> None:
        """A word to the model that is about no record: does it answer anybody? Raises a CallError."""
        body = {"model": name, "messages": PING, "max_completion_tokens": PING_MOST_TOKENS}
        await self.client.post("/chat/completions", codec.dumps(body))

    async def model(self, name: str) -> ModelInfo:
        """What the server says about the model; costs nothing. Raises a CallError."""
        return await self.client.model(name)

    async def close(self) -> None:
        """Close all connections; may be called twice."""
        if self._client is not None:
            await self._client.close()


def _completion(content: bytes, secret: str) -> dict[str, Any]:
    """The body as a completion with a choice. A 200 may hold HTML, `{}`, a string or half a JSON: NoCompletionError."""
    try:
        body = codec.loads(content)
    except codec.JSONDecodeError:
        raise NoCompletionError(
            f"a 200 that is not JSON: {_excerpt(content, secret)}", status=200, billed=True
        ) from None
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not _has_message(choices[0]):
        raise _without_choice(body, content, secret)
    assert isinstance(body, dict)
    return body


def _exact(body: dict[str, Any], content: bytes) -> dict[str, Any]:
    """The body; where it has arguments that are an object, not a text, with all the digits of their integers."""
    calls = body["choices"][0]["message"].get("tool_calls")
    if not isinstance(calls, list) or all(isinstance(_arguments(call), str) for call in calls):
        return body
    with suppress(codec.JSONDecodeError):  # nested too deeply for that
        body = codec.loads_digits(content.decode())
    return body


def _arguments(call: Any) -> JSON:
    function = call.get("function") if isinstance(call, dict) else None
    return function.get("arguments") if isinstance(function, dict) else None


def _has_message(choice: Any) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("message"), dict)


def _without_choice(body: Any, content: bytes, secret: str) -> CallError:
    """Gateways send an upstream's error with status 200; its text is told."""
    error = body.get("error") if isinstance(body, dict) else None
    told = error.get("message") if isinstance(error, dict) else error
    if told:
        return UnavailableError(
            f"a 200 with an error in it: {scrub(str(told), secret)[:MOST_CHARS]}", status=200, billed=True
        )
    return NoCompletionError(f"a 200 that is not a completion: {_excerpt(content, secret)}", status=200, billed=True)


def _excerpt(content: bytes, secret: str) -> str:
    return repr(scrub(content[:4_000].decode("utf-8", "replace"), secret)[:80])


def _answer(choice: dict[str, Any]) -> Answer:
    message = choice["message"]
    calls = message.get("tool_calls")
    return Answer(
        calls=tuple(_call(call) for call in calls if isinstance(call, dict)) if isinstance(calls, list) else (),
        text=_text(message.get("content")),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(choice.get("finish_reason")),
    )


def _call(call: dict[str, Any]) -> ToolCall:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    # Some servers send the arguments as an object instead of its text.
    text = arguments if isinstance(arguments, str) else codec.dumps(arguments).decode()
    return ToolCall(id=str(call.get("id") or ""), name=str(function.get("name") or ""), arguments=text)


def _text(value: Any) -> str | None:
    """The text; a list of content parts is joined."""
    if isinstance(value, list):
        value = "".join(part.get("text") or "" for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else None


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    return Usage(
        prompt=_count(usage, "prompt_tokens"),
        completion=_count(usage, "completion_tokens"),
        cached=_count(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
        cache_write=_count(usage.get("prompt_tokens_details"), "cache_write_tokens"),
    )


def _count(holder: Any, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, int) and value > 0 else 0
