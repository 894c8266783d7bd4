"""The four ways to say what a label is, and every way to say it wrong."""

from __future__ import annotations

from typing import Any

import pytest
from task_calls import read_label

from pipeline.errors import CallbackError, InvalidAnswerError, RenderError, TaskError
from pipeline.task import TaskOptions, ToolOptions, build_task


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def function(**properties: Any) -> ToolOptions:
    return ToolOptions("rate", schema(**properties), "Rate it.")


# labels


def test_labels_become_one_function_with_an_enum_each(make_task) -> None:
    task = make_task(labels={"label": ["yes", "no"], "stars": [1, 2], "sure": [True, False]})
    (tool,) = task.fingerprint["tools"]
    assert tool == {
        "type": "function",
        "function": {
            "name": "set_label",
            "description": "Set label, stars and sure of the record.",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {
                    "label": {"type": "string", "enum": ["yes", "no"]},
                    "stars": {"type": "integer", "enum": [1, 2]},
                    "sure": {"type": "boolean", "enum": [True, False]},
                },
                "required": ["label", "stars", "sure"],
                "additionalProperties": False,
            },
        },
    }
    assert task.columns == ("label", "stars", "sure")
    assert not task.has_callback


def test_labels_of_several_types(make_task) -> None:
    task = make_task(labels={"x": ["a", 1, True, 0.5]})
    parameters = task.fingerprint["tools"][0]["function"]["parameters"]
    assert parameters["properties"]["x"] == {
        "type": ["string", "integer", "boolean", "number"],
        "enum": ["a", 1, True, 0.5],
    }


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({}, "task.labels is empty"),
        ({"label": []}, "task.labels.label is an empty list"),
        ({"label": ["a", "b", "a"]}, "holds 'a' twice"),
        ({"label": [1, 1.0]}, "twice"),
        ({"label": ["a", " "]}, "holds ' '"),
        ({"label": ["a", None]}, "holds None"),
        ({"label": [float("nan")]}, "holds nan"),
        ({"label": "ab"}, "expected a list"),
        ({"label": list(range(1001))}, "1001 values"),
        ({"a": list(range(600)), "b": list(range(600))}, "1200 enum values"),
    ],
)
def test_labels_that_cannot_work(make_task, labels: Any, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        make_task(labels=labels)


def test_true_and_one_are_two_labels(make_task) -> None:
    assert make_task(labels={"x": [1, True]}).columns == ("x",)


# a JSON Schema


def test_a_json_schema_is_closed_and_otherwise_as_given(make_task) -> None:
    given = schema(stars={"type": "integer", "minimum": 1}, inner=schema(why={"type": "string"}))
    task = make_task(function=ToolOptions("rate", given, "Rate it."))
    sent = task.fingerprint["tools"][0]["function"]
    assert sent["name"] == "rate"
    assert sent["description"] == "Rate it."
    inner = {**given["properties"]["inner"], "additionalProperties": False}
    assert sent["parameters"] == {
        **given,
        "properties": {**given["properties"], "inner": inner},
        "additionalProperties": False,
    }
    assert "additionalProperties" not in given, "the user's own dict is left alone"


def test_without_strict_the_schema_is_sent_as_it_is(make_task, make_answer, record) -> None:
    given = {"type": "object", "properties": {"a": {"type": "string", "default": "x"}, "b": {"type": "integer"}}}
    task = make_task(function=ToolOptions("rate", given), strict=False)
    assert task.fingerprint["tools"][0]["function"] == {"name": "rate", "parameters": given}
    assert read_label(task, make_answer('{"z":1,"b":2}', name="rate"), record) == {"b": 2, "z": 1}


def test_every_finding_is_in_the_error(make_task) -> None:
    given = {"type": "object", "properties": {"a": {"type": "string", "default": "x"}, "b": {"oneOf": []}}}
    with pytest.raises(TaskError) as caught:
        make_task(function=ToolOptions("rate", {**given, "properties": {"a": given["properties"]["a"]}}))
    assert "#: not required: a" in str(caught.value)
    assert "#/properties/a: 'default'" in str(caught.value)
    assert "model.strict = false" in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"type": "objekt"}, "not valid at #/type"),
        ({"type": "object", "properties": {"a": {"minLength": -1}}}, "not valid at #/properties/a/minLength"),
        ({"type": "array", "items": {}}, "root of type 'array'"),
        ({"properties": {"a": {"type": "string"}}}, "root of type None"),
        ({"type": "object"}, "no properties"),
        ({"type": "object", "properties": {}}, "no properties"),
        (schema(a={"type": "string", "pattern": "(?<"}), "cannot be used: .*regex"),
        (schema(a={"$ref": "#/$defs/gone"}), "cannot be used"),
    ],
)
def test_schemas_that_cannot_work(make_task, parameters: Any, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        make_task(function=ToolOptions("rate", parameters))


@pytest.mark.parametrize("place", ["https://example.com/a.json", "file:///etc/hostname"])
def test_a_reference_is_never_fetched(make_task, place: str) -> None:
    """The validator would fetch it by itself, from the network or the disk."""
    with pytest.raises(TaskError, match="outside the schema"):
        make_task(function=function(a={"$ref": place}), strict=False)


@pytest.mark.parametrize("name", ["", "set label", "ä", "x" * 65, "a\n"])
def test_names_that_the_api_refuses(make_task, name: str) -> None:
    with pytest.raises(TaskError, match="function's name"):
        make_task(function=ToolOptions(name, schema(a={"type": "string"})))


# the options around it


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "none of task.labels, task.function, task.python, task.tools is given"),
        ({"labels": {"a": ["b"]}, "python": "a:b"}, "task.labels and task.python of .* expected exactly one"),
        ({"labels": {"a": ["b"]}, "model": " "}, "model.name is empty"),
        ({"labels": {"a": ["b"]}, "tool_choice": "force"}, "'force': expected .*did you mean 'forced'"),
        ({"labels": {"a": ["b"]}, "parameters": {"stream": True}}, "model.parameters.stream cannot be set"),
        ({"labels": {"a": ["b"]}, "prompt": " \n"}, "task.prompt is empty"),
    ],
)
def test_options_that_cannot_work(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        build_task(TaskOptions(**{"model": "m", "prompt": "{{ text }}", **changes}))


@pytest.mark.parametrize(
    ("word", "sent"),
    [
        ("forced", {"type": "function", "function": {"name": "set_label"}}),
        ("required", "required"),
        ("auto", "auto"),
    ],
)
def test_tool_choice(make_task, record, word: str, sent: Any) -> None:
    task = make_task(tool_choice=word)
    assert task.render(record).tool_choice == sent
    assert task.fingerprint["tool_choice"] == word


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"parallel_tool_calls": False}),
        ({"temperature": 0, "seed": None}, {"parallel_tool_calls": False, "temperature": 0}),
        ({"parallel_tool_calls": True}, {"parallel_tool_calls": True}),
        ({"parallel_tool_calls": "omit"}, {}),
    ],
)
def test_parameters_are_sent_only_when_set(make_task, record, given: Any, sent: Any) -> None:
    task = make_task(parameters=given)
    assert task.render(record).parameters == sent
    assert task.fingerprint["parameters"] == sent


