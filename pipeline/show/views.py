"""Formats the results of checks, previews, and runs as plain lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import codec
from pipeline.facts import Check, Preview
from pipeline.progress import retries_text
from pipeline.records import JSON, Outcome, Request, Status
from pipeline.show.formatting import SIMULATED, Facts, many, plain, table
from pipeline.show.labelview import label_lines
from pipeline.stats import RunSummary
from pipeline.units import dollars, duration

_FREE = "The run can start."
_HEADS = {"complete": "Done", "interrupted": "Interrupted", "stopped": "Stopped early", "replayed": "Replayed"}
_MARKS = {True: "ok  ", False: "FAIL", None: "warn"}


def check_lines(checks: Sequence[Check]) -> list[str]:
    """Format a line for each check, with what to do."""
    width = max((len(one.name) for one in checks), default=0)
    lines = []
    for one in checks:
        first, *more = one.detail.splitlines() or [""]
        lines.append(f"{_MARKS[one.ok]}  {one.name:<{width}}  {first}")
        lines += [f"      {'':<{width}}  {line}" for line in more]
    wrong = sum(one.ok is False for one in checks)
    return [*lines, "", f"{wrong} to fix before a run." if wrong else _way_is_free(checks)]


def _way_is_free(checks: Sequence[Check]) -> str:
    waiting = ", ".join(one.name for one in checks if one.blocks)
    return f"The config is valid, but a run would not start: see {waiting}." if waiting else _FREE


def preview_facts(preview: Preview) -> dict[str, Any]:
    """Return a preview as plain values."""
    return {
        "simulated": preview.simulated,
        "cost_usd": preview.cost_usd,
        "stopped": preview.stopped,
        **({} if preview.requests is None else {"requests": [_request_facts(one) for one in preview.requests]}),
        "records": [
            {
                "key": one.record.key,
                "status": one.status.value,
                "label": one.label,
                "rows": one.rows,
                "problem": None if one.problem is None else {"code": one.problem.code, "message": one.problem.message},
                **({"gold": _gold(one, preview.gold)} if preview.gold else {}),
                "fields": dict(one.record.fields),
                "attempts": one.attempts,
                "latency_s": round(one.latency_s, 4),
            }
            for one in preview.outcomes
        ],
    }


def _request_facts(one: Request) -> dict[str, Any]:
    facts = {"model": one.model, "messages": one.messages, "tools": one.tools, "tool_choice": one.tool_choice}
    return {"key": one.record.key, "size_tokens": one.size_tokens, "body": {**facts, **one.parameters}}


def preview_lines(preview: Preview) -> list[str]:
    """Format a table of key, label, gold (if known), and text, or the requests that would be sent."""
    head = ("key", "label", *(["gold"] if preview.gold else []), "record")
    rows = [
        (one.record.key, text, *([_gold_text(one, preview.gold)] if preview.gold else []), _fields_text(one))
        for one in preview.outcomes
        for text in _label_texts(one)
    ]
    lines = [line[2:] for line in table(head, rows, 60, cuts=False)] if rows else []
    if preview.requests is not None:
        return [*lines, *sent_lines(preview.requests), "", "Nothing was sent."]
    if preview.stopped:
        lines += ["", f"Stopped: {preview.stopped}"]
    labelled = [one for one in preview.outcomes if one.status is Status.LABELLED]
    cost = "" if preview.simulated else f" · {dollars(preview.cost_usd)}"
    known = [one for one in labelled if _gold(one, preview.gold)]
    right = sum(_is_right(one, preview.gold) for one in known)
    equal = f" · {right} of {len(known)} match gold" if known else ""
    lines += ["", f"{len(labelled)} of {len(preview.outcomes)} labelled{equal}{cost} · nothing was written"]
    return [*lines, SIMULATED] if preview.simulated else lines


def _gold(one: Outcome, gold: Mapping[str, str]) -> dict[str, str]:
    """Return the gold values of the record's labels, if it has them."""
    fields = one.record.fields
    return {label: plain(fields[name]) for label, name in gold.items() if fields.get(name) not in (None, "")}


