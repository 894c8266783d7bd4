"""Turns an answer into calls that fit their tools, or into the reason why it has none."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline import codec
from pipeline.errors import InvalidAnswerError, RefusalError, TruncatedError, UnfinishedError
from pipeline.records import FILTERED, JSON, UNUSABLE_CALL, Answer, ToolCall, ValidCall
from pipeline.task.lenient import (
    PREFIX,
    SPELLING,
    find_repeated_key,
    match_choices,
    normalize_tool_name,
    unwrap_arguments,
)
from pipeline.task.schema import MOST_CHARS_IN_DETAIL, Tool, short

Tools = Mapping[str, Tool]


@dataclass(frozen=True, slots=True)
class CallRules:
    """How many calls make an answer: `call` is one, some, any, or all; with `each`, every call is a row.

    With `talks`, the model may end with a text after its calls, and "all" may take several turns. With `reply`, that
    text is required: an empty answer does not end the conversation. `strict` refuses any answer in the wrong form.
    """

    call: str = "one"
    each: bool = False
    talks: bool = False
    reply: bool = False
    strict: bool = False


#: How servers report, in lowercase, that the answer was cut at the token limit, that a filter removed it, and that they
#: found no usable call in it, which is the model's mistake.
TRUNCATED_REASONS = frozenset({"length", "max_tokens", "model_context_window_exceeded"})
REFUSAL_REASONS = frozenset(
    {FILTERED, "content_filtered", "sensitive", "safety", "prohibited_content", "recitation", "blocklist", "spii",
     "image_safety", "image_prohibited_content", "image_recitation", "refusal", "guardrail_intervened", "error_toxic"}
)  # fmt: skip
UNUSABLE_REASONS = frozenset(
    {UNUSABLE_CALL, "malformed_function_call", "malformed_tool_call", "malformed_tool_use", "malformed_model_output",
     "unexpected_tool_call", "too_many_tool_calls"}
)  # fmt: skip


def parse_answer(
    tools: Tools, answer: Answer, rules: CallRules, before: Sequence[ValidCall] = ()
) -> tuple[ValidCall, ...]:
    """Return the calls in the answer; none if it may be text alone. Raises an AnswerError.

    Nothing is guessed: broken JSON is not fixed, and a call or label in the text does not count. What has only one
    possible reading is read (see `lenient`), unless `rules` are strict. `before` are the calls of earlier turns.
    """
    ending = answer.ending
    if answer.refusal or ending & REFUSAL_REASONS:
        raise RefusalError(_describe_refusal(answer))
    if ending & UNUSABLE_REASONS:
        words = f"; the model wrote {short(answer.text)}" if answer.text else ""
        raise InvalidAnswerError(f"the server found no valid call in the answer{words}", code="no_tool_call")
    if ending & TRUNCATED_REASONS:
        return _parse_truncated(tools, answer, rules, before)
    return _parse_calls(tools, answer, rules, before)


def _parse_truncated(
    tools: Tools, answer: Answer, rules: CallRules, before: Sequence[ValidCall]
) -> tuple[ValidCall, ...]:
    words = not answer.calls and _may_be_words(tools, rules, before)
    # The finish reason alone is no fault: the cut may have come after the call was complete.
    try:
        valid_calls = _parse_calls(tools, answer, rules, before)
    except InvalidAnswerError as error:
        if not answer.calls and not words and _has_text(answer):
            raise  # text instead of a call: a higher token limit would not help
        raise _truncated_error(tools, words) from error
    if not valid_calls:  # text that was cut
        raise _truncated_error(tools, words)
    return valid_calls


def _has_text(answer: Answer) -> bool:
    """Whether the answer has a text, not counting reasoning that the token limit cut."""
    text = (answer.text or "").strip()
    return bool(text) and not (text.startswith("<think>") and "</think>" not in text)


def _truncated_error(tools: Tools, words: bool) -> TruncatedError:
    what = "its last words were" if words else f"the call of {' or '.join(tools)} was"
    return TruncatedError(
        f"the answer was cut at the token limit before {what} complete; raise model.parameters.max_completion_tokens",
        ask="Be brief: answer in a few words." if words else None,
    )


def _parse_calls(tools: Tools, answer: Answer, rules: CallRules, before: Sequence[ValidCall]) -> tuple[ValidCall, ...]:
    calls_by_name = [
        (call.name if rules.strict else normalize_tool_name(call.name, tools), call) for call in answer.calls
    ]
    calls = [(tools[name], call) for name, call in calls_by_name if name in tools]
    if not calls:
        return _parse_words(tools, answer, rules, before)
    valid_calls = tuple(_parse_call(tool, call, rules) for tool, call in calls)
    if rules.each:
        return valid_calls
    return _single_call(valid_calls) if rules.call == "one" else _one_call_per_tool(tools, valid_calls, rules)


def _parse_words(tools: Tools, answer: Answer, rules: CallRules, before: Sequence[ValidCall]) -> tuple[ValidCall, ...]:
    """Accept an answer without calls of our tools if text alone is enough, or ends a conversation."""
    names = " or ".join(map(repr, tools))
    if answer.calls:
        names_called = ", ".join(short(call.name) for call in answer.calls[:3])
        raise InvalidAnswerError(f"a call of {names_called}: expected a call of {names}", code="no_tool_call")
    if _may_be_words(tools, rules, before):
        if not answer.has_words and (rules.reply or not before):
            raise _empty_answer_error(names, before)
        return ()
    missing = _missing(tools, before, rules) if before else []
    names = ", ".join(map(repr, missing)) or names
    text = f"; the text was {short(answer.text)}" if answer.text else ""
    raise InvalidAnswerError(f"no call of {names}{text}", code="no_tool_call")


def _may_be_words(tools: Tools, rules: CallRules, before: Sequence[ValidCall]) -> bool:
    """Whether no call is needed: text alone is allowed, or all required calls were made."""
    return rules.call == "any" or (rules.talks and bool(before) and not _missing(tools, before, rules))


def _empty_answer_error(names: str, before: Sequence[ValidCall]) -> InvalidAnswerError:
    """Create the error for an empty answer, which is neither a decision against a call nor a final text."""
    if before:
        return InvalidAnswerError(
            "the answer was empty, but a final text is required", code="unfinished", ask="Answer in words."
        )
    fault = f"the answer was empty: neither a call of {names} nor words"
    return InvalidAnswerError(fault, code="no_tool_call", ask=f"Call {names}, or answer in words.")


def _single_call(valid_calls: tuple[ValidCall, ...]) -> tuple[ValidCall, ...]:
    first = valid_calls[0]
    for other in valid_calls[1:]:
        if other.tool != first.tool:
            names = ", ".join(dict.fromkeys(valid_call.tool for valid_call in valid_calls))
            raise InvalidAnswerError(f"{len(valid_calls)} calls, of {names}; expected one call")
        if other.label != first.label:
            raise InvalidAnswerError(
                f"{len(valid_calls)} calls of {first.tool} that differ: {short(first.label)} and {short(other.label)}; "
                "expected one call"
            )
    return valid_calls[:1]


def _one_call_per_tool(tools: Tools, valid_calls: tuple[ValidCall, ...], rules: CallRules) -> tuple[ValidCall, ...]:
    first: dict[str, ValidCall] = {}
    for valid_call in valid_calls:
        tool, label = valid_call.tool, valid_call.label
        if (other := first.setdefault(tool, valid_call).label) != label:
            raise InvalidAnswerError(
                f"calls of {tool} that differ: {short(other)} and {short(label)}; expected one call of it"
            )
    if not rules.talks and (missing := _missing(tools, valid_calls, rules)):
        raise InvalidAnswerError(f"no call of {', '.join(map(repr, missing))}", code="no_tool_call")
    return tuple(first.values())


def refuse_missing(names: Sequence[str], valid_calls: Sequence[ValidCall], rules: CallRules) -> None:
    """Raise UnfinishedError if a conversation was cut off before every required tool was called."""
    if missing := _missing(names, valid_calls, rules):
        listed = ", ".join(map(repr, missing))
        raise UnfinishedError(f"no call of {listed} when the last turn was over: allow more turns with task.max_turns")


def _missing(tools: Iterable[str], valid_calls: Sequence[ValidCall], rules: CallRules) -> list[str]:
    called = {valid_call.tool for valid_call in valid_calls}
    return [name for name in tools if name not in called] if rules.call == "all" else []


def _parse_call(tool: Tool, call: ToolCall, rules: CallRules) -> ValidCall:
    if rules.strict and call.readings:
        fault = f"the call came as {' and '.join(call.readings)}, which task.strict_answers refuses"
        raise InvalidAnswerError(fault, code="invalid_json")
    readings = call.readings if call.name == tool.name else (*call.readings, PREFIX)
    try:
        return ValidCall(tool.name, _parse_label(tool, call), call, readings=readings)
    except InvalidAnswerError:
        if rules.strict or (lenient_reading := _parse_leniently(tool, call)) is None:
            raise
    label, more = lenient_reading
    return ValidCall(tool.name, label, call, readings=readings + more)


def _parse_leniently(tool: Tool, call: ToolCall) -> tuple[dict[str, JSON], tuple[str, ...]] | None:
    """Return the label of arguments with only one possible reading, and what was wrong; None if there is none."""
    if len(call.arguments) > MOST_CHARS_IN_DETAIL:
        return None
    try:
        text, value, readings = unwrap_arguments(call.arguments)
        if find_repeated_key(text, value) is not None:
            return None
        spelled = match_choices(value, tool.schema)
        if spelled != value:
            value, text, readings = spelled, codec.dumps(spelled).decode(), (*readings, SPELLING)
        return (tool.check(value, text), readings) if readings else None
    except (codec.JSONDecodeError, InvalidAnswerError):
        return None


def _parse_label(tool: Tool, call: ToolCall) -> dict[str, JSON]:
    """Return the label of arguments that fit. A key must not occur twice with different values."""
    try:
        value = codec.loads_digits(call.arguments)
    except codec.JSONDecodeError as error:
        raise InvalidAnswerError(
            f"the arguments of {tool.name} are not valid JSON: {error}; they were {short(call.arguments)}",
            code="invalid_json",
        ) from error
    label = tool.check(value, call.arguments)
    if (name := find_repeated_key(call.arguments, value)) is not None:
        raise InvalidAnswerError(f"the arguments of {tool.name} give {name!r} twice, with different values")
    return label


def _describe_refusal(answer: Answer) -> str:
    if answer.refusal:
        return f"the model declined: {short(answer.refusal)}"
    text = f"; its text was {short(answer.text)}" if answer.text else ""
    reason = "" if answer.finish_reason == FILTERED else f" ({short(answer.finish_reason)})"
    return f"the content filter cut the answer{reason}{text}"
