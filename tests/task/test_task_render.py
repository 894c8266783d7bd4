from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.errors import RenderError, TaskError
from pipeline.records import Record
from pipeline.task import Task, TaskOptions, ToolOptions, build_task, template_fields


def text_of(task: Task, record: Record) -> str:
    return task.render(record).messages[-1]["content"]


def labels_task(prompt: str = "{{ text }}", **more: Any) -> Task:
    return build_task(TaskOptions(model="m", prompt=prompt, labels={"label": ["a", "b"]}, **more))


def record_of(fields: dict[str, Any]) -> Record:
    return Record("f", 0, "k", fields, 1, 0)


# the prompt

ORDER = {"order": {"items": "shoes", "id": 7}}
ROWS = {"rows": [{"count": "a", "copy": 1}, {"count": "b", "copy": 3}]}


@pytest.mark.parametrize(
    ("prompt", "fields", "text"),
    [
        ("Label: {{ text }}\n", {"text": "이 제품을 사랑해요! 🙂"}, "Label: 이 제품을 사랑해요! 🙂\n"),
        ("[{{ text }}]{{ n }}", {"text": None, "n": 0}, "[]0"),
        ("{{ text or 'nothing' }}", {"text": ""}, "nothing"),
        ("{{ text | default('nothing', true) }}", {"text": None}, "nothing"),
        ("{% if title %}{{ title }}: {% endif %}{{ text }}", {"title": "T", "text": ""}, "T: "),
        ("{{ n }} {{ f }} {{ b }}", {"n": 1, "f": 0.5, "b": True}, "1 0.5 True"),
        ("{{ meta.lang }}", {"meta": {"lang": "ko"}}, "ko"),
        ("{{ tags | join(', ') }}", {"tags": ["a", "b"]}, "a, b"),
        ("{{ meta | tojson }}", {"meta": {"말": "<b>'&"}}, """{"말":"<b>'&"}"""),
        ("{{ meta | tojson(2) }}", {"meta": {"a": 1}}, '{\n  "a": 1\n}'),
        ("{{ text | truncate(9) }}", {"text": "one two three four"}, "one..."),
        ('{{ record["Review text"] }}', {"Review text": "fine"}, "fine"),
        ("{{ record | length }}", {"a": 1, "b": 2}, "2"),
        ("{{ 제목 }}", {"제목": "좋아요"}, "좋아요"),
        ("{% if title is defined %}{{ title }}{% endif %}!", {"text": ""}, "!"),
        ("{% for tag in tags %}[{{ tag }}]{% endfor %}", {"tags": ["x", "y"]}, "[x][y]"),
        ("<b>{{ text }}</b>", {"text": "<i> & 'q'"}, "<b><i> & 'q'</b>"),
        ("{{ items }} {{ range }}", {"items": "i", "range": "r"}, "i r"),
        ('{{ record["self"] }}{{ record["record"] }}', {"self": "s", "record": "r"}, "sr"),
        ("{{ order.items }}{{ order.id }}", ORDER, "shoes7"),
        ("{{ order.items() }}", {"order": {"items": "shoes"}}, "[('items', 'shoes')]"),
        ("{% for name, value in order.items() %}{{ name }}={{ value }} {% endfor %}", ORDER, "items=shoes id=7 "),
        ("{{ record.order['items'] }}{{ record.order | attr('items') }}", ORDER, "shoesshoes"),
        ("{{ record.items }}{{ record.keys }}", {"items": "i", "keys": "k"}, "ik"),
        ("{{ order.values is defined }}{{ order.values | default('d') }}", ORDER, "Falsed"),
        ("{% for row in rows %}{{ loop.index }}{{ row.count }}{{ row.copy }}{% endfor %}", ROWS, "1a12b3"),
        ("{{ rows | map(attribute='count') }}", ROWS, "['a', 'b']"),
        ("{{ rows | sort(attribute='copy', reverse=true) | map(attribute='count') | join }}", ROWS, "ba"),
        (
            "{% for each in rows | groupby('count') %}{{ each.grouper }}{{ each.list | length }}{% endfor %}",
            ROWS,
            "a1b1",
        ),
        ("{{ rows | reverse | map(attribute='copy') }}", ROWS, "[3, 1]"),
        ("{{ text.title() }}{{ text.split()[0] }}", {"text": "an end"}, "An Endan"),
        (
            "{{ dict }}{{ loop }}{{ image }}{{ namespace }}",
            dict.fromkeys(["dict", "loop", "image", "namespace"], "x"),
            "xxxx",
        ),
        ("{{ cycler }}{{ system }}{{ joiner }}", {"cycler": "c", "system": "s", "joiner": "j"}, "csj"),
        ("{{ record | tojson }}", {"record": 1}, '{"record":1}'),
    ],
)
def test_what_a_prompt_makes_of_a_record(prompt: str, fields: dict[str, Any], text: str) -> None:
    assert text_of(labels_task(prompt), record_of(fields)) == text


