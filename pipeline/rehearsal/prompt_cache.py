"""Simulates the prompt cache: where the prefixes of a prompt end, and which of them were seen before.

Since gpt-5.6 a prefix is cached only if it ends at a breakpoint, and written tokens are reported. The server puts a
breakpoint at the end of the latest message, and finds prefixes that ended at an earlier one. In the mode "explicit"
only the breakpoints in the prompt count. Older models cache a prefix in blocks and do not report written tokens.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.codec import digest64, dumps

#: A shorter prefix is not cached.
LEAST_TOKENS = 1024
_STEP_TOKENS = 128
_KEEP_PREFIXES = 4096
#: The first model version with breakpoints.
_FIRST_WITH_BREAKPOINTS = (5, 6)
_MODEL = re.compile(r"(?:^|:)gpt-(\d)(?:\.(\d+))?")
#: Roles of messages that can have a breakpoint. Assistant messages cannot.
_ROLES = frozenset(("system", "developer", "user", "tool"))

Message = Mapping[str, Any]
#: Returns a message's tokens, with fractions.
Measure = Callable[[Message], float]


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a prompt, including the tools."""

    tokens: int
    digest: int


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes of a prompt that may be cached, shortest first. `has_breakpoints` is true since gpt-5.6."""

    prefixes: tuple[Prefix, ...] = ()
    has_breakpoints: bool = False


@dataclass(frozen=True, slots=True)
class CacheTokens:
    """Tokens that were read from the cache and written to it; None if the model does not report them."""

    read: int
    written: int | None


class PromptCache:
    """Remembers prefixes and drops the least recently used."""

    def __init__(self) -> None:
        self._known: dict[int, None] = {}

    def record(self, prompt: Prefixes) -> CacheTokens:
        """Return what a call with this prompt reads and writes, and remember its prefixes."""
        read = max((one.tokens for one in prompt.prefixes if one.digest in self._known), default=0)
        for one in prompt.prefixes:
            self._known.pop(one.digest, None)
            self._known[one.digest] = None
        while len(self._known) > _KEEP_PREFIXES:
            del self._known[next(iter(self._known))]
        if not prompt.has_breakpoints:
            return CacheTokens(read // _STEP_TOKENS * _STEP_TOKENS, None)
        # Only the part after the prefix that was found is written.
        return CacheTokens(read, prompt.prefixes[-1].tokens - read if prompt.prefixes else 0)


def prefixes_of(body: Mapping[str, Any], raw: Sequence[bytes], tools_tokens: float, measure: Measure) -> Prefixes:
    """Return the prefixes of a request that may be cached. `raw` is its messages as JSON."""
    has_breakpoints = _has_breakpoints(body["model"])
    messages = body["messages"]
    if tools_tokens + sum(map(measure, messages)) < LEAST_TOKENS:
        return Prefixes((), has_breakpoints)
    start = digest64(dumps(body.get("tools")))
    options = body.get("prompt_cache_options")
    if not has_breakpoints:
        # Other calls share everything before the last message, which is the record.
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
    """Yield the prefix up to the end of each message."""
    for message, text in zip(messages, raw, strict=False):
        tokens, digest = tokens + measure(message), _extend_digest(digest, text)
        yield Prefix(int(tokens), digest)


def _marks(
    messages: Sequence[Message], raw: Sequence[bytes], tokens: float, digest: int, measure: Measure
) -> Iterator[Prefix]:
    """Yield the prefix up to each part that has a breakpoint."""
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