def _is_right(one: Outcome, gold: Mapping[str, str]) -> bool:
    label = one.label or {}
    return all(plain(label.get(name)) == value for name, value in _gold(one, gold).items())


def _gold_text(one: Outcome, gold: Mapping[str, str]) -> str:
    text = ", ".join(_gold(one, gold).values())
    return f"≠ {text}" if text and one.status is Status.LABELLED and not _is_right(one, gold) else text


def _label_texts(one: Outcome) -> list[str]:
    """Return a text for each row of the record."""
    if one.problem is not None:
        return [f"{one.status.value}: {one.problem.code}: {one.problem.message}"]
    if one.rows is None:
        return [_label_text(one.label or {})]
    return [_label_text({**(one.label or {}), **row}) for row in one.rows] or ["labelled, without a row"]


def _label_text(label: Mapping[str, JSON]) -> str:
    return ", ".join(f"{name}={plain(value)}" for name, value in label.items() if value is not None)


def _fields_text(one: Outcome) -> str:
    texts = [value for value in one.record.fields.values() if isinstance(value, str)]
    return " ".join(max(texts, key=len, default="").split())


def counts_text(labelled: int, rejected: int, failed: int, pending: int | None = 0, *, rows: str = "") -> str:
    """Format the counts: `8 labelled · 1 rejected · 0 failed`, with the rows and the pending records, if any."""
    parts = [f"{labelled:,} labelled{rows}", f"{rejected:,} rejected", f"{failed:,} failed"]
    if pending:
        parts.append(f"{pending:,} pending")
    if pending is None:
        parts.append("the rest pending")
    return " · ".join(parts)


def rows_text(rows: int | None, without: int | None) -> str:
    """Format ` (31 rows, 2 without a row)`; empty if each record is one row."""
    if rows is None:
        return ""
    return f" ({rows:,} rows" + (f", {without:,} without a row)" if without else ")")


def problem_lines(problems: Mapping[str, int]) -> list[str]:
    """Format why records have no label, the most frequent causes first."""
    if not problems:
        return []
    first = list(problems.items())[:6]
    more = "" if len(problems) <= len(first) else f", and {len(problems) - len(first)} more kinds"
    return ["  without label: " + ", ".join(f"{code} {number:,}" for code, number in first) + more]


def left_out_lines(left_out: Mapping[str, int]) -> list[str]:
    """Format how many records were left out, and why."""
    counts = [f"{count:,} by input.{name}" for name, count in left_out.items() if name != "unclear"]
    if not counts:
        return []
    unclear = left_out.get("unclear", 0)
    why = (
        f" ({unclear:,} of them because a field of the expression is missing, null, or of another type)"
        if unclear
        else ""
    )
    return [f"  left out: {', '.join(counts)}{why}"]


def measured_lines(measured: Mapping[str, Facts]) -> list[str]:
    """Format the accuracy of each label column in the latest evaluation."""
    lines = []
    for name, one in measured.items():
        low, high, n = one.get("accuracy_low"), one.get("accuracy_high"), one.get("n")
        parts = [f"{low:.1%} to {high:.1%}"] if low is not None and high is not None else []
        parts += [f"{n:,} gold records"] if n else []
        rests_on = f" ({', '.join(parts)})" if parts else ""
        lines.append(f"  accuracy  {name} {one['accuracy']:.1%}{rests_on}")
    return lines