@pytest.mark.parametrize(
    ("prompt", "fields", "words"),
    [
        (
            "{{ texx }}",
            {"id": 1, "text": "t"},
            "uses 'texx', which this record lacks; its fields are: id, text .*'text'",
        ),
        ("{{ text }}", {}, "its fields are: none"),
        ("{{ a }}{{ b }}", {"c": 1}, "uses 'a', 'b', which"),
        ("{{ text }}", {f"f{n}": n for n in range(30)}, "f19 and 10 more"),
        ('{{ record["Review"] }}', {"review": "x"}, "uses 'Review', which .*did you mean 'review'"),
        ("{{ meta.lang }}", {"meta": {}}, "cannot be rendered for this record: UndefinedError: .*'lang'"),
        ("{{ range }}", {"text": "t"}, "uses 'range'"),
        ("{{ dict }}", {"text": "t"}, "uses 'dict'"),
        ("{{ 1 / n }}", {"n": 0}, "cannot be rendered for this record: ZeroDivisionError"),
        ("{{ text + 1 }}", {"text": "t"}, "cannot be rendered for this record: TypeError"),
    ],
)
def test_a_record_that_does_not_fit_the_prompt(prompt: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RenderError, match=words) as caught:
        labels_task(prompt).render(record_of(fields))
    assert caught.value.code == "render_error"


#: what Python has under that name; and what Jinja has that is no data
NOT_DATA = [
    "{{ order.values }}", "{{ order.copy }}", "{{ text.title }}", "{{ text.format }}", "{{ rows.count }}",
    "{{ order['get'] }}", "{{ n.real }}", "{{ record.values }}", "{{ order | attr('keys') }}",
    "{{ [order.values] }}", "{{ order.values ~ '' }}", "{{ order.values | tojson }}", "{{ order.values | string }}",
    "{{ '%s' | format(order.values) }}", "{{ '{0.values}'.format(order) }}", "{{ [order.values] | tojson }}",
    "{{ rows | map(attribute='values') }}", "{{ rows | map(attribute='values') | list | string }}",
    "{% set f = text.upper %}{{ f() }}", "{% for row in rows %}{{ row.keys }}{% endfor %}",
    "{% for row in rows %}{{ loop }}{% endfor %}", "{% macro f() %}x{% endmacro %}{{ f }}", "{{ text.encode() }}",
]  # fmt: skip


