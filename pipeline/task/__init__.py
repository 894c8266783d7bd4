"""The task: what is asked of the model, and how an answer is read."""

from pipeline.task.again import ask_again
from pipeline.task.caching import LEAST_TOKENS, cache_key, takes_breakpoint
from pipeline.task.columns import TOOL, row_fields
from pipeline.task.expressions import Expression, RecordFilter
from pipeline.task.labelcolumns import LabelColumn, label_columns
from pipeline.task.labels import PLACEHOLDERS
from pipeline.task.lint import Finding, lint
from pipeline.task.options import ROWS_OF_CALLS, FunctionOptions, TaskOptions, ToolOptions, ValidatorOptions
from pipeline.task.prompt import expected_fields, fields_shown, text_of
from pipeline.task.renames import renamed_answer
from pipeline.task.showing import ShowOptions
from pipeline.task.spec import OMIT, Task, build_task
