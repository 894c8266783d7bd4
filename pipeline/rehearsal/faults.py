"""Defines the faults of calls and batches, and what a client sees of them. Nothing here waits or sends."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.codec import dumps
from pipeline.rehearsal.replies import ErrorReply, Reply

#: Seconds that the injected 429 asks a client to wait.
FAULT_RETRY_S = 0.12

_PAGE = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>Please stand by</h1></body></html>"


def _server_error(status: int, message: str) -> Reply:
    return ErrorReply(status, message, "server_error").reply()


def _refused(status: int, code: str, message: str, **more: Any) -> Reply:
    """Return a refusal in OpenAI's form. `more` replaces its fields, or adds those of another server."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code, **more}
    return _foreign(status, {"error": error})


def _foreign(status: int, body: Mapping[str, Any]) -> Reply:
    """Return a body in a form other than OpenAI's."""
    return Reply(status, dumps(body))


def _unfinished(**choice: Any) -> Reply:
    """Return a completion that an upstream server did not finish, as gateways pass it on."""
    message = {"role": "assistant", "content": "I would say that"}
    return _foreign(200, {"choices": [{"index": 0, "message": message, "finish_reason": "error", **choice}]})


FLEX = "flex"
#: Form -> the refusal of a call for the flex tier when it is full: that of OpenAI and Azure, and that of Groq.
FLEX_REFUSALS: Mapping[str, Reply] = {
    "429": ErrorReply(429, "Resource unavailable. Please try again later.", "resource_unavailable").reply(),
    "498": ErrorReply(498, "Flex tier capacity exceeded.", "capacity_exceeded", code="capacity_exceeded").reply(),
}

#: Faults that replace the whole answer: kind -> what is sent instead of a completion.
REPLY_FAULTS: Mapping[str, Reply] = {
    "429": ErrorReply(
        429,
        "Rate limit reached in the rehearsal (an injected fault). Please try again in 120ms.",
        "requests",
        code="rate_limit_exceeded",
        retry_after_s=FAULT_RETRY_S,
    ).reply(),
    "400": _refused(400, "invalid_prompt", "Invalid prompt: it was flagged as violating the usage policy."),
    "too_long": _refused(400, "context_length_exceeded", "The prompt exceeds the model's maximum context length."),
    "too_large": ErrorReply(
        429,
        "Request too large in the rehearsal on tokens per min (TPM): Limit 100, Requested 1000.",
        "tokens",
        code="rate_limit_exceeded",
    ).reply(),
    "tool_use_failed": _refused(
        400,
        "tool_use_failed",
        "Failed to call a function. Please adjust your prompt.",
        failed_generation="<function=label{}</function>",
    ),
    "thinking": ErrorReply(400, "Thinking mode does not support this tool_choice", "invalid_request_error").reply(),
    "error_text": _foreign(400, {"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto"}),
    "innererror": _refused(
        400,
        "400",
        "The response was filtered.",
        type=None,
        param="prompt",
        innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
    ),
    "402": _refused(402, "insufficient_credits", "Insufficient credits."),
    "402_in_200": _foreign(200, {"error": {"code": 402, "message": "Insufficient credits."}}),
    "choice_error": _unfinished(error={"code": 502, "message": "The upstream server failed."}),
    "finish_error": _unfinished(),
    "403": _refused(403, "content_policy_violation", "Your input was flagged by the moderation."),
    "498": FLEX_REFUSALS["498"],
    "401": _refused(401, "invalid_api_key", "Incorrect API key provided."),
    "500": _server_error(500, "The server had an error while processing your request."),
    "502": _server_error(502, "Bad gateway."),
    "503": _server_error(503, "The engine is currently overloaded."),
    "504": _server_error(504, "The upstream server did not answer in time."),
    "529": _server_error(529, "The service is overloaded."),
    "html": Reply(200, _PAGE, "text/html; charset=utf-8"),
    "502_html": Reply(502, _PAGE, "text/html; charset=utf-8"),
    "empty": Reply(200, b"{}"),
    "broken": Reply(200, b'{"id": "chatcmpl-broken", "object": "chat.completion", "choices": [{"index": 0, "mess'),
    "string": Reply(200, b'"the model is thinking"'),
}

