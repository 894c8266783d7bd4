"""An answer becomes a label, or the reason why there is none."""

from __future__ import annotations

from pipeline import codec
from pipeline.errors import InvalidAnswerError, RefusalError, TruncatedError
from pipeline.records import JSON, Answer, ToolCall
from pipeline.task.schema import Tool, short


def read(tool: Tool, answer: Answer) -> dict[str, JSON]:
    """The label in the answer. Raises an AnswerError.

    Nothing is guessed: broken JSON is not mended, a label in the text is not taken, "Positive" is not "positive".
    """
    if answer.refusal or answer.finish_reason == "content_filter":
        raise RefusalError(_refusal(answer))
    if answer.finish_reason == "length":
        return _read_cut(tool, answer)
    return _read_calls(tool, answer)


def _read_cut(tool: Tool, answer: Answer) -> dict[str, JSON]:
    # The flag alone is no fault: the cut may have come after the call was complete.
    try:
        return _read_calls(tool, answer)
    except InvalidAnswerError as error:
        raise TruncatedError(
            f"the answer was cut at the token limit before the call of {tool.name} was complete; "
            "give it more room with model.parameters.max_completion_tokens"
        ) from error


def _read_calls(tool: Tool, answer: Answer) -> dict[str, JSON]:
    calls = answer.calls
    if len(calls) != 1 or calls[0].name != tool.name:
        calls = _calls_of(tool, answer)
    label = _label(tool, calls[0])
    for call in calls[1:]:
        if (other := _label(tool, call)) != label:
            raise InvalidAnswerError(
                f"{len(calls)} calls of {tool.name} that differ: {short(label)} and {short(other)}; expected one call"
            )
    return label


def _calls_of(tool: Tool, answer: Answer) -> tuple[ToolCall, ...]:
    named = tuple(call for call in answer.calls if call.name == tool.name)
    if named:
        return named
    if answer.calls:
        found = ", ".join(short(call.name) for call in answer.calls[:3])
        raise InvalidAnswerError(f"a call of {found}: expected a call of {tool.name!r}", code="no_tool_call")
    said = f"; the text was {short(answer.text)}" if answer.text else ""
    raise InvalidAnswerError(f"no call of {tool.name!r}{said}", code="no_tool_call")


def _label(tool: Tool, call: ToolCall) -> dict[str, JSON]:
    try:
        value = codec.loads(call.arguments)
    except codec.JSONDecodeError as error:
        raise InvalidAnswerError(
            f"the arguments of {tool.name} are not valid JSON: {error}; they were {short(call.arguments)}",
            code="invalid_json",
        ) from error
    return tool.check(value, call.arguments)


def _refusal(answer: Answer) -> str:
    if answer.refusal:
        return f"the model declined: {short(answer.refusal)}"
    said = f"; its text was {short(answer.text)}" if answer.text else ""
    return f"the content filter cut the answer{said}"
