"""Calls the user's callback, which may do anything, and turns every failure into a CallbackError."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pipeline import codec
from pipeline.errors import CallbackError, NotCalledError, TaskError
from pipeline.records import JSON, CallbackContext, Record, ValidCall
from pipeline.task.callback_threads import NoThreadError, run_in_thread
from pipeline.task.schema import short

#: Seconds that a canceled callback has to end.
LEAVE_S = 5.0
_MEND = (
    "give the callback a time limit of its own, or make it async; then `labelpipe replay`, "
    "or `labelpipe retry` to ask again"
)

UserCall = Callable[[dict[str, JSON], Record, CallbackContext], Any]


@dataclass(frozen=True, slots=True)
class Callback:
    """The user's callback. It receives the label, the record, and the call's context; returns extra columns or None.

    A plain function runs in a thread, an async one on the event loop. `extra_columns` are the only names that it may
    return; None if the user declared none.
    """

    call: UserCall
    is_async: bool
    extra_columns: tuple[str, ...] | None = None


def make_callback(user_call: Callable[..., Any], extra_columns: tuple[str, ...] | None) -> Callback:
    """Wrap a callable that takes (label, record) or (label, record, call). Raises TaskError for any other."""
    if _accepts_context(user_call):
        return Callback(user_call, is_async(user_call), extra_columns)
    if not accepts_arguments(user_call, 2):
        raise TaskError(
            f"the callback {display_name(user_call)} cannot be called with (label, record), "
            f"nor with (label, record, call); its parameters are {inspect.signature(user_call)}"
        )
    return Callback(lambda label, record, _call: user_call(label, record), is_async(user_call), extra_columns)


def _accepts_context(user_call: Callable[..., Any]) -> bool:
    """Whether it requires a third argument. A third one with a default counts only if its name is `call`."""
    if not accepts_arguments(user_call, 2):
        return accepts_arguments(user_call, 3)
    with suppress(ValueError):  # a built-in without a signature
        return "call" in list(inspect.signature(user_call).parameters)[2:3]
    return False


async def call_once(
    callback: Callback, valid_call: ValidCall, record: Record, call: CallbackContext, timeout_s: float
) -> dict[str, JSON]:
    """Return the extra columns as plain JSON. Raises CallbackError for any failure of the user's code, and
    NotCalledError if there is no thread for it."""
    result = await _result(callback, valid_call, record, call, timeout_s)
    return _columns(result, valid_call.label, callback.extra_columns)


async def call_in_conversation(
    callback: Callback, valid_call: ValidCall, record: Record, call: CallbackContext, timeout_s: float
) -> tuple[dict[str, JSON], JSON]:
    """Return the declared extra columns, and the result for the model. Raises CallbackError.

    The result may be any JSON. Only the model receives what is not in a declared column.
    """
    result = _as_json(await _result(callback, valid_call, record, call, timeout_s))
    names = callback.extra_columns or ()
    return ({name: result[name] for name in names if name in result} if isinstance(result, dict) else {}), result


def copy_record(record: Record) -> Record:
    """Copy a record for the user's code, so that its changes to the fields do not reach the output files."""
    fields = dict(record.fields)
    pending: list[Any] = [fields]
    while pending:
        holder = pending.pop()
        for place, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, dict | list):
                holder[place] = inner = value.copy()
                pending.append(inner)
    return replace(record, fields=fields)


def _as_json(result: Any) -> JSON:
    try:
        plain = codec.plain(result)
    except Exception as error:
        raise CallbackError(f"the callback returned a value that JSON cannot hold: {_describe_error(error)}") from error
    if plain is None and result is not None:  # null would mean no result
        raise CallbackError(f"the callback returned a value that JSON cannot hold: {short(result)}")
    return plain


async def _result(
    callback: Callback, valid_call: ValidCall, record: Record, call: CallbackContext, timeout_s: float
) -> Any:
    arguments = codec.plain(valid_call.label), copy_record(record), call
    try:
        if callback.is_async:
            return await _await_in_time(callback.call(*arguments), timeout_s)
        try:
            result = await run_in_thread(_call_contained, callback.call, *arguments, timeout_s=timeout_s)
        except TimeoutError:  # the user's own arrives as a CallbackError
            raise _no_result(timeout_s) from None
        except NoThreadError as error:
            raise NotCalledError(f"the callback was not called: {error}; {_MEND}") from None
        return await _await_in_time(result, timeout_s) if inspect.isawaitable(result) else result
    except asyncio.CancelledError as error:
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        raise CallbackError(_describe_error(error)) from error
    except (CallbackError, GeneratorExit):
        raise
    except BaseException as error:
        raise CallbackError(_describe_error(error)) from error


def _no_result(timeout_s: float) -> CallbackError:
    return CallbackError(f"the callback did not return within {timeout_s:g} s")


async def _await_in_time(result: Awaitable[Any], timeout_s: float) -> Any:
    """Await the result until the time limit. An awaitable that ignores its cancellation is abandoned."""
    future = asyncio.ensure_future(_contain(result))
    try:
        await asyncio.wait({future}, timeout=timeout_s)
    except asyncio.CancelledError:
        future.cancel()
        await asyncio.wait({future}, timeout=LEAVE_S)
        raise
    if not future.done():
        future.cancel()
        future.add_done_callback(_consume_exception)
        raise _no_result(timeout_s)
    return future.result()


async def _contain(result: Awaitable[Any]) -> Any:
    # Caught inside the task, because a SystemExit or KeyboardInterrupt that leaves a task ends the whole program. This
    # one is the callback's own: a real Ctrl-C arrives as a signal, which the run handles.
    try:
        return await result
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:
        raise CallbackError(_describe_error(error)) from error


def _consume_exception(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _call_contained(user_call: UserCall, label: dict[str, JSON], record: Record, call: CallbackContext) -> Any:
    # Caught in the thread: a future cannot carry a StopIteration, so the caller would wait forever.
    try:
        return user_call(label, record, call)
    except BaseException as error:
        raise CallbackError(_describe_error(error)) from error


def _columns(result: Any, label: Mapping[str, JSON], declared: tuple[str, ...] | None) -> dict[str, JSON]:
    if result is None:
        return {}
    if not isinstance(result, Mapping):
        raise CallbackError(
            f"the callback returned {short(result)} ({type(result).__name__}): "
            "expected a dict of extra columns, or None"
        )
    if strange := [name for name in result if not isinstance(name, str)]:
        raise CallbackError(f"the callback returned a column named {short(strange[0])}: expected a text")
    # The ledger stores JSON, so what is written now must equal what is read back later.
    columns: dict[str, JSON] = _as_json(dict(result))
    if changed := [name for name in columns if name in label and columns[name] != label[name]]:
        raise CallbackError(
            f"the callback returned {_quote_names(changed)} with another value than the label has: "
            "give the extra column a name of its own"
        )
    extra = {name: value for name, value in columns.items() if name not in label}
    if declared is not None and (unknown := [name for name in extra if name not in declared]):
        raise CallbackError(
            f"the callback returned {_quote_names(unknown)}, which its extra_columns do not name: "
            f"{_quote_names(declared)}"
        )
    return extra


def accepts_arguments(call: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with `count` positional arguments."""
    try:
        inspect.signature(call).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True  # a built-in without a signature: only the call can tell
    return True


def is_async(call: Callable[..., Any]) -> bool:
    """Whether calling it returns an awaitable."""
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004


def display_name(thing: object) -> str:
    """Return a name for messages."""
    return getattr(thing, "__qualname__", None) or type(thing).__qualname__


def _describe_error(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _quote_names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
