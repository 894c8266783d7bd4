"""Writes a proposal as TOML text with comments."""

import json
import re
from collections.abc import Sequence
from pathlib import PurePath

from pipeline.readers import FILE_FORMATS
from pipeline.records import JSON
from pipeline.scaffold.proposal import Proposal
from pipeline.task import PLACEHOLDER_LABELS

#: Names that Jinja reads as something else.
_JINJA_WORDS = frozenset(
    {"true", "false", "none", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else", "record"}
    | {"self", "super", "loop", "caller", "varargs", "kwargs", "import", "recursive"}
)


def to_toml(proposal: Proposal) -> str:
    """Return the config as TOML text with comments. Settings accepts it unchanged."""
    blocks = (_input(proposal), _task(proposal), _MODEL, _LIMITS, _output(proposal), _rehearsal(proposal))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _input(proposal: Proposal) -> str:
    key = f"key = {_to_value(proposal.key)}" if proposal.key else '# key = "id"'
    default = "path" if proposal.format in FILE_FORMATS else "place"
    key += f"   # the field that names a record; without it: its {default}"
    if proposal.repeated_key:
        key += f" ({_to_value(proposal.repeated_key)} names several records)"
    # A query or a table has no format.
    known = {} if proposal.format == "sql" else {"format": proposal.format}
    known |= {name: value for name, value in proposal.input_keys.items() if name not in ("format", "key")}
    lines = "".join(f"{name} = {_to_value(value)}\n" for name, value in known.items())
    recognised = "".join(
        f"{name} = {_to_value(value)}   # as it was recognised\n"
        for name, value in proposal.reading.items()
        if name not in known
    )
    return f"""[input]
path = {_to_value(proposal.input_path)}
{lines}{recognised}{key}
# fields: {", ".join(map(_to_value, proposal.columns))}"""


def _question(proposal: Proposal) -> str:
    """Return the question about a record: its text or, if it is a media file, what the file shows."""
    if proposal.format != "files":
        return "Label this text: " + _place(proposal.text, " | tojson" if proposal.nested else "")
    questions = {
        "document": "Label this document: {{ document(path) }}",
        "image": "Label this picture: {{ image(path) }}",
        "audio": "Label this sound: {{ audio(path) }}",
    }
    return questions.get(proposal.media, "Label this file: {{ path }}")


def _task(proposal: Proposal) -> str:
    return f"""[task]
system = "You help to make training data."
prompt = {_to_value(_question(proposal))}

[task.labels]
{_labels(proposal)}"""


_REASON = '# reason = "text"   # a column with a reason; "0..1" makes a number, such as the model\'s own confidence'


def _labels(proposal: Proposal) -> str:
    """Return the labels that were found, with a place for their meanings, or placeholders."""
    source = f"seen in {_to_value(proposal.gold)} of {proposal.looked_at:,} records"
    if not proposal.labels:
        return f"{_line(proposal.label, PLACEHOLDER_LABELS)}   # put your labels here: a run refuses these\n{_REASON}"
    if proposal.labels_file:
        note = f"{len(proposal.labels)} labels, {source}; say there what each means"
        return f"{proposal.label} = {_to_value(proposal.labels_file)}   # {note}\n{_REASON}"
    line = f"{_line(proposal.label, proposal.labels)}   # {source}; complete it"
    if not all(isinstance(value, str) for value in proposal.labels):
        return f"{line}\n{_REASON}"
    rows = "\n".join(f'# {_to_value(value)} = ""' for value in proposal.labels)
    note = "in place of that line: what each label means, which the model reads"
    return f"{line}\n{_REASON}\n\n# [task.labels.{proposal.label}]   # {note}\n{rows}"


def _line(name: str, values: Sequence[JSON]) -> str:
    return f"{name} = [{', '.join(map(_to_value, values))}]"


_MODEL = """[model]
name = "gpt-6-luna"
# base_url = "rehearsal"   # the built-in endpoint: a whole run that costs nothing, with simulated labels
# lane = "flex"   # half the price at a slower tier; "batch" for runs that can wait for hours

[model.parameters]   # sent only when set: temperature, reasoning_effort, max_completion_tokens, seed ...
# max_completion_tokens = 300   # the most that an answer may take; limits.budget_usd needs it
reasoning_effort = "none"   # this model needs it for functions in Chat Completions; remove it for others"""

_LIMITS = """[limits]
concurrency = 64
# budget_usd = 5.0   # the run stops before it costs more; set model.parameters.max_completion_tokens too
# requests_per_minute = 500   # your tier's limits
# requests_per_day = 10000
# tokens_per_minute = 200000"""


def _output(proposal: Proposal) -> str:
    stem = re.sub(r"[^\w-]+", "-", PurePath(proposal.input_path).name.partition(".")[0]).strip("-") or "labels"
    names = ", ".join(_to_value(name) for name in proposal.columns if name not in proposal.personal)
    columns = f"# columns = [{names}]   # carried along; default: all of them"
    if proposal.personal:
        left_out = ", ".join(map(_to_value, proposal.personal))
        columns = f"columns = [{names}]   # carried along; left out as personal: {left_out}"
    return f"""[output]
dir = {_to_value(f"runs/{stem}")}
{columns}
formats = ["csv"]"""


def _rehearsal(proposal: Proposal) -> str:
    if not proposal.gold:
        return ""
    return f"""[rehearsal]
gold = {_to_value(proposal.gold)}   # the right label, for a rehearsal's simulated answers"""


def _place(name: str, filters: str) -> str:
    """Return the field's expression in a prompt: its name if Jinja accepts it, else an item of `record`."""
    if name.isidentifier() and name not in _JINJA_WORDS:
        return f"{{{{ {name}{filters} }}}}"
    return f"{{{{ record[{_jinja_string(name)}]{filters} }}}}"


def _jinja_string(name: str) -> str:
    # Jinja strings have Python's escapes.
    escaped = "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in name.replace("\\", "\\\\"))
    return '"' + escaped.replace('"', '\\"') + '"'


def _to_value(value: JSON) -> str:
    """Return a value as TOML, with a text in the quotes that need the fewest escapes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_to_value, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if '"' in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text) + '"'
