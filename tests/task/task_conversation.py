from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline import codec


def is_conversation(messages: Sequence[Any]) -> bool:
    """Whether Chat Completions takes it: each echoed call answered, right after, by a tool message with its id.

    An id has 1 to 40 characters, and is there once in all of the conversation.
    """
    waiting: list[str] = []
    every: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return False
        calls = message.get("tool_calls", [])
        waiting = [call["id"] for call in calls]
        every += waiting
        if len(set(every)) < len(every) or not all(0 < len(name) <= 40 for name in waiting):
            return False
        if any(not isinstance(codec.loads(call["function"]["arguments"]), dict) for call in calls):
            return False
        if not calls and not (message["content"] and str(message["content"]).strip()):
            return False
    return not waiting and messages[-1]["role"] in ("user", "tool")