@pytest.mark.parametrize("prompt", NOT_DATA)
def test_nothing_of_python_is_ever_sent(prompt: str) -> None:
    fields = {"text": "t", "n": 3, **ORDER, **ROWS}
    with pytest.raises(RenderError, match=r"is no field there|was looked for in|is not data|lacks") as caught:
        labels_task(prompt).render(record_of(fields))
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "fields", "words"),
    [
        ("{{ Ticket-ID }}", {"Ticket-ID": 1}, r'which this record lacks; .* write {{ record\["Ticket-ID"\] }}'),
        ("{{ order.item }}", ORDER, r"the fields are items, id \(did you mean 'items'\?\)"),
        ("{{ text.title }}", {"text": "t"}, r"in a text, which has no fields \(for the method write title\(\)\)"),
        ("{{ record }}", {"record": 1}, 'write record\\["record"\\] for the field of that name'),
        ("{{ record.title }}", {"record": {"title": 1}}, "'title', which this record lacks; .* write record"),
    ],
)
def test_what_a_missing_field_is_told_as(prompt: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RenderError, match=words):
        labels_task(prompt).render(record_of(fields))


@pytest.mark.parametrize("blank", ["", None, " \n", "\u200b\ufeff", "\u3000", [], {}])
@pytest.mark.parametrize(
    "prompt",
    [
        "{{ text }}",
        'Label this: {{ record["text"] }}',
        "{% if text %}{{ text }}{% endif %}",
        "Fields: {{ record | tojson }}",
        "{% if title is defined %}{{ title }}{% endif %}Text: {{ text }}",
    ],
)
def test_a_record_of_which_the_prompt_holds_nothing_is_not_asked(prompt: str, blank: Any) -> None:
    with pytest.raises(RenderError) as caught:
        labels_task(prompt).render(record_of({"text": blank}))
    assert caught.value.code == "empty_text"
    assert labels_task(prompt).render(record_of({"text": "0"}))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "task.prompt is empty"),
        ("{{ text", "at its line 1"),
        (
            "a\n{{ Ticket ID }}",
            r'at its line 2: .*; for a field called \'Ticket ID\' write {{ record\["Ticket ID"\] }}',
        ),
        ("{{ text }} {{ 2nd text | upper }}", r'for a field called \'2nd text\' write {{ record\["2nd text"\] }}'),
        ("a\n{% if %}", "at its line 2"),
        ("{{ text | nosuch }}", "nosuch"),
        ("{% include 'x' %}", "'include' at its line 1"),
        ("{% import 'x' as x %}", "'import'"),
        ("{% from 'x' import y %}", "'fromimport'"),
        ("{% extends 'x' %}", "'extends'"),
        ("{{ self }}", "uses self"),
        ("{{ ''.__class__ }}", "'__class__'"),
        ("{{ text['__class__'] }}", "'__class__'"),
        ("{{ text['__cla' ~ 'ss__'] }}", "'__class__'"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "'__"),
    ],
)
def test_a_prompt_that_cannot_work(prompt: str, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        labels_task(prompt)
    with pytest.raises(TaskError, match=words):
        template_fields(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "{{ text['__' ~ hidden] }}",
        "{{ text.format['__' ~ hidden] }}",
        "{{ text | attr('__class__') }}",
        "{{ tags.append('x') }}",
        "{{ meta.update({'a': 2}) }}",
        "{{ meta.clear() }}",
        "{{ '{0.__class__}'.format(text) }}",
    ],
)
def test_the_sandbox_lets_nothing_out_and_nothing_change(prompt: str) -> None:
    fields = {"text": "t", "tags": ["a"], "meta": {"a": 1}, "hidden": "class__"}
    before = copy.deepcopy(fields)
    with pytest.raises(RenderError):
        labels_task(prompt).render(record_of(fields))
    assert fields == before


@pytest.mark.parametrize(
    "text",
    ["{{ 7 * 7 }}", "{% for x in y %}", "{{ ''.__class__ }}", "{# gone #}", "{{", "%}", "{{ record }}"],
)
def test_a_records_text_is_data_and_never_a_template(text: str) -> None:
    assert text_of(labels_task("[{{ text }}]"), record_of({"text": text})) == f"[{text}]"


@given(st.text())
def test_any_text_arrives_as_it_is(text: str) -> None:
    assert text_of(ANY, record_of({"text": f"{text}x"})) == f"Label: {text}x"


