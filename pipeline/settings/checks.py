"""Checks of config values beyond their types. A check returns the value, or refuses it with a message for the user."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_core import PydanticCustomError

from pipeline.settings.texts import as_toml, closest_match, redact, secret_parameter

#: The `type` of an error that `refuse` raised.
REFUSED = "refused"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LOGIN_IN_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://([^/?#]*)@")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TABLE_WANTED = "expected letters, digits and _, and a dot between the schema and the name"
_TABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)?")
#: The same pattern as in `limits/hours`, which is on the same layer and cannot be imported.
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])|24:00")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

_TIME_WANTED = 'expected a time of day from 00:00 to 24:00, like "22:00" or "7:30"'
_DAY_MIN = 24 * 60

#: Parameters that every call carries -> where to set them.
_SENT_ANYWAY = {
    "model": "set model.name instead",
    "messages": "set task.system and task.prompt instead",
    "tools": "set task.labels, task.function, task.python or task.tools instead",
    "tool_choice": "set model.tool_choice instead",
    "functions": "set task.labels, task.function, task.python or task.tools instead",
    "function_call": "set model.tool_choice instead",
    "timeout": "set model.timeout_s instead",
    "extra_headers": "set model.headers instead",
    "extra_query": "put it into model.base_url",
    "extra_body": "put its keys into model.parameters themselves",
    "stream": "answers are read whole",
    "stream_options": "answers are read whole",
}


@dataclass(frozen=True, slots=True)
class Takes:
    """Field metadata that describes what the field takes, for types whose name does not say enough."""

    words: str
    none_is_text: bool = False  #: The text "none" is a value of its own, also in a variable and after --set.


def refuse(reasons: Mapping[str, str] | str) -> NoReturn:
    """Refuse the field's value for one reason, or single items of it (item -> reason)."""
    items = {"": reasons} if isinstance(reasons, str) else dict(reasons)
    raise PydanticCustomError(REFUSED, "refused", {"items": items})


