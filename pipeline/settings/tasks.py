"""The table [task]: what the model is asked about a record, and what happens with a label."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.settings import checks, labelforms
from pipeline.settings.checks import Takes
from pipeline.settings.section import Json, Path, Section, Text, Texts

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

Fields = Annotated[Texts, Takes('a list of fields, like ["photo"]')]


class MediaSettings(Section):
    """Images, audio, and documents of the records."""

    images: Fields = Field(default_factory=list)
    audio: Fields = Field(default_factory=list)
    documents: Fields = Field(default_factory=list)
    root: Path | None = None
    detail: Literal["auto", "low", "high", "original"] = "high"
    max_pixels: int | None = Field(None, ge=1_024)
    max_bytes: int = Field(20_000_000, ge=1)
    urls: Literal["pass", "fetch", "refuse"] = "pass"
    http: bool = False
    fetch_private: bool = False
    memory_mb: int = Field(512, ge=1)
    pdf_as: Literal["images", "file"] = "images"
    pdf_pages: int = Field(20, ge=1)
    pdf_dpi: int = Field(110, ge=20, le=600)


class FunctionSettings(Section):
    """A function whose arguments are the label."""

    name: FunctionName
    description: str | None = None
    parameters: JsonSchema


class ToolSettings(Section):
    """One of several tools. One of `labels`, `parameters`, and `python` defines its parameters."""

    name: FunctionName | None = None
    description: str | None = None
    labels: Labels | None = None
    parameters: JsonSchema | None = None
    python: PlaceInPython | None = None
    callback: PlaceInPython | None = None


class ValidatorSettings(Section):
    """A rule for labels beyond the schema: an expression that must be true, or a function."""

    expression: Text | None = None
    python: PlaceInPython | None = None
    message: Text | None = None
    tool: FunctionName | None = None


class TaskSettings(Section):
    """What the model is asked about a record. One of `labels`, `function`, `python`, and `tools` defines the label."""

    name: FunctionName | None = None
    description: str | None = None
    system: str | None = None
    prompt: Text
    labels: Labels | None = None
    python: PlaceInPython | None = None
    tools: Annotated[
        list[ToolSettings] | None, Takes("tables with a name, a description, and one of labels, parameters and python")
    ] = Field(None, min_length=1)
    callback: PlaceInPython | None = None
    callback_timeout_s: float = Field(300, gt=0)
    call: Literal["one", "some", "any", "all"] = "one"
    rows: Text | None = None
    max_turns: int = Field(1, ge=1)
    reply: Text | None = None
    validators: Annotated[
        list[ValidatorSettings], Takes("tables with an expression or the place of a function in python")
    ] = Field(default_factory=list)
    examples: Annotated[
        list[dict[str, Json]], BeforeValidator(checks.as_plain), Takes("tables with a record's fields and its `label`")
    ] = Field(default_factory=list)
    examples_file: Text | None = None
    examples_k: int | None = Field(None, ge=1)
    dedupe: bool = True
    strict_answers: bool = False
    function: FunctionSettings | None = None
    media: MediaSettings = Field(default_factory=lambda: MediaSettings.model_validate({}))

    @model_validator(mode="after")
    def _one_way(self) -> TaskSettings:
        ways = ["labels", "function", "python", "tools"]
        found = [f"task.{way}" for way in ways if getattr(self, way) is not None]
        if len(found) != 1:
            present = " and ".join(found) or "none of them"
            ways_text = "task.labels, task.function, task.python and task.tools"
            checks.refuse(f"got {present}; expected exactly one of {ways_text}")
        return self
