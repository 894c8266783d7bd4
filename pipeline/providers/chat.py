"""Chat Completions: the body of a call, and the reading of its answer."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline import codec
from pipeline.errors import CallError, NoCompletionError, UnavailableError, UnusableCallError
from pipeline.providers.client import Client, ClientOptions, ModelInfo
from pipeline.providers.faults import refusal, scrub
from pipeline.providers.headers import request_id, says_simulated, server_limits
from pipeline.providers.pieces import pieces_of
from pipeline.providers.told import read_body
from pipeline.records import JSON, UNUSABLE_CALL, Answer, Request, Response, ToolCall, Usage

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
        try:
            raw = await self.client.post("/chat/completions", body)
        except UnusableCallError as error:
            return _unusable(request, error, time.perf_counter() - started)
        latency_s = time.perf_counter() - started
        if self.simulated is None:
            self.simulated = says_simulated(raw.headers)
        completion = _completion(raw.content, self.client.secrets)
        return Response(
            answer=_answer(_exact(completion, raw.content)["choices"][0]),
            usage=_usage(completion.get("usage")),
            model=scrub(str(completion.get("model") or request.model), self.client.secrets)[:MOST_ID_CHARS],
            request_id=_id(raw.headers, self.client.secrets),
            latency_s=latency_s,
            limits=server_limits(raw.headers),
        )

    @staticmethod
    def _plain(request: Request) -> dict[str, JSON]:
        body: dict[str, JSON] = {"model": request.model, "messages": request.messages}
        if request.tools:
            body["tools"] = request.tools
            body["tool_choice"] = request.tool_choice
        body.update(request.parameters)
        return body

    def _body(self, request: Request) -> dict[str, JSON]:
        body = self._plain(request)
        if self._annotate is not None:
            body["metadata"] = {**body.get("metadata", {}), **self._annotate(request)}
        return body

    async def ping(self, request: Request) -> Usage:
        """A request that is about no record: does the model answer it? What it used. Raises a CallError."""
        try:
            raw = await self.client.post("/chat/completions", codec.dumps(self._plain(request)))
        except UnusableCallError:
            return Usage()  # the model has written something
        return _usage(_completion(raw.content, self.client.secrets).get("usage"))

    async def model(self, name: str) -> ModelInfo:
        """What the server says about the model; costs nothing. Raises a CallError."""
        return await self.client.model(name)

    async def close(self) -> None:
        """Close all connections; may be called twice."""
        if self._client is not None:
            await self._client.close()


def _id(headers: Iterable[tuple[bytes, bytes]], secrets: Sequence[str]) -> str | None:
    found = request_id(headers)
    return None if found is None else scrub(found, secrets)[:MOST_ID_CHARS]


#: More of a server's name for a call or a model is kept nowhere.
MOST_ID_CHARS = 200


def _unusable(request: Request, error: UnusableCallError, latency_s: float) -> Response:
    """What the model wrote, where the server found no call in it: an answer, and none with a label."""
    answer = Answer(text=error.generated or None, finish_reason=UNUSABLE_CALL)
    return Response(answer, Usage(), request.model, error.request_id, latency_s)


def _completion(content: bytes, secrets: Sequence[str]) -> dict[str, Any]:
    """The body as a completion with a choice.

    A success may hold a page, `{}`, a string or half a JSON: NoCompletionError. Where it holds an error, that is judged
    as if its status had said so.
    """
    body, intact = _parsed(content, secrets)
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not (isinstance(choice, dict) and isinstance(choice.get("message"), dict)):
        raise _without_choice(body, content, secrets)
    assert isinstance(body, dict)
    if error := _error_in(body) or _error_in(choice):
        raise refusal(200, {}, read_body({"error": error}), secrets=secrets)
    if (ended := _text(choice.get("finish_reason"))) in BROKEN_OFF:
        raise _no_answer(UnavailableError, f"the server broke off: finish_reason is {ended!r}")
    if not intact and BROKEN_SIGN in codec.dumps(choice["message"]).decode():
        raise _no_answer(UnavailableError, "an answer with bytes in it that are no text")
    return body


#: How gateways end an answer that their upstream did not finish.
BROKEN_OFF = frozenset({"error", "network_error", "insufficient_system_resource"})
#: What stands where bytes are no UTF-8.
BROKEN_SIGN = "\ufffd"


def _parsed(content: bytes, secrets: Sequence[str]) -> tuple[Any, bool]:
    """The body, and whether all of its bytes are text; a mark of the byte order is none of it."""
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return codec.loads(content), True
    except codec.JSONDecodeError:
        with suppress(ValueError):
            return codec.loads_digits(content.decode()), True  # half an emoji in it: an answer like others
        with suppress(codec.JSONDecodeError):
            return codec.loads(content.decode("utf-8", "replace")), False
    what = "an event stream" if content.lstrip().startswith((b"data:", b"event:")) else "not JSON"
    raise _no_answer(NoCompletionError, f"a 200 that is {what}: {_excerpt(content, secrets)}")


def _error_in(holder: dict[str, Any]) -> Any:
    """An error that says something; some servers send an empty one with each answer."""
    error = holder.get("error")
    if isinstance(error, dict):
        return error if any(error.get(name) for name in ("message", "code", "type", "metadata")) else None
    return error if isinstance(error, str) and error.strip() else None


def _no_answer(kind: type[UnavailableError], told: str) -> UnavailableError:
    return kind(told, status=200, billed=True)


def _exact(body: dict[str, Any], content: bytes) -> dict[str, Any]:
    """The body; where it has arguments that are an object, not a text, with all the digits of their integers."""
    calls = body["choices"][0]["message"].get("tool_calls")
    if not isinstance(calls, list) or all(isinstance(_arguments(call), str) for call in calls):
        return body
    with suppress(codec.JSONDecodeError, UnicodeDecodeError):  # nested too deeply for that
        body = codec.loads_digits(content.removeprefix(codecs.BOM_UTF8).decode())
    return body


def _arguments(call: Any) -> JSON:
    function = call.get("function") if isinstance(call, dict) else None
    return function.get("arguments") if isinstance(function, dict) else None


def _without_choice(body: Any, content: bytes, secrets: Sequence[str]) -> CallError:
    """Gateways send an upstream's error with status 200; it is judged as such."""
    told = read_body(body)
    if isinstance(body, dict | list) and (told.texts or told.statuses):
        return refusal(200, {}, told, secrets=secrets)
    return _no_answer(NoCompletionError, f"a 200 that is not a completion: {_excerpt(content, secrets)}")


