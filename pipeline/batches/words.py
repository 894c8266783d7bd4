"""What is told of batches."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pipeline.store import Part
from pipeline.units import dollars, duration


def open_text(parts: Sequence[Part]) -> str:
    """Batches that are open; empty where none are."""
    at_server, unsent = [one for one in parts if one.is_at_server], [one for one in parts if not one.is_at_server]
    told = []
    if at_server:
        lines, done = sum(one.lines for one in at_server), sum(int(one.facts.get("done") or 0) for one in at_server)
        since = min(one.sent_at or one.packed_at for one in at_server)
        ago = duration(max(0.0, time.time() - since))
        told.append(f"{_batches(at_server)} with {lines:,} records at the server, {done:,} done, sent {ago} ago")
    if unsent:
        told.append(f"{_batches(unsent)} with {sum(one.lines for one in unsent):,} records to be sent")
    return "; ".join(told)


def when_text(took_s: Sequence[float]) -> str:
    """When it is worth coming back, by how long the run's own batches took."""
    if not took_s:
        return "come back later"
    return f"half of this run's batches took up to {duration(sorted(took_s)[len(took_s) // 2])}"


def cancelled_text(parts: Sequence[Part]) -> str:
    """What became of batches that were cancelled."""
    lines = sum(int((one.books.get("lines") or {}).get("answered") or 0) for one in parts)
    costs = [one.books.get("cost_usd", 0.0) for one in parts]
    paid = "" if None in costs else f", for {dollars(sum(costs))}"
    return f"{_batches(parts)} cancelled; {lines:,} answers of them collected{paid}"


def _batches(parts: Sequence[Part]) -> str:
    return "1 batch" if len(parts) == 1 else f"{len(parts):,} batches"
