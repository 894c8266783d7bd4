"""What the simulated model says to a call: the same for the same prompt."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.codec import dumps
from pipeline.rehearsal.calls import CHARS_A_TOKEN, Call
from pipeline.rehearsal.dice import Dice
from pipeline.rehearsal.faults import TWISTS, Choice
from pipeline.rehearsal.schema import Choose, Filler, Schema, any_of
from pipeline.rehearsal.sentiment import sentiment_sign, sentiment_values

#: a prefix is cached in blocks of this many tokens, from this many on
_CACHE_FROM_TOKENS = 1024
_CACHE_STEP_TOKENS = 128
_KEEP_PREFIXES = 4096

_PLAIN = "This is a simulated answer of the rehearsal endpoint; no model was asked."
_NO_VALUE = "none of these"
_TRUE = frozenset(("true", "yes", "1"))


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer: the JSON to send, its text (a function's arguments), and the tokens that it is billed."""

    body: bytes
    text: str
    tokens: int


class Answers:
    """Answers calls; remembers only which prefixes it has seen."""

    def __init__(self, seed: int = 0, accuracy: float = 1.0) -> None:
        self._seed = seed
        self._accuracy = accuracy
        self._prefixes: set[int] = set()
        self._numbers = itertools.count(1)

    def complete(self, call: Call, kind: str | None = None) -> Completion:
        """The completion; `kind` is a fault of `faults.TWISTS` that is worked into it."""
        text = self._text(call, kind)
        choice = self._choice(call, text)
        if call.max_output_tokens is not None and _tokens(text) > call.max_output_tokens:
            _cut(choice, text[: call.max_output_tokens * CHARS_A_TOKEN])
        if kind:
            TWISTS[kind](choice)
        if kind == "two_calls" and call.tool:
            # The second call says something else: whoever takes the last one is caught.
            choice["message"]["tool_calls"][1]["function"] = {
                "name": call.tool.name,
                "arguments": dumps(self._other(call, call.tool.filler, text)).decode(),
            }
        usage = self._usage(call, text)
        body = {
            "id": f"chatcmpl-rehearsal{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": call.model,
            "choices": [choice],
            "usage": usage,
            "service_tier": "default",
            "system_fingerprint": "rehearsal",
        }
        return Completion(dumps(body), text, usage["total_tokens"])

    def _text(self, call: Call, kind: str | None) -> str:
        filler = call.tool.filler if call.tool else call.schema
        if filler is None:
            return _PLAIN
        value = _outside(filler, self._label(call, filler)) if kind == "bad_label" else self._label(call, filler)
        return dumps(value).decode()

    def _choice(self, call: Call, text: str) -> Choice:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        if call.tool is None:
            message["content"] = text
        else:
            name = f"call_{call.prompt_digest & (1 << 64) - 1:016x}"
            message["tool_calls"] = [
                {"id": name, "type": "function", "function": {"name": call.tool.name, "arguments": text}}
            ]
        reason = "tool_calls" if call.tool and not call.forced else "stop"
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}

    def _label(self, call: Call, filler: Filler) -> Any:
        dice = Dice("answer", self._seed, call.prompt_digest)
        value = filler.fill(dice, _chooser(call.text))
        if call.gold is not None and isinstance(value, dict):
            fields = filler.properties()
            gold = call.gold if isinstance(call.gold, Mapping) else dict.fromkeys(list(fields)[:1], call.gold)
            for name, right in gold.items():
                if name in fields:
                    value[name] = self._from_gold(call, name, fields[name], right, value.get(name))
        return value

    def _from_gold(self, call: Call, name: str, schema: Schema, right: Any, guess: Any) -> Any:
        dice = Dice("gold", self._seed, call.prompt_digest, name)
        fits, value = _fitting(schema, right)
        if not fits:
            return guess
        return value if dice.unit() < self._accuracy else _another(schema, value, dice)

    def _other(self, call: Call, filler: Filler, text: str) -> Any:
        value: Any = None
        for turn in range(8):
            value = filler.fill(Dice("other", self._seed, call.prompt_digest, turn))
            if dumps(value).decode() != text:
                break
        return value

    def _usage(self, call: Call, text: str) -> dict[str, Any]:
        completion = _tokens(text)
        if call.max_output_tokens is not None:
            completion = min(completion, call.max_output_tokens)
        return {
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": call.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens(call), "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }

    def _cached_tokens(self, call: Call) -> int:
        if call.prefix_tokens < _CACHE_FROM_TOKENS:
            return 0
        if call.prefix_digest in self._prefixes:
            return call.prefix_tokens // _CACHE_STEP_TOKENS * _CACHE_STEP_TOKENS
        if len(self._prefixes) >= _KEEP_PREFIXES:
            self._prefixes.clear()
        self._prefixes.add(call.prefix_digest)
        return 0


