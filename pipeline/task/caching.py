"""Names the constant prefix of the prompts, and marks its end, for servers that cache prompt prefixes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline import codec
from pipeline.errors import TaskError
from pipeline.records import JSON
from pipeline.task.schema import short

KEY = "prompt_cache_key"
OPTIONS = "prompt_cache_options"
#: Requests a key derived from the task's fingerprint.
AUTO = "auto"
MAX_KEY_CHARS = 64
#: OpenAI caches no shorter prefix (its guide to prompt caching, read in November 2026).
MIN_CACHED_TOKENS = 1_024
#: From this version on, a prefix is cached up to a mark, and cache writes are charged.
FIRST_WITH_MARKS = (5, 6)
_MODEL = re.compile(r"(?:^|:)gpt-(\d)(?:\.(\d+))?")
#: The roles whose content may carry the mark.
_MARKED_ROLES = ("system", "user")


@dataclass(frozen=True, slots=True)
class PromptCaching:
    """The name of the constant prefix (`key`), and whether its end is marked (`breakpoint`; None: if it pays)."""

    key: str | None = None
    breakpoint: bool | None = False


def cache_key(fingerprint: Mapping[str, JSON]) -> str:
    """Return a short name for all requests of a task: "labelpipe-" and 16 hexadecimal digits."""
    return f"labelpipe-{codec.digest128(codec.dumps(fingerprint)).hex()[:16]}"


def supports_breakpoint(model: str) -> bool:
    """Whether OpenAI's own API accepts a mark in a prompt for this model. Older models refuse the request."""
    version = _MODEL.search(model)
    return version is not None and (int(version[1]), int(version[2] or 0)) >= FIRST_WITH_MARKS


def resolve_caching(
    caching: PromptCaching, parameters: Mapping[str, JSON], fingerprint: Mapping[str, JSON], constant_tokens: int
) -> PromptCaching:
    """Decide what the config leaves open. The mark depends on the model and on the length of the prefix.

    A key of "auto" is derived, unless the user's parameters contain one. Raises TaskError.
    """
    if caching.breakpoint is None:
        caching = replace(
            caching, breakpoint=supports_breakpoint(str(fingerprint["model"])) and constant_tokens >= MIN_CACHED_TOKENS
        )
    if caching.key == AUTO:
        return replace(caching, key=None if KEY in parameters else cache_key(fingerprint))
    if caching.key is not None and KEY in parameters:
        raise TaskError(f"model.{KEY} and model.parameters.{KEY} are both set: remove one of them")
    if caching.key is not None and not (caching.key.strip() and len(caching.key) <= MAX_KEY_CHARS):
        raise TaskError(f"model.{KEY} is {short(caching.key)}: expected 1 to {MAX_KEY_CHARS} characters")
    return caching


def with_caching(parameters: Mapping[str, JSON], caching: PromptCaching) -> dict[str, JSON]:
    """Return the parameters to send."""
    sent = dict(parameters)
    if caching.key is not None:
        sent[KEY] = caching.key
    if caching.breakpoint:
        # Otherwise the server would also cache, and charge for, each record's own text, which never recurs.
        sent.setdefault(OPTIONS, {"mode": "explicit"})
    return sent


def with_breakpoint(messages: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the constant messages, with the mark on the last one that may carry it."""
    places = [place for place, message in enumerate(messages) if message["role"] in _MARKED_ROLES]
    if not places:
        return tuple(messages)
    last = places[-1]
    part = {"type": "text", "text": messages[last]["content"], "prompt_cache_breakpoint": {"mode": "explicit"}}
    return (*messages[:last], {**messages[last], "content": [part]}, *messages[last + 1 :])
