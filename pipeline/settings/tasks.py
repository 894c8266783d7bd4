"""The table [task]: what is asked about a record, and what follows a label."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.settings import checks
from pipeline.settings.checks import Takes
from pipeline.settings.media import MediaSettings
from pipeline.settings.section import Json, Section, Text

FunctionName = Annotated[str, AfterValidator(checks.function_name), Takes("a name of 1 to 64 letters, digits, _ and -")]
LabelValues = Annotated[
    list[str | int | float | bool],
    BeforeValidator(checks.as_plain),
    AfterValidator(checks.label_values),
    Takes('a list of values, like ["yes", "no"]'),
]
PlaceInPython = Annotated[
    str, AfterValidator(checks.place_in_python), Takes('"module:name", like "my_labels:Sentiment"')
]
JsonSchema = Annotated[
    dict[str, Json] | Text,
    BeforeValidator(checks.as_plain),
    Takes("a table that is a JSON Schema, or the path of a .json file with one"),
]
Labels = Annotated[
    dict[str, LabelValues],
    BeforeValidator(checks.as_plain),
    AfterValidator(checks.labels),
    Takes('lists of values by label field, like label = ["yes", "no"]'),
]


class FunctionSettings(Section):
    """A function whose arguments are the label."""

    name: FunctionName = Field(description="The function's name, as the model sees it.")
    description: str | None = Field(None, description="What it is for, as the model sees it.")
    parameters: JsonSchema = Field(description="The label's fields: a JSON Schema of an object.")


class ToolSettings(Section):
    """One of several tools. One of `labels`, `parameters` and `python` says what it takes."""

    name: FunctionName | None = Field(None, description="The function's name, as the model sees it.")
    description: str | None = Field(None, description="What it is for, as the model sees it.")
    labels: Labels | None = Field(None, description="One field a key, each with these values only.")
    parameters: JsonSchema | None = Field(None, description="A JSON Schema of an object.")
    python: PlaceInPython | None = Field(None, description="A Pydantic model, a function, or a tool in Python.")
    callback: PlaceInPython | None = Field(None, description="A function that is called with each label of the tool.")


class ValidatorSettings(Section):
    """What a label must fit beside its schema: an expression that is true, or a function."""

    expression: Text | None = Field(None, description="True for a label that is fine.")
    python: PlaceInPython | None = Field(None, description="A function that takes (label, record).")
    message: Text | None = Field(None, description="What the model is told when the label does not fit.")
    tool: FunctionName | None = Field(None, description="The tool whose label it is about; unset: each.")


class TaskSettings(Section):
    """What is asked about a record. One of `labels`, `function`, `python` and `tools` says what a label is."""

    name: FunctionName | None = Field(
        None, description="The function's name, as the model sees it; unset: its own, or `set_label`."
    )
    description: str | None = Field(
        None, description="What the function is for, as the model sees it; unset: its own, or made from its fields."
    )
    system: str | None = Field(None, description="The system message: the same for all records.")
    prompt: Text = Field(
        description="The user message: a Jinja2 template. The record's fields are its variables, and "
        '`record["any name"]` is one whose name is no identifier.'
    )
    labels: Labels | None = Field(
        None, description="The short way: a function with one field a key, each with these values only."
    )
    python: PlaceInPython | None = Field(
        None, description="A Pydantic model, or a tool with a schema and a callback, in Python."
    )
    tools: Annotated[
        list[ToolSettings] | None,
        Takes("tables with a name, a description, and one of labels, parameters and python"),
    ] = Field(None, min_length=1, description="Several tools, one `[[task.tools]]` each: the model chooses.")
    callback: PlaceInPython | None = Field(
        None, description="A function that is called with each label: `(label, record)`, or `(label, record, call)`."
    )
    callback_timeout_s: float = Field(300, gt=0, description="Seconds that a callback may take for one label.")
    call: Literal["one", "some", "any", "all"] = Field(
        "one",
        description="The calls that make an answer: exactly `one`, `some` (one or more), `any` (none is fine too), "
        "or `all` tools once each.",
    )
    rows: Text | None = Field(
        None,
        description='A record as several rows: `"calls"` makes each call a row, the name of a label field that is a '
        "list each item.",
    )
    max_turns: int = Field(
        1,
        ge=1,
        description="Answers in a conversation, at most: the model is told what came of its calls until it ends in "
        "words.",
    )
    reply: Text | None = Field(None, description="The column for the model's last words.")
    validators: Annotated[
        list[ValidatorSettings], Takes("tables with an expression or the place of a function in python")
    ] = Field(
        default_factory=list,
        description="Rules for labels beside the schema, one `[[task.validators]]` each; what fails is asked again.",
    )
    examples: Annotated[
        list[dict[str, Json]],
        BeforeValidator(checks.as_plain),
        Takes("tables with a record's fields and its `label`"),
    ] = Field(
        default_factory=list,
        description="Worked examples, shown to the model before each record: `[[task.examples]]`.",
    )
    examples_file: Text | None = Field(None, description="A JSONL file with more of them, one object a line.")
    examples_k: int | None = Field(
        None, ge=1, description="Show only the so many examples that are nearest to the record; unset: all, always."
    )
    dedupe: bool = Field(True, description="Ask only once for records whose requests are identical.")
    strict_answers: bool = Field(
        False,
        description="Take no call that is not exactly as it should be. Off, what can be read in one way only is read, "
        "and counted: `functions.` before the name, a fence around the arguments, JSON within a JSON text, another "
        "case or white space in a value.",
    )
    function: FunctionSettings | None = Field(None, description="The long way: a function with a JSON Schema.")
    media: MediaSettings = Field(
        default_factory=lambda: MediaSettings.model_validate({}),
        description="Pictures, sounds and documents, and which of them may be shown.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> TaskSettings:
        ways = ["labels", "function", "python", "tools"]
        found = [f"task.{way}" for way in ways if getattr(self, way) is not None]
        if len(found) != 1:
            seen = " and ".join(found) or "none of them"
            checks.refuse(f"got {seen}; expected exactly one of task.labels, task.function, task.python and task.tools")
        return self
