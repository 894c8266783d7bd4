"""A first config for a file: what its records look like becomes TOML text to edit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import PurePath
from typing import Any

from pipeline.errors import InputError
from pipeline.records import JSON, Record

#: more values than this are no label set
LABELS_MAX = 50
LABEL_CHARS = 60

_TEXT_NAMES = frozenset(
    {"text", "review", "content", "body", "comment", "sentence", "message", "description", "document", "question"}
    | {"문장", "본문", "내용", "리뷰", "텍스트", "댓글"}
)
_KEY_NAMES = frozenset({"id", "key", "uuid", "guid", "번호", "아이디"})
_GOLD_NAMES = frozenset(
    {"label", "labels", "gold", "sentiment", "category", "class", "target", "intent", "topic"}
    | {"라벨", "레이블", "감정", "분류", "카테고리", "정답"}
)
#: names that Jinja reads as something else
_JINJA_WORDS = frozenset(
    {"true", "false", "none", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else", "record"}
    | {"self", "super", "loop", "caller", "varargs", "kwargs", "import", "recursive"}
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a first config says. `gold` is the column with right labels, `labels` the values that were seen in it.

    `sample` is the path of the first file where each file is a record. `reading` are recognised keys of [input].
    """

    input_path: str
    format: str
    columns: tuple[str, ...]
    text: str
    key: str | None
    gold: str | None
    labels: tuple[JSON, ...]
    looked_at: int
    sample: str = ""
    reading: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The label's column: one that the input does not have."""
        names = ["label", "model_label", *(f"label_{number}" for number in range(len(self.columns)))]
        return next(name for name in names if name not in self.columns)


def propose(
    records: Sequence[Record],
    *,
    input_path: str,
    format: str = "auto",  # noqa: A002 - the config's word for it
    reading: Mapping[str, str] | None = None,
) -> Proposal:
    """A config's values, from the first records of the input. Raises InputError where none of them can be read."""
    rows = [record.fields for record in records if record.problem is None and record.fields]
    if format == "files" and rows:
        return Proposal(input_path, format, tuple(rows[0]), "path", None, None, (), len(rows), str(rows[0]["path"]))
    columns = tuple(dict.fromkeys(name for row in rows for name in row if _sayable(name)))
    if not columns:
        raise InputError(f"{input_path}: no record in it could be read, so there is nothing to propose a config from")
    values = {name: [row[name] for row in rows if row.get(name) not in (None, "")] for name in columns}
    text = max(columns, key=lambda name: _textness(name, values[name]))
    rest = [name for name in columns if name != text]
    key = next((name for name in rest if _noun(name) in _KEY_NAMES and _is_key(values[name], len(rows))), None)
    gold = next((name for name in rest if name != key and _is_gold(name, values[name])), None)
    labels = tuple(_distinct(values[gold])) if gold else ()
    return Proposal(input_path, format, columns, text, key, gold, labels, len(rows), reading=reading or {})


def _sayable(name: Any) -> bool:
    # A lone surrogate comes of a broken file; neither TOML nor a prompt can hold it.
    return isinstance(name, str) and bool(name) and not any("\ud800" <= char <= "\udfff" for char in name)


