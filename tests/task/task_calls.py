"""A task's answers and callbacks in one step, where there is one tool and one answer."""

from collections.abc import Mapping

from pipeline.errors import AnswerError
from pipeline.records import JSON, Answer, CallbackContext, Record, Request, ToolCall, ValidCall
from pipeline.task import Task


def read_label(task: Task, answer: Answer, record: Record) -> dict[str, JSON]:
    """The label in an answer that is the only one."""
    return dict(task.build_rows(task.parse_calls(answer, record), answer.text, record).label)


async def call_back(task: Task, label: Mapping[str, JSON], record: Record) -> dict[str, JSON]:
    """The extra columns that the only tool's callback returns for a label; {} without one."""
    tool = next(iter(task._callbacks), "")
    valid_call = ValidCall(tool, label, ToolCall("", tool, ""))
    return dict((await task.run_callback(valid_call, record, CallbackContext("", 0, tool))).extra)


def repair(task: Task, request: Request, answer: Answer, error: AnswerError) -> Request:
    """The request that asks again, in the first turn."""
    return task.repair(request, answer, error, base=len(task.render(request.record).messages))