def test_the_fingerprint_has_named_readable_parts(make_task) -> None:
    task = make_task(system="You help.")
    parts = ["prompt", "system", "tools", "tool_choice", "model", "parameters", "examples", "examples_k"]
    assert list(task.fingerprint) == parts
    assert task.fingerprint["prompt"] == "Label: {{ text }}"
    assert task.fingerprint["system"] == "You help."
    assert task.fingerprint == make_task(system="You help.").fingerprint
    assert task.fingerprint != make_task(system="You help!").fingerprint


# a Pydantic model

MODEL = """
    import datetime
    from enum import Enum
    from typing import Literal
    from pydantic import BaseModel, Field, computed_field, field_validator

    class Tone(Enum):
        warm = "warm"
        cold = "cold"

    class Part(BaseModel):
        name: str = "x"

    class Review(BaseModel):
        '''Judge the review.'''
        tone: Tone = Field(description="how it sounds")
        title: str | None = None
        stars: int = Field(3, ge=1, le=5)
        mixed: Literal["a", 1] = "a"
        day: datetime.date
        tags: set[str]
        parts: list[Part] = []
        link: str = Field(json_schema_extra={"format": "uri"})

        @computed_field
        @property
        def good(self) -> bool:
            return self.stars > 3

        @field_validator("title")
        @classmethod
        def no_shouting(cls, value):
            if value == "BREAK":
                raise KeyError("of the user's own")
            if value and value.isupper():
                raise ValueError("titles are not shouted")
            return value

    class Tree(BaseModel):
        name: str
        below: list["Tree"] = []

    class Loose(BaseModel):
        anything: dict
"""
ARGUMENTS = (
    '{"tone":"warm","title":null,"stars":4,"mixed":1,"day":"2026-11-22","tags":["b"],"parts":[{"name":"p"}],"link":"l"}'
)
REVIEW = {
    "tone": "warm",
    "title": None,
    "stars": 4,
    "mixed": 1,
    "day": "2026-11-22",
    "tags": ["b"],
    "parts": [{"name": "p"}],
    "link": "l",
    "good": True,
}