def closing_lines(summary: RunSummary) -> list[str]:
    """Format the end of a session on one screen: results, cost, files, and what to do next."""
    head = _HEADS[summary.ended]
    lines = [f"{head}{': ' + summary.reason if summary.reason else ''}"]
    rows = rows_text(summary.rows, summary.without_row)
    pending = 0 if summary.ended == "replayed" and summary.pending is None else summary.pending
    lines.append(f"  {counts_text(summary.labelled, summary.rejected, summary.failed, pending, rows=rows)}")
    lines += left_out_lines(summary.left_out_by)
    lines += problem_lines(summary.problems)
    if summary.copied:
        lines.append(f"  {summary.copied:,} share the answer of an identical record")
    lines += label_lines(summary.labels, summary.labelled)
    lines += quality_lines({"gold": summary.gold, "votes": summary.votes})
    lines += measured_lines(summary.measured)
    lines.append(f"  {_session_text(summary)}")
    lines.append(f"  {_tokens_text(summary)}")
    lines += [f"  {lane:<8}  {text}" for lane, text in lane_texts(summary.lanes).items()]
    if summary.outages:
        plural = "s" * (summary.outages != 1)
        lines.append(
            f"  {summary.outages} outage{plural}, {duration(summary.outage_s)} in total; no record failed because of it"
        )
    lines += [f"  {line}" for line in learned_lines(summary.learned, summary.estimated)]
    if summary.readings:
        lines.append(f"  read      {readings_text(summary.readings)}")
    for name, path in summary.files.items():
        lines.append(f"  {name:<8}  {path}")
    lines += [f"  {'note':<8}  {note}" for note in summary.notes]
    if summary.left and summary.records:
        lines.append(f"  left      {summary.left['text']}")
    if summary.next_step:
        lines.append(f"  next      {summary.next_step}")
    return [*lines, SIMULATED] if summary.simulated else lines


def quality_lines(summary: Facts) -> list[str]:
    """Format what gold and votes show about the labels, if a run has them."""
    gold, votes = summary.get("gold"), summary.get("votes")
    lines = [] if gold is None else [f"  gold      {gold_text(gold)}"]
    return lines if votes is None else [*lines, f"  votes     {votes_text(votes)}"]


def gold_text(gold: Facts) -> str:
    """Format `topic 91.0% of 120 right (95% interval 86.0% to 95.0%); most often billing as login 4`."""
    if not gold["n"]:
        return f"{gold['column']}: no gold record was compared"
    text = f"{gold['column']} {gold['accuracy']:.1%} of {gold['n']:,} right"
    text += f" (95% interval {gold['accuracy_low']:.1%} to {gold['accuracy_high']:.1%})"
    confusions = ", ".join(f"{right} labeled {label} {count:,}" for right, label, count in gold["confusions"])
    return f"{text}; most often {confusions}" if confusions else text


def votes_text(votes: Facts) -> str:
    """Format `2.13 a record, Krippendorff's alpha 0.87, 312 need review`."""
    each = votes["votes"] / votes["records"] if votes["records"] else 0.0
    alpha = "" if votes["alpha"] is None else f", Krippendorff's alpha {votes['alpha']:.2f}"
    return f"{each:.2f} a record{alpha}, {votes['needs_review']:,} need review"


def readings_text(readings: Mapping[str, int]) -> str:
    """Format what was accepted in answers although it was not in the right form."""
    text = ", ".join(f"{count:,} with {what}" for what, count in readings.items())
    return f"{text}; task.strict_answers = true refuses these"


def learned_lines(learned: Mapping[str, float], estimated: Sequence[str]) -> Iterator[str]:
    """Format the limits that the run learned, each with the key to set. No header states the estimated ones."""
    for name, value in learned.items():
        amount = f"{value:,.0f} {name.replace('_', ' ')}"
        if name == "concurrency":
            yield f"auto settled at {value:,.0f} in flight: set limits.concurrency"
        elif name in estimated:
            yield f"the server allows about {amount}, estimated from refusals: set limits.{name}"
        else:
            yield f"the server allows {amount}: set limits.{name}"


def _session_text(summary: RunSummary) -> str:
    rate = summary.session_records / summary.session_s * 60 if summary.session_s > 0 else 0.0
    text = f"{many(summary.session_records, 'record')} in {duration(summary.session_s)} ({rate:,.0f} a minute)"
    if summary.calls or "batch" not in summary.lanes:
        text += f" · {many(summary.calls, 'call')}"
    if summary.latency_p50_s is not None and summary.latency_p95_s is not None:
        text += f", p50 {summary.latency_p50_s:.2f} s, p95 {summary.latency_p95_s:.2f} s"
    hedged = summary.retries.get("hedge", 0)
    again = sum(summary.retries.values()) - hedged
    text += f" · {retries_text(again)}" if again else ""
    text += f" · {hedged:,} hedged" if hedged else ""
    return text + (f" · {summary.refusals:,} refused by the rate limit" if summary.refusals else "")


