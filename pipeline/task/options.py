"""Defines the options of a task as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.labelfields import LabelField
from pipeline.records import BY_SCHEMA, JSON
from pipeline.task.attachments import PromptMedia

TOOL_CHOICES = ("forced", "required", "auto", BY_SCHEMA)
#: How many calls make an answer: see docs/tasks.md.
CALLS = ("one", "some", "any", "all")
#: `TaskOptions.rows`: each call is a row.
ROWS_OF_CALLS = "calls"


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """One tool. Exactly one of `parameters` (a JSON Schema), `labels`, and `python` defines its arguments."""

    name: str | None = None
    parameters: Mapping[str, JSON] | None = None
    description: str | None = None
    labels: Mapping[str, LabelField | Sequence[JSON]] | None = None
    python: str | None = None
    callback: str | None = None


@dataclass(frozen=True, slots=True)
class ValidatorOptions:
    """A rule for labels beyond the schema: an `expression` that must be true, or a function in `python`.

    `message` is what the model is shown if the label breaks it. `tool` names the tool it is for; None: every tool.
    """

    expression: str | None = None
    python: str | None = None
    message: str | None = None
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The options of a task. Exactly one of `labels`, `function`, `python`, and `tools` defines the label.

    `name` and `description` are the function's, for the model; None uses the tool's own. `parameters` are sent
    unchanged with each request, except those that are None. `base` is the config's folder, from which `python` is
    imported.

    `call` is how many calls make an answer. `rows` is what becomes a row of its own (None: the record). `max_turns` is
    how often at most the model is asked if it is shown the results of its calls. `reply` is the column of its final
    text.

    `examples` are records with the correct arguments under the key "label". All are shown with each record, in order;
    with `examples_k`, only that many, those nearest to the record.

    Without `names_function`, a forced call is requested by "required", which means the same for a single tool.
    `strict_answers` refuses answers in the wrong form, even if only one reading is possible.

    Prompt caching changes no answer, so it is in no fingerprint. `prompt_cache_key` is sent as it is ("auto": derived
    from the fingerprint). `cache_breakpoint` marks the end of what all records share (None: if the model accepts a mark
    and that part is long enough to be cached).
    """

    model: str
    prompt: str
    system: str | None = None
    labels: Mapping[str, LabelField | Sequence[JSON]] | None = None
    function: ToolOptions | None = None
    python: str | None = None
    tools: Sequence[ToolOptions] | None = None
    name: str | None = None
    description: str | None = None
    callback: str | None = None
    callback_timeout_s: float = 300.0
    call: str = "one"
    rows: str | None = None
    max_turns: int = 1
    reply: str | None = None
    validators: Sequence[ValidatorOptions] = ()
    tool_choice: str = "forced"
    names_function: bool = True
    strict: bool = True
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    base: Path = Path()
    examples: Sequence[Mapping[str, JSON]] = ()
    examples_k: int | None = None
    media: PromptMedia | None = None
    prompt_cache_key: str | None = None
    cache_breakpoint: bool | None = False
    strict_answers: bool = False
