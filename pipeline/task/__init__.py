"""Defines the task: what the model is asked, and how its answer is read."""

from pipeline.task.attachments import PromptMedia
from pipeline.task.caching import MIN_CACHED_TOKENS, cache_key, supports_breakpoint
from pipeline.task.columns import TOOL_COLUMN, LabelColumn, label_columns, row_fields
from pipeline.task.expressions import Expression, RecordFilter
from pipeline.task.labels import PLACEHOLDER_LABELS
from pipeline.task.lint import Finding, lint
from pipeline.task.options import ROWS_OF_CALLS, TaskOptions, ToolOptions, ValidatorOptions
from pipeline.task.prompt import display_text, fields_in_prompt, template_fields
from pipeline.task.rebuild import rebuild_request
from pipeline.task.renames import rename_answer
from pipeline.task.task import OMIT, Task, build_task
