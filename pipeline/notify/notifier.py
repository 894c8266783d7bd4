"""Decides which events to send and how often, and sends them."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pipeline import codec
from pipeline.errors import ConfigError
from pipeline.notify.command import argv_of, execute
from pipeline.notify.webhook import PostFailure, Webhook, plain, post, slack_body, webhook_of
from pipeline.records import JSON
from pipeline.threads import in_daemon

_T = TypeVar("_T")
log = logging.getLogger("labelpipe")

#: The event of a finished run. Every other event needs somebody's attention.
END = "end"
ATTENTION = "attention"
KINDS = frozenset({END, ATTENTION})
#: Seconds before the same event that needs attention is sent again.
QUIET_S = 15 * 60.0


class Notifier:
    """Sends notifications. `on` contains the kinds of events to send: "end", "attention", or both.

    Without `url` and `command` it does nothing. Raises ConfigError if one of them cannot work. `timeout_s` limits one
    attempt at the webhook, and `retry_waits_s` are the pauses before further attempts. `hidden` names the environment
    variables to hide from the command.
    """

    def __init__(
        self,
        url: str | None,
        command: str | None,
        on: frozenset[str] = KINDS,
        *,
        timeout_s: float = 10.0,
        command_timeout_s: float = 30.0,
        retry_waits_s: Sequence[float] = (1.0, 5.0),
        clock: Callable[[], float] = time.monotonic,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self._hidden = hidden
        self._timeout_s = timeout_s
        self._command_timeout_s = command_timeout_s
        self._retry_waits_s = retry_waits_s
        self._clock = clock
        # Mutable state: the recipients and kinds, the tasks in progress, and when each event was last sent.
        self.change(url, command, on)
        self._under_way: set[asyncio.Task[None]] = set()
        self._sent_at: dict[str, float] = {}
        self._closed = False

    def change(self, url: str | None, command: str | None, on: frozenset[str]) -> None:
        """Change the recipients or kinds from now on. Raises ConfigError, and then changes nothing."""
        if unknown := sorted(on - KINDS):
            raise ConfigError(f"notify.on: unknown {', '.join(map(repr, unknown))}; known are 'attention' and 'end'")
        webhook, argv = webhook_of(url), argv_of(command)
        self._webhook, self._argv, self._on = webhook, argv, on

    async def send(self, event: str, text: str, facts: Mapping[str, JSON]) -> None:
        """Send an event, if its kind is wanted. Returns at once and never raises; `close` waits for the outcome.

        `event` is "end", or a short name of what needs attention: "outage", "budget".
        """
        if self._closed or not self._should_send(event):
            return
        message = {**facts, "event": event, "text": text}
        if self._webhook is not None:
            self._start("webhook", event, partial(self._post, self._webhook, event, message))
        if self._argv is not None:
            self._start("command", event, partial(self._run, self._argv, event, message))

    async def close(self, wait_s: float = 5.0) -> None:
        """Send nothing more, and wait at most `wait_s` for what is in progress. May be called twice.

        A post that is not done by then is canceled. A command is left running: it is the user's, and half of it may be
        worse than none.
        """
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=wait_s)
        late = list(self._under_way)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _should_send(self, event: str) -> bool:
        if (END if event == END else ATTENTION) not in self._on:
            return False
        now = self._clock()
        if event != END and now - self._sent_at.get(event, float("-inf")) < QUIET_S:
            return False
        self._sent_at[event] = now
        return True

    def _start(self, channel: str, event: str, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(_guarded(channel, event, work), name=f"notify-{channel}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _post(self, webhook: Webhook, event: str, message: Mapping[str, JSON]) -> None:
        body = slack_body(message)
        waits_s: list[float | None] = [*self._retry_waits_s, None]
        for attempt, wait_s in enumerate(waits_s, 1):
            problem = await self._attempt(webhook, body)
            if problem is None:
                _log(logging.INFO, "notified", event=event, channel="webhook", attempt=attempt)
                return
            again = problem.passing and wait_s is not None
            _failed(event, "webhook", problem.text, attempt=attempt, again=again)
            if not again or wait_s is None:
                return
            await asyncio.sleep(max(wait_s, problem.wait_s))

    async def _attempt(self, webhook: Webhook, body: bytes) -> PostFailure | None:
        """Post once. The time is limited here too, because name lookups and slowly dripping answers have no timeout."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await in_daemon(lambda: post(webhook, body, self._timeout_s))
        except TimeoutError:
            return PostFailure(f"no answer in {self._timeout_s:g} s", passing=True)

    async def _run(self, argv: Sequence[str], event: str, message: Mapping[str, JSON]) -> None:
        passed = {name: value for name, value in os.environ.items() if name not in self._hidden}
        env = {**passed, "LABELPIPE_EVENT": event, "LABELPIPE_TEXT": plain(str(message["text"]))}
        stdin = codec.dumps(message) + b"\n"
        try:
            exit_code = await in_daemon(lambda: execute(argv, env, stdin, self._command_timeout_s))
        except OSError as error:
            _failed(event, "command", f"cannot be started: {error.strerror or type(error).__name__}")
            return
        if exit_code is None:
            _failed(event, "command", f"killed: not done after {self._command_timeout_s:g} s")
        elif exit_code:
            _failed(event, "command", f"ended with exit code {exit_code}", exit_code=exit_code)
        else:
            _log(logging.INFO, "notified", event=event, channel="command", exit_code=0)


async def _guarded(channel: str, event: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work`, and log any exception instead of raising it."""
    try:
        await work()
    except asyncio.CancelledError:
        left = "left to itself" if channel == "command" else "given up"
        _failed(event, channel, f"{left}: not done when the run had ended")
        raise
    except Exception as error:
        # Only its type, because a foreign error's text may repeat the address.
        _failed(event, channel, type(error).__name__)


def _failed(event: str, channel: str, problem: str, **facts: object) -> None:
    _log(logging.WARNING, "notify failed", event=event, channel=channel, problem=problem, **facts)


def _log(level: int, what: str, *, event: str, **facts: object) -> None:
    # Not "event", which is the name of the line itself in run.log.
    log.log(level, what, extra={"facts": {"about": event, **facts}})
