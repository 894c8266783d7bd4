"""The forms that a field of [task.labels] may have, and what each one means."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.labelfields import Choice, LabelField, plain_choices
from pipeline.settings.checks import label_values, refuse
from pipeline.settings.texts import as_toml, closest_match, kind_of

ANY_OF, TEXT = "any_of", "text"
#: Endings of files with labels, compressed or not.
FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")

_NUMBER = r"[+-]?[0-9]+(?:\.[0-9]+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
#: How other tools write a range.
_LIKE_RANGE = re.compile(rf"({_NUMBER}) *(?:\.\.\.|…|-|–|,|;|:| to |\.\.) *({_NUMBER})")
_FORMS = (
    "a list of values, a table of values and their meanings, a file of labels (.csv or .jsonl), { any_of = ... }, "
    '"text", or a range like "1..5"'
)
#: What other tools call a text.
_TEXT_NAMES = frozenset({"str", "string", "texts", "free text", "freetext", "reason", "any"})
_NUMBER_NAMES = {"int": "1..5", "integer": "1..5", "number": "0.0..1.0", "float": "0.0..1.0", "confidence": "0..1"}


def as_plain_form(value: Any) -> Any:
    """Convert paths to text and tuples to lists, also within tables, for settings that are built in Python."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: as_plain_form(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_plain_form(item) for item in value]
    return value


def label_form(value: Any) -> Any:
    """Require one of the forms."""
    label_field(value)
    return value


def label_field(value: Any) -> LabelField:
    """Parse a form. Refuses anything else with a message for the user."""
    if isinstance(value, str):
        return _short(value)
    if is_any_of(value):
        return _several(value)
    return _choices(value, "one")


def is_any_of(value: Any) -> bool:
    """Whether a form stands for several labels, and is not a table with a label of this name."""
    return isinstance(value, Mapping) and ANY_OF in value and (len(value) == 1 or not isinstance(value[ANY_OF], str))


def _several(table: Mapping[str, Any]) -> LabelField:
    if others := [name for name in table if name != ANY_OF]:
        refuse(
            f"got any_of beside {as_toml(others[0])}; any_of must be the only key of its table: put all labels into it"
        )
    given = table[ANY_OF]
    if not isinstance(given, str):
        return _choices(given, "several")
    if not is_file(given):
        refuse(
            {
                ANY_OF: f"got {as_toml(given)}; expected a list, a table, or a file of labels. For a label that is "
                'called "any_of", use a file of labels'
            }
        )
    return LabelField("several", file=given)


def _choices(value: Any, kind: Any) -> LabelField:
    if isinstance(value, Mapping):
        return LabelField(kind, _choices_of(value))
    if not isinstance(value, Sequence) or any(isinstance(one, list | dict) or one is None for one in value):
        refuse(f"got {as_toml(value)}; expected {_FORMS}")
    return LabelField(kind, plain_choices(label_values(value)))


def _choices_of(table: Mapping[str, Any]) -> tuple[Choice, ...]:
    """Return the labels of a table. Its keys are texts: `1` is the text "1"."""
    if not table:
        refuse("got an empty table; expected the values that the label may have, with their meanings")
    if wrong := [name for name in table if not isinstance(name, str)]:
        refuse(
            f"got a table with the {kind_of(wrong[0])} {as_toml(wrong[0])}; the labels of a table are texts. For "
            "numbers, true and false, use a list, or a .jsonl file if they have meanings"
        )
    label_values(list(table))
    reasons = {name: _no_meaning(name, meaning) for name, meaning in table.items() if not isinstance(meaning, str)}
    if reasons:
        refuse(reasons)
    return tuple(Choice(name, meaning.strip()) for name, meaning in table.items())


def _no_meaning(name: str, value: Any) -> str:
    hint = f"; did you mean {ANY_OF}?" if isinstance(value, list) and closest_match(name, [ANY_OF]) else ""
    return f'got {as_toml(value)}; expected what the label means, as text ("" if there is nothing to say){hint}'


def _short(text: str) -> LabelField:
    if text == TEXT:
        return LabelField("text")
    if found := _RANGE.fullmatch(text):
        return _range(text, *found.groups())
    if not is_file(text):
        guess = _guess(text)
        refuse(f"got {as_toml(text)}; expected {_FORMS}" + (f"; did you mean {guess}?" if guess else ""))
    return LabelField(file=text)


def _range(text: str, first: str, last: str) -> LabelField:
    """Parse a range. It holds whole numbers if both ends are whole; 0..1 is a share and holds any number in between."""
    # A float would lose digits of whole numbers beyond 2^53.
    low, high = (float(end) if "." in first + last else int(end) for end in (first, last))
    if low >= high:
        hint = f'; did you mean "{last}..{first}"?' if low > high else ""
        refuse(f"got {as_toml(text)}; the first number must be below the second{hint}")
    if isinstance(low, int) and (low, high) != (0, 1):
        return LabelField("integer", low=low, high=high)
    return LabelField("number", low=float(low), high=float(high))


def is_file(text: str) -> bool:
    """Whether the text is the name of a file with labels."""
    name = os.path.basename(text).lower()  # noqa: PTH119 - a text that may be no path
    return any(name.endswith(end) or f"{end}." in name for end in FILES)


def _guess(text: str) -> str | None:
    plain = text.strip().lower()
    if plain in _TEXT_NAMES or closest_match(plain, [TEXT]):
        return f'"{TEXT}"'
    if plain in _NUMBER_NAMES:
        return f'a range like "{_NUMBER_NAMES[plain]}"'
    if plain in ("bool", "boolean"):
        return "[true, false]"
    if found := _LIKE_RANGE.fullmatch(plain):
        return f'"{found[1]}..{found[2]}"'
    if "/" in plain or "\\" in plain or plain.endswith((".txt", ".xlsx", ".toml", ".yaml", ".yml")):
        return "a file that ends in .csv or .jsonl"
    return _listed(plain, text)


def _listed(plain: str, text: str) -> str | None:
    """Suggest the list that a text with commas or bars was meant to be."""
    sign = next((sign for sign in ",|;" if sign in plain), None)
    return as_toml([one.strip() for one in text.split(sign)]) if sign else None
