"""The prompt cache: where a prompt's prefixes end, and which of them were seen before.

From gpt-5.6 on a prefix is kept only where it ends in a breakpoint, and what is written is told. By itself the server
puts one at the end of the latest message, and finds again what ended with an earlier one; in the mode "explicit" only
the marks in the prompt count. Older models keep a beginning in blocks, and tell nothing of writing.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.codec import digest64, dumps

#: a shorter prefix is not kept
LEAST_TOKENS = 1024
_STEP_TOKENS = 128
_KEEP_PREFIXES = 4096
#: from this model on there are breakpoints
_FIRST_WITH_BREAKPOINTS = (5, 6)
_MODEL = re.compile(r"(?:^|:)gpt-(\d)(?:\.(\d+))?")
#: an assistant's message cannot carry one
_ROLES = frozenset(("system", "developer", "user", "tool"))

Message = Mapping[str, Any]
#: gives a message's tokens, with fractions
Measure = Callable[[Message], float]


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a prompt, tools included."""

    tokens: int
    digest: int


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes of a prompt that may be kept, the shortest first. `has_breakpoints`: as from gpt-5.6 on."""

    prefixes: tuple[Prefix, ...] = ()
    has_breakpoints: bool = False


@dataclass(frozen=True, slots=True)
class CacheTokens:
    """Tokens that were read from the cache, and that were written to it; None where the model does not tell."""

    read: int
    written: int | None


class PromptCache:
    """Remembers prefixes; those that were not asked for of late are dropped."""

    def __init__(self) -> None:
        self._known: dict[int, None] = {}

    def record(self, prompt: Prefixes) -> CacheTokens:
        """What a call with this prompt finds, and what it leaves behind."""
        read = max((one.tokens for one in prompt.prefixes if one.digest in self._known), default=0)
        for one in prompt.prefixes:
            self._known.pop(one.digest, None)
            self._known[one.digest] = None
        while len(self._known) > _KEEP_PREFIXES:
            del self._known[next(iter(self._known))]
        if not prompt.has_breakpoints:
            return CacheTokens(read // _STEP_TOKENS * _STEP_TOKENS, None)
        # A longer prefix is written from where the one that was found ends.
        return CacheTokens(read, prompt.prefixes[-1].tokens - read if prompt.prefixes else 0)


def prefixes_of(body: Mapping[str, Any], raw: Sequence[bytes], tools_tokens: float, measure: Measure) -> Prefixes:
    """Where the cache may cut the prompt of a request, whose messages are `raw` as JSON."""
    has_breakpoints = _has_breakpoints(body["model"])
    messages = body["messages"]
    if tools_tokens + sum(map(measure, messages)) < LEAST_TOKENS:
        return Prefixes((), has_breakpoints)
    start = digest64(dumps(body.get("tools")))
    options = body.get("prompt_cache_options")
    if not has_breakpoints:
        # What other calls share ends before the last message, which is the record.
        ends = list(_ends(messages[:-1], raw, tools_tokens, start, measure))[-1:]
    elif isinstance(options, Mapping) and options.get("mode") == "explicit":
        ends = list(_marks(messages, raw, tools_tokens, start, measure))
    else:
        pairs = zip(messages, _ends(messages, raw, tools_tokens, start, measure), strict=True)
        ends = [end for message, end in pairs if message["role"] in _ROLES]
    return Prefixes(tuple(end for end in ends if end.tokens >= LEAST_TOKENS), has_breakpoints)


def _has_breakpoints(model: str) -> bool:
    match = _MODEL.search(model)
    return match is not None and (int(match[1]), int(match[2] or 0)) >= _FIRST_WITH_BREAKPOINTS


def _ends(
    messages: Sequence[Message], raw: Sequence[bytes], tokens: float, digest: int, measure: Measure
) -> Iterator[Prefix]:
    """The prefix up to the end of each message."""
    for message, text in zip(messages, raw, strict=False):
        tokens, digest = tokens + measure(message), _extend_digest(digest, text)
        yield Prefix(int(tokens), digest)


def _marks(
    messages: Sequence[Message], raw: Sequence[bytes], tokens: float, digest: int, measure: Measure
) -> Iterator[Prefix]:
    """The prefix up to each part that carries a mark."""
    before = [Prefix(int(tokens), digest), *_ends(messages, raw, tokens, digest, measure)]
    for message, start in zip(messages, before, strict=False):
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        for place, part in enumerate(parts):
            if isinstance(part, Mapping) and part.get("prompt_cache_breakpoint"):
                cut = {**message, "content": parts[: place + 1]}
                yield Prefix(start.tokens + int(measure(cut)), _extend_digest(start.digest, dumps(cut)))


def _extend_digest(digest: int, text: bytes) -> int:
    return digest64(digest.to_bytes(8, "little", signed=True) + text)
