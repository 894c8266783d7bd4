"""Defines the columns of the SQL table: their values, names, and types."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from pipeline import codec
from pipeline.codec import clean
from pipeline.records import JSON
from pipeline.store.columntypes import column_type, convert
from pipeline.store.layout import Table

#: The primary key: the record's key, and the 1-based number of the row among the record's rows.
KEY, PART = "labelpipe_key", "labelpipe_part"
#: The longest name that PostgreSQL accepts, in bytes.
NAME_BYTES = 63
#: The longest text that MySQL indexes, in characters.
KEY_BYTES = 255
#: Characters that a name must not contain: control characters, and %, which has a meaning for drivers.
_UNFIT = re.compile(r"[\x00-\x1f\x7f%]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `source` is the origin of its values: `record.` or `label.` and the name there.

    `kind` is the kind of its values so far: nothing, bool, int, long (over 2**53), double, or text.
    """

    source: str
    title: str
    name: str
    kind: str


def planned(
    known: Sequence[Column], table: Table, kinds: Sequence[str], *, whole: bool = False
) -> tuple[Column, ...] | None:
    """Return the known columns, in their places, and then the new ones. None if a known one is gone or has a new type.

    A new column is left out until its first value decides its type, unless the `whole` table is wanted.
    """
    wanted = {source: (title, kind) for source, title, kind in zip(sources_of(table), table.titles, kinds, strict=True)}
    if any(wanted.get(column.source, ("", ""))[0] != column.title for column in known):
        return None
    columns: list[Column] = []
    for column in known:
        kind = wanted.pop(column.source)[1]
        grown = column if kind == "nothing" else replace(column, kind=kind)
        if column_type(grown.kind) != column_type(column.kind):
            return None
        columns.append(grown)
    for source, (title, kind) in wanted.items():
        if whole or kind != "nothing":
            columns.append(Column(source, title, _named(title, columns), kind))
    return tuple(columns)


def kinds_before(columns: Sequence[Column], table: Table) -> list[str]:
    """Return the kinds that the table's columns have had so far."""
    known = {column.source: column.kind for column in columns}
    return [known.get(source, "nothing") for source in sources_of(table)]


def sources_of(table: Table) -> list[str]:
    """Return the source of each of the table's titles."""
    rest = table.titles[len(table.carried) :]
    return [*(f"record.{name}" for name in table.carried), *(f"label.{title}" for title in rest)]


def values_of(columns: Sequence[Column], table: Table, row: Sequence[JSON]) -> list[JSON]:
    """Return a row's values in the order of the columns, as the database stores them."""
    by_source = dict(zip(sources_of(table), row, strict=True))
    return [stored(column.kind, by_source[column.source]) for column in columns]


def stored(kind: str, value: JSON) -> JSON:
    """Return the value for a column of this kind. NUL in a text becomes U+FFFD, because PostgreSQL refuses NUL."""
    converted = convert(column_type(kind), value)
    return converted.replace("\0", "\ufffd") if isinstance(converted, str) else converted


def key_of(key: str) -> str:
    """Return the record's key for the table. If a database could not index it, it is cut and gets a digest."""
    plain: str = stored("text", key)
    if plain == key and len(key.encode()) <= KEY_BYTES:
        return plain
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{_cut(plain, KEY_BYTES - len(digest) - 1)}#{digest}"


def to_text(columns: Sequence[Column]) -> str:
    """Return the text that the progress table saves."""
    return codec.dumps([list(astuple(column)) for column in columns]).decode()


def from_text(text: str) -> tuple[Column, ...]:
    """Read what `to_text` returned."""
    return tuple(Column(*values) for values in codec.loads_exact(text))


def _named(title: str, others: Sequence[Column]) -> str:
    """Return a name that databases accept and that no other column has, ignoring case."""
    reserved = {KEY, PART, *(column.name.casefold() for column in others)}
    plain = _UNFIT.sub("_", clean(title)) or "column"
    name, number = _cut(plain, NAME_BYTES), 2
    while name.casefold() in reserved:
        end = f"_{number}"
        name, number = _cut(plain, NAME_BYTES - len(end)) + end, number + 1
    return name


def _cut(text: str, size_bytes: int) -> str:
    return text.encode()[:size_bytes].decode(errors="ignore")
