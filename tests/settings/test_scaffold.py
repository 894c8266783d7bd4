"""The config that `labelpipe init` writes: what it proposes, and that it works for any name of a column."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as run_with
from hypothesis import strategies as st

from pipeline.errors import InputError, TaskError
from pipeline.records import JSON, Problem, Record
from pipeline.scaffold import Proposal, Survey, propose, to_toml, write_config
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

[model]
name = "gpt-6-luna"
# base_url = "rehearsal"   # the built-in endpoint: a whole run that costs nothing, with simulated labels
timeout_s = 60

[model.parameters]   # sent only when set: temperature, reasoning_effort, max_completion_tokens, seed ...
# max_completion_tokens = 300   # the most that an answer may take; limits.budget_usd needs it
reasoning_effort = "none"   # this model takes functions in chat completions only so; take it out for others

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
    found = (settings_of(proposal).task.labels or {})["label"]
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


def test_init_says_where_to_set_a_key_that_it_asks_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Report\n\nid,text\n1,fine\n2,bad\n")
    with pytest.raises(InputError, match=r"input\.skip_lines = 2.*write one by hand, with the key in it"):
        asyncio.run(write_config(str(tmp_path / "a.csv"), tmp_path / "a.toml"))
    assert not (tmp_path / "a.toml").exists()


def test_words_that_only_an_object_or_a_list_holds_are_the_text() -> None:
    talk = [{"role": "user", "content": REVIEW}]
    proposal = proposed(*({"id": f"r{n}", "tags": ["a", "b"], "messages": talk} for n in range(3)))
    assert (proposal.text, proposal.key) == ("messages", "id")
    assert REVIEW in prompt_for(settings_of(proposal), {"id": "r", "messages": talk})
    assert proposed({"body": REVIEW, "messages": talk * 9}).text == "body"
    assert proposed({"text": "fine", "messages": talk}).text == "text"


def test_placeholders_are_refused_wherever_one_is_left() -> None:
    for labels in (["first label", "second label"], ["good", "second label"]):
        with pytest.raises(TaskError, match=r"still has the placeholder '.* label': put your own labels there"):
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


@run_with(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(name=NAMES, others=st.lists(NAMES, max_size=2), path=NAMES)
@example(name="\\", others=['"'], path='\\"')
def test_any_column_name_goes_through(name: str, others: list[str], path: str) -> None:
    check(name, others, path)


@given(
    labels=st.lists(
        st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.integers(-9, 9), st.booleans())
    )
)
@run_with(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
def test_any_label_set_goes_through(labels: list[JSON]) -> None:
    proposal = proposed(*({"text": REVIEW, "category": one} for one in labels), {"text": REVIEW})
    found = (settings_of(proposal).task.labels or {})["label"]
    assert found == list(proposal.labels or ("first label", "second label"))
