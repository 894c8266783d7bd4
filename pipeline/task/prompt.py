"""Renders the prompt: a template over the record's fields."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes

from pipeline import codec
from pipeline.errors import SHOWN_FIELDS, EmptyTextError, MediaError, RenderError, TaskError, did_you_mean, list_names
from pipeline.records import JSON, Record
from pipeline.task.attachments import (
    PromptMedia,
    RenderedPrompt,
    append_fields,
    as_filters,
    filters,
    render_template,
    with_digest_key,
)
from pipeline.task.sandbox import DataEnvironment, called_methods

#: In a prompt: all the record's fields, for names that are not identifiers: {{ record["Review text"] }}.
WHOLE = "record"
_RESERVED = f'in the prompt {WHOLE} stands for all the fields: write {WHOLE}["{WHOLE}"] for the field of that name'


def _as_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own tojson escapes HTML, and everything beyond ASCII as \\u…, which is wrong in a prompt and costs tokens.
    return (codec.dumps(value) if indent is None else codec.pretty(value).rstrip()).decode()


_ENVIRONMENT = DataEnvironment({})
_ENVIRONMENT.filters |= {"tojson": _as_json, **filters()}


class Prompt:
    """A compiled prompt template. Raises TaskError for one that cannot work.

    The record's fields are variables, and `record` is the mapping of all of them. A field's text is data and is never
    rendered itself. None renders as nothing. `media_kinds` are the kinds of media that it may show. `is_constant`: it
    contains nothing of the record. `prints_whole`: it prints the whole record, not only the fields that it names.
    """

    def __init__(self, source: str, media: PromptMedia | None = None) -> None:
        if not source.strip():
            raise TaskError("task.prompt is empty: expected a template such as 'Label this text: {{ text }}'")
        try:
            tree = _ENVIRONMENT.parse(codec.clean_text(source))
            called_kinds = as_filters(tree)
            self.fields = frozenset(_fields(tree))
            _refuse_reaching_out(tree)
            self._needs_whole = any(node.name == WHOLE for node in tree.find_all(nodes.Name))
            self.prints_whole = _uses_whole(tree)
            self._content = self.fields if self.fields - _fields_with_fallback(tree) else frozenset()
            template = _ENVIRONMENT.from_string(tree)
        except TemplateSyntaxError as error:
            fault = f"task.prompt is not a template, at its line {error.lineno}: {error.message}"
            raise TaskError(fault + _odd_name_hint(source, error.lineno)) from error
        self._media = media or PromptMedia()
        self.media_kinds = called_kinds | {kind for kind, _name in self._media.by_kind()}
        self.is_constant = not (self.fields or self._needs_whole or self.media_kinds)
        self._render = template.render
        self._source = source

    def render(self, record: Record) -> RenderedPrompt:
        """Return the record's prompt with its attachments. Raises RenderError."""
        if not self.media_kinds:
            text = self._fill_in(record)
            prompt = RenderedPrompt(text, text)
        else:
            prompt = append_fields(render_template(lambda: self._fill_in(record)), record, self._media)
        if not prompt.attachments:
            self._refuse_empty(record.fields, prompt.text)
        return with_digest_key(prompt, self._media)

    def _refuse_empty(self, fields: Mapping[str, JSON], text: str) -> None:
        """Raise EmptyTextError if everything that the prompt takes from the record is empty, or if the prompt is."""
        names = self._content or (fields if self._needs_whole else ())
        if names and all(_is_blank(fields.get(name)) for name in names):
            listed = ", ".join(map(repr, sorted(names)[:SHOWN_FIELDS]))
            raise EmptyTextError(
                f"there is nothing to label: {listed} {'is' if len(names) == 1 else 'are'} empty in this record, "
                "and the prompt contains nothing else from it"
            )
        if _is_blank(text):
            raise EmptyTextError("the prompt renders to nothing for this record")

    def _fill_in(self, record: Record) -> str:
        fields: Mapping[str, JSON] = record.fields
        if self.prints_whole and WHOLE in fields:
            raise RenderError(_RESERVED)
        try:
            text = self._render({**fields, WHOLE: fields} if self._needs_whole else fields)
            return codec.clean_text(text)  # no server accepts lone surrogates, but the record can be labeled
        except MediaError:
            raise
        except Exception as error:
            raise RenderError(self._describe_error(error, fields)) from error

    def _describe_error(self, error: Exception, fields: Mapping[str, JSON]) -> str:
        reason = f"{type(error).__name__}: {error}"
        missing = sorted(self.fields - fields.keys())
        if not missing or not isinstance(error, TemplateError):
            return f"the prompt cannot be rendered for this record: {reason}"
        names = ", ".join(map(repr, missing))
        if odd := next((name for name in fields if _is_odd(name) and name in _PRINTED.findall(self._source)), None):
            return f"the prompt uses {names}, which this record lacks; for the field {odd!r} write {_whole_of(odd)}"
        there = f"{list_names(fields)}{did_you_mean(missing[0], fields)}"
        fault = f"the prompt uses {names}, which this record lacks; its fields are: {there}"
        return f"{fault}; {_RESERVED}" if WHOLE in fields and self._needs_whole else fault


