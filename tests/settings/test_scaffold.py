"""The config that `labelpipe init` writes: what it proposes, and that it works for any name of a column."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as run_with
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.errors import InputError, TaskError
from pipeline.parts import task_of
from pipeline.records import JSON, Problem, Record
from pipeline.scaffold import Proposal, Survey, command_with_answer, propose, to_toml
from pipeline.settings import Settings
from pipeline.task import TaskOptions, build_task

REVIEW = "It does what it says, and it came in time."


def records(rows: Sequence[Mapping[str, JSON]]) -> list[Record]:
    return [Record("a.csv", at, str(at), row, at + 2, 0) for at, row in enumerate(rows)]


def proposed(*rows: Mapping[str, JSON]) -> Proposal:
    return propose(Survey(records(rows)), input_path="data/reviews.csv", format="csv")


def settings_of(proposal: Proposal) -> Settings:
    path = Path("made.toml")
    path.write_text(to_toml(proposal), encoding="utf-8")
    return Settings.load(path)


def as_list(settings: Settings, labels: Sequence[JSON]) -> Settings:
    return Settings.load(settings.config_path, {"task.labels": {"label": labels}})


def prompt_for(settings: Settings, fields: Mapping[str, JSON]) -> str:
    """What the model is asked about a record with these fields."""
    task = settings.task
    labels = {"label": ["a", "b"]}
    options = TaskOptions(model=settings.model.name, prompt=task.prompt, system=task.system, labels=labels)
    return build_task(options).render(records([fields])[0]).messages[-1]["content"]  # type: ignore[no-any-return]


def test_columns_become_text_key_and_label_set() -> None:
    rows = [{"id": n, "when": "x" * 60, "Review Text": REVIEW, "Sentiment": ["neg", "pos"][n % 2]} for n in range(12)]
    proposal = proposed(*rows)
    assert (proposal.text, proposal.key, proposal.gold, proposal.labels) == (
        "Review Text",
        "id",
        "Sentiment",
        ("neg", "pos"),
    )
    settings = settings_of(proposal)
    assert (settings.input.path, settings.input.format, settings.input.key) == ("data/reviews.csv", "csv", "id")
    assert settings.task.labels == {"label": ["neg", "pos"]}
    assert task_of(settings).fingerprint == task_of(as_list(settings, ["neg", "pos"])).fingerprint
    assert settings.rehearsal.gold == "Sentiment"
    assert settings.output.dir == "runs/reviews"
    assert prompt_for(settings, rows[0]) == f"Label this text: {REVIEW}"


def test_the_text_of_a_first_config() -> None:
    text = to_toml(proposed({"id": "a", "text": "Good!"}, {"id": "b", "text": "Bad."}))
    assert text == TEXT


TEXT = """\
[input]
path = "data/reviews.csv"
format = "csv"
key = "id"   # the field that names a record; without it: its place
# fields: "id", "text"

[task]
system = "You help to make training data."
prompt = "Label this text: {{ text }}"

[task.labels]
label = ["first label", "second label"]   # put your labels here: a run refuses these
# reason = "text"   # a column with a reason; "0..1" makes a number, such as the model's own confidence

[model]
name = "gpt-6-luna"
# base_url = "rehearsal"   # the built-in endpoint: a whole run that costs nothing, with simulated labels
# lane = "flex"   # half the price at a slower tier; "batch" for runs that can wait for hours

[model.parameters]   # sent only when set: temperature, reasoning_effort, max_completion_tokens, seed ...
# max_completion_tokens = 300   # the most that an answer may take; limits.budget_usd needs it
reasoning_effort = "none"   # this model needs it for functions in Chat Completions; remove it for others

[limits]
concurrency = 64
# budget_usd = 5.0   # the run stops before it costs more; set model.parameters.max_completion_tokens too
# requests_per_minute = 500   # your tier's limits
# requests_per_day = 10000
# tokens_per_minute = 200000

