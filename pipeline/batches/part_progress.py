"""Computes a part's metadata, what the ledger saves of the server's facts, and when a batch may be back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.limits import Rate
from pipeline.providers import BatchFacts
from pipeline.records import JSON
from pipeline.store import Part, PartState

#: Seconds that a server takes to end a canceled batch (OpenAI's guide to the Batch API).
CANCEL_S = 600.0
#: Live calls replace batches at most this many seconds before `limits.stop_at`, whatever is left: they cost more.
MOST_LIVE_S = 3000.0


def batch_metadata(part: Part, run_id: str) -> dict[str, str]:
    """Return the metadata of a part's batch. It is unique, even among failed batches of the same part."""
    made = part.books.get("made") or 0
    return {"labelpipe_run": run_id, "labelpipe_part": f"{part.number}.{made}", "labelpipe_sha256": part.sha256}


def to_recreate(part: Part) -> Part:
    """Return the part, ready for another batch from its file."""
    made = (part.books.get("made") or 0) + 1
    return replace(part, state=PartState.UPLOADED, batch_id="", begun=False, books={**part.books, "made": made})


def with_server_facts(facts: BatchFacts, part: Part, now: float) -> Part:
    """Return the part with what the ledger saves of the server's facts. `moved_at` is the time of their last change."""
    news: dict[str, JSON] = {
        "status": facts.status,
        "output_file_id": facts.output_file_id,
        "error_file_id": facts.error_file_id,
        "total": facts.total,
        "done": facts.done,
        "failed": facts.failed,
        "usage": None if facts.usage is None else list(facts.usage.counts),
        "expires_at": facts.expires_at,
    }
    before = {name: value for name, value in part.facts.items() if name != "moved_at"}
    return part if news == before else replace(part, facts={**news, "moved_at": now})


def stalled_s(part: Part, now: float) -> float:
    """Return the seconds since the server last reported anything new about the part."""
    return max(0.0, now - (part.facts.get("moved_at") or part.sent_at or now))


def remaining_s(part: Part, now: float, took_s: Sequence[float]) -> float | None:
    """Return the seconds until a batch may be back, by its own progress, or else by the median of earlier batches.

    They are never less than the time since its last progress. None if nothing is known.
    """
    if part.state in (PartState.ENDED, PartState.FETCHED):
        return 0.0
    total, done, sent_at = part.facts.get("total") or 0, part.facts.get("done") or 0, part.sent_at or now
    if done and total:
        left_s = (now - sent_at) * (total / done - 1)
    elif took_s:
        left_s = sent_at + sorted(took_s)[len(took_s) // 2] - now
    else:
        return None
    return max(left_s, stalled_s(part, now))


def live_s(parts: Iterable[Part], requests: Rate, tokens: Rate, per_minute: float, records: int | None = None) -> float:
    """Return how many seconds live calls would take for the open records of the parts, under these limits.

    `per_minute` is the pace if the server's limit on requests is unknown. `records` replaces the number of the parts'
    records, and assumes that they are similar.
    """
    calls = queued = 0.0
    for part in parts:
        share = 1 - min(1.0, (part.facts.get("done") or 0) / part.lines)
        calls += part.lines * share
        queued += part.tokens * share
    if records is not None:
        calls, queued = records, queued * records / calls if calls else 0.0
    a_minute = requests.per_minute or per_minute
    minutes = max(calls / a_minute, queued / tokens.per_minute if tokens.per_minute else 0.0)
    return 60 * minutes
