"""Surveys what the columns of an input contain, over all its records and in bounded memory."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from mimetypes import guess_type
from typing import Any

from pipeline.records import JSON, Record

#: More values than this are not a set of labels.
LABELS_MAX = 200
LABEL_CHARS = 60
#: The most columns to survey, because each record of objects may have another name.
COLUMNS_MAX = 1_000
#: Distinct values to compare. Beyond them, a column counts as one without repetition.
KEYS_MAX = 2_000_000
#: The characters of a value that decide what it is.
LOOK_CHARS = 200

KEY_NAMES = frozenset({"id", "key", "uuid", "guid", "번호", "아이디"})
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")
_CALLABLE = re.compile(r"\+?[\d() ./-]*\d[\d() ./-]*")
_DATE = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4}")


class ColumnSurvey:
    """The contents of one column."""

    def __init__(self, *, is_key: bool) -> None:
        # Mutable state: the number of values that are not empty; of texts, their characters, those with words, and
        # those that look like a person's address or number; of objects and lists, and those with words; the distinct
        # values while they may be labels, and whether one cannot be; and the values that can be keys, and how many were
        # repeated.
        self.filled = self.texts = self.chars = self.prose = self.personal = 0
        self.objects = self.nested = 0
        self.labels: dict[tuple[bool, JSON], int] = {}
        self.unfit = False
        self.names = self.repeated = 0
        self._keys: set[int] | None = set() if is_key else None

    def add(self, value: JSON) -> None:
        """Add a value. Empty values do not count."""
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
        """The average length of the texts."""
        return self.chars / self.texts if self.texts else 0.0

    def distinct(self) -> tuple[JSON, ...]:
        """Return the distinct values in order, if there are few enough."""
        return tuple(sorted((value for _, value in self.labels), key=lambda value: (isinstance(value, str), value)))


def _has_words(value: JSON) -> bool:
    """Whether the value contains a text of several words at any depth."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str) and " " in each:
            return True
        left += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
    return False


class Survey:
    """What all records of an input have in common. They are added in batches."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        # Mutable state.
        self.columns: dict[str, ColumnSurvey] = {}
        self.records = self.unreadable = 0
        self.first: Mapping[str, JSON] = {}
        self.add(records)

    def add(self, records: Iterable[Record]) -> None:
        """Add more records."""
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
        """Count the files of each kind, if the records are files."""
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
    """Return the kind of a file by its name: image, audio, document, or video; "" for anything else."""
    kind = (guess_type(name)[0] or "").removeprefix("application/").partition("/")[0]
    if name.lower().endswith(".webp"):
        return "image"  # not every system has this type
    return "document" if kind == "pdf" else kind if kind in ("image", "audio", "video") else ""


def is_writable(name: Any) -> bool:
    """Whether TOML and a prompt can contain it. They cannot contain lone surrogates, which come from damaged files."""
    return isinstance(name, str) and bool(name) and not any("\ud800" <= char <= "\udfff" for char in name)


def words_of(name: str) -> list[str]:
    """Return the words of a column's name: first, name for `firstName`, `first_name`, and `First name`."""
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.split(r"[\W_]+", parted) if word]


def noun(name: str) -> str:
    """Return the last word: `goldLabel`, `gold_label`, and `Gold label` are labels; `label_id` is an id."""
    return (words_of(name) or [""])[-1]


def _is_label(value: JSON) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and len(value) <= LABEL_CHARS and is_writable(value)
    return isinstance(value, int)


def _is_personal(text: str) -> bool:
    """Whether the text is an e-mail address or looks like a phone number."""
    if _ADDRESS.fullmatch(text):
        return True
    digits = sum(map(str.isdigit, text))
    is_number = text.startswith("+") or any(sign in text for sign in " -()")
    return 8 <= digits <= 15 and is_number and bool(_CALLABLE.fullmatch(text)) and not _DATE.match(text)
