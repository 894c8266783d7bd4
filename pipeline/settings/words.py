"""The words of a command line as they may be shown again: what --set gives to a secret key is covered."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.settings.places import Keys, pair_of
from pipeline.settings.schema import is_secret
from pipeline.settings.texts import COVERED, covered, dotted, value_of

#: Behind the words, as the shell's own comment: pasted as it is, the line says by itself what is missing in it.
NOTE = f"  # {COVERED} is a secret that is not shown: put its value there"
#: It holds a variable's name, and what is none was refused before.
_NAMES_ONE = ("model", "api_key_env")


def shown_words(words: Sequence[str]) -> str:
    """The words as one line for a shell, without secrets; with a note where one is left out."""
    shown = [_shown(word, before) for word, before in zip(words, ["", *words], strict=False)]
    return shlex.join(shown) + (NOTE if shown != list(words) else "")


def _shown(word: str, before: str) -> str:
    if before == "--set":
        return _shown_pair(word)
    if word.startswith("--set="):
        return f"--set={_shown_pair(word.removeprefix('--set='))}"
    return covered(word)


def _shown_pair(text: str) -> str:
    pair = pair_of(text)
    if pair is not None and pair[0] != _NAMES_ONE and holds_secret(*pair):
        return f"{dotted(pair[0])}={COVERED}"
    return covered(text)


def holds_secret(path: Keys, value: Any) -> bool:
    """Whether what is given to this key may be a secret, or a table with one in it."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = value_of(value, frozenset())
        if isinstance(value, str) and value.lstrip()[:1] == "{":
            return True  # it cannot be read, so nobody knows what is in it
    if isinstance(value, Mapping):
        return any(holds_secret((*path, name), item) for name, item in value.items()) or is_secret(path)
    if isinstance(value, list | tuple):
        return any(holds_secret(path, item) for item in value) or is_secret(path)
    return is_secret(path)