def _noun(name: str) -> str:
    """The last word of a column's name: `goldLabel`, `gold_label` and `Gold label` are labels, `label_id` is an id."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return ([word.lower() for word in re.split(r"[\W_]+", words) if word] or [""])[-1]


def _textness(name: str, values: Sequence[JSON]) -> float:
    """How much like the text to label: the average length, a name that says so counting for more than any."""
    texts = [value for value in values if isinstance(value, str)]
    mean = sum(map(len, texts)) / len(texts) if texts else 0
    # A column with one of these names holds the text unless it holds next to nothing (`comment` is often empty).
    return mean + (1_000_000 if _noun(name) in _TEXT_NAMES and mean >= 3 else 0)


def _is_key(values: Sequence[JSON], rows: int) -> bool:
    plain = [value for value in values if isinstance(value, str | int) and not isinstance(value, bool)]
    return len(plain) == rows and len({str(value) for value in plain}) == rows


def _is_gold(name: str, values: Sequence[JSON]) -> bool:
    """A name that says label, and few short values, most of them seen more than once."""
    if _noun(name) not in _GOLD_NAMES or not all(map(_is_label, values)):
        return False
    number = len(_distinct(values))
    return 2 <= number <= LABELS_MAX and (len(values) < 10 or number * 2 <= len(values))


def _is_label(value: JSON) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and len(value) <= LABEL_CHARS and _sayable(value)
    return isinstance(value, int)


def _distinct(values: Iterable[JSON]) -> list[JSON]:
    # True equals 1 in Python, but not in JSON.
    found = {(isinstance(value, bool), value): value for value in values}
    return sorted(found.values(), key=lambda value: (isinstance(value, str), value))


def to_toml(proposal: Proposal) -> str:
    """The config as TOML text with comments; Settings takes it as it is."""
    blocks = (_input(proposal), _task(proposal), _MODEL, _LIMITS, _output(proposal), _rehearsal(proposal))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _input(proposal: Proposal) -> str:
    key = f"key = {_quoted(proposal.key)}" if proposal.key else '# key = "id"'
    key += "   # the field that names a record; without it: its " + ("path" if proposal.sample else "place")
    recognised = "".join(
        f"{name} = {_quoted(value)}   # as it was recognised\n" for name, value in proposal.reading.items()
    )
    return f"""[input]
path = {_quoted(proposal.input_path)}
format = {_quoted(proposal.format)}
{recognised}{key}
# fields: {", ".join(map(_quoted, proposal.columns))}"""


def _question(proposal: Proposal) -> str:
    """What is asked of a record: its text or, where a file is one, what it shows."""
    if not proposal.sample:
        return "Label this text: " + _place(proposal.text)
    kind = (guess_type(proposal.sample)[0] or "").removeprefix("application/").partition("/")[0]
    shown = {
        "pdf": "Label this document: {{ document(path) }}",
        "image": "Label this picture: {{ image(path) }}",
        "audio": "Label this sound: {{ audio(path) }}",
    }
    return shown.get(kind, "Label this file: {{ path }}")


def _task(proposal: Proposal) -> str:
    if proposal.labels:
        values, note = proposal.labels, f"seen in {_quoted(proposal.gold)} of {proposal.looked_at} records; complete it"
    else:
        values, note = ("first label", "second label"), "put your labels here"
    return f"""[task]
system = "You help to make training data."
prompt = {_quoted(_question(proposal))}

[task.labels]
{proposal.label} = [{", ".join(map(_quoted, values))}]   # {note}"""


_MODEL = """[model]
name = "gpt-6-luna"
# base_url = "rehearsal"   # the built-in endpoint: a whole run that costs nothing, with simulated labels
tool_choice = "forced"
timeout_s = 60

[model.parameters]   # sent only when set: temperature, reasoning_effort, max_completion_tokens, seed ...
reasoning_effort = "none"   # this model takes functions in chat completions only so; take it out for others"""

_LIMITS = """[limits]
concurrency = 64
# requests_per_minute = 500   # your tier's limits
# requests_per_day = 10000
# tokens_per_minute = 200000"""


def _output(proposal: Proposal) -> str:
    stem = re.sub(r"[^\w-]+", "-", PurePath(proposal.input_path).name.partition(".")[0]).strip("-") or "labels"
    return f"""[output]
dir = {_quoted(f"runs/{stem}")}
# columns = [{", ".join(map(_quoted, proposal.columns))}]   # carried along; default: all of them
formats = ["csv"]"""


def _rehearsal(proposal: Proposal) -> str:
    if not proposal.gold:
        return ""
    return f"""[rehearsal]
gold = {_quoted(proposal.gold)}   # the right label, for a rehearsal's simulated answers"""


def _place(name: str) -> str:
    """Where the field stands in a prompt: by its name where Jinja takes it, else out of `record`."""
    if name.isidentifier() and name not in _JINJA_WORDS:
        return f"{{{{ {name} }}}}"
    return f"{{{{ record[{_jinja_quoted(name)}] }}}}"


def _jinja_quoted(name: str) -> str:
    # Jinja reads Python's escapes in its strings.
    escaped = "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in name.replace("\\", "\\\\"))
    return '"' + escaped.replace('"', '\\"') + '"'


def _quoted(value: JSON) -> str:
    """A value as TOML; text in the quotes that need the fewest escapes."""
    if not isinstance(value, str):
        return json.dumps(value)
    if '"' in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text) + '"'