def template_fields(prompt: str) -> set[str]:
    """Return the record fields that the template names. Raises TaskError for a template that cannot work."""
    return set(Prompt(prompt).fields)


def fields_in_prompt(fingerprint: Mapping[str, Any]) -> frozenset[str]:
    """Return the record fields that the prompt of a saved fingerprint names; none if it is not a valid template."""
    prompt = fingerprint.get("prompt")
    try:
        return frozenset(template_fields(prompt)) if isinstance(prompt, str) else frozenset()
    except TaskError:
        return frozenset()


def display_text(fields: Mapping[str, JSON], prompt_fields: frozenset[str]) -> str:
    """Return the text by which people recognize a record: the longest in its prompt, or else in its fields."""
    texts = [
        value
        for name, value in fields.items()
        if isinstance(value, str) and (not prompt_fields or name in prompt_fields)
    ]
    texts = texts or [value for value in fields.values() if isinstance(value, str)]
    return max(texts, key=len, default="")


#: White space and zero-width characters. A text of only these is empty.
_BLANK = "".join(char for char in map(chr, range(0x3001)) if char.isspace()) + "\u200b\u200c\u200d\u2060\ufeff"


def _is_blank(value: JSON) -> bool:
    if type(value) is str:
        return not value.strip(_BLANK)
    return value is None or value == [] or value == {}


#: Finds what is printed, up to a filter.
_PRINTED = re.compile(r"\{\{-?\s*([^{}|\"'()\[\]]+?)\s*-?(?:\||\}\})")


def _odd_name_hint(source: str, line: int) -> str:
    """Suggest how to write a name such as `Ticket ID`, which is not a name for Jinja; empty if the line has none."""
    text = "".join(source.splitlines(keepends=True)[line - 1 : line])
    odd = next((name for name in _PRINTED.findall(text) if _is_odd(name)), None)
    return f"; for a field called {odd!r} write {_whole_of(odd)}" if odd else ""


def _is_odd(name: str) -> bool:
    return not name.replace(".", "_").isidentifier()


def _whole_of(name: str) -> str:
    return f"{{{{ {WHOLE}[{codec.dumps(name).decode()}] }}}}"


def _refuse_reaching_out(tree: nodes.Template) -> None:
    for reference in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        word = type(reference).__name__.lower()
        raise TaskError(f"task.prompt has {word!r} at its line {reference.lineno}: a prompt is one template")
    for _owner, name, line in _lookups(tree):
        if name.startswith("__"):
            raise TaskError(f"task.prompt uses {name!r} at its line {line}: only the record's fields can be used")
    if any(node.name == "self" for node in tree.find_all(nodes.Name)):
        raise TaskError('task.prompt uses self, which means the template; for a field write {{ record["self"] }}')


def _fields(tree: nodes.Template) -> Iterable[str]:
    yield from meta.find_undeclared_variables(tree) - {WHOLE}
    methods = [id(method.node) for method in called_methods(tree)]
    for owner, name, _line in _lookups(tree):
        if isinstance(owner, nodes.Name) and owner.name == WHOLE and id(owner) not in methods:
            yield name


def _uses_whole(tree: nodes.Template) -> bool:
    """Whether `record` is used as a whole, that is, without a field of it and without a filter such as tojson."""
    owners = [id(owner) for owner, _name, _line in _lookups(tree)]
    owners += [id(changed.node) for changed in tree.find_all(nodes.Filter)]
    return any(name.name == WHOLE and id(name) not in owners for name in tree.find_all(nodes.Name))


def _fields_with_fallback(tree: nodes.Template) -> set[str]:
    """Return the fields that have a fallback in the template if they are empty: if, or, is, default."""
    prompt: list[nodes.Expr | None] = [test.node for test in tree.find_all(nodes.Test)]
    prompt += [branch.test for branch in tree.find_all((nodes.If, nodes.CondExpr))]  # type: ignore[attr-defined]
    prompt += [choice.left for choice in tree.find_all(nodes.Or)]
    prompt += [changed.node for changed in tree.find_all(nodes.Filter) if changed.name in ("default", "d")]
    within = nodes.Tuple([one for one in prompt if one is not None], "load")
    return {name.name for name in within.find_all(nodes.Name)} | {name for _owner, name, _line in _lookups(within)}


def _lookups(tree: nodes.Node) -> Iterable[tuple[nodes.Expr, str, int]]:
    """Yield each `owner.name` and `owner["name"]` of the template, with its line."""
    for dotted in tree.find_all(nodes.Getattr):
        yield dotted.node, dotted.attr, dotted.lineno
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str):
            yield item.node, item.arg.value, item.lineno
