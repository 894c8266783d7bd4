"""Formats the state of a run: its counts, its cost, and its activity."""

import time
from collections.abc import Sequence
from datetime import datetime

from pipeline.facts import KILLED
from pipeline.progress import count_text, retries_text
from pipeline.show.formatting import SIMULATED, Facts, many
from pipeline.show.labelview import label_lines
from pipeline.show.views import (
    cached_text,
    cost_text,
    counts_text,
    lane_texts,
    learned_lines,
    measured_lines,
    problem_lines,
    quality_lines,
    rows_text,
)
from pipeline.stats import Merged
from pipeline.units import dollars, duration


def status_lines(facts: Facts) -> list[str]:
    """Format the state of a run."""
    done = facts["labelled"] + facts["rejected"] + facts["failed"]
    running = "running" if facts["running"] else "not running"
    rows = rows_text(facts["rows"], facts["without_row"])
    lines = [
        f"{facts['run_dir']}  ({running})",
        f"  {counts_text(facts['labelled'], facts['rejected'], facts['failed'], rows=rows)}",
    ]
    live = facts["live"]
    if live and facts["running"]:
        lines += [f"  {line}" for line in _live_lines(live)]
    lines += [f"  {line}" for line in _shard_lines(facts.get("shards") or ())]
    lines += _batch_lines(facts["batches"])
    lines += problem_lines(facts["problems"])
    if facts["by_people"]:
        lines.append(f"  labeled by people: {facts['by_people']:,} of the records without a label of the model")
    lines += label_lines(facts["labels"], facts["labelled"] + facts["by_people"])
    lines += quality_lines(facts["summary"] or {})
    lines += measured_lines(facts["measured"])
    lines.append(f"  {_paid_text(facts)}")
    lines += [f"  {lane:<8}  {text}" for lane, text in lane_texts(facts["lanes"]).items()]
    if facts["ended"]:
        lines.append(f"  last session: {_ending_text(facts)}")
        if facts["left"]:
            lines.append(f"  left: {facts['left']['text']}")
    if facts["next_step"]:
        lines.append(f"  next: {facts['next_step']}")
    if not done:
        lines.append("  nothing is labeled yet")
    return [*lines, SIMULATED] if facts["simulated"] else lines


def merged_lines(merged: Merged) -> list[str]:
    """Format the result of a merge."""
    if not merged.shards:
        return [f"{merged.run_dir}: {many(merged.outcomes, 'outcome')} in one ledger, and no shards left to merge"]
    lines = [f"{merged.run_dir}: {many(merged.outcomes, 'outcome')} of {many(merged.shards, 'shard')} in one ledger"]
    if not merged.complete:
        lines.append("  Shards are still running. Merge again when they have ended.")
    return lines


def _shard_lines(shards: Sequence[Facts]) -> list[str]:
    return [
        f"shard {one['shard']}  {counts_text(one['labelled'], one['rejected'], one['failed'])}  ({_shard_state(one)})"
        for one in shards
    ]


def _shard_state(one: Facts) -> str:
    state = "running" if one["running"] else one["ended"] or "not running"
    return state if one["heard_s"] is None else f"{state}, last heard from {duration(one['heard_s'])} ago"


#: The most open batches to show on a line each.
BATCHES_SHOWN = 10
#: A batch without progress for more seconds is reported.
STILL_S = 2 * 3600.0


def _batch_lines(batches: Sequence[Facts]) -> list[str]:
    """Format the batches: a line for each open one, and the others together."""
    if not batches:
        return []
    still = [one for one in batches if not _is_done(one)]
    lines = [f"  batches  {batches_text(batches)}"]
    lines += [f"    {_batch_text(one)}" for one in still[:BATCHES_SHOWN]]
    if len(still) > BATCHES_SHOWN:
        lines.append(f"    and {len(still) - BATCHES_SHOWN:,} more")
    return lines


def batches_text(batches: Sequence[Facts]) -> str:
    """Format a summary of batches: `3 of 4 collected, half of them within 12 min`."""
    done = [one for one in batches if _is_done(one)]
    durations = sorted(one["ended_at"] - one["sent_at"] for one in done if one["ended_at"] and one["sent_at"])
    usual = f", half of them within {duration(durations[len(durations) // 2])}" if durations else ""
    return f"{len(done):,} of {len(batches):,} collected{usual}"


def _is_done(batch: Facts) -> bool:
    return batch["state"] in ("read", "closed")


