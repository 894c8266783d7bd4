"""Generates labels: the gold label with the configured accuracy, otherwise a guess from the text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.codec import dumps, loads
from pipeline.rehearsal.request_parser import Call
from pipeline.rehearsal.schema_values import Choose, Schema, ValueGenerator, any_of
from pipeline.rehearsal.seeded_random import SeededRandom
from pipeline.rehearsal.sentiment import sentiment_sign, sentiment_values

_NO_VALUE = "none of these"
_TRUE = frozenset(("true", "yes", "1"))
_TRIES = 8


class LabelGenerator:
    """Makes labels; the same ones for the same seed and prompt."""

    def __init__(self, seed: int, accuracy: float) -> None:
        self._seed = seed
        self._accuracy = accuracy

    def first(self, call: Call, generator: ValueGenerator, place: int = 0) -> Any:
        """Return the label of a function's first call or of a text answer. `place` is its place in the answer."""
        rng = SeededRandom("answer", self._seed, call.prompt_digest, *([place] if place else []))
        value = generator.fill(rng, _chooser(call.text), call.text)
        if call.gold is not None and isinstance(value, dict):
            fields = generator.properties()
            gold = call.gold if isinstance(call.gold, Mapping) else dict.fromkeys(list(fields)[:1], call.gold)
            for name, right in gold.items():
                if name in fields:
                    value[name] = self._from_gold(call, name, fields[name], right, value.get(name))
        return value

    def another(self, call: Call, generator: ValueGenerator, known: Sequence[Any]) -> Any:
        """Return a label that is not among the known ones, unless a few tries find none."""
        value: Any = None
        texts = {dumps(one) for one in known}
        for turn in range(_TRIES):
            rng = SeededRandom("other", self._seed, call.prompt_digest, turn, *([len(known)] if len(known) > 1 else []))
            value = generator.fill(rng, source=call.text)
            if dumps(value) not in texts:
                break
        return value

    def _from_gold(self, call: Call, name: str, schema: Schema, right: Any, guess: Any) -> Any:
        rng = SeededRandom("gold", self._seed, call.prompt_digest, name)
        fits, value = _fitting(schema, right)
        if not fits:
            return guess
        return value if rng.unit() < self._accuracy else _another(schema, value, rng)


def _chooser(text: str) -> Choose:
    def choose(values: Sequence[Any], rng: SeededRandom) -> Any:
        moods = sentiment_values(values)
        if moods is None:
            return _most_mentioned(text, values, rng)
        sign = sentiment_sign(text)
        return moods[sign] if sign in moods else moods[1 if rng.below(2) else -1]

    return choose


def _most_mentioned(text: str, values: Sequence[Any], rng: SeededRandom) -> Any:
    """Return the value that the text mentions most often. A tie, as with a list of all values, is drawn by `rng`."""
    counts = [_count(text.casefold(), value) if isinstance(value, str) else 0 for value in values]
    most = max(counts, default=0)
    best = [value for value, count in zip(values, counts, strict=True) if count == most]
    return any_of(best, rng)


def _count(text: str, value: str) -> int:
    words = re.escape(value.casefold().replace("_", " ").strip())
    if not words:
        return 0
    # Korean attaches endings to the word, so only Latin words must end at a word boundary.
    return len(re.findall(rf"\b{words}\b" if words.isascii() else words, text))


def _fitting(schema: Schema, right: Any) -> tuple[bool, Any]:
    """Return whether the schema allows a gold value, which may be text from a CSV file, and the converted value."""
    text = str(right).strip()
    if "enum" in schema:
        matches = [value for value in schema["enum"] if value == right] or [
            value for value in schema["enum"] if str(value).casefold() == text.casefold()
        ]
        return bool(matches), matches[0] if matches else None
    kind = schema.get("type")
    try:
        match kind:
            case "boolean":
                return True, right if isinstance(right, bool) else text.casefold() in _TRUE
            case "integer":
                return True, int(right)
            case "number":
                return True, float(right)
            case "string":
                return True, text
            case "array":
                return _fitting_list(schema, right)
    except (ValueError, TypeError):
        return False, None
    return True, right


def _fitting_list(schema: Schema, right: Any) -> tuple[bool, Any]:
    """Do the same for a list: JSON in a CSV file. One value means a list of it, and an empty cell an empty list."""
    if isinstance(right, str):
        right = loads(right) if right.lstrip().startswith("[") else [right] if right.strip() else []
    items = [_fitting(schema.get("items", {}), each) for each in (right if isinstance(right, list) else [right])]
    return all(fits for fits, _ in items), [value for _, value in items]


def _another(schema: Schema, value: Any, rng: SeededRandom) -> Any:
    """Return a wrong value of the right type."""
    if "enum" in schema:
        others = [one for one in schema["enum"] if one != value]
        return any_of(others, rng) if others else value
    if isinstance(value, bool):
        return not value
    for _ in range(_TRIES):
        other = ValueGenerator(schema).fill(rng)
        if other != value:
            return other
    return value


def outside(generator: ValueGenerator, value: Any) -> Any:
    """Return the label with one field that its schema does not allow, preferably an enum or const."""
    fields = generator.properties()
    for name, schema in fields.items():
        if "enum" in schema or "const" in schema:
            return {**value, name: _NO_VALUE}
    for name, schema in fields.items():
        if "type" in schema:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            return {**value, name: _NO_VALUE if "string" not in kinds else {"of": "another type"}}
    return {"unexpected": True}