def _excerpt(content: bytes, secrets: Sequence[str]) -> str:
    return repr(scrub(content[:4_000].decode("utf-8", "replace"), secrets)[:80])


def _answer(choice: dict[str, Any]) -> Answer:
    message = choice["message"]
    calls = message.get("tool_calls")
    if not calls and isinstance(message.get("function_call"), dict):
        calls = [{"function": message["function_call"]}]  # as the API had it before there were tools
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
        texts = [part.get("text") for part in value if isinstance(part, dict)]
        value = "".join(text for text in texts if isinstance(text, str))
    return value if isinstance(value, str) else None


#: More tokens than this no call uses: a number beyond it is a mistake, and sums of such numbers would not fit anywhere.
MOST_TOKENS = 10**9


def _usage(usage: Any) -> Usage:
    """What the call used; all 0 where that is not known: absent, or a number that cannot be."""
    if not isinstance(usage, dict):
        return Usage()
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None or completion is None:
        return Usage()
    return Usage(
        prompt=prompt,
        completion=completion,
        cached=_part(usage, "prompt_tokens_details", "cached_tokens", prompt),
        reasoning=_part(usage, "completion_tokens_details", "reasoning_tokens", completion),
        cache_write=_part(usage, "prompt_tokens_details", "cache_write_tokens", prompt),
    )


def _part(usage: dict[str, Any], details: str, name: str, whole: int) -> int:
    """A part of what was used: no more than all of it, 0 where it is not known."""
    return min(whole, _count(usage.get(details), name) or 0)


def _count(holder: Any, name: str) -> int | None:
    """A count of tokens, 0 where there is none; None for what is no count."""
    value = holder.get(name) if isinstance(holder, dict) else None
    if value is None:
        return 0
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return int(value) if is_whole and 0 <= value <= MOST_TOKENS else None