def test_a_model_is_made_fit_for_strict_mode(make_task, module) -> None:
    task = make_task(python="mytools:Review", base=module(MODEL))
    sent = task.fingerprint["tools"][0]["function"]
    properties = sent["parameters"]["properties"]
    assert sent["description"] == "Judge the review."
    assert sent["parameters"]["required"] == list(properties)
    assert properties["title"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert properties["stars"] == {"type": "integer", "minimum": 1, "maximum": 5}
    assert properties["mixed"] == {"type": ["string", "integer"], "enum": ["a", 1]}
    assert properties["tone"] == {"description": "how it sounds", "anyOf": [{"$ref": "#/$defs/Tone"}]}
    assert properties["tags"] == {"type": "array", "items": {"type": "string"}}
    assert properties["link"] == {"type": "string"}
    assert sent["parameters"]["$defs"]["Part"]["required"] == ["name"]


def test_a_models_label_is_what_the_model_gives_back(make_task, module, make_answer, record) -> None:
    task = make_task(python="mytools:Review", base=module(MODEL))
    assert task.columns == tuple(REVIEW)
    label = read_label(task, make_answer(ARGUMENTS), record)
    assert label == REVIEW
    assert list(label) == list(REVIEW)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"warm"', '"warmer"', "tone: .*'warm', 'cold'"),
        ('"title":null', '"title":"LOUD"', "title: .*titles are not shouted, got 'LOUD'"),
        ('"2026-11-22"', '"2026-13-01"', "day: "),
        ('"stars":4', '"stars":9', "stars: 9 is greater"),
        ('"stars":4', '"stars":"4"', "stars: .* is not of type"),
        (',"link":"l"', "", "'link' is required"),
    ],
)
def test_a_models_validators_count(make_task, module, make_answer, record, old: str, new: str, words: str) -> None:
    task = make_task(python="mytools:Review", base=module(MODEL))
    with pytest.raises(InvalidAnswerError, match=words) as caught:
        read_label(task, make_answer(ARGUMENTS.replace(old, new)), record)
    assert caught.value.code == "invalid_label"


def test_a_validator_that_breaks_is_the_users_fault_not_the_models(make_task, module, make_answer, record) -> None:
    task = make_task(python="mytools:Review", base=module(MODEL))
    with pytest.raises(CallbackError, match="the model Review raised KeyError"):
        read_label(task, make_answer(ARGUMENTS.replace('"title":null', '"title":"BREAK"')), record)


def test_a_model_that_refers_to_itself(make_task, module, make_answer, record) -> None:
    task = make_task(python="mytools:Tree", base=module(MODEL))
    label = {"name": "a", "below": [{"name": "b", "below": []}]}
    assert task.columns == ("name", "below")
    assert read_label(task, make_answer('{"name":"a","below":[{"name":"b","below":[]}]}'), record) == label


def test_a_model_that_strict_mode_cannot_take(make_task, module) -> None:
    base = module(MODEL)
    with pytest.raises(TaskError, match="#/properties/anything: additionalProperties is True"):
        make_task(python="mytools:Loose", base=base)
    assert make_task(python="mytools:Loose", base=base, strict=False).columns == ("anything",)


