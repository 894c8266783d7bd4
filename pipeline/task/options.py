"""What a task is made of, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.labelfields import LabelField
from pipeline.records import BY_SCHEMA, JSON
from pipeline.task.attachments import PromptMedia

TOOL_CHOICES = ("forced", "required", "auto", BY_SCHEMA)
#: how many calls make an answer: see docs/tasks.md
CALLS = ("one", "some", "any", "all")
#: `TaskOptions.rows`: each call is a row
ROWS_OF_CALLS = "calls"


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """One tool. Exactly one of `parameters` (a JSON Schema), `labels` and `python` says what it takes."""

    name: str | None = None
    parameters: Mapping[str, JSON] | None = None
    description: str | None = None
    labels: Mapping[str, LabelField | Sequence[JSON]] | None = None
    python: str | None = None
    callback: str | None = None


@dataclass(frozen=True, slots=True)
class ValidatorOptions:
    """What a label must fit beside its schema: an `expression` that is true, or a function in `python`.

    `message` is what the model is told where it does not; `tool` names the tool whose label it is about, None: each.
    """

    expression: str | None = None
    python: str | None = None
    message: str | None = None
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a task is made of. Exactly one of `labels`, `function`, `python` and `tools` says what a label is.

    `name` and `description` are the function's, as the model sees it; None takes the tool's own. `parameters` are
    sent with each request as they are; None among them is not sent. `base` is the folder of the config, from which
    `python` is imported.

    `call` says how many calls make an answer, `rows` what is a row of its own (None: the record), `max_turns` how often
    the model is asked at the most when it is told what came of its calls, `reply` is the column of its last words.

    `examples` are records with the right arguments under the key "label". All of them are shown with each record, in
    their order; with `examples_k` only that many, the nearest to the record.

    Without `names_function` a forced call is asked for by "required", which says the same where there is one tool.
    `strict_answers` refuses what can be read in one way only and is not exactly as it should be.

    How the prompt is cached changes no answer, so it is in no fingerprint: `prompt_cache_key` is sent as it is ("auto":
    one made of the fingerprint), `cache_breakpoint` marks the end of what is the same for all records (None: where
    the model takes a mark, and that part is long enough to be kept).
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
