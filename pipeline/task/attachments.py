"""Puts images, audio, and documents in a prompt: `{{ image(path) }}` in the template, or fields after its text.

In a template, each call leaves a mark, and the text is later split at the marks. A mark contains a number that is
random for each process, so no record's text can be a mark.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Undefined, nodes
from jinja2.visitor import NodeTransformer

from pipeline import codec
from pipeline.errors import MediaError, RenderError
from pipeline.records import JSON, Attachment, Record

KINDS = ("image", "audio", "document")
DETAILS = ("auto", "low", "high", "original")
#: Options in addition to the path, by kind.
_OPTIONS: Mapping[str, frozenset[str]] = {
    "image": frozenset({"detail"}),
    "audio": frozenset(),
    "document": frozenset({"detail", "pages"}),
}
MAX_PATH_CHARS = 240
_MARK = f"\x02{secrets.token_hex(16)}:"
_MARKS = re.compile(rf"{_MARK}(\d+)\x03")
#: The attachments so far of the template that is being rendered.
_ATTACHMENTS: ContextVar[list[Attachment]] = ContextVar("showing")


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """The prompt of one record.

    `text` is for people, with `[image photo.jpg]` in place of an image. `content` is the message's: a text, or
    parts if there are attachments. `digest_key` represents the prompt in a request's digest.
    """

    text: str
    content: JSON
    attachments: tuple[Attachment, ...] = ()
    digest_key: bytes = b""


@dataclass(frozen=True, slots=True)
class PromptMedia:
    """The fields whose media follow the prompt's text. There may be none.

    `root` is the folder of relative paths, for the digest of a file. With `must_exist`, a missing file is an error when
    the request is made, not when it is loaded. `shape` holds the settings for the look of media, for the fingerprint.
    """

    images: Sequence[str] = ()
    audio: Sequence[str] = ()
    documents: Sequence[str] = ()
    root: Path = Path()
    must_exist: bool = False
    shape: Mapping[str, JSON] | None = None

    def by_kind(self) -> Iterable[tuple[str, str]]:
        """Yield each field with its kind, in the order of the prompt."""
        for kind, names in zip(KINDS, (self.images, self.audio, self.documents), strict=True):
            yield from ((kind, name) for name in names)


def filters() -> dict[str, Callable[..., str]]:
    """Return the functions behind `image(...)`, `audio(...)`, and `document(...)` in a template."""
    return {_filter_name(kind): partial(_insert_marks, kind) for kind in KINDS}


def as_filters(tree: nodes.Template) -> frozenset[str]:
    """Turn the template's calls of image(), audio(), and document() into filters, and return the kinds called.

    This separates the function from a record's own field named "image", which is reported if it is missing.
    """
    finder = _Finder()
    finder.visit(tree)
    return frozenset(finder.kinds)


class _Finder(NodeTransformer):
    def __init__(self) -> None:
        self.kinds: set[str] = set()

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        if not isinstance(node.node, nodes.Name) or node.node.name not in KINDS or not node.args:
            return node
        kind = node.node.name
        self.kinds.add(kind)
        name, arguments = _filter_name(kind), (node.args[1:], node.kwargs, node.dyn_args, node.dyn_kwargs)
        made = nodes.Filter(node.args[0], name, *arguments, lineno=node.lineno)
        made.environment = node.environment
        return made


def _filter_name(kind: str) -> str:
    return f"show {kind}"  # a name that no template can contain


def render_template(render: Callable[[], str]) -> RenderedPrompt:
    """Split the result of `render` at its marks. Raises RenderError for a mark that was changed or dropped."""
    attachments: list[Attachment] = []
    token = _ATTACHMENTS.set(attachments)
    try:
        text = render()
    finally:
        _ATTACHMENTS.reset(token)
    return _split_at_marks(text, attachments) if attachments else RenderedPrompt(text, text)


def append_fields(prompt: RenderedPrompt, record: Record, fields: PromptMedia) -> RenderedPrompt:
    """Append the media of the fields to the prompt. Raises RenderError for a field that the record lacks."""
    more: list[Attachment] = []
    for kind, name in fields.by_kind():
        if name not in record.fields:
            raise RenderError(f"task.media shows the field {name!r}, which this record lacks")
        more += _attachments(kind, record.fields[name], {}, f"the field {name!r}")
    parts = prompt.content if isinstance(prompt.content, list) else _text_parts(prompt.text)
    first = len(prompt.attachments)
    return RenderedPrompt(
        "\n".join([prompt.text, *(_placeholder(one) for one in more)]) if more else prompt.text,
        [*parts, *(_part(first + at) for at in range(len(more)))] if more else prompt.content,
        (*prompt.attachments, *more),
    )


def with_digest_key(prompt: RenderedPrompt, fields: PromptMedia) -> RenderedPrompt:
    """Add the digest key: the text, or parts and media. A file's key changes with its size or modification time."""
    if not prompt.attachments:
        return RenderedPrompt(prompt.text, prompt.content, digest_key=prompt.text.encode("utf-8", "surrogatepass"))
    media = [[one.kind, one.source, one.options, *_stamp(one.source, fields)] for one in prompt.attachments]
    # UTF-8 never contains this byte, so no text has the same key as media.
    return replace(prompt, digest_key=b"\xff" + codec.dumps([prompt.content, media]))


