"""Notifies people once per event that needs them: what happened, and what to do."""

import logging
from collections.abc import Mapping
from typing import Any

from pipeline.errors import LabelpipeError
from pipeline.notify import Notifier
from pipeline.runlog import log_event
from pipeline.show import closing_lines
from pipeline.stats import RunSummary
from pipeline.terminal import cut
from pipeline.units import duration

#: What to do before the command is run again, by the code of the error that stopped the run. A stop that the user asked
#: for (a signal, `drain`, limits.stop_at) needs nobody.
TO_DO: Mapping[str, str] = {
    "quota": "Add credit or raise the organisation's limit",
    "credentials": "Fix the key, its access, or model.name",
    "bad_request": "The server refuses what every record sends: fix the task, its schema or model.parameters",
    "no_label": "Change the key that the message names",
    "unavailable": "Look at model.base_url: no model answers there",
    "budget": "Raise limits.budget_usd or limits.budget_tokens if it is worth it",
    "day_limit": "Nothing has to be fixed: run the same command when the day's count begins again (that of "
    "limits.requests_per_day after 00:00 UTC, or raise it)",
    "outage": "Look at the provider's status page and at the network",
    "store": "Make room on the disk, or fix the run folder",
    "changed": "Use --fresh, or another folder with --output",
    "input": "Mend the input",
}
#: How long a server must let nothing through before that is reported, in seconds.
LONG_HOLD_S = 15 * 60.0


class Notifications:
    """Reports events that need somebody. `command` follows `labelpipe run` to resume the run."""

    def __init__(self, notifier: Notifier, command: str) -> None:
        self._notifier = notifier
        self.go_on = f"labelpipe run {command}".rstrip()
        # Mutable state: reported events that continue.
        self._notified: set[str] = set()

    async def on_stop(self, reason: BaseException | None, facts: Mapping[str, Any], left: str = "") -> None:
        """Report, only once, that the run has stopped or failed, if somebody has to do something."""
        if reason is None or "stopped" in self._notified:
            return
        code = reason.code if isinstance(reason, LabelpipeError) else "error"
        to_do = "This is a bug; run.log and the terminal say more" if code == "error" else TO_DO.get(code)
        if to_do is None:
            return
        self._notified.add("stopped")
        message = str(reason) if code != "error" else type(reason).__name__
        lines = [f"Stopped: {message}", left, f"{to_do}. Then: {self.go_on}"]
        # The start was reported as "outage". That it ends the run is another event.
        event = "outage_limit" if code == "outage" else code
        await self._notifier.send(event, "\n".join(filter(None, lines)), facts)

    async def on_end(self, reason: BaseException | None, summary: RunSummary) -> None:
        """Report the end of the run. The summary is written already, and no error here changes that."""
        try:
            if summary.ended != "complete":
                left = f"Left: {summary.left['text']}." if summary.left is not None else ""
                await self.on_stop(reason, summary.as_dict(), left)
            await self._notifier.send("end", "\n".join(closing_lines(summary)), summary.as_dict())
        except Exception as error:
            log_event("the end cannot be told", level=logging.ERROR, error=repr(error))

    async def on_error(self, error: Exception, facts: Mapping[str, Any]) -> None:
        """Report that an error ended the run without a summary."""
        await self.on_stop(error, facts)
        message = str(error) if isinstance(error, LabelpipeError) else type(error).__name__
        await self._notifier.send("end", f"Ended by an error: {message}\nTo continue: {self.go_on}", facts)

    async def on_outage(self, reason: str, limit_s: float, facts: Mapping[str, Any]) -> None:
        """Report that calls fail for everyone."""
        message = f"Calls fail for everyone ({cut(reason, 160)}). The run probes until it is over, and ends after "
        message += f"{duration(limit_s)} (limits.outage_limit_s), resumable. {TO_DO['outage']}."
        await self._notifier.send("outage", message, facts)

    async def on_stall(self, message: str, facts: Mapping[str, Any]) -> None:
        """Report an unexplained stall."""
        to_do = "The run continues. If it does not move: labelpipe drain, then the same command."
        await self._notifier.send("stalled", f"{message[:1].upper()}{message[1:]}. {to_do}", facts)

    async def on_hold(self, event: str, reason: str, for_s: float, facts: Mapping[str, Any]) -> None:
        """Report a long wait: `event` is day_limit (the config's limit) or rate_limited (the server's)."""
        if event in self._notified:
            return
        self._notified.add(event)
        to_do = "It then continues by itself"
        if event == "day_limit":
            to_do += ". To go on now, raise limits.requests_per_day (the run applies it at once)"
        await self._notifier.send(event, f"Waiting {duration(for_s)}: {reason}. {to_do}.", facts)

    def on_hold_end(self) -> None:
        """Note that the wait is over, so the next one is a new event."""
        self._notified -= {"day_limit", "rate_limited"}