def _tokens(text: str) -> int:
    return max(1, -(-len(text) // CHARS_A_TOKEN))


def _cut(choice: Choice, text: str) -> None:
    message = choice["message"]
    if "tool_calls" in message:
        message["tool_calls"][0]["function"]["arguments"] = text
    else:
        message["content"] = text
    choice["finish_reason"] = "length"


def _chooser(text: str) -> Choose:
    def choose(values: Sequence[Any], dice: Dice) -> Any:
        moods = sentiment_values(values)
        if moods is None:
            return _mentioned(text, values, dice)
        sign = sentiment_sign(text)
        return moods[sign] if sign in moods else moods[1 if dice.below(2) else -1]

    return choose


def _mentioned(text: str, values: Sequence[Any], dice: Dice) -> Any:
    """The value whose words the text says most often; where none or all are said alike (a list of them), any."""
    counts = [_count(text.casefold(), value) if isinstance(value, str) else 0 for value in values]
    most = max(counts, default=0)
    best = [value for value, count in zip(values, counts, strict=True) if count == most]
    return any_of(best, dice)


def _count(text: str, value: str) -> int:
    words = re.escape(value.casefold().replace("_", " ").strip())
    if not words:
        return 0
    # Korean endings stick to the word, so only Latin words need an end.
    return len(re.findall(rf"\b{words}\b" if words.isascii() else words, text))


def _fitting(schema: Schema, right: Any) -> tuple[bool, Any]:
    """Whether a gold value, which may come as a CSV's text, is one that the schema allows; and that value."""
    text = str(right).strip()
    if "enum" in schema:
        found = [value for value in schema["enum"] if value == right] or [
            value for value in schema["enum"] if str(value).casefold() == text.casefold()
        ]
        return bool(found), found[0] if found else None
    kind = schema.get("type")
    try:
        match kind:
            case "boolean":
                return True, right if isinstance(right, bool) else text.casefold() in _TRUE
            case "integer":
                return True, int(right)
            case "number":
                return True, float(right)
            case "string":
                return True, text
    except (ValueError, TypeError):
        return False, None
    return True, right


def _another(schema: Schema, value: Any, dice: Dice) -> Any:
    """A wrong value of the right kind."""
    if "enum" in schema:
        others = [one for one in schema["enum"] if one != value]
        return any_of(others, dice) if others else value
    if isinstance(value, bool):
        return not value
    for _ in range(8):
        other = Filler(schema).fill(dice)
        if other != value:
            return other
    return value


def _outside(filler: Filler, value: Any) -> Any:
    """The label with a field set to what the schema does not allow: an enum's, if there is one."""
    fields = filler.properties()
    for name, schema in fields.items():
        if "enum" in schema or "const" in schema:
            return {**value, name: _NO_VALUE}
    for name, schema in fields.items():
        if "type" in schema:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            return {**value, name: _NO_VALUE if "string" not in kinds else {"of": "another type"}}
    return {"unexpected": True}
