"""[task.labels] in the config: each form, each mistake, and files of labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.labelfields import Choice, LabelField, plain_choices
from pipeline.parts import label_fields, task_of
from pipeline.settings import Settings, to_toml

Config = Callable[..., Path]
HEAD = """\
[input]
path = "a.jsonl"
[model]
name = "m"
[task]
prompt = "{{ text }}"
"""


def given(labels: Any) -> Settings:
    task = {"prompt": "{{ text }}", "labels": labels}
    return Settings(input={"path": "a.jsonl"}, task=task, model={"name": "m"})


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (["a", 1, True], LabelField(choices=plain_choices(["a", 1, True]))),
        (("a", "b"), LabelField(choices=plain_choices(["a", "b"]))),
        ({"b": "it is b", "1": ""}, LabelField(choices=(Choice("b", "it is b"), Choice("1")))),
        ({"any_of": ("a", "b")}, LabelField("several", plain_choices(["a", "b"]))),
        ({"any_of": {"a": "it is a"}}, LabelField("several", (Choice("a", "it is a"),))),
        (
            {"any_of": "any of these", "b": "or b"},
            LabelField(choices=(Choice("any_of", "any of these"), Choice("b", "or b"))),
        ),
        ("text", LabelField("text")),
        ("1..5", LabelField("integer", low=1, high=5)),
        (f"0..{2**53 + 1}", LabelField("integer", low=0, high=2**53 + 1)),
        ("-5..-1", LabelField("integer", low=-5, high=-1)),
        ("0..100", LabelField("integer", low=0, high=100)),
        ("0..1", LabelField("number", low=0, high=1)),
        ("-1.0..1", LabelField("number", low=-1, high=1)),
    ],
)
def test_each_form(form: Any, field: LabelField) -> None:
    settings = given({"x": form})
    assert label_fields(settings) == {"x": field}
    assert task_of(settings).columns == ("x",)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("txt", 'did you mean "text"?'),
        ("string", 'did you mean "text"?'),
        ("1-5", 'did you mean "1..5"?'),
        ("0 to 1", 'did you mean "0..1"?'),
        ("5..1", 'the first number must be below the second; did you mean "1..5"?'),
        ("2..2", "the first number must be below the second"),
        ("float", 'did you mean a range like "0.0..1.0"?'),
        ("yes, no", 'did you mean ["yes", "no"]?'),
        ("labels.xlsx", "did you mean a file that ends in .csv or .jsonl?"),
        (5, "got 5; expected a list of values, a table"),
        ([], "got an empty list"),
        ({}, "got an empty table"),
        (["a", "a"], '"a" occurs twice'),
        ({"a": 5}, "task.labels.x.a: got 5; expected what the label means"),
        ({" ": "blank"}, "one of the values is empty text"),
        ({"anyof": ["a"]}, "did you mean any_of?"),
        ({"any_of": ["a"], "b": "c"}, 'got any_of beside "b"'),
        ({"any_of": "all of them"}, 'task.labels.x.any_of: got "all of them"; expected a list, a table, or a file'),
        ({1: "bad", 5: "good"}, "the labels of a table are texts"),
        ({"any_of": [["a"]]}, "expected a list of values"),
    ],
)
def test_each_mistake_says_what_is_meant(form: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        given({"x": form})
    assert words in str(caught.value)


def test_a_mistake_names_the_line(config: Config) -> None:
    path = config(HEAD + '[task.labels]\nscore = "1-5"\n[task.labels.topic]\nbilling = "an invoice"\nlogin = 5\n')
    with pytest.raises(ConfigError) as caught:
        Settings.load(path)
    assert [(one.line, one.key) for one in caught.value.mistakes] == [
        (8, "task.labels.score"),
        (11, "task.labels.topic.login"),
    ]


def test_forms_come_from_the_command_line_and_are_written_again(config: Config) -> None:
    path = config(HEAD + '[task.labels.topic]\nbilling = "an invoice"\n"a b" = ""\n')
    sets = ["task.labels.why=text", "task.labels.score=1..5", 'task.labels.tags={any_of = ["a"]}']
    settings = Settings.load(path, sets)
    kinds = {name: field.kind for name, field in label_fields(settings).items()}
    assert kinds == {"topic": "one", "why": "text", "score": "integer", "tags": "several"}
    again = config(to_toml(settings), name="again.toml")
    assert label_fields(Settings.load(again)) == label_fields(settings)


def test_a_meaning_cannot_be_set_for_a_label_of_a_list(config: Config) -> None:
    path = config(HEAD + '[task.labels]\ntopic = ["a", "b"]\n')
    with pytest.raises(
        ConfigError, match=r"task\.labels\.topic\.a: cannot be set: task\.labels\.topic is a list, not a"
    ):
        Settings.load(path, ["task.labels.topic.a=it is a"])


CSV = 'label,description,examples\nbilling,"a bill, or a charge",\nlogin,,"[""No way in"", ""2FA""]"\n'
READ = (Choice("billing", "a bill, or a charge"), Choice("login", "", ("No way in", "2FA")))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", CSV),
        ("l.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("l.csv", 'Label; Description; Examples\nbilling; "a bill, or a charge";\nlogin;;"[""No way in"", ""2FA""]"\n'),
        (
            "l.tsv",
            'label\tdescription\texamples\nbilling\ta bill, or a charge\t\nlogin\t\t"[""No way in"", ""2FA""]"\n',
        ),
        (
            "l.jsonl",
            """{"label": "billing", "description": "a bill, or a charge"}
            {"label": "login", "examples": ["No way in", "2FA"], "parent": "x"}""",
        ),
    ],
)
def test_a_file_of_labels_beside_the_config(name: str, text: str, config: Config) -> None:
    path = config(HEAD + f'[task.labels]\ntopic = "{name}"\ntags = {{ any_of = "{name}" }}\n')
    Path(name).write_text("label\nanother one, in the current directory\n")
    path.with_name(name).write_text(text, encoding="utf-8", newline="")
    fields = label_fields(Settings.load(path))
    assert fields == {"topic": LabelField(choices=READ), "tags": LabelField("several", READ)}


def test_the_content_of_the_file_counts_and_not_its_name() -> None:
    one, other = Path("one.csv"), Path("other.jsonl")
    one.write_text("label,description\na,it is a\nb,\n")
    other.write_text('{"label": "a", "description": "it is a"}\n{"label": "b"}\n')
    prints = [task_of(given({"x": form})).fingerprint for form in (one, str(other), {"a": "it is a", "b": ""})]
    assert prints[0] == prints[1] == prints[2]
    one.write_text("label,description\na,it was a\nb,\n")
    assert task_of(given({"x": one})).fingerprint != prints[0]


def test_numbers_with_meanings_stand_in_jsonl() -> None:
    Path("l.jsonl").write_text('{"label": 1, "description": "bad"}\n{"label": 5}\n{"label": true}\n')
    assert label_fields(given({"x": "l.jsonl"}))["x"].values == (1, 5, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,description\na,x\nb,y\na,z\n", "l.csv:4: task.labels.x: the label 'a' is in line 2 already"),
        ("label,description\na,x\n,y\n", "l.csv:3: task.labels.x: the label is empty"),
        ("labels,description\na,x\n", "l.csv:2: task.labels.x: no column 'label'; there are labels, description (did"),
        ("label,definition\na,x\n", "no column 'description', but 'definition'"),
        ("label,description\na,x,y\n", "l.csv:2: task.labels.x: "),
        ("label,description\n", "l.csv contains no labels"),
        (None, "l.csv is not there"),
        ("label,description\nviolet,ç\nblue,ü\n", "line 2 reads 'violet,ç'. Save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(text: str | None, words: str) -> None:
    if text is not None:
        Path("l.csv").write_text(text, encoding="cp1252")
    with pytest.raises(ConfigError) as caught:
        task_of(given({"x": "l.csv"}))
    assert words in str(caught.value)
    assert "input.encoding" not in str(caught.value)
