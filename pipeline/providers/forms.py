"""How a call is asked for: by the function's name, by "required", or by its schema alone.

The last form is for servers that hold an answer's content to a schema (`response_format`) and no model to a call. The
request is translated here and its answer back, so that everywhere else it is a call like any other.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pipeline import codec
from pipeline.records import BY_SCHEMA, JSON, Answer, Request, ToolCall

Message = Mapping[str, JSON]

#: What a model thinks before it answers, where a server leaves that in the content. Templates that write the first mark
#: into the prompt leave only the last one in the answer. What begins as JSON has no thoughts before it.
_THOUGHTS = re.compile(r"(?!\s*[\[{\"`]).*?</think>\s*(?=\S)", re.DOTALL)
#: What is read although a server that is held to a schema sends the JSON alone; `task.strict_answers` refuses it.
THOUGHT = "thoughts before the JSON"


def asked_as(request: Request, form: str | None) -> Request:
    """The request with its call asked for in this form: forced, required or schema; None: as it stands.

    One that offers several functions, or leaves the call to the model, stays as it is.
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
    # Without functions, a server refuses what is said of them.
    parameters = {name: value for name, value in request.parameters.items() if name != "parallel_tool_calls"}
    return replace(
        request,
        messages=_in_words(request.messages, _instructions(function)),
        tools=(),
        tool_choice=None,
        parameters={**parameters, "response_format": {"type": "json_schema", "json_schema": schema}},
    )


def _instructions(function: Mapping[str, JSON]) -> str:
    """What the model reads of the function: many servers hold it to the schema and do not show it."""
    about = function.get("description") or ""
    schema = codec.dumps(function["parameters"]).decode()
    return f"Answer with the arguments of {function['name']} as JSON, and nothing else. {about}\nTheir schema: {schema}"


def _in_words(messages: Sequence[Message], instructions: str) -> tuple[Message, ...]:
    """The conversation without functions. Some templates take one system message only, and roles by turns."""
    plain = list(_plain(messages))
    first = plain[0]
    if first["role"] == "system" and isinstance(first["content"], str):
        return ({**first, "content": f"{first['content']}\n\n{instructions}"}, *plain[1:])
    return ({"role": "system", "content": instructions}, *plain)


def _plain(messages: Sequence[Message]) -> Iterator[Message]:
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            # Before the next record there is nothing to say; else it is what was wrong with the answer.
            if place + 1 == len(messages):
                yield {"role": "user", "content": message["content"]}
        elif calls := message.get("tool_calls"):
            yield {"role": "assistant", "content": calls[0]["function"]["arguments"]}
        else:
            yield message


def as_call(answer: Answer, name: str) -> Answer:
    """The answer to a request by schema: its content is the arguments, and is judged as those of a call are."""
    if answer.calls or answer.refusal or not answer.has_words:
        return answer
    text = answer.text or ""
    thoughts = _THOUGHTS.match(text)
    call = ToolCall("", name, text[thoughts.end() :], (THOUGHT,)) if thoughts else ToolCall("", name, text)
    return replace(answer, calls=(call,), text=None)
