"""The settings as rows: each value, and where it came from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from pipeline.records import JSON
from pipeline.settings.root import Settings
from pipeline.settings.schema import is_secret
from pipeline.settings.texts import as_toml, dotted
from pipeline.settings.tomltext import Keys


@dataclass(frozen=True, slots=True)
class Row:
    """One value. `origin` is `default`, `config/a.toml:12`, `environment NAME`, `.env`, `--set` or `Settings`.

    A secret's value is `set` or `not set`, and it is `hidden`. `path` are the parts of `key`.
    """

    key: str
    value: JSON
    origin: str
    path: Keys = field(default=(), compare=False)
    hidden: bool = field(default=False, compare=False)

    @property
    def text(self) -> str:
        """The value in TOML on one line; `none` if it is unset."""
        return as_toml(self.value, limit=200)


def explain(settings: Settings) -> list[Row]:
    """Return a row for every value, in the config's order, and one for the API key."""
    rows = [_row(settings, path, value) for path, value in _values(settings, ())]
    found = settings._api_key()
    rows.append(Row("API key", "set" if found else "not set", found[1] if found else "default"))
    return rows


def _row(settings: Settings, path: Keys, value: Any) -> Row:
    origins = settings._origins
    lengths = range(len(path), 0, -1)
    origin = next((str(origins[path[:length]]) for length in lengths if path[:length] in origins), "default")
    hidden = is_secret(path) and path != ("model", "api_key_env") and value != {}
    shown_value = ("not set" if value is None else "set") if hidden else value
    return Row(dotted(path), shown_value, origin, path, hidden)


def _values(model: BaseModel, path: Keys) -> Iterator[tuple[Keys, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        here = (*path, name)
        if isinstance(value, BaseModel):
            yield from _values(value, here)
        elif isinstance(value, dict) and value:
            yield from (((*here, key), item) for key, item in value.items())
        elif isinstance(value, list):
            yield here, [_set_in(item) if isinstance(item, BaseModel) else item for item in value]
        else:
            yield here, value


def _set_in(model: BaseModel) -> dict[str, Any]:
    """Return the values that are set in a table of an array. All others are unset by default."""
    return {name: value for name in type(model).model_fields if (value := getattr(model, name)) is not None}
