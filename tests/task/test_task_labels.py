"""[task.labels]: meanings, several labels at once, texts and numbers, as they are sent and as they are checked."""

from __future__ import annotations

from typing import Any

import pytest
from task_calls import read_label

from pipeline.errors import InvalidAnswerError
from pipeline.labelfields import Choice, LabelField, plain_choices
from pipeline.task import lint

TOPIC = LabelField(
    choices=(Choice("billing", "asks about\nan invoice"), Choice("login"), Choice("other", "", ("Hi!",)))
)


def properties(task: Any) -> dict[str, Any]:
    found: dict[str, Any] = task.fingerprint["tools"][0]["function"]["parameters"]["properties"]
    return found


def test_lists_ask_what_they_always_asked(make_task, record) -> None:
    """These digests are those of version 0.4: nobody pays twice after an upgrade."""
    digests = {
        b'\x80m\x1f\x90\x95"\xbaZ<\x9c\x19\xb0\xc5\xaasB': {"label": ["positive", "negative", "neutral"]},
        b"\xef\x87\x16\x9b{6\xad8\x10\xc0Ep\x8c7\xf4*": {
            "label": ["yes", "no"],
            "stars": [1, 2],
            "sure": [True, False],
        },
    }
    for digest, labels in digests.items():
        assert make_task(system="s", labels=labels).render(record).digest == digest
        fields = {name: LabelField(choices=plain_choices(values)) for name, values in labels.items()}
        assert make_task(system="s", labels=fields).render(record).digest == digest


def test_meanings_are_the_description_of_the_field_in_their_order(make_task, record) -> None:
    task = make_task(labels={"topic": TOPIC})
    assert properties(task)["topic"] == {
        "type": "string",
        "enum": ["billing", "login", "other"],
        "description": "- billing: asks about an invoice\n- login\n- other: Examples: Hi!",
    }
    sent = task.render(record).tools[0]["function"]["parameters"]["properties"]
    assert sent == properties(task)
    shown = tuple(Choice(meaning, meaning, ("Hi",)) for meaning in ("greets", "greets!"))
    told = properties(make_task(labels={"topic": LabelField(choices=shown)}))["topic"]["description"]
    assert told == "- greets: greets. Examples: Hi\n- greets!: greets! Examples: Hi"


def test_a_changed_meaning_is_another_task_and_an_empty_one_is_none(make_task, record) -> None:
    def digest(*meanings: str) -> bytes:
        choices = tuple(Choice(value, meaning) for value, meaning in zip("ab", meanings, strict=True))
        return make_task(labels={"x": LabelField(choices=choices)}).render(record).digest  # type: ignore[no-any-return]

    assert len({digest("one", ""), digest("two", ""), digest("", "one"), digest("", "")}) == 4
    assert digest("", "") == make_task(labels={"x": ["a", "b"]}).render(record).digest


def test_the_short_forms_are_fit_for_strict_mode(make_task) -> None:
    labels = {
        "topics": LabelField("several", TOPIC.choices),
        "reason": LabelField("text"),
        "confidence": LabelField("number", low=0, high=1),
        "score": LabelField("integer", low=-1, high=5),
    }
    task = make_task(labels=labels)
    assert task.columns == tuple(labels)
    found = properties(task)
    assert found["topics"]["type"] == "array"
    assert found["topics"]["items"] == {"type": "string", "enum": ["billing", "login", "other"]}
    assert found["topics"]["description"].startswith("- billing: asks about")
    assert found["reason"] == {"type": "string"}
    assert found["confidence"] == {"type": "number", "minimum": 0, "maximum": 1}
    assert found["score"] == {"type": "integer", "minimum": -1, "maximum": 5}
    assert lint(task.fingerprint["tools"][0]["function"]["parameters"]) == []


@pytest.mark.parametrize(
    ("field", "given", "label"),
    [
        (LabelField("several", TOPIC.choices), '["other","billing","other"]', ["billing", "other"]),
        (LabelField("several", TOPIC.choices), "[]", []),
        (LabelField("several", plain_choices([1, True])), "[true,1]", [1, True]),
        (LabelField("integer", low=1, high=5), "3.0", 3),
        (LabelField("number", low=0, high=1), "0.25", 0.25),
        (LabelField("text"), '"because"', "because"),
    ],
)
def test_what_fits_is_taken(make_task, make_answer, record, field: LabelField, given: str, label: Any) -> None:
    found = read_label(make_task(labels={"x": field}), make_answer(f'{{"x":{given}}}'), record)["x"]
    assert (type(found), found) == (type(label), label)


@pytest.mark.parametrize(
    ("field", "given", "words"),
    [
        (LabelField("several", TOPIC.choices), '["spam"]', r"x\[0\]: 'spam' is not one of"),
        (LabelField("several", TOPIC.choices), '"billing"', "array"),
        (LabelField("integer", low=1, high=5), "6", "6 is greater than the maximum of 5"),
        (LabelField("integer", low=1, high=5), "2.5", "integer"),
        (LabelField("number", low=0, high=1), "-0.1", "less than the minimum of 0"),
        (LabelField("text"), "7", "string"),
    ],
)
def test_what_does_not_fit_is_asked_again(make_task, make_answer, record, field: LabelField, given: str, words: str):
    with pytest.raises(InvalidAnswerError, match=words):
        read_label(make_task(labels={"x": field}), make_answer(f'{{"x":{given}}}'), record)
