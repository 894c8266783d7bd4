"""Detects when nothing moves, and describes what each worker is waiting for."""

import asyncio
import gc
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

#: The innermost frames to report of each task, and the task names to report of each group.
STACK_FRAMES = 6
MAX_NAMES = 5


class Watchdog:
    """Detects that nothing has moved for `stall_s` seconds, and again every `stall_s` until something moves.

    `now` is in seconds, by any clock that does not go back.
    """

    def __init__(self, stall_s: float, now: float) -> None:
        self._stall_s = stall_s
        # Mutable state: when something last moved, when a stall was last reported, and the last mark of `note`.
        self._moved_at = self._reported_at = now
        self._mark: object = None

    def moved(self, now: float) -> None:
        """Record that something moved, or that nothing has to, as during a pause."""
        self._moved_at = self._reported_at = now

    def note(self, mark: object, now: float) -> None:
        """Record that something moved if `mark` (such as a tuple of counters) has changed since the last note."""
        if mark != self._mark:
            self._mark = mark
            self.moved(now)

    def is_due(self, now: float) -> bool:
        """Whether to report a stall now."""
        if now - self._reported_at < self._stall_s:
            return False
        self._reported_at = now
        return True

    def still_for_s(self, now: float) -> float:
        """Return the seconds since something moved."""
        return now - self._moved_at


def describe_tasks() -> list[dict[str, Any]]:
    """Describe, by name, what each worker of the running loop is waiting for, as plain values.

    `stack` begins with the outermost frame, `at` is the innermost place, and `awaits` what it waits for. They contain
    only names of files and functions, states, and counts, as the value of a variable may be a record.
    """
    tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("worker-")]
    # worker-2 before worker-10
    return [_described(task) for task in sorted(tasks, key=lambda task: (len(task.get_name()), task.get_name()))]


def group_tasks(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group the tasks that wait at the same place, the largest group first."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in described:
        groups.setdefault((*one["stack"], one["awaits"]), []).append(one)
    return [
        {
            "count": len(group),
            "tasks": [one["task"] for one in group[:MAX_NAMES]],
            **{name: group[0][name] for name in ("at", "awaits", "stack")},
        }
        for group in sorted(groups.values(), key=len, reverse=True)
    ]


def _described(task: asyncio.Task[Any]) -> dict[str, Any]:
    frames = list(_frames(task.get_coro()))
    places = [_place(frame) for frame in frames]
    awaits = _awaited(task, frames[-1] if frames else None)
    return {
        "task": task.get_name(),
        "at": places[-1] if places else "",
        "awaits": awaits,
        "stack": places[-STACK_FRAMES:],
    }


def _frames(awaitable: Any) -> Iterator[FrameType]:
    """Yield frames from the outermost coroutine inward. `Task.get_stack` returns only the outermost one."""
    visited: set[int] = set()
    while awaitable is not None and id(awaitable) not in visited:
        visited.add(id(awaitable))
        if inspect.iscoroutine(awaitable):
            frame, awaitable = awaitable.cr_frame, awaitable.cr_await
        elif inspect.isgenerator(awaitable):
            frame, awaitable = awaitable.gi_frame, awaitable.gi_yieldfrom
        elif inspect.isasyncgen(awaitable):
            frame, awaitable = awaitable.ag_frame, awaitable.ag_await
        else:
            # For example, one step of an async generator, which does not expose its generator.
            frame, awaitable = None, _within(awaitable)
        if frame is not None:
            yield frame


def _within(opaque: Any) -> Any:
    for inner in gc.get_referents(opaque):
        if inspect.iscoroutine(inner) or inspect.isgenerator(inner) or inspect.isasyncgen(inner):
            return inner
    return None


def _place(frame: FrameType) -> str:
    """Format a place without local folders: `engine/pool.py:138 _work`."""
    path = Path(frame.f_code.co_filename)
    return f"{'/'.join(path.parts[-2:])}:{frame.f_lineno} {frame.f_code.co_qualname}"


def _awaited(task: asyncio.Task[Any], frame: FrameType | None) -> str:
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is None:
        return "nothing: it can run"
    if isinstance(waiter, asyncio.Task):
        return f"task {waiter.get_name()}"
    names = {} if frame is None else frame.f_locals
    module = "" if frame is None else str(frame.f_globals.get("__name__"))
    if module == "asyncio.tasks" and isinstance(names.get("delay"), int | float):
        return f"sleep of {names['delay']:g} s"
    if module.startswith("asyncio.") and "self" in names:
        return _state(names["self"])
    return f"{type(waiter).__name__} {'done' if waiter.done() else 'pending'}"


def _state(thing: Any) -> str:
    """Describe a queue, lock, or event briefly. Its repr would show the content of a queue."""
    kind = type(thing).__name__
    if isinstance(thing, asyncio.Queue):
        return f"{kind} with {thing.qsize()} of {thing.maxsize or 'any number'}"
    waiters = getattr(thing, "_waiters", None)
    locked = ", locked" if getattr(thing, "locked", bool)() else ""
    return f"{kind}{locked}" + ("" if waiters is None else f", {len(waiters)} waiting")
