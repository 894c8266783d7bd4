"""Generates the simulated model's answer to a call. The same prompt gets the same answer."""

import itertools
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from pipeline.codec import digest64, dumps, loads
from pipeline.rehearsal.faults import COMPLETION_FAULTS, CompletionChoice, tier_of
from pipeline.rehearsal.label_generator import LabelGenerator, outside
from pipeline.rehearsal.prompt_cache import PromptCache
from pipeline.rehearsal.request_parser import CHARS_A_TOKEN, Call
from pipeline.rehearsal.tool_choice import choose_tools
from pipeline.rehearsal.tools import Tool

#: Faults of calls and labels. An answer in free text has nothing that they could spoil.
_OF_CALLS = frozenset(("bad_json", "bad_label", "no_tool", "wrong_tool", "two_calls"))
_PLAIN = "This is a simulated answer of the rehearsal endpoint; no model was asked."


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer: the completion, its text, the tokens that are billed, and the fault that it contains.

    The text is a function's arguments, a list of names and arguments (for several calls), or words.
    """

    body: dict[str, Any]
    text: str
    tokens: int
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class _FunctionCall:
    """One function call of an answer; `arguments` is JSON text."""

    tool: Tool
    arguments: str


class CompletionGenerator:
    """Answers calls. Remembers only the prompt cache, and how often prompts were asked."""

    def __init__(self, seed: int = 0, accuracy: float = 1.0) -> None:
        self._seed = seed
        self._labels = LabelGenerator(seed, accuracy)
        self._cache = PromptCache()
        self._numbers = itertools.count(1)
        # How often each prompt was asked with a temperature: only then does the same prompt get other labels.
        self._times_asked: Counter[int] = Counter()

    def complete(self, call: Call, kind: str | None = None) -> Completion:
        """Return the completion. `kind` is a fault of `faults.COMPLETION_FAULTS` to build into it."""
        call = self._with_temperature(call)
        calls = self._calls(call, kind)
        if not calls and call.schema is None and kind in _OF_CALLS:
            kind = None
        words = None if calls else self._words(call, kind)
        choice = _choice(call, calls, words)
        chars = len(words) if words is not None else sum(len(one.arguments) for one in calls)
        if call.max_output_tokens is not None and _tokens(chars) > call.max_output_tokens:
            _cut(choice, call.max_output_tokens * CHARS_A_TOKEN)
        if kind:
            COMPLETION_FAULTS[kind](choice)
        if kind == "two_calls" and calls:
            # The added call has other arguments, which catches clients that take the last one.
            choice["message"]["tool_calls"][-1]["function"] = self._second_call(call, calls)
        usage = self._usage(call, chars)
        body = {
            "id": f"chatcmpl-rehearsal{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": call.model,
            "choices": [choice],
            "usage": usage,
            "service_tier": tier_of(call.request),
            "system_fingerprint": "rehearsal",
        }
        return Completion(body, _answer_text(calls, words), usage["total_tokens"], kind)

    def _with_temperature(self, call: Call) -> Call:
        """Return the call. If it has a temperature, its digest depends on the model and on the repetition."""
        if not call.request.get("temperature"):
            return call
        self._times_asked[call.prompt_digest] += 1
        seeds = f"{call.prompt_digest} {call.model} {self._times_asked[call.prompt_digest]}"
        return replace(call, prompt_digest=digest64(seeds.encode()))

    def _calls(self, call: Call, kind: str | None) -> list[_FunctionCall]:
        """Return the calls of the answer. Calls of the same function differ."""
        made: dict[str, list[Any]] = {}
        calls: list[_FunctionCall] = []
        for tool in choose_tools(call.offer, call.results, call.text, self._seed, call.prompt_digest):
            known = made.setdefault(tool.name, [])
            if known:
                value = self._labels.another(call, tool.generator, known)
            else:
                value = self._labels.first(call, tool.generator, len(calls))
            if value in known:
                continue
            known.append(value)
            wrong = kind == "bad_label" and not calls
            calls.append(_FunctionCall(tool, dumps(outside(tool.generator, value) if wrong else value).decode()))
        return calls

    def _words(self, call: Call, kind: str | None) -> str:
        if call.schema is not None:
            value = self._labels.first(call, call.schema)
            return dumps(outside(call.schema, value) if kind == "bad_label" else value).decode()
        if call.results.calls:
            return f"Done, after {call.results.calls} results. {_PLAIN}"
        return _PLAIN

    def _second_call(self, call: Call, calls: list[_FunctionCall]) -> dict[str, str]:
        tool = calls[0].tool
        known = [one.arguments for one in calls if one.tool is tool]
        value = self._labels.another(call, tool.generator, [loads(text) for text in known])
        return {"name": tool.name, "arguments": dumps(value).decode()}

    def _usage(self, call: Call, chars: int) -> dict[str, Any]:
        completion = _tokens(chars)
        if call.max_output_tokens is not None:
            completion = min(completion, call.max_output_tokens)
        tokens = self._cache.record(call.prefixes)
        written = {} if tokens.written is None else {"cache_write_tokens": tokens.written}
        return {
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": call.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": tokens.read, **written, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


def _tokens(chars: int) -> int:
    return max(1, -(-chars // CHARS_A_TOKEN))


def _choice(call: Call, calls: list[_FunctionCall], words: str | None) -> CompletionChoice:
    message: dict[str, Any] = {"role": "assistant", "content": words, "refusal": None, "annotations": []}
    if calls:
        name = f"call_{call.prompt_digest & (1 << 64) - 1:016x}"
        message["tool_calls"] = [
            {
                "id": f"{name}_{place}" if place else name,
                "type": "function",
                "function": {"name": one.tool.name, "arguments": one.arguments},
            }
            for place, one in enumerate(calls)
        ]
    reason = "tool_calls" if calls and not call.offer.named else "stop"
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}


def _cut(choice: CompletionChoice, chars: int) -> None:
    """Cut the answer after this many characters, within a call or between two."""
    message = choice["message"]
    choice["finish_reason"] = "length"
    if "tool_calls" not in message:
        message["content"] = message["content"][:chars]
        return
    calls: list[Any] = []
    for one in message["tool_calls"]:
        if chars <= 0:
            break
        arguments = one["function"]["arguments"]
        one["function"]["arguments"] = arguments[:chars]
        chars -= len(arguments)
        calls.append(one)
    message["tool_calls"] = calls


def _answer_text(calls: list[_FunctionCall], words: str | None) -> str:
    if len(calls) == 1:
        return calls[0].arguments
    if not calls:
        return words or ""
    return dumps([{"name": one.tool.name, "arguments": loads(one.arguments)} for one in calls]).decode()
