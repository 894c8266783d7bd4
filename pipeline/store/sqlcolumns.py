"""The columns of the SQL table: which values under which names, and of which type."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from pipeline import codec
from pipeline.codec import clean
from pipeline.records import JSON
from pipeline.store.columntypes import column_type, convert
from pipeline.store.layout import Table

#: The primary key: the record's key, and the number of the row among the record's rows, from 1.
KEY, PART = "labelpipe_key", "labelpipe_part"
#: PostgreSQL takes names of so many bytes.
NAME_BYTES = 63
#: MySQL indexes texts of so many characters.
KEY_BYTES = 255
#: A name has none of these: controls have no place in it, and drivers give a meaning to %.
_UNFIT = re.compile(r"[\x00-\x1f\x7f%]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `source` says what is in it: `record.` or `label.` and the name there.

    `kind` is what its values have been so far: nothing, bool, int, long (over 2**53), double or text.
    """

    source: str
    title: str
    name: str
    kind: str


def planned(
    known: Sequence[Column], table: Table, kinds: Sequence[str], *, whole: bool = False
) -> tuple[Column, ...] | None:
    """The known columns, in their places, and then what is new. None if a known one is gone or has another type.

    A new column waits for its first value, by which it gets its type, unless the `whole` table is wanted.
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
    """The kinds that the table's columns have had so far."""
    known = {column.source: column.kind for column in columns}
    return [known.get(source, "nothing") for source in sources_of(table)]


def sources_of(table: Table) -> list[str]:
    """What is under each of the table's titles."""
    rest = table.titles[len(table.carried) :]
    return [*(f"record.{name}" for name in table.carried), *(f"label.{title}" for title in rest)]


def values_of(columns: Sequence[Column], table: Table, row: Sequence[JSON]) -> list[JSON]:
    """A row's values in the order of the columns, as the database stores them."""
    by_source = dict(zip(sources_of(table), row, strict=True))
    return [stored(column.kind, by_source[column.source]) for column in columns]


def stored(kind: str, value: JSON) -> JSON:
    """The value in a column of this kind. A text has U+FFFD for NUL, which PostgreSQL does not take."""
    converted = convert(column_type(kind), value)
    return converted.replace("\0", "\ufffd") if isinstance(converted, str) else converted


def key_of(key: str) -> str:
    """The record's key as the table has it: as it is, or where a database could not index it, cut and with a digest."""
    plain: str = stored("text", key)
    if plain == key and len(key.encode()) <= KEY_BYTES:
        return plain
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{_cut(plain, KEY_BYTES - len(digest) - 1)}#{digest}"


def to_text(columns: Sequence[Column]) -> str:
    """As the progress table keeps them."""
    return codec.dumps([list(astuple(column)) for column in columns]).decode()


def from_text(text: str) -> tuple[Column, ...]:
    """Back from `to_text`."""
    return tuple(Column(*values) for values in codec.loads_exact(text))


def _named(title: str, others: Sequence[Column]) -> str:
    """A name that databases take, and that no other column has, whatever the case of its letters."""
    reserved = {KEY, PART, *(column.name.casefold() for column in others)}
    plain = _UNFIT.sub("_", clean(title)) or "column"
    name, number = _cut(plain, NAME_BYTES), 2
    while name.casefold() in reserved:
        end = f"_{number}"
        name, number = _cut(plain, NAME_BYTES - len(end)) + end, number + 1
    return name


def _cut(text: str, size_bytes: int) -> str:
    return text.encode()[:size_bytes].decode(errors="ignore")