[output]
dir = "runs/reviews"
# columns = ["id", "text"]   # carried along; default: all of them
formats = ["csv"]
"""


def test_what_is_commented_out_is_valid_too() -> None:
    text = to_toml(proposed({"id": "a", "text": "Good!"}))
    lines = [line.removeprefix("# ") if " = " in line else line for line in text.splitlines()]
    Path("all.toml").write_text("\n".join(lines))
    settings = Settings.load("all.toml")
    assert (settings.model.base_url, settings.limits.requests_per_day) == ("rehearsal", 10000)
    assert settings.output.columns == ["id", "text"]
    assert (settings.limits.budget_usd, settings.model.parameters["max_completion_tokens"]) == (5.0, 300)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["문장", "메모"], "문장"),
        (["memo", "notes"], "notes"),  # no name says it: the longer
        (["text_id", "notes"], "notes"),
        (["comment_date", "notes"], "notes"),
        (["productReview", "notes"], "productReview"),
    ],
)
def test_the_text_column_goes_by_its_name_then_by_length(names: list[str], text: str) -> None:
    assert proposed({names[0]: "short", names[1]: REVIEW}).text == text


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["b", "a", "", None, "b"], ("a", "b")),
        ([2, 1, 2], (1, 2)),
        ([True, False], (False, True)),
        (["same", "same"], ()),
        (["x" * 100, "y"], ()),
        ([1.5, 2.5], ()),
        ([["a"], ["b"]], ()),
        ([str(n) for n in range(20)], ()),
        ([str(n % 10) for n in range(20)], tuple(str(n) for n in range(10))),
    ],
)
def test_a_label_column_has_few_short_values(values: list[JSON], labels: tuple[JSON, ...]) -> None:
    proposal = proposed(*({"text": REVIEW, "gold_label": value} for value in values))
    assert proposal.labels == labels
    assert (proposal.gold is not None) == bool(labels)
    expected = list(labels) or ["first label", "second label"]
    found = list((settings_of(proposal).task.labels or {})["label"])
    assert [(type(one), one) for one in found] == [(type(one), one) for one in expected]


@pytest.mark.parametrize(("ids", "key"), [([1, 2], "id"), ([1, 1], None), (["a", ""], None), ([True, False], None)])
def test_a_key_column_is_unique_and_always_there(ids: list[JSON], key: str | None) -> None:
    proposal = proposed(*({"text": REVIEW, "id": one} for one in ids))
    assert proposal.key == key
    assert settings_of(proposal).input.key == key


def test_all_records_decide_and_not_the_first_ones() -> None:
    rows = [{"id": n, "text": REVIEW, "label": "ab"[n % 2]} for n in range(3_000)]
    rows += [{"id": n, "text": REVIEW, "label": "rare"} for n in (7, 9)]
    proposal = proposed(*rows)
    assert (proposal.key, proposal.repeated_key, proposal.labels) == (None, "id", ("a", "b", "rare"))
    assert '# key = "id"   # the field that names a record; without it: its place ("id" names several' in to_toml(
        proposal
    )
    assert "of 3,002 records" in to_toml(proposal)


@pytest.mark.parametrize("name", ["email", "E-Mail", "customerPhone", "first_name", "who"])
def test_what_looks_like_a_person_is_not_carried_along(name: str) -> None:
    values = {"who": ["a.b@example.org", "c@example.com"], "customerPhone": ["+49 30 1234567", "(030) 123-45 67"]}
    told = values.get(name, ["Ann", "Bob"])
    proposal = proposed(*({"id": n, name: told[n % 2], "text": REVIEW, "day": "2026-11-30"} for n in range(6)))
    assert proposal.personal == (name,)
    assert settings_of(proposal).output.columns == ["id", "text", "day"]


def test_the_longest_column_is_not_the_text_where_it_has_no_words() -> None:
    row = {"page": "https://example.org/" + "x" * 90, "hash": "0f" * 32, "remark": REVIEW, "mail": "a@example.org" * 9}
    assert proposed(row, row).text == "remark"


def init(*words: str) -> Result:
    return CliRunner().invoke(app, ["init", *words, "--to", "made.toml", "--force"])


def test_init_takes_the_keys_that_it_asks_for() -> None:
    Path("old.csv").write_bytes(b"Report\nof 2026\n\nid,text\n1,caf\xe9 is fine\n2,na\xefve and bad\n")
    sets: list[str] = []
    for key in ("input.encoding=cp1252", "input.skip_lines=3"):
        asked = init("old.csv", *sets)
        sets += ["--set", key]
        assert asked.exit_code == 2
        assert f"To set it: labelpipe init old.csv --to made.toml --force {' '.join(sets)}\n" in asked.output
        assert not Path("made.toml").exists()
    made = init("old.csv", *sets)
    assert made.exit_code == 0, made.output
    read = Settings.load("made.toml").input
    assert (read.encoding, read.skip_lines, read.format, read.key) == ("cp1252", 3, "csv", "id")
    assert 'fields: "id", "text"' in Path("made.toml").read_text()


@pytest.mark.parametrize(
    ("question", "command"),
    [
        ("a.csv: set input.delimiter = ';' if so", "init --set 'input.delimiter=;'"),
        ("a.csv: set input.delimiter = '\\t' if so", "init --set input.delimiter=tab"),
        ('a.csv: set input.quote = "none" if so', "init --set input.quote=none"),
        ('a.json: set input.records to "none" if so', "init --set input.records=none"),
        ("a.csv: set input.header = false (they are", "init --set input.header=false"),
        ("a.csv: set input.encoding to the one", "init --set input.encoding=VALUE"),
        ("a.db: set input.path to sqlite:///a.db", None),
        ("a.csv: no such file", None),
    ],
)
def test_a_question_becomes_the_command_that_answers_it(question: str, command: str | None) -> None:
    assert command_with_answer(question, ["init"], []) == command


def test_a_new_answer_replaces_the_former_one() -> None:
    sets = ["input.encoding=cp1252", "input.skip_lines=1"]
    expected = "init --set input.encoding=cp1252 --set input.skip_lines=3"
    assert command_with_answer("set input.skip_lines = 3", ["init"], sets) == expected


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("model.name=x", "--set model.name: init takes only keys of [input]"),
        ("input.path=x", "--set input.path: init takes the path as its argument"),
        ("input.delimitr=x", "did you mean input.delimiter?"),
        ("input.key=idd", "the key field 'idd' is missing; the fields are id, text (did you mean 'id'?)"),
    ],
)
def test_init_refuses_a_key_that_it_cannot_use(key: str, told: str) -> None:
    Path("a.csv").write_text("id,text\n1,fine\n2,bad\n")
    refused = init("a.csv", "--set", key)
    assert refused.exit_code == 2
    assert told in refused.output
    assert not Path("made.toml").exists()


def test_many_labels_go_to_a_file_that_is_never_replaced() -> None:
    rows = "".join(f"{number},it is fine number {number},topic {number % 60:02}\n" for number in range(120))
    Path("tickets.csv").write_text(f"id,text,topic\n{rows}")
    made = init("tickets.csv")
    assert made.exit_code == 0, made.output
    assert "they are listed in labels.csv beside the config" in made.output
    settings = Settings.load("made.toml")
    assert (settings.task.labels, settings.rehearsal.gold) == ({"label": "labels.csv"}, "topic")
    labels = [f"topic {number:02}" for number in range(60)]
    assert task_of(settings).fingerprint == task_of(as_list(settings, labels)).fingerprint
    described = Path("labels.csv").read_text().replace("topic 00,", "topic 00,the first")
    Path("labels.csv").write_text(described)
    assert init("tickets.csv").exit_code == 0
    assert Path("labels.csv").read_text() == described, "the same labels: their meanings are kept"
    Path("labels.csv").write_text("label,description\nother,\n")
    assert init("tickets.csv").exit_code == 0
    assert Settings.load("made.toml").task.labels == {"label": "made-labels.csv"}


def test_init_takes_a_list_of_names_and_a_table() -> None:
    Path("a.csv").write_text("1,it is fine\n2,it is bad\n")
    made = init("a.csv", "--set", 'input.header=["no", "text"]', "--set", "input.key=no")
    assert made.exit_code == 0, made.output
    read = Settings.load("made.toml").input
    assert (read.header, read.key) == (["no", "text"], "no")
    with closing(sqlite3.connect("a.db")) as there:
        there.executescript("create table t (id integer primary key, text); insert into t values (1, 'it is fine')")
    made = init("sqlite:///a.db", "--set", "input.table=t")
    assert made.exit_code == 0, made.output
    read = Settings.load("made.toml").input
    assert (read.path, read.table, read.format) == ("sqlite:///a.db", "t", "auto")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a.jpg", "b.PNG", "c.webp"], "{{ image(path) }}"),
        (["a.mp3", "b.wav"], "{{ audio(path) }}"),
        (["a.pdf", "b.pdf", "c.jpg"], "{{ document(path) }}"),
    ],
)
@pytest.mark.parametrize("path", ["in", "in/*", "in/**/*"])
def test_a_folder_of_files_is_shown_by_what_most_of_them_are(names: list[str], shown: str, path: str) -> None:
    Path("in").mkdir()
    for name in (*names, "Thumbs.db", "desktop.ini", ".DS_Store"):
        (Path("in") / name).write_bytes(b"x")
    made = init(path)
    assert made.exit_code == 0, made.output
    assert f"{len(names)} records; each file is a record" in made.output
    assert ("1 of the files may not be what the prompt shows" in made.output) == ("c.jpg" in names)
    settings = Settings.load("made.toml")
    assert (settings.input.path, settings.input.format) == (path, "files")
    assert shown in settings.task.prompt


def test_words_that_only_an_object_or_a_list_holds_are_the_text() -> None:
    talk = [{"role": "user", "content": REVIEW}]
    proposal = proposed(*({"id": f"r{n}", "tags": ["a", "b"], "messages": talk} for n in range(3)))
    assert (proposal.text, proposal.key) == ("messages", "id")
    sent = prompt_for(settings_of(proposal), {"id": "r", "messages": talk})
    assert sent == f'Label this text: [{{"role":"user","content":"{REVIEW}"}}]'
    assert proposed({"body": REVIEW, "messages": talk * 9}).text == "body"
    assert proposed({"text": "fine", "messages": talk}).text == "text"


def test_placeholders_are_refused_wherever_one_is_left() -> None:
    for labels in (["first label", "second label"], ["good", "second label"]):
        with pytest.raises(TaskError, match=r"still has the placeholder '.* label': replace it with your own labels"):
            build_task(TaskOptions(model="m", prompt="{{ text }}", labels={"label": labels}))


def test_the_label_column_gets_a_name_that_the_input_does_not_have() -> None:
    rows = [{"text": REVIEW, "label": "a"}, {"text": REVIEW, "label": "b", "model_label": 1, "label_0": 1}]
    proposal = proposed(*rows)
    assert (proposal.gold, proposal.label) == ("label", "label_1")
    assert settings_of(proposal).task.labels == {"label_1": ["a", "b"]}


def test_records_that_cannot_be_read_are_passed_over() -> None:
    broken = Record("a.csv", 0, "0", {"raw": "x" * 500}, 2, 0, Problem("bad_line", "no"))
    assert propose(Survey([broken, *records([{"text": "ok", "x\ud800": "y" * 99}])]), input_path="a.csv").columns == (
        "text",
    )
    with pytest.raises(InputError, match=r"^a\.csv: no record in it could be read"):
        propose(Survey([broken]), input_path="a.csv")


ODD = [
    "my col", 'say "it"', "it's", "문장", "class", "not", "self", "record", "loop", "a.b", "a}}b", "{{ a }}", "%}",
    "back\\slash", "back\\", "new\nline", "\ttab", "\x00", "\x7f", "😀", "\u2028", "#", "]", "=", " ", "1st", "é", "ﬁ",
]  # fmt: skip
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def check(name: str, others: list[str], path: str) -> None:
    row: dict[str, Any] = {**dict.fromkeys(others, "x"), name: REVIEW}
    proposal = propose(Survey(records([row, row])), input_path=path)
    settings = settings_of(proposal)
    assert settings.input.path == path
    assert proposal.columns == tuple(row)
    assert prompt_for(settings, row) == f"Label this text: {row[proposal.text]}"


@pytest.mark.parametrize("name", ODD)
def test_an_odd_column_name_goes_through(name: str) -> None:
    check(name, ["other", *(one for one in ODD if one != name)], f"data/{name}.csv")


@run_with(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=NAMES, others=st.lists(NAMES, max_size=2), path=NAMES)
@example(name="\\", others=['"'], path='\\"')
def test_any_column_name_goes_through(name: str, others: list[str], path: str) -> None:
    check(name, others, path)


@given(
    labels=st.lists(
        st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.integers(-9, 9), st.booleans())
    )
)
@run_with(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_label_set_goes_through(labels: list[JSON]) -> None:
    proposal = proposed(*({"text": REVIEW, "category": one} for one in labels), {"text": REVIEW})
    found = list((settings_of(proposal).task.labels or {})["label"])
    assert found == list(proposal.labels or ("first label", "second label"))