#: Faults of the connection: no complete answer arrives.
CONNECTION_FAULTS = ("reset", "cut", "hang")

CompletionChoice = dict[str, Any]  #: One entry of a completion's `choices`.


def _call(choice: CompletionChoice) -> dict[str, Any]:
    function: dict[str, Any] = choice["message"]["tool_calls"][0]["function"]
    return function


def _replace_calls(finish_reason: str = "stop", **message: str) -> Callable[[CompletionChoice], None]:
    def replace_calls(choice: CompletionChoice) -> None:
        choice["message"] = {"role": "assistant", "content": None, "refusal": None, **message}
        choice["finish_reason"] = finish_reason

    return replace_calls


def _rename(before: str, after: str) -> Callable[[CompletionChoice], None]:
    def rename(choice: CompletionChoice) -> None:
        if "tool_calls" in choice["message"]:
            _call(choice)["name"] = before + _call(choice)["name"] + after

    return rename


def _length(choice: CompletionChoice) -> None:
    text = _get_text(choice)
    _set_text(choice, text[: len(text) // 2])
    choice["finish_reason"] = "length"


def _two_calls(choice: CompletionChoice) -> None:
    calls = choice["message"].get("tool_calls")
    if calls:
        calls.append({**calls[0], "id": calls[0]["id"] + "b"})
        choice["finish_reason"] = "tool_calls"


def _get_text(choice: CompletionChoice) -> str:
    message = choice["message"]
    return str(_call(choice)["arguments"] if "tool_calls" in message else message["content"])


def _set_text(choice: CompletionChoice, text: str) -> None:
    message = choice["message"]
    if "tool_calls" in message:
        _call(choice)["arguments"] = text
    else:
        message["content"] = text


#: Faults inside a completion, which is billed: kind -> how its choice is changed.
COMPLETION_FAULTS: Mapping[str, Callable[[CompletionChoice], None]] = {
    "bad_json": lambda choice: _set_text(choice, "{label: " + _get_text(choice)[1:-1] + ",,"),
    "bad_label": lambda choice: None,  # the generator makes the arguments wrong, because it knows the schema
    "no_tool": _replace_calls(content="I would say that it depends on how you look at it."),
    "wrong_tool": _rename("", "_other"),
    "prefixed": _rename("functions.", ""),
    "refusal": _replace_calls(refusal="I'm sorry, but I can't help with that."),
    "content_filter": _replace_calls("content_filter"),
    "length": _length,
    "two_calls": _two_calls,
}

#: Every kind that `faults` and `poison` may contain. Only "slow" still gives the right answer.
FAULT_KINDS = (*REPLY_FAULTS, *CONNECTION_FAULTS, "slow", *COMPLETION_FAULTS)

#: Faults of a file: the response to its upload is lost.
OF_FILE = ("upload_lost",)
#: Faults of a whole batch: the response to its creation is lost; it fails, expires half done, stops half done, or has
#: only failed lines; the id of its error file is "", or that file is empty; it reports no counts.
OF_BATCH = (
    "batch_lost",
    "batch_refused",
    "batch_expired",
    "batch_stuck",
    "batch_all_failed",
    "batch_empty_error_id",
    "batch_empty_error_file",
    "batch_no_counts",
)
#: Faults of a line: a server error, a status of 0, missing from both files, or twice in one.
OF_LINE = ("line_500", "line_zero", "line_missing", "line_twice")
BATCH_FAULTS = (*OF_FILE, *OF_BATCH, *OF_LINE)


def tier_of(body: Mapping[str, Any]) -> str:
    """Return the tier that serves a call: flex if the call asks for it, else the default."""
    return FLEX if body.get("service_tier") == FLEX else "default"


def draw_kind(faults: Mapping[str, float], chance: float, kinds: Iterable[str]) -> str | None:
    """Return the kind that a random number from 0 to 1 selects, with the probabilities in `faults`; None for none."""
    for kind in kinds:
        chance -= faults.get(kind, 0.0)
        if chance < 0:
            return kind
    return None
