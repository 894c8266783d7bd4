from __future__ import annotations

import asyncio
import textwrap
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from task_calls import call_back

from pipeline.errors import CallbackError
from pipeline.records import Record
from pipeline.task import Task
from pipeline.task.callback import copy_record

HEAD = """
    import asyncio, threading
    from typing import Literal

    class Base:
        schema = {"type": "object", "properties": {"label": {"type": "string"}, "parts": {"type": "array",
                  "items": {"type": "string"}}}, "required": ["label", "parts"]}
"""
LABEL = {"label": "a", "parts": ["x"]}


@pytest.fixture
def call(make_task: Callable[..., Task], module: Callable[..., Any], record: Record) -> Callable[..., dict[str, Any]]:
    """Calls back a tool whose `__call__` has the given body."""

    def run(body: str, *, kind: str = "def", label: Mapping[str, Any] = LABEL, head: str = "") -> dict[str, Any]:
        lines = ["class Tool(Base):", f"    {head}", f"    {kind} __call__(self, label, record):", f"        {body}"]
        source = textwrap.dedent(HEAD) + "\n".join(lines)
        task = make_task(python="mytools:Tool", base=module(source))
        return asyncio.run(call_back(task, label, record))

    return run


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("body", "columns"),
    [
        ("return None", {}),
        ("return {}", {}),
        ("return {'n': len(record.fields['text']), 'key': record.key}", {"n": 4, "key": "k"}),
        ("return {**label, 'more': [1, None]}", {"more": [1, None]}),
        ("label['own'] = 1; label['parts'].clear(); return None", {}),
        ("import types; return types.MappingProxyType({'a': 1})", {"a": 1}),
        ("return {'half': 'a' + chr(0xD83D)}", {"half": "a\ufffd"}),
        ("import datetime; return {'day': datetime.date(2026, 11, 22)}", {"day": "2026-11-22"}),
        (
            "return {'v': 2**70, 'w': float('nan'), 'x': [-2**64, float('inf')]}",
            {"v": 2**70, "w": None, "x": [-(2**64), None]},
        ),
    ],
)
def test_the_extra_columns(call, kind: str, body: str, columns: dict[str, Any]) -> None:
    label = {"label": "a", "parts": ["x"]}
    assert call(body, kind=kind, label=label) == columns
    assert label == LABEL, "the callback gets a label of its own"


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_it_does_to_the_record_is_done_to_a_copy(
    make_task: Callable[..., Task], make_record: Callable[..., Record], module: Callable[..., Any], kind: str
) -> None:
    """What it leaves in the fields would stand in the files, where nobody could tell it from the input."""
    body = "record.fields['text'] = 'new'; record.fields['deep'][0]['a'].append(2); record.fields['more'] = 1"
    source = f"{textwrap.dedent(HEAD)}\nclass Tool(Base):\n    {kind} __call__(self, label, record):\n        {body}"
    record = make_record(text="fine", deep=[{"a": [1]}])
    task = make_task(python="mytools:Tool", base=module(source))
    for _ in range(2):
        assert asyncio.run(call_back(task, LABEL, record)) == {}
    assert record.fields == {"text": "fine", "deep": [{"a": [1]}]}


def test_a_record_of_any_depth_is_copied() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    given = Record("f", 0, "k", {"deep": deep}, 1, 0)
    found = copy_record(given).fields["deep"]
    for _ in range(5_000):
        assert found is not deep
        (found,), (deep,) = found, deep


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no such row')", "^ValueError: no such row$"),
        ("raise KeyError", "^KeyError$"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "^KeyboardInterrupt$"),
        ("raise BaseExceptionGroup('all', [KeyboardInterrupt()])", "^BaseExceptionGroup: all"),
        ("return float('nan')", "returned nan .float.: expected a dict"),
        ("raise asyncio.CancelledError", "CancelledError"),
        ("next(iter(()))", "StopIteration"),
        ("return 'positive'", "returned 'positive' .str.: expected a dict of extra columns, or None"),
        ("return [1]", "expected a dict"),
        ("return {1: 2}", "a column named 1: expected a text"),
        ("return {'label': 'b'}", "'label' with another value than the label has"),
        ("a = {}; a['a'] = a; return a", "a value that JSON cannot hold"),
    ],
)
def test_whatever_goes_wrong_is_a_callback_error(call, kind: str, body: str, words: str) -> None:
    with pytest.raises(CallbackError, match=words):
        call(body, kind=kind)


def test_declared_columns_are_held_to(call) -> None:
    head = "extra_columns = ['a', 'b']"
    assert call("return {'a': 1}", head=head) == {"a": 1}
    with pytest.raises(CallbackError, match="'c', which its extra_columns do not name: 'a', 'b'"):
        call("return {'c': 1}", head=head)


def test_a_plain_function_runs_in_a_thread_and_an_async_one_on_the_loop(call) -> None:
    here = threading.get_ident()
    body = "return {'thread': threading.get_ident()}"
    assert call(body)["thread"] != here
    assert call(body, kind="async def")["thread"] == here


def test_what_a_plain_function_gives_to_await_is_awaited(call) -> None:
    assert call("return asyncio.sleep(0, {'a': 1})") == {"a": 1}


def test_without_a_callback_there_are_no_extra_columns(make_task, record: Record) -> None:
    assert asyncio.run(call_back(make_task(), {"label": "positive"}, record)) == {}


def test_a_cancelled_record_is_cancelled(make_task, module, record: Record) -> None:
    """A callback must not turn the end of the run into a rejected record."""
    source = "class Tool(Base):\n    async def __call__(self, label, record):\n        await asyncio.Event().wait()\n"
    task = make_task(python="mytools:Tool", base=module(textwrap.dedent(HEAD) + source))

    async def main() -> bool:
        role = asyncio.create_task(call_back(task, LABEL, record))
        await asyncio.sleep(0)
        role.cancel()
        await asyncio.wait([role])
        return role.cancelled()

    assert asyncio.run(main())


FUNCTIONS = """
    import enum
    from typing import Literal

    class Tone(enum.Enum):
        warm = "warm"

    def told(tone: Tone, stars: int, record):
        assert isinstance(tone, Tone)
        return {"seen": f"{tone.name} {stars} {record.fields['text']}"}

    async def later(tone: Literal["warm"], note: str = "none"):
        return {"seen": f"{tone} {note}"}

    def broken(tone: Tone):
        raise LookupError(tone)
"""


@pytest.mark.parametrize(
    ("name", "label", "seen"),
    [
        ("told", {"tone": "warm", "stars": 2}, "warm 2 fine"),
        ("later", {"tone": "warm", "note": "n"}, "warm n"),
        ("later", {"tone": "warm"}, "warm none"),
    ],
)
def test_a_function_gets_its_parameters(make_task, module, record: Record, name: str, label: Any, seen: str) -> None:
    task = make_task(python=f"mytools:{name}", base=module(FUNCTIONS))
    assert task.has_callback
    assert asyncio.run(call_back(task, label, record)) == {"seen": seen}


def test_a_function_that_raises_or_gets_a_label_of_another_task(make_task, module, record: Record) -> None:
    base = module(FUNCTIONS)
    with pytest.raises(CallbackError, match=r"LookupError: Tone\.warm"):
        asyncio.run(call_back(make_task(python="mytools:broken", base=base), {"tone": "warm"}, record))
    with pytest.raises(CallbackError, match="ValidationError"):
        asyncio.run(call_back(make_task(python="mytools:told", base=base), {"other": 1}, record))
