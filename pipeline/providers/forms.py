"""Chooses how a call is requested: by the function's name, by "required", or by its schema alone.

The last form is for servers that can force an answer's content into a schema (`response_format`) but cannot force a
call. This module translates the request and its answer, so that it is a normal call everywhere else.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pipeline import codec
from pipeline.records import BY_SCHEMA, JSON, Answer, Request, ToolCall

Message = Mapping[str, JSON]

#: The thoughts of a model before its answer, if a server leaves them in the content. If a template writes the first
#: mark into the prompt, the answer has only the last one. An answer that begins as JSON has no thoughts before it.
_THOUGHTS = re.compile(r"(?!\s*[\[{\"`]).*?</think>\s*(?=\S)", re.DOTALL)
#: What is accepted although a server that uses a schema sends only JSON; `task.strict_answers` refuses it.
THOUGHT = "thoughts before the JSON"


def asked_as(request: Request, form: str | None) -> Request:
    """Return the request with its call in this form: forced, required, or schema; None: unchanged.

    A request that offers several functions, or leaves the call to the model, stays unchanged.
    """
    if request.tool_choice == BY_SCHEMA:
        return _by_schema(request)
    if form is None or len(request.tools) != 1 or request.tool_choice in ("auto", "none", None):
        return request
    if form == BY_SCHEMA:
        return _by_schema(request)
    name = request.tools[0]["function"]["name"]
    choice = {"type": "function", "function": {"name": name}} if form == "forced" else "required"
    return replace(request, tool_choice=choice)


def _by_schema(request: Request) -> Request:
    function = request.tools[0]["function"]
    schema = {"name": function["name"], "schema": function["parameters"], "strict": function.get("strict", False)}
    # Servers refuse parameters about functions if there are none.
    parameters = {name: value for name, value in request.parameters.items() if name != "parallel_tool_calls"}
    return replace(
        request,
        messages=_in_words(request.messages, _instructions(function)),
        tools=(),
        tool_choice=None,
        parameters={**parameters, "response_format": {"type": "json_schema", "json_schema": schema}},
    )


def _instructions(function: Mapping[str, JSON]) -> str:
    """Return the function as text for the model, because many servers enforce the schema without showing it."""
    about = function.get("description") or ""
    schema = codec.dumps(function["parameters"]).decode()
    return f"Answer with the arguments of {function['name']} as JSON, and nothing else. {about}\nTheir schema: {schema}"


def _in_words(messages: Sequence[Message], instructions: str) -> tuple[Message, ...]:
    """Return the conversation without functions. Some templates need a single system message and alternating roles."""
    plain = list(_plain(messages))
    first = plain[0]
    if first["role"] == "system" and isinstance(first["content"], str):
        return ({**first, "content": f"{first['content']}\n\n{instructions}"}, *plain[1:])
    return ({"role": "system", "content": instructions}, *plain)


def _plain(messages: Sequence[Message]) -> Iterator[Message]:
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            # If another record follows, this says nothing; otherwise it is what was wrong with the answer.
            if place + 1 == len(messages):
                yield {"role": "user", "content": message["content"]}
        elif calls := message.get("tool_calls"):
            yield {"role": "assistant", "content": calls[0]["function"]["arguments"]}
        else:
            yield message


def as_call(answer: Answer, name: str) -> Answer:
    """Return the answer to a request by schema as a call, whose arguments are its content."""
    if answer.calls or answer.refusal or not answer.has_words:
        return answer
    text = answer.text or ""
    thoughts = _THOUGHTS.match(text)
    call = ToolCall("", name, text[thoughts.end() :], (THOUGHT,)) if thoughts else ToolCall("", name, text)
    return replace(answer, calls=(call,), text=None)
