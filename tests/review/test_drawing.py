"""Draws of a run: the records that were asked for, each with its probability, as a file that can be filled in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from review_runs import COUNT, TOPICS, again, do, label_of, read, write, write_input

from pipeline import Answer, Request, Response, RunOptions, ToolCall, Usage
from pipeline.errors import LabelpipeError
from pipeline.review import DrawOptions, draw_to_file
from pipeline.show import draw_lines
from pipeline.store import open_reviews

LABELLED = [n for n in range(COUNT) if n % 10 != 7]


def draw(folder: Path, name: str = "draw.csv", **options: Any) -> dict[str, Any]:
    return do(draw_to_file(folder / "run", DrawOptions(**options), folder / name))


def numbers(facts: dict[str, Any]) -> list[int]:
    return [int(item["key"][1:]) for item in facts["items"]]


def test_a_sample_is_written_with_what_the_model_said(folder: Path) -> None:
    facts = draw(folder, sample=9)
    assert (facts["population"], {item["probability"] for item in facts["items"]}) == (81, {9 / 81})
    rows = read(folder / "draw.csv")
    assert list(rows[0]) == ["id", "n", "text", "topic", "urgency", "confidence", "unclear", "note"]
    assert [row["id"] for row in rows] == [item["key"] for item in facts["items"]]
    for row in rows:
        label = label_of(int(row["n"]))
        assert (row["topic"], row["urgency"]) == (label["topic"], str(label["urgency"]))
        assert row["text"].startswith("'=text")  # no formula for a spreadsheet
        assert (row["unclear"], row["note"]) == ("", "")
    assert draw_lines(facts)[0] == ("Draw 1: 9 of 81 records, seed 0, with the model's labels filled in.")
    with open_reviews(folder / "run") as reviews:
        assert [draw.population for draw in reviews.draws()] == [81]
        assert [item.key for item in reviews.items_of(1)] == [item["key"] for item in facts["items"]]


def test_a_blind_draw_shows_no_label(folder: Path) -> None:
    facts = draw(folder, sample=5, blind=True, seed=3)
    assert {row["topic"] + row["urgency"] + row["confidence"] for row in read(folder / "draw.csv")} == {""}
    assert facts["blind"]
    assert numbers(facts) == numbers(draw(folder, "again.csv", sample=5, seed=3))
    assert numbers(facts) != numbers(draw(folder, "other.csv", sample=5, seed=4))


def test_a_mixture_has_the_probability_of_being_in_any_of_them(folder: Path) -> None:
    facts = draw(folder, sample=9, per_class=2, uncertain=20)
    least = sorted(label_of(n)["confidence"] for n in LABELLED)[19]
    below = [n for n in LABELLED if label_of(n)["confidence"] < least]
    ties = [n for n in LABELLED if label_of(n)["confidence"] == least]
    classes = {topic: sum(label_of(n)["topic"] == topic for n in LABELLED) for topic in TOPICS}
    assert set(below) <= set(numbers(facts))
    for item, number in zip(facts["items"], numbers(facts), strict=True):
        topic = label_of(number)["topic"]
        chance = 1.0 if number in below else (20 - len(below)) / len(ties) if number in ties else 0
        none = (1 - 9 / 81) * (1 - 2 / classes[topic]) * (1 - chance)
        assert item["probability"] == pytest.approx(1 - none)
        assert item["stratum"] == topic


def test_where_narrows_what_is_drawn_from_and_may_ask_for_records_without_a_label(folder: Path) -> None:
    facts = draw(folder, where="topic == 'billing' and urgency > 2")
    wanted = [n for n in LABELLED if label_of(n)["topic"] == "billing" and label_of(n)["urgency"] > 2]
    assert sorted(numbers(facts)) == wanted
    assert {item["probability"] for item in facts["items"]} == {1.0}
    some = draw(folder, "some.csv", where="topic == 'billing' and urgency > 2", sample=3)
    assert some["population"] == len(wanted)
    assert {item["probability"] for item in some["items"]} == {3 / len(wanted)}
    without = draw(folder, "without.csv", where="status != 'labelled' and code == 'invalid_label'")
    assert sorted(numbers(without)) == [n for n in range(COUNT) if n not in LABELLED]
    assert {row["topic"] for row in read(folder / "without.csv")} == {""}


def test_disagreements_with_a_gold_file_are_drawn_for_certain(folder: Path) -> None:
    gold = [{"id": f"T{n:03}", "topic": label_of(n)["topic"]} for n in LABELLED[:20]]
    gold[3]["topic"] = gold[8]["topic"] = "other"
    gold[5]["topic"] = ""
    differ = [int(row["id"][1:]) for n, row in zip(LABELLED, gold, strict=False)
              if row["topic"] not in ("", label_of(n)["topic"])]  # fmt: skip
    write(folder / "gold.csv", gold)
    assert sorted(numbers(draw(folder, disagreements=folder / "gold.csv"))) == differ
    write(folder / "same.csv", gold[:3])
    with pytest.raises(LabelpipeError, match="The labels agree"):
        draw(folder, "none.csv", disagreements=folder / "same.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "choose records"),
        ({"where": "topc == 'billing'"}, "There is no 'topc'"),
        ({"where": "topic =="}, "is not an expression"),
        ({"where": "topic == 'nothing'"}, "is true of none of 90 records"),
        ({"per_class": 2, "column": "topik"}, "it has topic, urgency, confidence"),
        ({"uncertain": 2, "score": "certainty"}, "has no such column"),
        ({"disagreements": "no.csv"}, "there is no such file"),
    ],
)
def test_what_cannot_be_drawn_is_told(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LabelpipeError, match=message):
        draw(folder, **options)
    assert not (folder / "draw.csv").exists()


def test_a_file_that_may_hold_answers_is_not_replaced(folder: Path) -> None:
    draw(folder, sample=2)
    with pytest.raises(LabelpipeError, match="may hold answers"):
        draw(folder, sample=2)


def test_where_knows_a_column_that_is_called_label(tmp_path: Path) -> None:
    labels = {"label": {"type": "string", "enum": ["a", "b"]}, "n2": {"type": "integer"}}
    schema = {"type": "object", "properties": labels, "required": ["label", "n2"], "additionalProperties": False}

    async def say(request: Request) -> Response:
        number = int(request.record.fields["n"])
        arguments = json.dumps({"label": "ab"[number % 2], "n2": number})
        return Response(Answer((ToolCall("c", "set_label", arguments),)), Usage(1, 1), "model")

    write_input(tmp_path, 10)
    task = {"function": {"name": "set_label", "parameters": schema}}
    again(tmp_path, RunOptions(provider=say, quiet=True), task=task)
    facts = draw(tmp_path, where="label == 'b' and n2 > 2 and record.n != '9'")
    assert sorted(numbers(facts)) == [3, 5, 7]
    assert sorted(numbers(draw(tmp_path, "b.csv", where="label.n2 > 7"))) == [8, 9]
    with pytest.raises(LabelpipeError, match=r"'n2' has 10 different values in 10 records, so it is no field of class"):
        draw(tmp_path, "c.csv", per_class=2, column="n2")
