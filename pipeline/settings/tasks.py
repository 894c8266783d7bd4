"""The table [task]: what is asked about a record, and what follows a label."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.settings import checks, labelforms
from pipeline.settings.checks import Takes
from pipeline.settings.media import MediaSettings
from pipeline.settings.section import Json, Section, Text

FunctionName = Annotated[str, AfterValidator(checks.function_name), Takes("a name of 1 to 64 letters, digits, _ and -")]
LabelForm = Annotated[
    list[str | int | float | bool] | dict[str, Json] | str,
    BeforeValidator(labelforms.label_form),
    BeforeValidator(labelforms.as_plain_form),
    Takes('a list of values, like ["yes", "no"], a table of values and their meanings, or a short form'),
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
    dict[str, LabelForm],
    AfterValidator(checks.labels),
    Takes('values, meanings, or a short form by label field, like label = ["yes", "no"]'),
]


class FunctionSettings(Section):
    """A function whose arguments are the label."""

    name: FunctionName = Field(description="The name of the function, as the model sees it.")
    description: str | None = Field(None, description="What the function does, as the model sees it.")
    parameters: JsonSchema = Field(description="The fields of the label: a JSON Schema of an object.")


class ToolSettings(Section):
    """One of several tools. One of `labels`, `parameters` and `python` says what it takes."""

    name: FunctionName | None = Field(None, description="The name of the function, as the model sees it.")
    description: str | None = Field(None, description="What the function does, as the model sees it.")
    labels: Labels | None = Field(None, description="One field a key, as in `task.labels`.")
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
        None,
        description="The name of the function, as the model sees it. Unset: its own, or `set_label`. Set it if "
        "another name explains the task better.",
    )
    description: str | None = Field(
        None,
        description="What the function does, as the model sees it. Unset: its own, or one made from its fields. "
        "Set it to tell the model more about the labels.",
    )
    system: str | None = Field(
        None,
        description="The system message, the same for all records. Set it to define the labels and to say what to "
        "do in doubt.",
    )
    prompt: Text = Field(
        description="The user message: a Jinja2 template. Its variables are the fields of the record; "
        '`record["any name"]` is a field whose name is not an identifier.'
    )
    labels: Labels | None = Field(
        None,
        description="The short way: a function with one field per key. A field takes a list of its values, a table of "
        "values and their meanings, or a short form.",
    )
    python: PlaceInPython | None = Field(
        None,
        description="A Pydantic model, a function, or a tool with a schema and a callback, in Python. Use it if "
        "the label needs checks or code of your own.",
    )
    tools: Annotated[
        list[ToolSettings] | None,
        Takes("tables with a name, a description, and one of labels, parameters and python"),
    ] = Field(
        None,
        min_length=1,
        description="Several tools, one `[[task.tools]]` each, of which the model chooses. Use it if records need "
        "different labels.",
    )
    callback: PlaceInPython | None = Field(
        None,
        description="A function that is called with each label: `(label, record)` or `(label, record, call)`. Set "
        "it to add columns or to write elsewhere.",
    )
    callback_timeout_s: float = Field(
        300, gt=0, description="Seconds that a callback may take for one label. Lower it if your callback may hang."
    )
    call: Literal["one", "some", "any", "all"] = Field(
        "one",
        description="The calls that make an answer: exactly `one`, `some` (one or more), `any` (possibly none), "
        "or `all` tools once each. Set it with several tools.",
    )
    rows: Text | None = Field(
        None,
        description='Makes a record several rows: `"calls"` makes a row of each call, and the name of a list in '
        "the label makes a row of each item. Set it to extract things from a text.",
    )
    max_turns: int = Field(
        1,
        ge=1,
        description="The most answers in a conversation. With 2 or more, the model sees the results of its calls "
        "until it ends in words. Set it if your callback looks something up for the model.",
    )
    reply: Text | None = Field(
        None, description="The column for the model's last words in a conversation. Set it to keep them."
    )
    validators: Annotated[
        list[ValidatorSettings], Takes("tables with an expression or the place of a function in python")
    ] = Field(
        default_factory=list,
        description="Rules for labels beyond the schema, one `[[task.validators]]` each. A label that breaks one "
        "is requested again.",
    )
    examples: Annotated[
        list[dict[str, Json]],
        BeforeValidator(checks.as_plain),
        Takes("tables with a record's fields and its `label`"),
    ] = Field(
        default_factory=list,
        description="Worked examples that the model sees before each record: `[[task.examples]]`. Use them if a "
        "description of the labels is not enough.",
    )
    examples_file: Text | None = Field(
        None, description="A JSONL file with examples, one object per line. Use it if there are many."
    )
    examples_k: int | None = Field(
        None,
        ge=1,
        description="Show only the K examples nearest to the record. Unset: all of them. Set it if there are more "
        "than a few dozen.",
    )
    dedupe: bool = Field(
        True,
        description="Ask only once for records whose requests are identical. Turn it off to get separate answers "
        "for repeated texts.",
    )
    strict_answers: bool = Field(
        False,
        description="Accept only calls in exactly the right form. Off, labelpipe also reads what can be read in "
        "only one way, and counts it: `functions.` before the name, a fence around the arguments, "
        "JSON inside a JSON text, other case or white space in a value. Turn it on to measure a "
        "server.",
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
