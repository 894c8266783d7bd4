"""Proposes the first config from the contents and names of the columns."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pipeline.errors import InputError, did_you_mean, list_names
from pipeline.readers import FILE_FORMATS
from pipeline.records import JSON
from pipeline.scaffold.survey import KEY_NAMES, LABELS_MAX, ColumnSurvey, Survey, noun, words_of

_TEXT_NAMES = frozenset(
    {"text", "review", "content", "body", "comment", "sentence", "message", "description", "document", "question"}
    | {"문장", "본문", "내용", "리뷰", "텍스트", "댓글"}
)
_GOLD_NAMES = frozenset(
    {"label", "labels", "gold", "sentiment", "category", "class", "target", "intent", "topic"}
    | {"라벨", "레이블", "감정", "분류", "카테고리", "정답"}
)
_PERSONAL_NAMES = frozenset(
    {"email", "mail", "phone", "telephone", "tel", "mobile", "fax", "ssn", "iban", "passport", "birthdate", "birthday"}
    | {"dob", "firstname", "lastname", "surname", "fullname", "이메일", "전화", "전화번호", "휴대폰", "주민등록번호"}
)
#: Pairs of words that form one name: first_name, e-mail, date_of_birth.
_PERSONAL_PAIRS = ("first name", "last name", "full name", "e mail", "phone number", "of birth", "ip address")


@dataclass(frozen=True, slots=True)
class Proposal:
    """The values of a first config. `gold` is the column with right labels, `labels` the values found in it.

    `personal` are columns that look like a person's address or number, which the output leaves out. `repeated_key` is a
    column that is named like a key but repeats values.

    If each file is a record, `media` is the kind of most files, and `apart` is how many others there are. `labels_file`
    is the file next to the config with the labels, if the config would have too many. `nested` is whether the text is a
    list or an object. `reading` are detected keys of [input], `input_keys` those that the user has set.
    """

    input_path: str
    format: str
    columns: tuple[str, ...]
    text: str
    key: str | None
    gold: str | None
    labels: tuple[JSON, ...]
    looked_at: int
    media: str = ""
    apart: int = 0
    nested: bool = False
    personal: tuple[str, ...] = ()
    repeated_key: str | None = None
    reading: Mapping[str, str | bool] = field(default_factory=dict)
    input_keys: Mapping[str, JSON] = field(default_factory=dict)
    labels_file: str = ""

    @property
    def label(self) -> str:
        """The label's column, with a name that the input does not have."""
        names = ["label", "model_label", *(f"label_{number}" for number in range(len(self.columns)))]
        return next(name for name in names if name not in self.columns)


def propose(
    survey: Survey,
    *,
    input_path: str,
    format: str = "auto",  # noqa: A002 - named as in the config
    reading: Mapping[str, str | bool] | None = None,
    input_keys: Mapping[str, JSON] | None = None,
) -> Proposal:
    """Propose a config from the records of the input. Raises InputError if none can be read."""
    columns, input_keys = survey.columns, input_keys or {}
    if not columns:
        raise InputError(f"{input_path}: no record in it could be read, so there is nothing to propose a config from")
    named = input_keys.get("key")
    if isinstance(named, str) and named not in columns:
        message = f"the fields are {list_names(columns)}{did_you_mean(named, columns)}"
        raise InputError(f"{input_path}: the key field {named!r} is missing; {message}")
    if format in FILE_FORMATS:
        return _of_files(survey, input_path, format, input_keys)
    personal = [name for name in columns if _is_personal(name, columns[name])]
    text = _text_of({name: column for name, column in columns.items() if name != named} or columns, personal)
    rest = {name: column for name, column in columns.items() if name != text}
    keys = [name for name in rest if noun(name) in KEY_NAMES and rest[name].names == survey.records]
    own_key = next((name for name in keys if not rest[name].repeated), None)
    key = named if isinstance(named, str) else own_key
    gold = next((name for name in rest if name != key and _is_gold(name, rest[name])), None)
    return Proposal(
        input_path,
        format,
        tuple(columns),
        text,
        key,
        gold,
        columns[gold].distinct() if gold else (),
        survey.records,
        personal=tuple(name for name in personal if name not in (text, key, gold)),
        repeated_key=keys[0] if keys and key is None else None,
        nested=columns[text].objects > 0,
        reading=reading or {},
        input_keys=input_keys,
    )


def _of_files(survey: Survey, input_path: str, format_name: str, input_keys: Mapping[str, JSON]) -> Proposal:
    """Propose a config if each file is a record. The prompt shows the kind of most files."""
    kinds = survey.media() if format_name == "files" else Counter[str]()
    media = max(("image", "audio", "document"), key=lambda kind: kinds[kind])
    number, key = kinds[media], input_keys.get("key")
    return Proposal(
        input_path,
        format_name,
        tuple(survey.columns),
        "path" if format_name == "files" else "text",
        str(key) if key else None,
        None,
        (),
        survey.records,
        media=media if number else "",
        apart=survey.records - number if number else 0,
        input_keys=input_keys,
    )


def _text_of(columns: Mapping[str, ColumnSurvey], personal: Collection[str]) -> str:
    """Return the column with the text to label: an object or a list only if no other has words."""
    text = max(columns, key=lambda name: _textness(name, columns[name]) * (name not in personal))
    if columns[text].prose or (noun(text) in _TEXT_NAMES and columns[text].texts):
        return text
    nested = max(columns, key=lambda name: columns[name].nested)
    return nested if columns[nested].nested else text


def _textness(name: str, column: ColumnSurvey) -> float:
    """Return how likely a column is the text to label. A matching name counts more than any average length.

    Addresses, hashes, and codes may be long, but they have no words.
    """
    words = column.prose / column.texts if column.texts else 0.0
    # A column with one of these names is the text unless it is nearly empty, as `comment` often is.
    by_name = 1_000_000 if noun(name) in _TEXT_NAMES and column.mean_chars >= 3 else 0
    return 1 + column.mean_chars * (0.1 + words) + by_name


def _is_gold(name: str, column: ColumnSurvey) -> bool:
    """Whether the name is that of a label, and the values are few, short, and mostly repeated."""
    if noun(name) not in _GOLD_NAMES or column.unfit:
        return False
    number = len(column.labels)
    return 2 <= number <= LABELS_MAX and (column.filled < 10 or number * 2 <= column.filled)


def _is_personal(name: str, column: ColumnSurvey) -> bool:
    words = " ".join(words_of(name))
    called = noun(name) in _PERSONAL_NAMES or any(words.endswith(pair) for pair in _PERSONAL_PAIRS)
    return called or column.personal * 2 > column.filled
