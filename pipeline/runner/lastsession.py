"""How a run's last session ended: by its own word in the summary, or, where it was killed, by what it left lying."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipeline import codec
from pipeline.facts import BROKE_OFF, KILLED
from pipeline.limits import Spend, estimate_remaining
from pipeline.store import RunDir, Totals


def ending_of(run_dir: RunDir, live: Mapping[str, Any] | None, totals: Totals, done: int) -> dict[str, Any]:
    """The end of a session that is not running: `ended`, `last_alive_at`, `left`, `next_step`, `live`, `summary`.

    `ended` is the summary's; "killed" where a note of its process is left, which every end of its own takes away (a
    kill, a power cut); "broke off" where there is neither: an error, told on the screen. `last_alive_at` is in seconds
    since 1970.
    """
    summary, owner = run_dir.read_summary(), _owner(run_dir)
    if owner is None and summary is not None:
        facts = {"ended": summary["ended"], "left": summary.get("left"), "next_step": summary["next_step"]}
        return {**facts, "last_alive_at": None, "live": None, "summary": summary}
    began_at = _began_at(owner)
    if live is not None and live.get("written_at", 0.0) < began_at:
        live = None  # of a session before: this one was killed before it wrote its own
    alive_at = began_at or None if live is None else live.get("written_at")
    go_on = (live or {}).get("go_on") or "the same command"
    return {
        "ended": BROKE_OFF if owner is None else KILLED,
        "left": _left(live, totals, done),
        "next_step": f"to continue: {go_on}",
        "last_alive_at": alive_at,
        "live": live,
        "summary": None,
    }


def _owner(run_dir: RunDir) -> Mapping[str, Any] | None:
    try:
        found = codec.loads((run_dir.path / "lock.owner").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, codec.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _began_at(owner: Mapping[str, Any] | None) -> float:
    try:
        return datetime.fromisoformat(str((owner or {})["started_at"])).timestamp()
    except (KeyError, ValueError):
        return 0.0


def _left(live: Mapping[str, Any] | None, totals: Totals, done: int) -> dict[str, Any] | None:
    """What is left by the session's last count of the input, and what it would cost at what the rest cost so far."""
    total = None if live is None else live.get("total")
    if live is None or total is None:
        return None
    spent = Spend(None if totals.unpriced else totals.cost_usd, totals.usage.total)
    left = estimate_remaining(max(0, round(total) - done), spent, done, exact=bool(live.get("total_known")))
    more = left.more or Spend(None, None)
    return {"records": left.records, "exact": left.exact, "usd": more.usd, "tokens": more.tokens, "text": left.text}