def test_a_loose_model_keeps_its_defaults(make_task, module, make_answer, record) -> None:
    task = make_task(python="mytools:Tree", base=module(MODEL), strict=False)
    assert read_label(task, make_answer('{"name":"a"}'), record) == {"name": "a", "below": []}


# a tool of the user's own

TOOLS = """
    from dataclasses import dataclass
    from typing import Literal

    def answers(*values):
        return {"type": "object", "properties": {"label": {"type": "string", "enum": list(values)}},
                "required": ["label"]}

    class Fixed:
        '''Choose.'''
        schema = answers("a", "b")
        name = "choose"
        extra_columns = ("seen",)
        def __call__(self, label, record):
            return {"seen": record.fields["text"]}

    fixed = Fixed()

    @dataclass
    class Silent:
        schema = answers("a")

    class Chooser:
        columns = ["label"]
        def schema(self, record):
            return answers(*record.fields["options"])

    class Unsaid(Chooser):
        columns = None

    class Guessable(Chooser):
        columns = None
        def schema(self, record):
            return answers("a") if record is None else super().schema(record)

    class Liar(Chooser):
        columns = ["other"]

    class Mismatch(Fixed):
        columns = ["other"]

    class Double(Fixed):
        extra_columns = ("label",)

    class OneArgument(Fixed):
        def __call__(self, label):
            return None

    class NeedsMore(Fixed):
        def __init__(self, path):
            pass

    class Explodes:
        @property
        def schema(self):
            raise RuntimeError("boom")

    class BadName(Fixed):
        name = 3

    class BadColumns(Fixed):
        columns = "label"

    def plain(label: Literal["yes", "no"], schema: int, record):
        '''Say yes or no.'''
        return {"note": f"{label} {schema} {record.key}"}

    async def later(label: Literal["yes", "no"]):
        return {"note": label}

    def bare(label):
        pass

    def starred(**labels: str):
        pass

    def lost(label: "Nowhere"):
        pass

    def unspeakable(label: object()):
        pass

    number = 3
"""


@pytest.mark.parametrize("attribute", ["Fixed", "fixed"])
def test_an_object_with_a_schema(make_task, module, attribute: str) -> None:
    task = make_task(python=f"mytools:{attribute}", base=module(TOOLS))
    sent = task.fingerprint["tools"][0]["function"]
    assert (sent["name"], sent["description"]) == ("choose", "Choose.")
    assert task.columns == ("label",)
    assert task.extra_columns == ("seen",)
    assert task.has_callback


def test_the_config_names_it_before_the_tool_does(make_task, module) -> None:
    task = make_task(python="mytools:Fixed", base=module(TOOLS), name="mark", description="Mark it.")
    sent = task.fingerprint["tools"][0]["function"]
    assert (sent["name"], sent["description"]) == ("mark", "Mark it.")


def test_an_object_without_a_call_has_no_callback(make_task, module) -> None:
    task = make_task(python="mytools:Silent", base=module(TOOLS))
    assert not task.has_callback
    assert "description" not in task.fingerprint["tools"][0]["function"]


def test_a_schema_that_depends_on_the_record(make_task, module, make_record, make_answer) -> None:
    task = make_task(python="mytools:Chooser", base=module(TOOLS))
    one, two = make_record(text="t", options=["a"]), make_record(text="t", options=["b"])
    enums = [task.render(each).tools[0]["function"]["parameters"]["properties"]["label"]["enum"] for each in (one, two)]
    assert enums == [["a"], ["b"]]
    assert task.render(one).digest != task.render(two).digest
    assert task.render(one).tools is task.render(make_record(text="u", options=["a"])).tools, "kept, not made again"
    assert read_label(task, make_answer('{"label":"b"}'), two) == {"label": "b"}
    with pytest.raises(InvalidAnswerError, match=r"'b' is not one of \['a'\]"):
        read_label(task, make_answer('{"label":"b"}'), one)


