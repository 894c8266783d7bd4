"""Builds the request after an answer: a repair with its fault, or a next turn with the results of its calls."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from pipeline import codec
from pipeline.errors import AnswerError, TruncatedError
from pipeline.records import BY_SCHEMA, ITEMS, JSON, ROOM_PARAMETERS, Answer, Request, ToolCall, ValidCall, room_in
from pipeline.task.lenient import normalize_tool_name, unwrap_arguments
from pipeline.task.render import BYTES_PER_TOKEN, Message

MAX_SHOWN_CALLS = 8
MAX_ECHO_CHARS = 8_000
MAX_RAW_CHARS = 2_000
#: OpenAI refuses longer call ids, even those that another server created.
MAX_ID_CHARS = 40
#: The result shown to the model if a call's callback returned nothing, or it has no callback.
DONE = "ok"
UNKNOWN = "there is no such function"
MAX_RESULT_CHARS = 50_000
BRIEF = "Be brief: answer with the function call alone."
#: The same for an answer that consists of the arguments, without a function.
BRIEF_JSON = "Be brief: answer with the JSON alone."
AS_JSON = "Answer again, with JSON that fits the schema and nothing else."


def repair(request: Request, answer: Answer, error: AnswerError, *, base: int) -> Request:
    """Return the request that asks again. The first `base` messages belong to the turn; later ones are replaced."""
    if isinstance(error, TruncatedError):
        return _with_room(request, error, base)
    before = request.messages[:base]
    names = [tool["function"]["name"] for tool in request.tools]
    name = names[0] if len(names) == 1 else ", ".join(names)
    normalized = [replace(call, name=normalize_tool_name(call.name, names)) for call in answer.calls]
    calls = [call for call in normalized if call.name in names][:MAX_SHOWN_CALLS]
    by_schema = request.tool_choice == BY_SCHEMA
    several = request.parameters.get("parallel_tool_calls") is True
    if calls:
        called = " or ".join(dict.fromkeys(call.name for call in calls))
        asks = AS_JSON if by_schema else f"Call {called} again, once, with arguments that fit its schema."
        if several:  # a missing call may be the fault, so no function is named
            asks = "Make every call again, with arguments that fit the schema."
        messages = _fault_per_call(before, calls, answer.items, f"{error}. {asks}")
    else:
        which = f"the function {name}" if len(names) == 1 else f"one of the functions {name}"
        asks = AS_JSON if by_schema else f"Call {which}{'' if several else ', once'}."
        silence = "(I said nothing.)" if error.ask or by_schema else f"(I did not call {name}.)"
        words = answer.text if answer.text and answer.has_words else silence
        messages = _fault_after_text(words, f"{error}. {error.ask or asks}")
    return with_messages(request, (*before, *messages), request.parameters)


def next_turn(request: Request, answer: Answer, valid_calls: Sequence[ValidCall]) -> Request:
    """Return the request that shows the answer's calls and their results, and lets the model continue or end."""
    # Keyed by the call itself, because some servers do not give each call its own id. A duplicate of another call is
    # not in `valid_calls` and gets that call's result.
    results: dict[object, JSON] = {one.tool: one.result for one in reversed(valid_calls)}
    results |= {id(one.call): one.result for one in valid_calls}
    calls_by_id = assign_call_ids(request.messages, answer.calls)
    known = {tool["function"]["name"] for tool in request.tools}
    tool_messages: list[Message] = []
    calls = []
    for name, call in calls_by_id:
        tool = normalize_tool_name(call.name, known)
        content = format_result(results.get(id(call), results.get(tool))) if tool in known else UNKNOWN
        tool_messages.append({"role": "tool", "tool_call_id": name, "content": content})
        calls.append((name, replace(call, name=tool)))
    messages = (*request.messages, assistant_message(calls, answer.text, answer.items), *tool_messages)
    return with_messages(request, messages, request.parameters, tool_choice="auto")


def format_result(result: JSON) -> str:
    """Format a callback's result for the model."""
    if result is None:
        return DONE
    text = result if isinstance(result, str) else codec.dumps(result).decode()
    return text if len(text) <= MAX_RESULT_CHARS else f"{text[:MAX_RESULT_CHARS]} … (cut)"


