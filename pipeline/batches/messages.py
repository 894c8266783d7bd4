"""Writes the messages about batches."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime

from pipeline.store import Part
from pipeline.units import dollars, duration


@dataclass(frozen=True, slots=True)
class OpenBatches:
    """Open batches. `at_server` have `lines` records, `done` of these are done, and the oldest is from `since` (Unix).

    `unsent` batches, with `unsent_lines` records, are yet to be sent.
    """

    at_server: int = 0
    lines: int = 0
    done: int = 0
    since: float = math.inf
    unsent: int = 0
    unsent_lines: int = 0

    @classmethod
    def of(cls, parts: Sequence[Part]) -> OpenBatches:
        """Count the open batches of these parts."""
        there, unsent = [one for one in parts if one.is_at_server], [one for one in parts if not one.is_at_server]
        lines, done = sum(one.lines for one in there), sum(int(one.facts.get("done") or 0) for one in there)
        since = min((one.sent_at or one.packed_at for one in there), default=math.inf)
        return cls(len(there), lines, done, since, len(unsent), sum(one.lines for one in unsent))

    def __add__(self, other: OpenBatches) -> OpenBatches:
        since = min(self.since, other.since)
        pairs = zip(astuple(replace(self, since=0)), astuple(replace(other, since=0)), strict=True)
        return replace(OpenBatches(*(one + two for one, two in pairs)), since=since)

    @property
    def text(self) -> str:
        """The counts as text for people; empty if none are open."""
        texts = []
        if self.at_server:
            ago = duration(max(0.0, time.time() - self.since))
            count = _batches(self.at_server)
            texts.append(f"{count} with {self.lines:,} records at the server, {self.done:,} done, sent {ago} ago")
        if self.unsent:
            texts.append(f"{_batches(self.unsent)} with {self.unsent_lines:,} records to be sent")
        return "; ".join(texts)


def return_hint(took_s: Sequence[float]) -> str:
    """Return when it is worth coming back, judging by the run's own batches."""
    if not took_s:
        return "come back later"
    return f"half of this run's batches took up to {duration(sorted(took_s)[len(took_s) // 2])}"


def cancelled_text(parts: Sequence[Part]) -> str:
    """Report the result of canceled batches."""
    lines = sum(int((one.books.get("lines") or {}).get("answered") or 0) for one in parts)
    costs = [one.books.get("cost_usd", 0.0) for one in parts]
    paid = "" if None in costs else f", for {dollars(sum(costs))}"
    return f"{_batches(parts)} cancelled; {lines:,} answer{'s' * (lines != 1)} of them collected{paid}"


def stall_text(part: Part, still_for_s: float) -> str:
    """Report a batch about which the server has reported nothing new for this long."""
    status = part.facts.get("status", part.state.value)
    return f"batch {part.batch_id} has not moved for {duration(still_for_s)} ({status}); still waiting"


def missing_text(part: Part, error: Exception) -> str:
    """Return what to do if the server does not know a batch."""
    return (
        f"the server does not know batch {part.batch_id}. Does the key belong to the same project? If the batch is "
        f"lost, labelpipe cancel gives it up ({error})"
    )


def empty_text(part: Part, batches: int) -> str:
    """Report that batches end without an answer."""
    status = part.facts.get("status")
    return f"the last {batches} batches have ended without an answer; {part.batch_id} is {status}. Look at the server"


def unknown_text(parts: Sequence[Part], error: Exception) -> str:
    """Return what to do if the server did not confirm that it created a batch, and has no list to check."""
    lines, files = sum(one.lines for one in parts), ", ".join(one.file_id for one in parts)
    return (
        f"{_batches(parts)} with {lines:,} records may have been made: the server did not answer, and it has no list "
        f"of batches ({error}). Look at the server's own page for a batch of the input file {files}. If there is "
        "none, or it is cancelled there, labelpipe cancel gives it up, and the next run sends its records again"
    )


def deadline_text(ends_at: datetime) -> str:
    """Report the switch to live calls shortly before `limits.stop_at`."""
    return f"limits.stop_at {ends_at:%H:%M} is near: what no batch will have answered by then is asked live from now on"


def deadline_cancel_text(parts: Sequence[Part]) -> str:
    """Report the canceling of batches that will not be back by `limits.stop_at`."""
    lines = sum(one.lines for one in parts)
    return f"{_batches(parts)} with {lines:,} records cancelled; what was answered is collected, the rest is asked live"


def _batches(parts: Sequence[Part] | int) -> str:
    count = parts if isinstance(parts, int) else len(parts)
    return "1 batch" if count == 1 else f"{count:,} batches"
