"""Builds examples: records with their correct labels, shown to the model before the record."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pipeline import codec
from pipeline.errors import AnswerError, RenderError, TaskError
from pipeline.records import JSON, Record
from pipeline.task.nearest import Nearest
from pipeline.task.prompt import Prompt
from pipeline.task.render import Message, MessageBlock, join_blocks
from pipeline.task.schema import Tool, order_columns, short

#: The key of an example that holds the correct arguments. All other keys are the record's fields.
LABEL = "label"
#: The key that names the tool, if the task has several.
TOOL_COLUMN = "tool"
MAX_FAULTS = 5
#: What the function returns in an example.
DONE = "ok"
#: The size of three messages without their texts: roles, ids, about 20 tokens.
FRAME_BYTES = 80

PlainExample = dict[str, JSON]  #: an example from the config, as plain JSON
Example = tuple[str, MessageBlock]  #: its prompt, and the messages that show it
_T = TypeVar("_T")


def validate_examples(examples: Sequence[Any], columns: Sequence[str]) -> list[PlainExample]:
    """Copy the examples, so that nobody else can change them. Raises a TaskError that names the invalid ones.

    `columns` are the label columns, for the message.
    """
    if isinstance(examples, str | bytes) or not isinstance(examples, Sequence):
        raise TaskError(f"task.examples is {short(examples)}: expected a list of tables")
    return _collect(lambda example, _number: _to_plain(example, columns), examples)


def build_examples(
    plain: Sequence[PlainExample], prompt: Prompt, tools_for: Callable[[Record], Mapping[str, Tool]]
) -> list[Example]:
    """Build and check each example like a record and its answer. Raises a TaskError that lists the wrong ones."""
    if plain and LABEL in prompt.fields:
        raise TaskError(
            f"task.prompt uses the field {LABEL!r}, which in an example is the right answer: "
            "give the field another name in the input, or do without examples"
        )
    label_by_text: dict[str, tuple[int, JSON]] = {}

    def make(example: PlainExample, number: int) -> Example:
        record = _record(example, number)
        text, label = prompt.render(record).text, example[LABEL]
        first, its_label = label_by_text.setdefault(text, (number, label))
        if label != its_label:
            raise TaskError(f"it asks the same as example {first}, but has another label: remove one of them")
        return text, _messages(text, number, _tool_of(example, tools_for(record)), label)

    return _collect(make, plain)


def nearest_selector(examples: Sequence[Example], count: int) -> Callable[[str], MessageBlock]:
    """Return a function that selects a prompt's nearest examples, the nearest last, next to the record.

    It never selects an example with the same prompt, which would give the answer away.
    """
    nearest = Nearest([text for text, _block in examples])
    return lambda text: join_blocks([examples[place][1] for place in reversed(nearest.find(text, count))])


def check_count(count: int | None, examples: Sequence[Any]) -> None:
    """Raise TaskError for an examples_k that cannot work."""
    if count is None:
        return
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise TaskError(f"task.examples_k is {count!r}: expected a whole number from 1 up; leave it out to show all")
    if not examples:
        raise TaskError(f"task.examples_k is {count}, but there is no example: give some in task.examples")


def _tool_of(example: PlainExample, tools_by_name: Mapping[str, Tool]) -> Tool:
    """Return the tool that the example calls: the only one, or the one that it names."""
    if len(tools_by_name) == 1:
        return next(iter(tools_by_name.values()))
    name = example.get(TOOL_COLUMN)
    if not isinstance(name, str) or name not in tools_by_name:
        raise TaskError(
            f"its {TOOL_COLUMN!r} is {short(name)}: expected the tool that is called: {', '.join(tools_by_name)}"
        )
    return tools_by_name[name]


def _to_plain(example: Any, columns: Sequence[str]) -> PlainExample:
    if not isinstance(example, Mapping):
        raise TaskError(f"it is {short(example)}: expected a table with the record's fields and {LABEL!r}")
    plain: PlainExample = codec.plain(dict(example))
    if not isinstance(plain.get(LABEL), dict):
        fault = f"is {short(plain[LABEL])}" if LABEL in plain else "is missing"
        raise TaskError(f"its {LABEL!r} {fault}: expected the right arguments as a table with {', '.join(columns)}")
    return plain


def _record(example: PlainExample, number: int) -> Record:
    fields = {name: value for name, value in example.items() if name != LABEL}
    return Record(source="examples", ordinal=number - 1, key=f"example {number}", fields=fields, line=number, digest=0)


def _messages(text: str, number: int, tool: Tool, label: PlainExample) -> MessageBlock:
    arguments = codec.dumps(order_columns(label, tuple(tool.schema["properties"]))).decode()
    tool.check(label, arguments)
    # The example's own number, not its place in a request, so its bytes are the same wherever it is shown.
    name = f"call_example_{number}"
    call = {"id": name, "type": "function", "function": {"name": tool.name, "arguments": arguments}}
    messages: tuple[Message, ...] = (
        {"role": "user", "content": text},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "content": DONE},
    )
    size_bytes = len(codec.dumps([text, tool.name, arguments])) + FRAME_BYTES
    return MessageBlock(messages, codec.digest128(codec.dumps(messages)), size_bytes)


def _collect(make: Callable[[Any, int], _T], items: Sequence[Any]) -> list[_T]:
    results: list[_T] = []
    faults: list[str] = []
    for number, item in enumerate(items, start=1):
        try:
            results.append(make(item, number))
        except (TaskError, RenderError, AnswerError) as error:
            faults.append(f"\n  example {number}: {' '.join(str(error).split())}")
    if faults:
        more = f"\n  and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        listed = "".join(faults[:MAX_FAULTS])
        raise TaskError(f"{len(faults)} of the task's {len(items)} examples cannot be used:{listed}{more}")
    return results
