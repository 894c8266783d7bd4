"""Generates texts that a JSON Schema's string keywords allow, as far as possible."""

import importlib
import re
import string
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.rehearsal.seeded_random import SeededRandom

_WORDS = ("simulated", "text", "from", "the", "rehearsal", "example", "short", "note")
_FORMATS: Mapping[str, Callable[[SeededRandom], str]] = {
    "date": lambda rng: f"2026-{1 + rng.below(12):02}-{1 + rng.below(28):02}",
    "time": lambda rng: f"{rng.below(24):02}:{rng.below(60):02}:00Z",
    "date-time": lambda rng: f"2026-{1 + rng.below(12):02}-{1 + rng.below(28):02}T{rng.below(24):02}:00:00Z",
    "duration": lambda rng: f"P{1 + rng.below(30)}D",
    "email": lambda rng: f"someone{rng.below(1000)}@example.com",
    "hostname": lambda rng: f"host{rng.below(1000)}.example.com",
    "uri": lambda rng: f"https://example.com/{rng.below(1000)}",
    "ipv4": lambda rng: f"192.0.2.{rng.below(256)}",
    "ipv6": lambda rng: f"2001:db8::{rng.below(65536):x}",
    "uuid": lambda rng: f"00000000-0000-4000-8000-{rng.below(1 << 48):012x}",
}
#: Characters for a character class, in order of preference.
_ALPHABET = string.ascii_lowercase + string.digits + string.ascii_uppercase + " _-.,:/" + string.punctuation + "가é\t\n"
_CATEGORIES: Mapping[str, Callable[[str], bool]] = {
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_NOT_DIGIT": lambda char: not char.isdigit(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda char: not char.isspace(),
    "CATEGORY_WORD": lambda char: char.isalnum() or char == "_",
    "CATEGORY_NOT_WORD": lambda char: not (char.isalnum() or char == "_"),
}
#: What a description says about a string that must occur in the text.
_IS_QUOTE = re.compile(r"\b(?:quot(?:e|ed|ation)|verbatim|word for word|exact words)\b", re.IGNORECASE)
_QUOTE_WORDS = 3
#: The most repeats of a part that may repeat without end.
_REPEAT = 3
#: The longest text that is made, the longest pattern that is read, and the most steps for a pattern's text.
MOST_CHARS, _MOST_PATTERN, _MOST_STEPS = 100_000, 2_000, 20_000


def text_for(schema: Mapping[str, Any], rng: SeededRandom) -> str:
    """Return a text of the right format, pattern, and length (in code points)."""
    least = int(schema.get("minLength", 0))
    most = int(schema["maxLength"]) if "maxLength" in schema else None
    if least > MOST_CHARS:
        raise ValueError(f"minLength is {least:,}; the rehearsal makes texts of up to {MOST_CHARS:,} characters")
    if "pattern" in schema:
        text = _matching(str(schema["pattern"]), least, most, rng)
        if text is not None:
            return text
    if (make := _FORMATS.get(schema.get("format", ""))) is not None:
        return make(rng)
    words = [_WORDS[rng.below(len(_WORDS))] for _ in range(2 + rng.below(4))]
    text = " ".join(words)
    while len(text) < least:
        text += " " + _WORDS[rng.below(len(_WORDS))]
    return text if most is None else text[:most].rstrip().ljust(min(least, most), ".")


def quote_for(schema: Mapping[str, Any], source: str, rng: SeededRandom) -> str | None:
    """Return a few words of the source's last line, if the description asks for a quote and they fit."""
    if not source or "pattern" in schema or not _IS_QUOTE.search(str(schema.get("description", ""))):
        return None
    # The text before a colon belongs to the prompt ("Text: ..."), not to the record.
    words = source.rstrip().rpartition("\n")[2].rpartition(": ")[2].split(" ")
    start = rng.below(len(words))
    quote = " ".join(words[start : start + 1 + rng.below(_QUOTE_WORDS)]).strip(" \t\"'.,;:!?()")
    fits = int(schema.get("minLength", 1)) <= len(quote) <= int(schema.get("maxLength", len(quote)))
    return quote if fits and quote else None


def _matching(pattern: str, least: int, most: int | None, rng: SeededRandom) -> str | None:
    """Return a text in which the pattern is found; None if this module cannot make one."""
    if len(pattern) > _MOST_PATTERN:
        return None
    try:
        # The parser is not a public module, but it is the only one that reads every pattern.
        parsed = importlib.import_module("re._parser").parse(pattern)
    except (re.error, ImportError, OverflowError, RecursionError):
        return None
    for stretch in (0, 1, _REPEAT, max(0, least)):
        try:
            text = _Maker(rng, stretch).all_of(parsed)
        except (LookupError, ValueError, TypeError):
            return None
        if least <= len(text) and (most is None or len(text) <= most):
            return text
    return None


class _Maker:
    """Makes a text for a parsed pattern. Raises LookupError for an unsupported step, or after too many steps."""

    def __init__(self, rng: SeededRandom, stretch: int) -> None:
        self._dice, self._stretch = rng, stretch
        # Mutable state:
        self._left = _MOST_STEPS

    def all_of(self, parts: Any) -> str:
        """Return a text for a sequence of steps."""
        return "".join(self._part(op, argument) for op, argument in parts)

    def _repeat(self, low: int, high: int, parts: Any) -> str:
        texts: list[str] = []
        for _ in range(min(high, low + self._stretch)):
            self._step()
            texts.append(self.all_of(parts))
        return "".join(texts)

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise LookupError("too many steps")

    def _part(self, op: Any, argument: Any) -> str:
        self._step()
        match str(op):
            case "LITERAL":
                return chr(argument)
            case "NOT_LITERAL":
                return next(char for char in _ALPHABET if char != chr(argument))
            case "ANY":
                return _ALPHABET[self._dice.below(26)]
            case "IN":
                return _from_class(argument, self._dice)
            case "AT":
                return ""
            case "SUBPATTERN":
                return self.all_of(argument[-1])
            case "BRANCH":
                return self.all_of(argument[1][self._dice.below(len(argument[1]))])
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                low, high, parts = argument
                return self._repeat(int(low), int(high), parts)
        raise LookupError(str(op))


def _from_class(parts: Any, rng: SeededRandom) -> str:
    negated = str(parts[0][0]) == "NEGATE"
    allowed = [char for char in _ALPHABET if any(_in_class(char, part) for part in parts) != negated]
    if not allowed and not negated:
        # The class is outside our alphabet: use its first range or letter.
        first = parts[0][1]
        return chr(first[0] if isinstance(first, tuple) else first)
    return allowed[rng.below(min(len(allowed), 36))]


def _in_class(char: str, part: tuple[Any, Any]) -> bool:
    match str(part[0]):
        case "LITERAL":
            return ord(char) == int(part[1])
        case "RANGE":
            return bool(part[1][0] <= ord(char) <= part[1][1])
        case "CATEGORY":
            return _CATEGORIES[str(part[1])](char)
    return False
