"""Calling the user's callback, which may do anything, so that only a CallbackError can come of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import codec
from pipeline.errors import CallbackError, TaskError
from pipeline.records import JSON, Record
from pipeline.task.schema import short

Call = Callable[[dict[str, JSON], Record], Any]


@dataclass(frozen=True, slots=True)
class Callback:
    """The user's callback: gets the label and the record, returns extra columns or None.

    A plain function is called in a thread, an async one on the loop. `extra_columns` are the only names it may
    return, where the user declared them; else None.
    """

    call: Call
    is_async: bool
    extra_columns: tuple[str, ...] | None = None


def make_callback(user_call: Callable[..., Any], extra_columns: tuple[str, ...] | None) -> Callback:
    """A callback of a callable that takes (label, record). Raises TaskError for one that does not."""
    if not takes(user_call, 2):
        raise TaskError(
            f"the callback {name_of(user_call)} cannot be called with (label, record); "
            f"its parameters are {inspect.signature(user_call)}"
        )
    return Callback(user_call, is_async(user_call), extra_columns)


async def call_back(callback: Callback, label: Mapping[str, JSON], record: Record) -> dict[str, JSON]:
    """The extra columns, as plain JSON. Raises CallbackError for whatever goes wrong in the user's code."""
    # A copy: what the callback does to its label is not done to the one that is kept.
    own: dict[str, JSON] = codec.loads(codec.dumps(label))
    result = await _result(callback, own, record)
    return _columns(result, label, callback.extra_columns)


async def _result(callback: Callback, label: dict[str, JSON], record: Record) -> Any:
    try:
        if callback.is_async:
            return await callback.call(label, record)
        result = await asyncio.to_thread(_guarded, callback.call, label, record)
        return await result if inspect.isawaitable(result) else result
    except asyncio.CancelledError as error:
        role = asyncio.current_task()
        if role is None or role.cancelling():
            raise
        raise CallbackError(_said(error)) from error
    except CallbackError:
        raise
    except (Exception, SystemExit) as error:
        raise CallbackError(_said(error)) from error


def _guarded(call: Call, label: dict[str, JSON], record: Record) -> Any:
    # In the thread: a StopIteration cannot travel in a future, the wait for it would never end.
    try:
        return call(label, record)
    except BaseException as error:
        raise CallbackError(_said(error)) from error


def _columns(result: Any, label: Mapping[str, JSON], declared: tuple[str, ...] | None) -> dict[str, JSON]:
    if result is None:
        return {}
    if not isinstance(result, Mapping):
        raise CallbackError(
            f"the callback returned {short(result)} ({type(result).__name__}): "
            "expected a dict of extra columns, or None"
        )
    columns = _plain(result)
    if changed := [name for name in columns if name in label and columns[name] != label[name]]:
        raise CallbackError(
            f"the callback returned {_listed(changed)} with another value than the label has: "
            "give the extra column a name of its own"
        )
    extra = {name: value for name, value in columns.items() if name not in label}
    if declared is not None and (unknown := [name for name in extra if name not in declared]):
        raise CallbackError(
            f"the callback returned {_listed(unknown)}, which its extra_columns do not name: {_listed(declared)}"
        )
    return extra


def _plain(result: Mapping[Any, Any]) -> dict[str, JSON]:
    # The ledger keeps JSON; what is written now has to equal what is read from it later.
    if strange := [name for name in result if not isinstance(name, str)]:
        raise CallbackError(f"the callback returned a column named {short(strange[0])}: expected a text")
    try:
        columns: dict[str, JSON] = codec.loads(codec.dumps(dict(result)))
    except Exception as error:
        raise CallbackError(f"the callback returned what JSON cannot hold: {_said(error)}") from error
    return columns


def takes(call: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with `count` positional arguments."""
    try:
        inspect.signature(call).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True  # built in, without a signature: the call will tell
    return True


def is_async(call: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004


def name_of(thing: object) -> str:
    """A name for messages."""
    return getattr(thing, "__qualname__", None) or type(thing).__qualname__


def _said(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