def test_what_it_does_to_the_record_is_done_to_a_copy(make_task, module, make_record, make_answer) -> None:
    source = """
        class Chooser:
            columns = ("label",)

            def schema(self, record):
                label = {"type": "string", "enum": record.fields.pop("options")}
                return {"type": "object", "properties": {"label": label}, "required": ["label"]}
    """
    task, record = make_task(python="mytools:Chooser", base=module(source)), make_record(text="t", options=["a"])
    for _ in range(2):
        task.render(record)
        assert read_label(task, make_answer('{"label":"a"}'), record) == {"label": "a"}
    assert record.fields == {"text": "t", "options": ["a"]}


def test_what_is_kept_of_such_schemas_is_bounded(make_task, module, make_record, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.task.render.MAX_TEMPLATES", 3)
    task = make_task(python="mytools:Chooser", base=module(TOOLS))
    for place in range(9):
        task.render(make_record(text="t", options=[str(place)]))
    assert len(task._template_for._cache) == 3


def test_its_fingerprint_says_where_it_comes_from(make_task, module) -> None:
    task = make_task(python="mytools:Chooser", base=module(TOOLS))
    assert task.fingerprint["tools"] == [
        {
            "python": "mytools:Chooser",
            "name": "set_label",
            "description": None,
            "strict": True,
            "columns": ["label"],
        }
    ]


def test_columns_are_asked_for_where_they_cannot_be_known(make_task, module) -> None:
    base = module(TOOLS)
    assert make_task(python="mytools:Guessable", base=base).columns == ("label",)
    with pytest.raises(TaskError, match=r"schema\(None\) raised AttributeError.*give the tool columns"):
        make_task(python="mytools:Unsaid", base=base)


@pytest.mark.parametrize(
    ("attribute", "fields", "words"),
    [
        ("Chooser", {}, r"schema\(record\) raised KeyError: 'options'"),
        ("Chooser", {"options": []}, "cannot be used: .*an empty enum"),
        ("Chooser", {"options": list("abc") * 400}, "cannot be used"),
        ("Liar", {"options": ["a"]}, r"\['label'\], which the tool's columns \['other'\] do not name"),
    ],
)
def test_a_schema_that_fails_for_one_record(make_task, module, make_record, attribute, fields, words) -> None:
    task = make_task(python=f"mytools:{attribute}", base=module(TOOLS))
    with pytest.raises(RenderError, match=words):
        task.render(make_record(text="t", **fields))


def test_reading_with_a_schema_that_fails_is_a_callback_error(make_task, module, record, make_answer) -> None:
    task = make_task(python="mytools:Chooser", base=module(TOOLS))
    with pytest.raises(CallbackError, match="schema"):
        read_label(task, make_answer('{"label":"a"}'), record)


def test_a_function_with_annotated_parameters(make_task, module, make_answer, record) -> None:
    task = make_task(python="mytools:plain", base=module(TOOLS))
    sent = task.fingerprint["tools"][0]["function"]
    assert (sent["name"], sent["description"]) == ("plain", "Say yes or no.")
    assert sent["parameters"]["properties"] == {
        "label": {"type": "string", "enum": ["yes", "no"]},
        "schema": {"type": "integer"},
    }
    assert task.columns == ("label", "schema")
    assert read_label(task, make_answer('{"schema":1,"label":"yes"}', name="plain"), record) == {
        "label": "yes",
        "schema": 1,
    }


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("Mismatch", r"columns are \['other'\], but its schema has \['label'\]"),
        ("Double", "both as label columns and as extra_columns"),
        ("OneArgument", r"cannot be called with \(label, record\)"),
        ("NeedsMore", "cannot be made without arguments"),
        ("Explodes", "raised RuntimeError: boom"),
        ("BadName", "has name = 3"),
        ("BadColumns", "has columns = 'label'"),
        ("bare", "its parameter 'label' needs a name and an annotation"),
        ("starred", "needs a name and an annotation"),
        ("lost", "annotation of it cannot be read"),
        ("unspeakable", "annotation of it cannot be read|make no schema"),
        ("number", "which is 3: expected a Pydantic model"),
    ],
)
def test_tools_that_cannot_work(make_task, module, attribute: str, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        make_task(python=f"mytools:{attribute}", base=module(TOOLS))
