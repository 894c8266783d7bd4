"""Media in a prompt: by the template's functions, or by fields that come after its text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import MediaError, RenderError, TaskError
from pipeline.records import Attachment, Record, Request
from pipeline.task import PromptMedia, TaskOptions, build_task
from pipeline.task import attachments as module


def record(**fields: Any) -> Record:
    return Record("s", 0, "k", fields, 1, 0)


def ask(prompt: str, media: PromptMedia | None = None, **fields: Any) -> Request:
    task = build_task(TaskOptions(model="m", prompt=prompt, labels={"label": ["a", "b"]}, media=media))
    return task.render(record(**fields))


def content(request: Request) -> Any:
    return request.messages[-1]["content"]


def part(index: int) -> dict[str, Any]:
    return {"type": "attachment", "index": index}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_the_text_is_cut_where_something_is_shown() -> None:
    request = ask(
        "Before {{ image(a) }} between {{ audio(b) }}{{ document(c, pages=2) }} after {{ t }}",
        a="a.png",
        b="b.wav",
        c="c.pdf",
        t="end",
    )
    assert content(request) == [text("Before "), part(0), text(" between "), part(1), part(2), text(" after end")]
    assert request.attachments == (
        Attachment("image", "a.png"),
        Attachment("audio", "b.wav"),
        Attachment("document", "c.pdf", {"pages": 2}),
    )


def test_a_list_of_paths_is_shown_one_after_the_other() -> None:
    request = ask("{{ image(photos, detail='low') }} Which?", photos=["a.png", "b.png"])
    assert content(request) == [part(0), part(1), text(" Which?")]
    assert [one.options for one in request.attachments] == [{"detail": "low"}] * 2


def test_loops_and_conditions_work() -> None:
    prompt = "{% for p in photos %}{{ loop.index }}: {{ image(p) }}\n{% endfor %}{% if s %}{{ audio(s) }}{% endif %}"
    assert len(ask(prompt, photos=["a", "b", "c"], s=None).attachments) == 3


def test_a_record_that_shows_nothing_stays_a_text() -> None:
    request = ask("{{ t }}{% if photo is defined %}{{ image(photo) }}{% endif %}", t="words")
    assert content(request) == "words"
    assert request.attachments == ()


def test_a_field_called_image_is_a_field() -> None:
    assert ask("{{ image(image) }}", image="a.png").attachments == (Attachment("image", "a.png"),)
    assert content(ask("The {{ image }}", image="a.png")) == "The a.png"
    with pytest.raises(RenderError, match="'image', which this record lacks"):
        ask("The {{ image }}", t="x")


def test_fields_are_shown_after_the_text() -> None:
    media = PromptMedia(images=["front", "back"], audio=["call"])
    request = ask("Look: {{ t }}", media, t="x", front="f.png", back=["b1.png", "b2.png"], call="c.mp3")
    assert content(request) == [text("Look: x"), part(0), part(1), part(2), part(3)]
    assert [one.kind for one in request.attachments] == ["image", "image", "image", "audio"]


def test_both_ways_go_together() -> None:
    request = ask("{{ image(a) }} and", PromptMedia(documents=["d"]), a="a.png", d="d.pdf")
    assert content(request) == [part(0), text(" and"), part(1)]


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("{{ image(p)|upper }}", "changes or drops"),
        ("{{ image(p)|length }}", "changes or drops"),
        ("{{ image(p)|tojson }}", "changes or drops"),
        ("{{ image(p)[:20] }}", "changes or drops"),
        ("{% set x = image(p) %}{{ p }}", "changes or drops"),
        ("{{ image(none) }}", "got nothing"),
        ("{{ image(n) }}", "got 7"),
        ("{{ image(e) }}", "got nothing"),
        ("{{ image([p, '']) }}", "got nothing"),
        ("{{ image([]) }}", r"image\(\) got an empty list"),
        ("{{ image(p, 'low') }}", "takes a path or a list"),
        ("{{ image(p, width=3) }}", "by name detail"),
        ("{{ image(p, detail='huge') }}", "expected one of auto, low, high, original"),
        ("{{ document(p, pages=0) }}", "pages=0"),
        ("{{ audio(p, detail='low') }}", "by name nothing"),
    ],
)
def test_what_cannot_be_shown_is_told(prompt: str, told: str) -> None:
    with pytest.raises(MediaError, match=told):
        ask(prompt, p="a.png", n=7, e="")


def test_a_field_of_no_pictures_is_told_as_null_is() -> None:
    for value, told in {(): "an empty list", None: "nothing", "": "nothing", (None,): "nothing"}.items():
        with pytest.raises(MediaError, match=f"the field 'p' got {told}"):
            ask("x", PromptMedia(images=["p"]), p=list(value) if isinstance(value, tuple) else value)


def test_a_field_that_is_missing_is_missed_as_ever() -> None:
    with pytest.raises(RenderError, match="uses 'photo', which this record lacks"):
        ask("{{ image(photo) }}", p="a.png")
    with pytest.raises(RenderError, match="shows the field 'photo', which this record lacks"):
        ask("x", PromptMedia(images=["photo"]), p="a.png")


def test_no_text_of_a_record_can_be_a_mark() -> None:
    """Not even one that knows how marks look, and holds all but the number of this process."""
    forged = "\x02" + "0" * 32 + ":0\x03"
    request = ask("{{ image(p) }} {{ t }}", p="a.png", t=forged)
    assert content(request) == [part(0), text(f" {forged}")]
    assert module._MARK not in str(content(request))
    assert len(module._MARK) > 30


def test_a_field_cannot_be_rendered_as_a_template() -> None:
    assert content(ask("{{ t }}{{ image(p) }}", t="{{ image(p) }}", p="a"))[0] == text("{{ image(p) }}")


def digest(folder: Path, prompt: str = "{{ image(p) }}", **fields: Any) -> bytes:
    return ask(prompt, PromptMedia(root=folder), **fields).digest


def test_identical_requests_have_one_digest_and_a_changed_file_another(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    first = digest(tmp_path, p="a.png", other=1)
    assert digest(tmp_path, p="a.png", other=2) == first
    os.utime(file, ns=(10**18, 10**18 + 1))
    assert digest(tmp_path, p="a.png") != first
    os.utime(file, ns=(10**18, 10**18))
    assert digest(tmp_path, p="a.png") == first
    file.write_bytes(b"longer")
    os.utime(file, ns=(10**18, 10**18))
    assert digest(tmp_path, p="a.png") != first


def test_digests_tell_options_kinds_and_texts_apart(tmp_path: Path) -> None:
    given: list[tuple[str, dict[str, Any]]] = [
        ("{{ image(p) }}", {"p": "a"}),
        ("{{ image(p) }}", {"p": "b"}),
        ("{{ image(p) }}", {"p": "https://example.org/a"}),
        ("{{ image(p) }}", {"p": "data:image/png;base64,AAAA"}),
        ("{{ image(p) }}", {"p": "a\0b".replace("\0", "c")}),
        ("{{ image(p, detail='low') }}", {"p": "a"}),
        ("{{ audio(p) }}", {"p": "a"}),
        ("x{{ image(p) }}", {"p": "a"}),
        ("{{ p }}", {"p": "a"}),
        ("{{ p }}", {"p": "[image a]"}),
    ]
    assert len({digest(tmp_path, prompt, **fields) for prompt, fields in given}) == len(given)


def test_a_text_alone_has_the_digest_that_it_always_had() -> None:
    assert ask("{{ t }}", t="x").digest == ask("{{ t }}", PromptMedia(root=Path("/tmp")), t="x").digest


def test_the_task_says_what_it_shows_and_its_fingerprint_how() -> None:
    def task(prompt: str, **media: Any) -> Any:
        options = PromptMedia(shape={"detail": "low"}, **media)
        return build_task(TaskOptions(model="m", prompt=prompt, labels={"label": ["a", "b"]}, media=options))

    assert task("x").media_kinds == frozenset()
    assert "media" not in task("x").fingerprint
    assert task("{{ image(a) }}", audio=["b"]).media_kinds == {"image", "audio"}
    assert task("{{ image(a) }}").fingerprint["media"] == {"detail": "low"}


def test_examples_and_media_do_not_go_together() -> None:
    with pytest.raises(TaskError, match=r"task.examples cannot show media"):
        build_task(
            TaskOptions(
                model="m",
                prompt="{{ image(a) }}",
                labels={"label": ["a", "b"]},
                examples=[{"a": "a.png", "label": {"label": "a"}}],
            )
        )