def _insert_marks(kind: str, value: Any, *more: Any, **options: Any) -> str:
    if isinstance(value, Undefined):
        str(value)  # raises Jinja's error for a missing field
    if more or options.keys() - _OPTIONS[kind]:
        known = ", ".join(sorted(_OPTIONS[kind])) or "nothing"
        raise MediaError(f"{kind}() takes a path or a list of paths, and by name {known}")
    attachments = _ATTACHMENTS.get()
    first = len(attachments)
    attachments += _attachments(kind, value, _options(kind, options), f"{kind}()")
    return "".join(f"{_MARK}{at}\x03" for at in range(first, len(attachments)))


def _options(kind: str, options: Mapping[str, Any]) -> dict[str, JSON]:
    plain = {name: value for name, value in options.items() if value is not None}
    if (detail := plain.get("detail")) is not None and detail not in DETAILS:
        raise MediaError(f"{kind}() got detail={detail!r}: expected one of {', '.join(DETAILS)}")
    pages = plain.get("pages", 1)
    if isinstance(pages, bool) or not isinstance(pages, int) or pages < 1:
        raise MediaError(f"{kind}() got pages={pages!r}: expected a whole number from 1 up")
    return plain


def _attachments(kind: str, value: Any, options: Mapping[str, JSON], place: str) -> list[Attachment]:
    sources = value if isinstance(value, list | tuple) else [value]
    if not sources:
        # Like null: a label from the text alone would look like a label of the image.
        raise MediaError(f"{place} got an empty list: expected at least one path, https address or data URL")
    for source in sources:
        if not isinstance(source, str) or not source.strip() or "\x00" in source:
            excerpt = "nothing" if source is None or source == "" else codec.dumps(source).decode()[:80]
            raise MediaError(f"{place} got {excerpt}: expected a path, an https address or a data URL")
    return [Attachment(kind, source, options) for source in sources]


def _split_at_marks(text: str, attachments: Sequence[Attachment]) -> RenderedPrompt:
    pieces = _MARKS.split(text)
    texts, places = pieces[::2], [int(place) for place in pieces[1::2]]
    if set(places) != set(range(len(attachments))):
        raise MediaError("the prompt changes or drops what image(), audio() or document() gave: let it stand by itself")
    parts = [part for at, piece in enumerate(texts) for part in (*_text_parts(piece), *map(_part, places[at : at + 1]))]
    return RenderedPrompt(
        _MARKS.sub(lambda match: _placeholder(attachments[int(match[1])]), text), parts, tuple(attachments)
    )


def _text_parts(text: str) -> list[JSON]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _part(index: int) -> JSON:
    return {"type": "attachment", "index": index}


def _placeholder(attachment: Attachment) -> str:
    source = attachment.source
    short = source if len(source) <= 120 else f"{source[:60]}... ({len(source):,} characters)"
    return f"[{attachment.kind} {short}]"


def _stamp(source: str, fields: PromptMedia) -> tuple[int, ...]:
    """Return a local file's identity, size, and modification time; () if it is not a file. The file is not read.

    Raises MediaError for a missing file if `fields.must_exist`.
    """
    if source[:5].lower() == "data:" or "://" in source[:12]:
        return ()
    absent = 0
    for base in (fields.root, Path()):
        try:
            status = os.stat(base / source)  # noqa: PTH116 - once a record: no need of another Path
        except FileNotFoundError:
            absent += 1
        except (OSError, ValueError):
            continue
        else:
            return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    if absent == 2 and fields.must_exist and ":" not in source and len(source) <= MAX_PATH_CHARS:
        # The loader reports all other problems.
        raise MediaError(f"{source!r} cannot be read: No such file in {fields.root} (task.media.root)")
    return ()