ANY = labels_task("Label: {{ text }}")


def test_half_a_character_is_no_reason_to_stop() -> None:
    request = ANY.render(record_of({"text": "\ud800"}))
    assert request.messages[-1]["content"] == "Label: \ufffd"
    assert len(request.digest) == 16


def test_expected_fields() -> None:
    prompt = '{% for x in tags %}{{ x }}{% endfor %}{{ meta.lang }}{{ record["Review text"] }}{{ record.title }}{{ b }}'
    assert template_fields(prompt) == {"tags", "meta", "Review text", "title", "b"}
    assert template_fields("no field") == set()
    assert labels_task(prompt).fields == template_fields(prompt)


# the request


def test_the_system_text_is_constant_and_comes_first() -> None:
    task = labels_task(system="You see {{ text }}.")
    request = task.render(record_of({"text": "t"}))
    assert request.messages == (
        {"role": "system", "content": "You see {{ text }}."},
        {"role": "user", "content": "t"},
    )
    assert len(labels_task().render(record_of({"text": "t"})).messages) == 1


def test_requests_share_what_is_the_same() -> None:
    task = labels_task(system="s", parameters={"temperature": 0})
    one, two = (task.render(record_of({"text": text})) for text in "ab")
    assert one.tools is two.tools
    assert one.parameters is two.parameters
    assert one.messages[0] is two.messages[0]


def test_a_request_can_be_sent_as_json() -> None:
    task = labels_task(system="s", parameters={"temperature": 0})
    request = task.render(record_of({"text": "t"}))
    body = codec.loads(codec.dumps([request.messages, request.tools, request.tool_choice, request.parameters]))
    assert body[1][0]["function"]["name"] == "set_label"
    assert body[3] == {"parallel_tool_calls": False, "temperature": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "{{ text }}!"},
        {"system": "s"},
        {"model": "n"},
        {"labels": {"label": ["a", "c"]}},
        {"tool_choice": "auto"},
        {"parameters": {"temperature": 0}},
        {"strict": False},
        {"description": "d"},
        {"name": "n"},
    ],
)
def test_the_digest_tells_requests_apart(changes: dict[str, Any], make_task: Callable[..., Task]) -> None:
    base = {"prompt": "{{ text }}", "labels": {"label": ["a", "b"]}}
    record = record_of({"text": "t"})
    task = make_task(**base)
    assert make_task(**base | changes).render(record).digest != task.render(record).digest
    assert task.render(record_of({"text": "u"})).digest != task.render(record).digest


def test_the_digest_is_equal_for_identical_requests(make_task: Callable[..., Task]) -> None:
    one = make_task().render(record_of({"text": "t", "id": 1}))
    two = make_task().render(record_of({"text": "t", "id": 2}))
    assert one.digest == two.digest
    assert len(one.digest) == 16


def test_the_size_counts_prompt_tools_and_the_expected_answer() -> None:
    small, large = (labels_task().render(record_of({"text": "x" * size})).size_tokens for size in (4, 4004))
    assert large - small == 1000
    assert 32 < small < 150
    limited = labels_task(parameters={"max_completion_tokens": 500}).render(record_of({"text": "xxxx"})).size_tokens
    assert limited - small == 500 - (32 + len("label") // 4 + 8)
    older = labels_task(parameters={"max_tokens": 500}).render(record_of({"text": "xxxx"})).size_tokens
    assert older == pytest.approx(limited, abs=3)


def test_free_text_is_expected_to_take_more_room(make_task: Callable[..., Task]) -> None:
    def size(note: dict[str, Any]) -> int:
        function = ToolOptions("f", {"type": "object", "properties": {"note": note}, "required": ["note"]})
        return make_task(function=function).render(record_of({"text": "xxxx"})).size_tokens

    assert size({"type": "string"}) == pytest.approx(size({"type": "integer"}) + 40, abs=1)
