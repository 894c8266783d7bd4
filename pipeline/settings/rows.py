"""The settings as rows: each value, and where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pipeline.records import JSON
from pipeline.settings.places import Keys
from pipeline.settings.root import Settings
from pipeline.settings.schema import is_secret
from pipeline.settings.texts import dotted, shown


@dataclass(frozen=True, slots=True)
class Row:
    """One value. `origin` is `default`, `config/a.toml:12`, `environment NAME`, `.env`, `--set` or `Settings`.

    A secret's value is `set` or `not set`.
    """

    key: str
    value: JSON
    origin: str

    @property
    def text(self) -> str:
        """The value as it stands in TOML, on one line; `none` where it is unset."""
        return shown(self.value, limit=200)


def explain(settings: Settings) -> list[Row]:
    """A row for every value, in the config's order, and one for the API key."""
    rows = [_row(settings, path, value) for path, value in _values(settings, ())]
    found = settings._api_key()
    rows.append(Row("API key", "set" if found else "not set", found[1] if found else "default"))
    return rows


def _row(settings: Settings, path: Keys, value: Any) -> Row:
    origins = settings._origins
    lengths = range(len(path), 0, -1)
    origin = next((str(origins[path[:length]]) for length in lengths if path[:length] in origins), "default")
    hidden = is_secret(path) and path != ("model", "api_key_env") and value != {}
    return Row(dotted(path), "set" if hidden else value, origin)


def _values(model: BaseModel, path: Keys) -> Iterator[tuple[Keys, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        here = (*path, name)
        if isinstance(value, BaseModel):
            yield from _values(value, here)
        elif isinstance(value, dict) and value:
            yield from (((*here, key), item) for key, item in value.items())
        else:
            yield here, value
