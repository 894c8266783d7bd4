"""The prompt cache of the endpoint: what is read from it, what is written to it, and for which models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import AsyncOpenAI
from rehearsal_client import ask, with_endpoint

from pipeline.rehearsal import Rehearsal, RehearsalOptions
from pipeline.rehearsal.completions import CompletionGenerator
from pipeline.rehearsal.prompt_cache import LEAST_TOKENS, Prefix, Prefixes, PromptCache
from pipeline.rehearsal.request_parser import Call, RequestParser

LONG = "s" * 8_000
EXPLICIT = {"mode": "explicit"}
#: the tokens of that text; the functions and the frames of the messages come on top
MUCH = 8_000 // 4


class Server:
    """Answers that remember, asked with messages."""

    def __init__(self, model: str = "gpt-6-luna") -> None:
        self._completions = CompletionGenerator()
        self._parser = RequestParser(RehearsalOptions(models=()))
        self._model = model

    def usage(self, *messages: tuple[str, Any], **more: Any) -> dict[str, Any]:
        given = [{"role": role, "content": content} for role, content in messages]
        _, call = self._parser.read(json.dumps(ask(model=self._model, messages=given, **more)).encode())
        assert isinstance(call, Call), call
        usage: dict[str, Any] = self._completions.complete(call).body["usage"]
        return usage

    def ask(self, *messages: tuple[str, Any], **more: Any) -> tuple[int, int | None]:
        """Tokens read, tokens written; None where that is not told."""
        details = self.usage(*messages, **more)["prompt_tokens_details"]
        return details["cached_tokens"], details.get("cache_write_tokens")


def marked(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "prompt_cache_breakpoint": EXPLICIT}]


def test_each_prompt_is_written_whole_and_what_was_written_is_read() -> None:
    server = Server()
    usage = server.usage(("system", LONG), ("user", "one"))
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["prompt_tokens_details"]["cache_write_tokens"] == pytest.approx(usage["prompt_tokens"], abs=1)
    read, written = server.ask(("system", LONG), ("user", "two" * 400))
    assert read > MUCH
    assert written == 300 + 3, "the record's own text is paid for, and never comes again"
    assert server.ask(("system", LONG), ("user", "two" * 400)) == (read + written, 0)
    assert server.ask(("system", "t" + LONG), ("user", "two"))[0] == 0


def test_the_turns_of_a_conversation_find_what_came_before() -> None:
    server = Server()
    first = server.usage(("system", "You label."), ("user", LONG))["prompt_tokens"]
    read, written = server.ask(("system", "You label."), ("user", LONG), ("assistant", "a" * 400), ("user", "b" * 400))
    assert read == pytest.approx(first, abs=1)
    assert written == 2 * (100 + 3)


def test_with_marks_alone_only_what_is_marked_is_written() -> None:
    server = Server()
    texts = [server.ask(("system", marked(LONG)), ("user", text), prompt_cache_options=EXPLICIT) for text in "abc"]
    (read, written), *others = texts
    assert read == 0
    assert written is not None
    assert written > MUCH
    assert others == [(written, 0)] * 2
    assert server.ask(("system", LONG), ("user", "a"), prompt_cache_options=EXPLICIT) == (0, 0), "nothing is marked"


def test_a_mark_ends_the_prefix_in_the_middle_of_a_message() -> None:
    server = Server()
    for text, found in (("one", 0), ("two", 1)):
        parts = [*marked(LONG), {"type": "text", "text": text}]
        read, written = server.ask(("system", "You label."), ("user", parts), prompt_cache_options=EXPLICIT)
        assert (read > MUCH, written == 0) == (bool(found), bool(found))


@pytest.mark.parametrize("more", [{}, {"prompt_cache_options": EXPLICIT}])
def test_a_short_prompt_is_neither_read_nor_written(more: dict[str, Any]) -> None:
    server = Server()
    assert [server.ask(("system", marked("s" * 3_000)), ("user", "u"), **more) for _ in range(3)] == [(0, 0)] * 3


def test_a_short_prefix_of_a_long_prompt_is_not_kept() -> None:
    server = Server()
    assert server.ask(("system", "You label."), ("user", LONG + "one"))[0] == 0
    assert server.ask(("system", "You label."), ("user", LONG + "two"))[0] == 0


@pytest.mark.parametrize("model", ["gpt-5-mini", "gpt-5.5", "gpt-4.1-mini", "ft:gpt-4.1-mini:me::1", "mistral-small"])
def test_older_models_keep_blocks_of_a_prefix_and_tell_nothing_of_writing(model: str) -> None:
    server = Server(model)
    assert server.ask(("system", LONG), ("user", "one")) == (0, None)
    read, written = server.ask(("system", LONG), ("user", "two"))
    assert (read % 128, written) == (0, None)
    assert read > MUCH
    assert server.ask(("system", "t" + LONG), ("user", "two")) == (0, None)
    assert [server.ask(("system", "short"), ("user", text)) for text in "ab"] == [(0, None)] * 2


@pytest.mark.parametrize("model", ["gpt-5.6", "gpt-5.6-sol", "gpt-6-luna", "ft:gpt-6-luna:me::1"])
def test_from_this_model_on_writing_is_told(model: str) -> None:
    assert (Server(model).ask(("system", LONG), ("user", "one"))[1] or 0) > MUCH


def test_other_functions_are_another_prefix() -> None:
    server = Server()
    server.ask(("system", LONG), ("user", "one"))
    assert server.ask(("system", LONG), ("user", "one"), tools=None, tool_choice=None)[0] == 0


def test_what_is_asked_for_all_the_time_outlives_what_is_not() -> None:
    """50,000 records each leave a prefix of their own: the one that they share must not go with them."""
    cache, shared = PromptCache(), Prefix(LEAST_TOKENS, -1)
    cache.record(Prefixes((shared,), True))
    for number in range(10_000):
        found = cache.record(Prefixes((shared, Prefix(LEAST_TOKENS + 9, number)), True))
        assert (found.read, found.written) == (LEAST_TOKENS, 9)
    assert cache.record(Prefixes((Prefix(LEAST_TOKENS, 1),), True)).read == 0, "one of long ago"


def test_the_sdk_reads_it() -> None:
    async def look(_: Rehearsal, client: AsyncOpenAI) -> list[tuple[int | None, int | None]]:
        seen = []
        for text in ("one", "two"):
            messages = [{"role": "system", "content": LONG}, {"role": "user", "content": text}]
            completion = await client.chat.completions.create(**ask(messages=messages))
            assert completion.usage is not None
            details = completion.usage.prompt_tokens_details
            assert details is not None
            seen.append((details.cached_tokens, details.cache_write_tokens))
        return seen

    (read, written), (again, less) = with_endpoint(look)
    assert (read, again > MUCH) == (0, True)
    assert written > MUCH > less > 0
