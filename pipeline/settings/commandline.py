"""Command lines without secrets: values that --set gives to secret keys are redacted."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from pipeline import codec
from pipeline.settings.schema import Model, is_secret, kinds_at
from pipeline.settings.texts import AUTO, REDACTED, dotted, parse_value, redact
from pipeline.settings.tomltext import Keys, pair_of

#: A shell comment at the end of the line: if somebody pastes the line, it says itself what is missing.
NOTE = f"  # {REDACTED} is a secret that is not shown: put its value there"
#: Its value is the name of a variable, which was checked before.
_NAMES_ONE = ("model", "api_key_env")
#: How a prompt may begin, and a table may not.
_JINJA = re.compile(r"\s*\{[{%#]")


def redacted_command(words: Sequence[str]) -> str:
    """Join the words into one line for a shell, without secrets. A note says if one is left out."""
    as_toml = [_redacted_word(word, before) for word, before in zip(words, ["", *words], strict=False)]
    return shlex.join(as_toml) + (NOTE if as_toml != list(words) else "")


def _redacted_word(word: str, before: str) -> str:
    if before == "--set":
        return _redacted_pair(word)
    if word.startswith("--set="):
        return f"--set={_redacted_pair(word.removeprefix('--set='))}"
    return redact(word)


def _redacted_pair(text: str) -> str:
    pair = pair_of(text)
    if pair is not None and pair[0] != _NAMES_ONE and holds_secret(*pair):
        return f"{dotted(pair[0])}={REDACTED}"
    return redact(text)


def replayable_overrides(
    root: Model, overrides: Mapping[str, Any] | Sequence[str], direct: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """What was said beside the file, as `key=value` texts that say it again; and the keys that cannot be kept so.

    A secret is not kept, nor what no text can say, such as a class. The run folder is left out: it names itself.
    """
    texts = {key: _text_of(root, key, value, quoted=False) for key, value in _pairs(overrides)}
    texts |= {key: _text_of(root, key, value, quoted=True) for key, value in _leaves(direct)}
    texts.pop("output.dir", None)
    words = [f"{key}={text}" for key, text in texts.items() if text is not None]
    return words, [key for key, text in texts.items() if text is None]


def _pairs(overrides: Mapping[str, Any] | Sequence[str]) -> list[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    found = [pair for text in overrides if (pair := pair_of(text)) is not None]
    return [(dotted(path), value) for path, value in found]


def _leaves(tables: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Yield the values of the two upper levels, tables and their keys, by dotted key."""
    found: list[tuple[str, Any]] = []
    for name, table in tables.items():
        plain = table.model_dump(exclude_unset=True) if isinstance(table, BaseModel) else table
        found += [(f"{name}.{key}", value) for key, value in plain.items()] if isinstance(plain, Mapping) else []
    return found


def _text_of(root: Model, key: str, value: Any, *, quoted: bool) -> str | None:
    """Write the value as text; None if it is a secret or has no text form. `quoted` strings are not read as values."""
    pair = pair_of(f"{key}=")
    if pair is None or holds_secret(pair[0], value):
        return None
    if value is None:
        return AUTO if AUTO in kinds_at(root, pair[0]) else "none"
    try:
        text = value if isinstance(value, str) and not quoted else codec.dumps(value).decode()
    except TypeError:
        return None
    return text if redact(text) == text else None


def holds_secret(path: Keys, value: Any) -> bool:
    """Whether the value of this key may be a secret, or a table that contains one."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = parse_value(value, frozenset())
        if isinstance(value, str) and value.lstrip()[:1] == "{" and not (path[1:] and _JINJA.match(value)):
            return True  # it cannot be read, so nobody knows what is in it
    if isinstance(value, Mapping):
        return any(holds_secret((*path, name), item) for name, item in value.items()) or is_secret(path)
    if isinstance(value, list | tuple):
        return any(holds_secret(path, item) for item in value) or is_secret(path)
    return is_secret(path)