def lane_texts(lanes: Mapping[str, Facts]) -> dict[str, str]:
    """Format the results of the cheaper lanes: `60 answers for 60 records in 4 batches · $0.0007 saved ...`."""
    texts = {}
    for lane, facts in lanes.items():
        text = many(facts["answers"], "answer")
        if lane == "batch":
            of = f"{facts['batches']:,} batch{'es' * (facts['batches'] != 1)}"
            of += f", {facts['cancelled']:,} of them cancelled" if facts["cancelled"] else ""
            text += f" for {many(facts['records'], 'record')} in {of}"
        if lane == "flex":
            share = facts["answers"] / sum(facts[tier] for tier in ("answers", "standard", "other"))
            text += f" ({share:.1%}) at the flex tier"
            text += (
                f", {facts['standard']:,} at the standard tier because flex had no room or took too long"
                if facts["standard"]
                else ""
            )
            text += f", {facts['other']:,} do not say that they are at flex" if facts["other"] else ""
        saved = facts["saved_usd"]
        texts[lane] = text if not saved else f"{text} · {dollars(saved)} saved compared with live calls"
    return texts


def _tokens_text(summary: RunSummary) -> str:
    usage = summary.usage
    cached = cached_text(usage.cached, usage.cache_write, summary.saved_usd, summary.cache_write_usd)
    cost = cost_text(summary.cost_usd, summary.untold)
    if summary.simulated and summary.cost_usd is not None:
        cost = f"free; the model would cost {cost}"
    return f"{usage.prompt:,} prompt{cached} and {usage.completion:,} completion tokens · {cost}"


def cost_text(cost_usd: float | None, untold: int) -> str:
    """Format the cost. The answers for `untold` records do not report their usage."""
    if not untold:
        return dollars(cost_usd)
    known = f", {dollars(cost_usd)} without them" if cost_usd else ""
    return f"cost unknown: the answers for {untold:,} records do not say what they used{known}"


def cached_text(cached: int, written: int, saved_usd: float | None, more_usd: float | None) -> str:
    """Format the effect of the prompt cache: ` (1,024 cached, $0.0001 saved; ...)`, or nothing."""
    parts = []
    if cached:
        parts.append(f"{cached:,} cached" + (f", {dollars(saved_usd)} saved" if saved_usd else ""))
    if written:
        parts.append(f"{written:,} written to the cache" + (f", {dollars(more_usd)} more" if more_usd else ""))
    if more_usd and saved_usd is not None:
        parts.append(net_text(saved_usd - more_usd))
    return f" ({'; '.join(parts)})" if parts else ""


def net_text(usd: float) -> str:
    """Format the net effect of the prompt cache: `$0.0012 saved net`."""
    return f"{dollars(abs(usd))} {'saved' if usd >= 0 else 'lost'} net"


def sent_lines(requests: Sequence[Request]) -> list[str]:
    """Format the requests that would be sent: the messages of each, and what all share."""
    lines: list[str] = []
    for request in requests:
        record = request.record
        lines.append(f"== {record.key}  ({record.source}:{record.line}, about {request.size_tokens:,} tokens)")
        lines += [f"{one['role']}: {_content(one, request)}" for one in request.messages]
        lines.append("")
    for request in requests[-1:]:
        facts = {"model": request.model, "tool_choice": request.tool_choice, **request.parameters}
        tools = [codec.dumps(tool).decode() for tool in request.tools]
        lines += ["== with each of them", codec.dumps(facts).decode(), *tools]
    return lines


def _content(message: Mapping[str, JSON], request: Request) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        return codec.dumps(message.get("tool_calls")).decode()
    return "\n".join(_part(part, request) for part in content)


def _part(part: Facts, request: Request) -> str:
    if part.get("type") == "attachment":
        attachment = request.attachments[part["index"]]
        return f"[{attachment.kind} {attachment.source[:120]}]"
    return str(part.get("text", ""))
