"""The bytes that the endpoint answers with."""

from __future__ import annotations

import json

from benchmarks.truth import MODEL, label_of

_PAGE = b"<!DOCTYPE html><html><body><h1>One moment please</h1></body></html>"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}


def http(status: int, body: bytes, headers: str = "", content_type: str = "application/json") -> bytes:
    """A whole HTTP answer. `headers` are lines that each end with CRLF."""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


def completion(
    record: int, tool: str, call: int, usage: tuple[int, int], headers: str = "", fault: str | None = None
) -> bytes:
    """A completion that calls the tool; with a fault, one that cannot be used as it is."""
    label = "mixed" if fault == "bad_label" else label_of(record)
    arguments = f'{{"label": {label}' if fault == "bad_json" else f'{{"label": "{label}"}}'
    called = {"id": f"call_{call}", "type": "function", "function": {"name": tool, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    if fault == "no_tool":
        message = {"role": "assistant", "content": f"I would say {label}."}
    body = {
        "id": f"chatcmpl-{call}",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }
    return http(200, json.dumps(body).encode(), f"x-request-id: req_{call}\r\n{headers}")


def refusal(status: int, kind: str, message: str, headers: str = "") -> bytes:
    """An error in OpenAI's form; `kind` is both type and code."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": kind}}
    return http(status, json.dumps(body).encode(), headers)


def page() -> bytes:
    """A 200 that is a web page."""
    return http(200, _PAGE, content_type="text/html")