def _with_room(request: Request, error: TruncatedError, base: int) -> Request:
    parameters = {
        key: value * 2 if key in ROOM_PARAMETERS and isinstance(value, int) else value
        for key, value in request.parameters.items()
    }
    if parameters != request.parameters:
        return with_messages(request, request.messages, parameters)
    advice = error.ask or (BRIEF_JSON if request.tool_choice == BY_SCHEMA else BRIEF)
    brief: Message = {"role": "user", "content": f"Your last answer was too long and was cut. {advice}"}
    return with_messages(request, (*request.messages[:base], brief), parameters)


def _fault_per_call(
    before: Sequence[Message], calls: Sequence[ToolCall], items: Sequence[JSON], fault: str
) -> tuple[Message, ...]:
    # Every echoed call needs a tool message with its id.
    calls_by_id = assign_call_ids(before, calls)
    echo = assistant_message(calls_by_id, None, items)
    tool_messages = [
        {"role": "tool", "tool_call_id": name, "content": fault + _raw(call.arguments)} for name, call in calls_by_id
    ]
    return (echo, *tool_messages)


def assign_call_ids(before: Sequence[Message], calls: Sequence[ToolCall]) -> list[tuple[str, ToolCall]]:
    """Pair the calls with the ids under which they are sent back after these messages, each valid and unique.

    The server's own id is used if possible. Some servers send none, long ones, or repeated ones. A stricter server
    refuses their echo with a 400, which wastes a paid answer. The ids depend on nothing else, so a resumed conversation
    has the same ones.
    """
    used = {call["id"] for message in before for call in message.get("tool_calls") or ()}
    calls_by_id = []
    for place, call in enumerate(calls):
        name = call.id
        if not 0 < len(name) <= MAX_ID_CHARS or name in used:
            name = f"call_{len(before)}_{place}"
        while name in used:
            name = f"{name}_"
        used.add(name)
        calls_by_id.append((name, call))
    return calls_by_id


def assistant_message(calls_by_id: Sequence[tuple[str, ToolCall]], text: str | None, items: Sequence[JSON]) -> Message:
    """Return the model's message with these calls, in a form that any server accepts."""
    message: Message = {
        "role": "assistant",
        "content": text or None,
        "tool_calls": [
            {
                "id": name,
                "type": "function",
                "function": {"name": call.name, "arguments": safe_arguments(call.arguments)},
            }
            for name, call in calls_by_id
        ],
    }
    return {**message, ITEMS: items} if items else message


def _fault_after_text(words: str, fault: str) -> tuple[Message, ...]:
    return (
        {"role": "assistant", "content": words[:MAX_ECHO_CHARS]},
        {"role": "user", "content": fault},
    )


def safe_arguments(arguments: str) -> str:
    """Return the arguments so that any server accepts their echo."""
    if _is_object(arguments):
        return arguments
    with suppress(codec.JSONDecodeError):
        plain = codec.dumps(unwrap_arguments(arguments)[1]).decode()
        return plain if _is_object(plain) else "{}"
    return "{}"


def _raw(arguments: str) -> str:
    return "" if _is_object(arguments) else f" What you sent was: {arguments[:MAX_RAW_CHARS]}"


def _is_object(arguments: str) -> bool:
    # Many servers parse the arguments of an echoed call, and refuse the request if they are not a JSON object.
    try:
        return len(arguments) <= MAX_ECHO_CHARS and isinstance(codec.loads(arguments), dict)
    except codec.JSONDecodeError:
        return False


def with_messages(
    request: Request, messages: tuple[Message, ...], parameters: Mapping[str, JSON], *, tool_choice: JSON = None
) -> Request:
    """Replace the request's messages, and adjust its size and digest."""
    choice = request.tool_choice if tool_choice is None else tool_choice
    grown_bytes = len(codec.dumps(messages)) - len(codec.dumps(request.messages))
    more_room = (room_in(parameters) or 0) - (request.room or 0)
    return replace(
        request,
        messages=messages,
        tool_choice=choice,
        parameters=parameters,
        size_tokens=request.size_tokens + grown_bytes // BYTES_PER_TOKEN + more_room,
        digest=codec.digest128(codec.dumps([request.model, messages, request.tools, choice, parameters])),
    )
