"""What the columns of an input hold, over all its records and in bounded memory."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from mimetypes import guess_type
from typing import Any

from pipeline.records import JSON, Record

#: more values than this are no label set
LABELS_MAX = 200
LABEL_CHARS = 60
#: columns that are looked at; an object a record may have another name in each
COLUMNS_MAX = 1_000
#: distinct values that are told apart; beyond them a column is taken for one without any twice
KEYS_MAX = 2_000_000
#: as much of a value is looked at to tell what it is
LOOK_CHARS = 200

KEY_NAMES = frozenset({"id", "key", "uuid", "guid", "번호", "아이디"})
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")
_CALLABLE = re.compile(r"\+?[\d() ./-]*\d[\d() ./-]*")
_DATE = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4}")


class ColumnSurvey:
    """What was seen in one column."""

    def __init__(self, *, is_key: bool) -> None:
        # All state that changes: how many values there are that are not empty; of them the texts, their characters,
        # those of words, and those that look like a person's address or number; objects and lists, and those with
        # words in them; distinct values while they may be labels, and whether any cannot be one; those that can name
        # a record, and how many of them came before.
        self.filled = self.texts = self.chars = self.prose = self.personal = 0
        self.objects = self.nested = 0
        self.labels: dict[tuple[bool, JSON], int] = {}
        self.unfit = False
        self.names = self.repeated = 0
        self._keys: set[int] | None = set() if is_key else None

    def add(self, value: JSON) -> None:
        """One more value; an empty one says nothing."""
        if value is None or value == "":
            return
        self.filled += 1
        if isinstance(value, str):
            self.texts += 1
            self.chars += len(value)
            head = value[:LOOK_CHARS]
            self.prose += " " in head or not head.isascii()
            self.personal += _is_personal(head)
        elif isinstance(value, dict | list):
            self.objects += 1
            self.nested += _has_words(value)
        if not self.unfit:
            self._add_label(value)
        if self._keys is not None:
            self._add_key(value, self._keys)

    def _add_label(self, value: JSON) -> None:
        self.unfit = not _is_label(value)
        if not self.unfit and len(self.labels) <= LABELS_MAX:
            # True equals 1 in Python, but not in JSON.
            key = (isinstance(value, bool), value)
            self.labels[key] = self.labels.get(key, 0) + 1

    def _add_key(self, value: JSON, keys: set[int]) -> None:
        self.names += isinstance(value, str | int) and not isinstance(value, bool)
        mark = hash(str(value))
        self.repeated += mark in keys
        if len(keys) < KEYS_MAX:
            keys.add(mark)

    @property
    def mean_chars(self) -> float:
        """The average length of its texts."""
        return self.chars / self.texts if self.texts else 0.0

    def distinct(self) -> tuple[JSON, ...]:
        """Its values, where there are few enough of them."""
        return tuple(sorted((value for _, value in self.labels), key=lambda value: (isinstance(value, str), value)))


def _has_words(value: JSON) -> bool:
    """Whether a text of several words is in it, however deep."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str) and " " in each:
            return True
        left += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
    return False


class Survey:
    """What all records of an input have in common. Add them batch by batch."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        # All state that changes.
        self.columns: dict[str, ColumnSurvey] = {}
        self.records = self.unreadable = 0
        self.first: Mapping[str, JSON] = {}
        self.add(records)

    def add(self, records: Iterable[Record]) -> None:
        """So many more records."""
        for record in records:
            if record.problem is not None or not record.fields:
                self.unreadable += 1
                continue
            self.first = self.first or record.fields
            self.records += 1
            for name, value in record.fields.items():
                column = self.columns.get(name) or self._new_column(name)
                if column is not None:
                    column.add(value)

    def media(self) -> Counter[str]:
        """How many of its files are of each kind, where its records are files."""
        kinds: Counter[str] = Counter()
        suffixes = self.columns["suffix"].labels if "suffix" in self.columns else {}
        for (_, suffix), count in suffixes.items():
            kinds[media_kind(f"a{suffix}")] += count
        return kinds

    def _new_column(self, name: Any) -> ColumnSurvey | None:
        if len(self.columns) >= COLUMNS_MAX or not is_writable(name):
            return None
        return self.columns.setdefault(name, ColumnSurvey(is_key=noun(name) in KEY_NAMES))


def media_kind(name: str) -> str:
    """What a file of this name is: image, audio, document, video; "" for anything else."""
    kind = (guess_type(name)[0] or "").removeprefix("application/").partition("/")[0]
    if name.lower().endswith(".webp"):
        return "image"  # not every system knows it
    return "document" if kind == "pdf" else kind if kind in ("image", "audio", "video") else ""


def is_writable(name: Any) -> bool:
    """Whether TOML and a prompt can hold it: a lone surrogate comes of a broken file, and has no place in either."""
    return isinstance(name, str) and bool(name) and not any("\ud800" <= char <= "\udfff" for char in name)


def words_of(name: str) -> list[str]:
    """The words of a column's name: first, name for `firstName`, `first_name` and `First name`."""
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.split(r"[\W_]+", parted) if word]


def noun(name: str) -> str:
    """The last of them: `goldLabel`, `gold_label` and `Gold label` are labels, `label_id` is an id."""
    return (words_of(name) or [""])[-1]


def _is_label(value: JSON) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and len(value) <= LABEL_CHARS and is_writable(value)
    return isinstance(value, int)


def _is_personal(text: str) -> bool:
    """An e-mail address, or what somebody can be called by."""
    if _ADDRESS.fullmatch(text):
        return True
    digits = sum(map(str.isdigit, text))
    is_number = text.startswith("+") or any(sign in text for sign in " -()")
    return 8 <= digits <= 15 and is_number and bool(_CALLABLE.fullmatch(text)) and not _DATE.match(text)