def _batch_text(one: Facts) -> str:
    text = f"{one['part']}: {one['server'] or one['state']}, {one['records']:,} records, {one['tokens']:,} tokens"
    if one["done"]:
        text += f", {one['done']:,} done"
    if one["sent_at"]:
        text += f", sent {duration(max(0.0, time.time() - one['sent_at']))} ago"
    if one["moved_at"] and time.time() - one["moved_at"] > STILL_S:
        text += f", has not moved for {duration(time.time() - one['moved_at'])}"
    if one["expires_at"]:
        text += f", its results expire at {datetime.fromtimestamp(one['expires_at']).astimezone():%Y-%m-%d %H:%M}"
    return text


def _ending_text(facts: Facts) -> str:
    """Format how the last session ended, and why; if it could not record that, when it was last alive."""
    summary, alive_at = facts["summary"], facts["last_alive_at"]
    if summary is not None:
        return f"{summary['ended']}{': ' + summary['reason'] if summary['reason'] else ''}"
    text = {KILLED: "killed, or the machine went down"}.get(facts["ended"], "stopped by an error")
    if alive_at is None:
        return text
    moment = datetime.fromtimestamp(alive_at).astimezone()
    return f"{text}; last alive {moment:%Y-%m-%d %H:%M:%S} ({duration(max(0.0, time.time() - alive_at))} ago)"


def _paid_text(facts: Facts) -> str:
    tokens = facts["tokens"]
    cached = cached_text(tokens["cached"], tokens["cache_write"], facts["saved_usd"], facts["cache_write_usd"])
    text = f"{tokens['prompt']:,} prompt{cached} and {tokens['completion']:,} completion tokens"
    return f"{text} · {cost_text(facts['cost_usd'], facts['untold'])}"


def _live_lines(live: Facts) -> list[str]:
    """Format the activity of a running session. An older labelpipe may report less."""
    lines = [_live_text(live)]
    if live.get("gate"):
        lines.append(_gate_text(live))
    if live.get("stopping"):
        lines.append(f"stopping: {live['stopping']}")
    if live.get("gold"):
        lines.append(live["gold"])
    lines += learned_lines(live.get("learned", {}), live.get("estimated", ()))
    return lines + [line for line in (_budget_text(live), _day_text(live), _hours_text(live)) if line]


def _gate_text(live: Facts) -> str:
    parts = [
        f"gate {live['gate']}",
        f"{live['in_flight']} of {live['concurrency']} in flight",
        f"p50 {live['latency_p50_s']:.2f} s, p95 {live['latency_p95_s']:.2f} s" if live["latency_p50_s"] else "",
        f"{live['refusals']:,} refused by the rate limit" if live["refusals"] else "",
        many(live["outages"], "outage") if live["outages"] else "",
    ]
    return " · ".join(part for part in parts if part)


def _budget_text(live: Facts) -> str:
    budget, limits = live.get("budget"), live.get("limits", {})
    if not budget:
        return ""
    parts = []
    if (cap := limits.get("limits.budget_usd")) is not None:
        spent, left = dollars(budget["spent"]["usd"]), dollars(budget["left"]["usd"])
        parts.append(f"{spent} of {dollars(cap)} spent, {left} free")
    if (cap := limits.get("limits.budget_tokens")) is not None:
        parts.append(f"{budget['spent']['tokens']:,} of {cap:,} tokens used, {budget['left']['tokens']:,} free")
    return f"budget: {' · '.join(parts)}" if parts else ""


def _day_text(live: Facts) -> str:
    left, limit = live["requests_left_today"], live["requests_per_day"]
    return "" if left is None else f"today (UTC): {left:,} of {limit:,} requests left"


def _hours_text(live: Facts) -> str:
    between, ends_at = live.get("limits", {}).get("limits.run_between"), live.get("ends_at")
    parts = [
        f"calls leave from {between[0]} to {between[1]}" if between else "",
        f"the run ends at {datetime.fromisoformat(ends_at):%Y-%m-%d %H:%M}" if ends_at else "",
    ]
    return " · ".join(part for part in parts if part)


def _live_text(live: Facts) -> str:
    rate = f"{live['rate_per_minute']:,.0f}/min"
    if live["limit_per_minute"]:
        rate += f" of {live['limit_per_minute']:,.0f}"
    parts = [
        count_text(live["done"], live["total"], known=live["total_known"]),
        live["trouble"] or rate,
        f"ETA {duration(live['eta_s'])}" if live["eta_s"] is not None else "",
        f"{live['in_flight']} in flight" if not live.get("gate") else "",
        retries_text(live["retries"]),
        f"{live['hedged']:,} hedged" if live.get("hedged") else "",
        f"seen {duration(max(0.0, time.time() - live['written_at']))} ago",
    ]
    return " · ".join(part for part in parts if part)