def as_plain(value: Any) -> Any:
    """Convert paths to text and tuples to lists, for settings that are built in Python."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, tuple | list):
        return [as_plain(item) for item in value]
    return value


def paths(value: str | list[str]) -> str | list[str]:
    """Require at least one path, and no empty path."""
    if not value or (isinstance(value, list) and not all(value)):
        refuse(f"got {as_toml(value)}; expected at least one path, and none that is empty")
    for one in [value] if isinstance(value, str) else value:
        login = _LOGIN_IN_PATH.match(one)
        if (login and ":" in login[1]) or ("://" in one and "password=" in one.lower()):
            # The value is not repeated: it is a password.
            refuse("a password does not belong here: put the address into the environment and name it in input.url_env")
        if "://" in one and (name := secret_parameter(one)):
            refuse(
                f"an address with {as_toml(name)} in it is a secret: put it into the environment and name it in "
                "input.url_env, otherwise the run's files would contain it"
            )
    return value


def encoding(value: str) -> str:
    """Require an encoding that Python knows."""
    try:
        "".encode(value)
    except LookupError:
        known = ["utf-8", "utf-16", "latin-1", "cp1252", "cp949", "euc-kr", "shift_jis", "gb18030"]
        guess = closest_match(value, known)
        refuse(f"got {as_toml(value)}; no such encoding" + (f"; did you mean {guess}?" if guess else ""))
    return value


def delimiter(value: Any) -> Any:
    """Require one character; `tab` names the tab."""
    if value in ("tab", "\\t"):
        return "\t"
    if isinstance(value, str) and (len(value) != 1 or value in '\r\n"'):
        refuse(f'got {as_toml(value)}; expected one character, like ";", or "tab"')
    return value


def quote(value: Any) -> Any:
    """Require one character, or `none`."""
    if value in ("none", ""):
        return "none"
    if isinstance(value, str) and (len(value) != 1 or value in "\r\n\t "):
        refuse(f'got {as_toml(value)}; expected one character, like \'"\', or "none"')
    return value


def header(value: Any) -> Any:
    """Require true, false, or distinct names."""
    value = as_plain(value)
    if isinstance(value, list):
        if not value or not all(isinstance(name, str) and name.strip() for name in value):
            refuse("expected the columns' names, none of them empty")
        distinct(value)
    return value


def shard(value: str) -> str:
    """Require a shard, such as 3/16 for the third of sixteen."""
    found = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", value)
    if found is None or int(found[1]) > int(found[2]):
        refuse(f"got {value!r}; expected a shard and their number, such as 3/16 for the third of 16")
    return value


def function_name(value: str) -> str:
    """Require a function name that the API accepts."""
    if not _NAME.fullmatch(value):
        refuse(f"got {as_toml(value)}; expected 1 to 64 letters, digits, _ and -")
    return value


def place_in_python(value: str) -> str:
    """Require `module:name`, each a dotted name."""
    module, colon, name = value.partition(":")
    if not (colon and all(part.isidentifier() for part in [*module.split("."), *name.split(".")])):
        refuse(f'got {as_toml(value)}; expected "module:name", like "my_labels:Sentiment"')
    return value


def labels(value: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    """Require at least one label field, and a name for each."""
    if not value:
        refuse('got no label field; expected at least one, like label = ["yes", "no"]')
    if not all(name.strip() for name in value):
        refuse("a label field needs a name")
    return value


def label_values(value: Sequence[Any]) -> Sequence[Any]:
    """Require distinct values that are not blank."""
    if not value:
        refuse("got an empty list; expected the values that the label may have")
    if any(isinstance(one, str) and not one.strip() for one in value):
        refuse("one of the values is empty text; a label cannot be empty")
    if twice := doubles(value):
        refuse(f"{as_toml(twice[0])} occurs twice")
    return value


def doubles(values: Iterable[Any]) -> list[Any]:
    """Return the repeated values. They compare as in JSON: 1 equals 1.0, and 1 does not equal true."""
    seen: set[tuple[bool, Any]] = set()
    found = []
    for value in values:
        typed = (isinstance(value, bool), value)
        if typed in seen:
            found.append(value)
        seen.add(typed)
    return found


def distinct(value: list[str] | None) -> list[str] | None:
    """Require distinct values."""
    if value and (twice := doubles(value)):
        refuse(f"{as_toml(twice[0])} occurs twice")
    return value


def base_url(value: str) -> str:
    """Require `rehearsal`, or an http(s) address without a password."""
    try:
        parts = urlsplit(value)
        fit = value == "rehearsal" or (parts.scheme in ("http", "https") and bool(parts.hostname))
    except ValueError:
        fit = False
    if not fit:
        hint = "; did you mean rehearsal?" if closest_match(value, ["rehearsal"]) else ""
        refuse(f'got {redact(as_toml(value))}; expected an address that starts with http, or "rehearsal"{hint}')
    if "@" in parts.netloc:
        refuse(f"got {redact(as_toml(value))}; a login does not belong here: put the key into the environment")
    path = parts.path.rstrip("/")
    for end in _PASTED:
        if path.endswith(end):
            base = f"{parts.scheme}://{parts.netloc}{path.removesuffix(end)}"
            refuse(f"got {redact(as_toml(value))}; {end} is added to it: set model.base_url = {as_toml(base)}")
    return value


#: Endings that people paste along with an address from an example call.
_PASTED = ("/chat/completions", "/completions", "/responses")


def variable(value: str) -> str:
    """Require the name of an environment variable. The message leaves out the value, which may be the key."""
    if not _VARIABLE.fullmatch(value) or value.startswith("sk_"):
        refuse("expected the name of the environment variable that holds the key, like OPENAI_API_KEY, not the key")
    return value


def url_variable(value: str) -> str:
    """Require the name of an environment variable. The message leaves out the value, which may be the URL."""
    if not _VARIABLE.fullmatch(value):
        refuse("expected the name of the environment variable that holds the URL, like DATABASE_URL, not the URL")
    return value


def is_address(value: str) -> bool:
    """Whether the address can be parsed, so that its secret parts are known and can be left out of messages."""
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises ValueError if it is not a number
    except ValueError:
        return False
    return bool(parts.scheme) and value.lower().startswith(f"{parts.scheme}://")


def database_url(value: SecretStr) -> SecretStr:
    """Require an address without a password. The message does not repeat the value."""
    try:
        parts = urlsplit(value.get_secret_value())
        has_login = bool(parts.password) or "password" in parts.query.lower()
    except ValueError:
        parts, has_login = urlsplit(""), False
    if has_login:
        refuse("a password does not belong here: put the URL into the environment and name it in output.sql.url_env")
    if not parts.scheme:
        refuse("expected an SQLAlchemy URL, like sqlite:///labels.db or postgresql+psycopg://user@host/name")
    return value


def table_name(value: str) -> str:
    """Require the name of a table, with or without its schema."""
    if not is_table_name(value):
        refuse(f"got {as_toml(value)}; {TABLE_WANTED}")
    return value


def is_table_name(value: str) -> bool:
    """Whether a table may have this name, with or without its schema."""
    return bool(_TABLE.fullmatch(value)) and len(value.encode()) <= 120


def headers(value: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    """Require names and values that HTTP can carry."""
    reasons = {name: "not a name that an HTTP header can have" for name in value if not _HEADER.fullmatch(name)}
    for name, secret in value.items():
        if any(ord(char) < 32 for char in secret.get_secret_value()):
            reasons[name] = "a header's value has no line breaks and no control characters"
    return refuse(reasons) if reasons else value


def parameters(value: Mapping[str, Any], model_keys: Iterable[str]) -> Mapping[str, Any]:
    """Refuse parameters that every call carries anyway, and keys that belong in [model]."""
    reasons = {name: f"each call sends it anyway: {_SENT_ANYWAY[name]}" for name in value if name in _SENT_ANYWAY}
    for name in set(value).intersection(model_keys).difference(reasons):
        reasons[name] = f"a key of [model], not of [model.parameters]; write model.{name}, above that table"
    if value.get("n", 1) != 1:
        reasons["n"] = f"got {as_toml(value['n'])}; one answer labels one record, so it is 1 or left out"
    if value.get("parallel_tool_calls") is True:
        reasons["parallel_tool_calls"] = "labelpipe sets it itself where task.call or task.rows asks for several calls"
    if "api_key" in value:
        reasons["api_key"] = "a key does not belong in the config; put it into the environment or .env"
    return refuse(reasons) if reasons else value


def faults(value: Mapping[str, float]) -> Mapping[str, float]:
    """Require probabilities that add up to 1 or less."""
    if sum(value.values()) > 1 + 1e-9:
        refuse(f"they add up to {sum(value.values()):g}; expected 1 or less")
    return value


def time_of_day(value: str) -> str:
    """Require a time of day."""
    if not _TIME.fullmatch(value):
        refuse(f"got {as_toml(value)}; {_TIME_WANTED}")
    return value


def hours(value: list[str] | None) -> list[str] | None:
    """Require two different times of day."""
    if value is None:
        return None
    if wrong := [one for one in value if not _TIME.fullmatch(one)]:
        refuse(f"got {as_toml(value)}; {as_toml(wrong[0])} is not a time: {_TIME_WANTED}")
    begin, end = (int(one.partition(":")[0]) * 60 + int(one.partition(":")[2]) for one in value)
    if begin % _DAY_MIN == end % _DAY_MIN and (end != _DAY_MIN or begin == end):
        refuse(f"got {as_toml(value)}; it begins and ends at the same time: leave it out to run at all hours")
    return value
