"""Reads from the body what a server reports as wrong, before anything looks at the status.

Servers and gateways wrap errors in each other, in JSON, in texts that contain JSON, and in Python's notation. So codes
are collected from everywhere, and the tables in `error_patterns` define what they mean. Repeated parts of the request
are left out: a record's own text must never count as the server's message.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import codec

#: Fields that contain a code, a type, or a reason.
_CODES = frozenset(
    {"code", "type", "status", "reason", "error_type", "error_code", "errorcode", "errcode", "quotaid", "name",
     "status_code", "http_code", "error_class", "upstreamstatus", "blockreason"}
)  # fmt: skip
#: Fields that contain a message.
_TEXTS = frozenset(
    {"message", "msg", "detail", "details", "error", "error_message", "errormessage", "status_msg", "errmsg", "raw",
     "title", "description", "cause", "upstreambody", "body", "error_description"}
)  # fmt: skip
#: Fields that contain a wait, with the header of the same meaning.
_WAITS = {
    "retrydelay": "retry-after", "retry_after": "retry-after", "retryafter": "retry-after",
    "retry_after_seconds": "retry-after", "retry_after_ms": "retry-after-ms",
}  # fmt: skip
_PARAMS = frozenset({"param", "loc", "field"})
#: Fields that repeat the request or the output, or say nothing about the error.
_ECHOES = frozenset(
    {"input", "ctx", "prompt", "messages", "failed_generation", "content_filter_result", "content_filter_results",
     "choices", "usage", "request", "links", "traceback", "stack", "url", "user_id", "request_id", "received"}
)  # fmt: skip
#: The same codes within a text, in JSON or in Python's notation, perhaps escaped several times. Each repetition is
#: bounded, because 20 kB of backslashes would take half a minute.
_QUOTE = r"""\\{0,9}["']"""
_IN_TEXT = re.compile(
    rf"{_QUOTE}(?:code|type|status|reason|error_code|error_type|quotaId|status_code){_QUOTE}"
    rf"\s*:\s*(?:{_QUOTE}|\\{{0,9}})([\w.\-]{{1,80}})",
    re.IGNORECASE,
)
_MESSAGE_IN_TEXT = re.compile(
    rf"""{_QUOTE}message{_QUOTE}\s*:\s*\\{{0,9}}(["'])(.{{1,2000}}?)\\{{0,9}}\1\s*[,}}]""", re.DOTALL
)
#: "Error code: 429 - {...}", the wording of the OpenAI SDK within a gateway.
_STATUS_IN_TEXT = re.compile(r"\b(?:error code|status code|status_code|http)\W{0,3}([45]\d\d)\b", re.IGNORECASE)
#: The limits of the search: levels and nodes of a body, and characters of a text.
_DEPTH, _MOST_NODES, _MOST_CHARS = 8, 400, 20_000


@dataclass(slots=True)
class ErrorFacts:
    """The content of an error's body.

    `words` are its codes, types, and reasons in lowercase, and `code` is the most informative one. `texts` are its
    messages, outermost first; `params` are the names that it complains about; `statuses` are the HTTP statuses in it.
    `generated` is the model's text if the server could not use it. `fields` are waits, and headers of another server
    that a gateway passes on. `excerpt` is the body's beginning. `is_api` is false for a page or an empty body, which
    came from something on the way, not from the API.
    """

    is_api: bool = False
    words: set[str] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    generated: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    excerpt: str = ""
    code: str = ""
    has_code: bool = False

    @property
    def text(self) -> str:
        """Its messages in one line."""
        return ": ".join(dict.fromkeys(self.texts))

    @property
    def message_or_excerpt(self) -> str:
        """Its messages for a person, or else the body's beginning."""
        return self.text or self.excerpt or "nothing is said of it"


def read_error(content: bytes) -> ErrorFacts:
    """Read what this body reports as wrong."""
    try:
        body = codec.loads(content)
    except codec.JSONDecodeError:
        return _page(content)
    facts = read_body(body)
    facts.excerpt = _decoded(content[:200])
    return facts


def _decoded(content: bytes) -> str:
    return " ".join(content.decode("utf-8", "replace").split())


def read_body(body: Any) -> ErrorFacts:
    """Do the same for a parsed body."""
    facts = ErrorFacts(is_api=isinstance(body, Mapping | list))
    if isinstance(body, str):
        _add_text(facts, body)
    left = _MOST_NODES
    for name, value in _walk(body, 0):
        left -= 1
        if left < 0:
            break
        _take(facts, name, value)
    return facts


def _page(content: bytes) -> ErrorFacts:
    text = content[:_MOST_CHARS].decode("utf-8", "replace")
    # A body that begins as JSON was cut off.
    facts = ErrorFacts(is_api=text.lstrip()[:1] in ("{", "["))
    # A short plain text may come from an API. The best description of a page is its title.
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    _add_text(facts, title[1] if title else re.sub(r"<[^>]*>", " ", text))
    return facts


def _walk(node: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the named values in a body, outermost first, without those that repeat the request."""
    if depth > _DEPTH:
        return
    if isinstance(node, list):
        for value in node[:20]:
            yield from _walk(value, depth + 1)
        return
    if not isinstance(node, Mapping):
        return
    named = [(str(name).lower(), value) for name, value in node.items()]
    yield from ((name, value) for name, value in named if not isinstance(value, Mapping) or name == "headers")
    if isinstance(node.get("failed_generation"), str):
        yield "failed_generation", node["failed_generation"]
    for name, value in named:
        if name not in _ECHOES and name not in _PARAMS and name != "headers":
            yield from _walk(value, depth + 1)


def _take(facts: ErrorFacts, name: str, value: Any) -> None:
    if name == "failed_generation" and isinstance(value, str):
        facts.generated = value
    elif name in _ECHOES:
        return
    elif name in _CODES:
        _add_code(facts, name, value)
    elif name in _PARAMS:
        _add_param(facts, value)
    elif name in _WAITS and isinstance(value, str | int | float):
        facts.fields.setdefault(_WAITS[name], str(value))
    elif name == "headers" and isinstance(value, Mapping):
        facts.fields |= {str(key).lower(): str(one) for key, one in value.items()}
    elif name in _TEXTS and isinstance(value, str):
        _add_text(facts, value)


def _add_code(facts: ErrorFacts, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        return
    word = str(value).strip()[:100]
    facts.words.add(word.lower())
    if word.isdigit() and 400 <= int(word) <= 599:
        facts.statuses.append(int(word))
    # The outermost code is the most informative. Without one, a type counts; without words, a number.
    if not facts.code or facts.code.isdigit() or (name == "code" and not facts.has_code and not word.isdigit()):
        facts.code = word
    facts.has_code |= name == "code" and not word.isdigit()


def _add_param(facts: ErrorFacts, value: Any) -> None:
    if isinstance(value, list):
        value = ".".join(str(step) for step in value if step != "body")
    if isinstance(value, str) and value:
        facts.params.append(value[:200])


def _add_text(facts: ErrorFacts, text: str) -> None:
    text = text[:_MOST_CHARS]
    inner = _MESSAGE_IN_TEXT.search(text)
    before = text.partition("{")[0] if inner else text
    for one in (before, inner[2] if inner else ""):
        if line := " ".join(one.replace("\\n", " ").split()).strip(" -:"):
            facts.texts.append(line)
    facts.words |= {word.lower() for word in _IN_TEXT.findall(text)}
    facts.statuses += _found_statuses(text)


def _found_statuses(text: str) -> Iterable[int]:
    found = [*_STATUS_IN_TEXT.findall(text), *(word for word in _IN_TEXT.findall(text) if word.isdigit())]
    return [int(word) for word in found if len(word) == 3 and 400 <= int(word) <= 599]
