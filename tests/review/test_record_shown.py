"""`show`: one record with its prompt, each answer, what it cost, and what people said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from review_runs import again, answer, do, read, settings, write

from pipeline import Request, Response, RunOptions, run, show_record
from pipeline.errors import LabelpipeError
from pipeline.review import DrawOptions, draw_to_file, take_answers

LONG = "many words " * 20_000


def screen(folder: Path, key: str) -> str:
    return repr(show_record(folder / "run", key))


def test_a_labelled_record(folder: Path) -> None:
    view = show_record(folder / "run", "T004")
    assert (view["status"], view["fields"]["n"], view["rows"][0]["topic"]) == ("labelled", "4", "login")
    assert view["prompt"]["is_as_sent"]
    assert view["prompt"]["messages"] == [{"role": "user", "content": '=text 4; with, "signs"'}]
    (current,) = view["answers"]
    assert (current["state"], current["attempts"], current["usage"]["prompt"]) == ("current", 1, 10)
    assert json.loads(current["calls"][0]["arguments"])["topic"] == "login"
    shown = screen(folder, "T004")
    assert "prompt, as it was sent" in shown
    assert 'set_label {"topic": "login"' in shown
    json.dumps(view.as_dict())


def test_what_people_said_and_what_was_asked_again(folder: Path) -> None:
    do(draw_to_file(folder / "run", DrawOptions(where="n == '4' or n == '7'"), folder / "draw.csv"))
    rows = {row["id"]: row for row in read(folder / "draw.csv")}
    rows["T004"] |= {"topic": "billing", "note": "see the invoice"}
    rows["T007"] |= {"topic": "other", "urgency": "1", "confidence": "0"}
    do(take_answers(folder / "run", write(folder / "back.csv", list(rows.values())), by="ann"))
    again(folder, RunOptions(provider=answer, quiet=True, relabel=True, corrections="keep"), task={"prompt": "{{ n }}"})
    view = show_record(folder / "run", "T004")
    assert [one["state"] for one in view["answers"]] == ["archived", "current"]
    assert view["answers"][0]["reason"] == "relabel"
    assert view["rows"][0]["topic"] == "billing"
    shown = screen(folder, "T004")
    assert "row (as ann says, " in shown
    assert 'ann (draw 1): topic login -> billing, urgency 1, confidence 1.0; "see the invoice"' in shown
    assert "draw 1 (review), probability 1" in shown
    failed = show_record(folder / "run", "T007")
    assert (failed["status"], failed["rows"][0]["topic"]) == ("rejected", "other")
    assert failed["problem"]["code"] == "invalid_label"


def test_a_prompt_that_has_changed_since_is_told(folder: Path) -> None:
    run(settings(folder, task={"prompt": "{{ n }}"}), RunOptions(provider=answer, quiet=True, keep=True))
    assert not show_record(folder / "run", "T004")["prompt"]["is_as_sent"]
    assert "prompt, NOT as it was sent: the task has changed since this record was asked" in screen(folder, "T004")


def test_a_long_text_is_cut_on_the_screen_and_what_steers_a_terminal_is_text(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f'id,n,text\nlong,1,"{LONG}"\n')

    async def say(request: Request) -> Response:
        return await answer(request)

    again(tmp_path, RunOptions(provider=say, quiet=True))
    shown = screen(tmp_path, "long")
    assert len(shown) < 5_000
    assert "more characters; --json shows all" in shown
    assert show_record(tmp_path / "run", "long")["fields"]["text"] == LONG


@pytest.mark.parametrize(("key", "message"), [("04", "Did you mean T004"), ("nothing", "there is no outcome")])
def test_an_unknown_key_is_told(folder: Path, key: Any, message: str) -> None:
    with pytest.raises(LabelpipeError, match=message):
        show_record(folder / "run", key)
