"""Prepares facts for the page as texts, shares, and rows, without HTML. Texts of records do not change."""

import itertools
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.records import FLEX, Outcome
from pipeline.report.data import ReportData
from pipeline.show import batches_text, net_text, numbers_in_order, plain
from pipeline.store import STEP_S
from pipeline.task import display_text, fields_in_prompt
from pipeline.units import dollars, duration

#: The most values of a label column to show. Nobody would read a page with hundreds.
VALUES_SHOWN = 25
SEVERAL = "A record may have several of these labels. The shares are shares of the records."
#: The percentiles of the latency to show.
PERCENTILES = (50, 90, 95, 99)
#: Config lines, as `config show` writes them, that say nothing about this run, and a table that has no others.
_IS_DEFAULT = re.compile(r"^# [\w.-]+: not set$|^[\w.-]+ = .*  # default$")
_IS_EMPTY = re.compile(r"\s*|\[[^\n]*\]\s*")
_HEADS = {"complete": "Complete", "interrupted": "Interrupted", "stopped": "Stopped early", "replayed": "Replayed"}


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share: `93.4%`."""
    return "–" if share is None else f"{share * 100:.{digits}f}%"


def clock(seconds: float | str | None) -> str:
    """Format a time in this machine's time zone, from seconds since 1970 or an ISO text; empty if it is neither."""
    try:
        moment = (
            datetime.fromisoformat(seconds) if isinstance(seconds, str) else datetime.fromtimestamp(seconds or 0, UTC)
        )
    except (ValueError, OverflowError, OSError):
        return ""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if seconds else ""


# -- what was done -----------------------------------------------------------------------------------------------------


def done_of(report: ReportData) -> int:
    """Return the number of records with an outcome."""
    return int(report.state["labelled"] + report.state["rejected"] + report.state["failed"])


def worked_s(report: ReportData) -> float:
    """Return how long the run was active, in seconds."""
    return report.pace.length_s or float((report.state["summary"] or {}).get("session_s") or 0.0)


def head_of(report: ReportData) -> tuple[str, str]:
    """Return the state of the run in a word, and the reason."""
    state = report.state
    if state["running"]:
        live = state["live"] or {}
        return "Running", live.get("trouble") or ""
    summary = state["summary"] or {}
    return _HEADS.get(state["ended"] or "", (state["ended"] or "Not started").capitalize()), summary.get("reason") or ""


def tiles(report: ReportData) -> Iterator[tuple[str, str, str]]:
    """Yield the most important figures: the name, the figure, and what it is compared with."""
    state, done, time_s = report.state, done_of(report), worked_s(report)
    total = _total(report)
    of = f"of {total:,} records" if total else f"of {done:,} records so far"
    yield "Labeled", f"{state['labelled']:,}", f"{of} ({percent(state['labelled'] / (total or done or 1))})"
    without = state["rejected"] + state["failed"]
    reasons = len(state["problems"])
    yield "Without a label", f"{without:,}", f"for {reasons} reason{'s' * (reasons != 1)}" if without else "none"
    for name, measure in list(measured(report))[:1]:
        if measure.get("accuracy") is not None:
            yield f"Accuracy of {name}", percent(measure["accuracy"]), interval(measure)
    for one in [certificate for certificate in report.certificates if certificate["certified"]][:1]:
        yield "Certified error", f"≤ {percent(one.get('error'))}", f"with {percent(one.get('confidence'))} confidence"
    cost = state["cost_usd"]
    if cost is not None:
        note = f"{dollars(cost / done * 1000)} per 1,000 records" if done else ""
        yield ("Would cost" if state["simulated"] else "Cost"), dollars(cost), note
    if time_s:
        yield "Time at work", duration(time_s), f"{done / time_s * 60:,.0f} records a minute"


def _total(report: ReportData) -> int | None:
    """Return the number of records; None if it is unknown."""
    live, summary = report.state["live"] or {}, report.state["summary"] or {}
    if report.state["running"]:
        return round(live["total"]) if live.get("total_known") and live.get("total") else None
    return None if summary.get("pending") is None else done_of(report) + int(summary["pending"])


def facts(report: ReportData) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each known fact about the run, in order."""
    manifest, fingerprint = report.manifest, report.manifest.get("fingerprint") or {}
    reading = manifest.get("reading") or {}
    first, last = clock(manifest.get("created_at")), clock(_last_at(report))
    eta_s = (report.state["live"] or {}).get("eta_s")
    eta = "" if eta_s is None else f"in {duration(eta_s)}"
    rows = {
        "Input": ", ".join(map(str, reading.get("paths") or ())) or plain((fingerprint.get("input") or {}).get("path")),
        "Records": f"{done_of(report):,}" + (f" of {total:,}" if (total := _total(report)) else ""),
        "Model": plain(fingerprint.get("model")),
        "Began": first,
        "Ends" if report.state["running"] else "Ended": eta if report.state["running"] else last,
        "Sessions": f"{report.pace.sessions}" if report.pace.sessions > 1 else "",
        "Batches": batches_text(report.batches) if report.batches else "",
        "Identical records": _copied(report),
        "Checked by people": _checked(report),
        "Run folder": str(report.folder),
        "labelpipe": plain(manifest.get("labelpipe")),
    }
    return ((name, text) for name, text in rows.items() if text)


def _copied(report: ReportData) -> str:
    copied = (report.state["summary"] or {}).get("copied")
    return f"{copied:,} took the answer of an identical record" if copied else ""


def _checked(report: ReportData) -> str:
    checked = len(report.corrected.by_key)
    return f"{checked:,} record{'s' * (checked != 1)}; their labels are what people said" if checked else ""


def _last_at(report: ReportData) -> float | str | None:
    last = report.pace.ended_at or report.overview.last_at
    return last or (report.state["live"] or {}).get("written_at") or report.manifest.get("session_at")


def fields_of(report: ReportData) -> Iterator[dict[str, Any]]:
    """Yield the label fields as the model sees them: name, kind, values, meaning, and the tool if there are several."""
    tools = [one for one in (report.manifest.get("fingerprint") or {}).get("tools") or () if isinstance(one, dict)]
    for tool in tools:
        function = tool.get("function") or {}
        properties = (function.get("parameters") or {}).get("properties") or {}
        for name, schema in properties.items():
            if isinstance(schema, dict):
                yield {
                    "tool": function.get("name", "") if len(tools) > 1 else "",
                    "name": name,
                    "kind": _kind(schema),
                    "values": _values(schema),
                    "meaning": plain(schema.get("description")),
                }


def _values(schema: Mapping[str, Any]) -> list[str]:
    items = schema.get("items")
    listed = schema.get("enum") or (items.get("enum") if isinstance(items, dict) else None) or ()
    return [plain(value) for value in listed if value is not None]


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of"
    kind = schema.get("type")
    word = " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind or "any value")
    if word == "array":
        return "any of" if _values(schema) else "list"
    low, high = schema.get("minimum"), schema.get("maximum")
    word = {"string": "text", "boolean": "true or false"}.get(word, word)
    return f"{word} from {low} to {high}" if low is not None and high is not None else word


# -- labels, quality ---------------------------------------------------------------------------------------------------


def distributions(report: ReportData) -> Iterator[dict[str, Any]]:
    """Yield each label column of classes: its values with count, share of the records, and length of the bar.

    The most frequent class comes first. Numbers are in numeric order, in spans if there are many of them.
    """
    for column, values in report.state["labels"].items():
        of = min(sum(values.values()), report.state["labelled"]) or 1
        counts = _in_spans(values) or list(values.items())
        first, most = counts[:VALUES_SHOWN], max((count for _, count in counts), default=0)
        rest = sum(count for _, count in counts[VALUES_SHOWN:])
        yield {
            "column": column,
            "values": [(value, count, count / of, count / most) for value, count in first],
            "more": len(counts) - len(first),
            "rest": rest,
            "rest_share": rest / of,
            "note": SEVERAL if sum(values.values()) > of else "",
        }


def _in_spans(counts: Mapping[str, int]) -> list[tuple[str, int]] | None:
    """Return numbers in numeric order, many of them in equal spans; None if one is not a number."""
    numbers = numbers_in_order(counts)
    if numbers is None or len(numbers) <= VALUES_SHOWN:
        return numbers
    low, high = float(numbers[0][0]), float(numbers[-1][0])
    widths = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    width = next(width for width in widths if high // width - low // width < VALUES_SHOWN)
    begin = low // width * width
    spans = [0] * (int((high - begin) // width) + 1)
    for value, count in numbers:
        spans[int((float(value) - begin) // width)] += count
    ends = [(begin + at * width, min(high, begin + (at + 1) * width - 1)) for at in range(len(spans))]
    return [(f"{first:,.0f} to {last:,.0f}" if last > first else f"{first:,.0f}", count)
            for (first, last), count in zip(ends, spans, strict=True)]  # fmt: skip


def measured(report: ReportData) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the latest evaluation of each label column, then the result of gold records in the run."""
    columns = (report.evaluation or {}).get("columns")
    for name, measure in (columns if isinstance(columns, dict) else {}).items():
        if isinstance(measure, dict):
            yield str(name), measure
    gold = (report.state["summary"] or {}).get("gold") or {}
    if gold.get("n"):
        yield f"{gold['column']}, by gold in the run", gold


def interval(measure: Mapping[str, Any]) -> str:
    """Format an interval: `91.2% to 95.1%, 400 gold records`."""
    low, high, n = measure.get("accuracy_low"), measure.get("accuracy_high"), measure.get("n")
    text = f"{percent(low)} to {percent(high)}" if low is not None and high is not None else ""
    return ", ".join(part for part in (text, f"{n:,} gold records" if n else "") if part)


# -- speed and cost ----------------------------------------------------------------------------------------------------


def percentiles(report: ReportData) -> list[tuple[str, str]]:
    """Return percentiles of the latency in seconds, to within STEP_S."""
    latencies = report.overview.latencies
    total = sum(latencies.values())
    texts: list[tuple[str, str]] = []
    for percentile in (*PERCENTILES, 100) if total else ():
        count_so_far = 0
        for step, count in sorted(latencies.items()):
            count_so_far += count
            if count_so_far >= total * percentile / 100:
                texts.append(("max" if percentile == 100 else f"p{percentile}", f"{step * STEP_S:,.2f} s"))
                break
    return texts


def pace_text(report: ReportData) -> str:
    """Describe the throughput chart."""
    pace = report.pace
    parts = []
    if calls := pace.totals.get("calls"):
        refused = pace.totals.get("refused", 0)
        of_them = f"{refused:,} of them ({percent(refused / calls)})" if refused else "none of them"
        parts.append(f"{calls:,} calls, {of_them} refused with 429")
    if pace.outages:
        number = len(pace.outages)
        parts.append(f"{number} outage{'s' * (number != 1)}, {duration(pace.outage_s)} in all")
    elif pace.unit == "calls":
        parts.append("no outage")
    if pace.tokens_each:
        parts.append(f"the limit of tokens is drawn as one of calls, at {pace.tokens_each:,.0f} tokens an answer")
    if pace.sessions > 1:
        parts.append(f"{pace.sessions} sessions; the time between them is left out")
    if pace.unit == "records":
        parts.append("records by the time at which they ended; this run has noted no calls and no limit")
    return ". ".join(part[:1].upper() + part[1:] for part in parts) + "." * bool(parts)


def costs(report: ReportData) -> Iterator[tuple[str, str, str]]:
    """Yield tokens and costs: the name, the amount, and a remark."""
    state, tokens, done = report.state, report.state["tokens"], done_of(report)
    prompt, cached = tokens["prompt"], tokens["cached"]
    each = f"{prompt / done:,.0f} a record" if done else ""
    yield "Prompt tokens", f"{prompt:,}", each
    saved = f"{dollars(state['saved_usd'])} saved" if state["saved_usd"] else ""
    share = f"{percent(cached / prompt)} of the prompt" if prompt else ""
    yield "of these cached", f"{cached:,}", ", ".join(part for part in (share, saved) if part)
    if tokens["cache_write"]:
        more = state["cache_write_usd"]
        text = f"{dollars(more)} more; {net_text((state['saved_usd'] or 0.0) - more)}" if more else ""
        yield "of these written to the cache", f"{tokens['cache_write']:,}", text
    yield (
        "Completion tokens",
        f"{tokens['completion']:,}",
        f"{tokens['completion'] / done:,.0f} a record" if done else "",
    )
    cost = state["cost_usd"]
    remark = "nothing was paid: the answers are simulated" if state["simulated"] else ""
    if cost is not None and done and not remark:
        remark = f"{dollars(cost / done * 1000)} per 1,000 records"
    for lane, facts in state["lanes"].items():
        more, saved = facts.get("standard"), facts["saved_usd"]
        # For flex, the share is of all calls that asked for it; for batches, of all records that are done.
        of = facts["answers"] + more + facts["other"] if lane == FLEX else done
        part = (facts["answers"] if lane == FLEX else facts["records"]) / of if of else 0.0
        words = [f"{percent(min(1.0, part))} of the {'calls' if lane == FLEX else 'records'}"]
        words += [f"{more:,} more at the standard tier because flex had no room or took too long"] if more else []
        words += [f"{dollars(saved)} saved compared with live calls"] if saved else []
        yield f"Answers by {lane}", f"{facts['answers']:,}", ", ".join(words)
    yield "Would cost" if state["simulated"] else "Cost", dollars(cost), remark


# -- records -----------------------------------------------------------------------------------------------------------


def failures(report: ReportData) -> Iterator[dict[str, Any]]:
    """Yield why records have no label, the most frequent reason first, each with examples."""
    without = sum(report.state["problems"].values())
    for code, count in report.state["problems"].items():
        examples = [
            {"key": one.record.key, "why": one.problem.message if one.problem else "", "text": _text(report, one)}
            for one in report.overview.failures.get(code, ())
        ]
        yield {"code": code, "count": count, "share": count / without, "examples": examples}


def config_of(report: ReportData) -> str:
    """Return the last session's config, without unset and default values, and without tables that have no others."""
    text = plain(report.manifest.get("config"))
    blocks = (
        "\n".join(line for line in block.split("\n") if not _IS_DEFAULT.search(line)) for block in text.split("\n\n")
    )
    return "\n\n".join(block for block in blocks if not _IS_EMPTY.fullmatch(block))


def sample(report: ReportData) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
    """Return the label columns, and rows of a key, a text, and the labels."""
    columns = list(report.manifest.get("label_columns") or ())
    rows = []
    for one in report.corrected.apply_all(report.overview.sample):
        for row in one.rows if one.rows is not None else ({},):
            label = {**(one.label or {}), **row}
            rows.append((one.record.key, _text(report, one), [plain(label.get(column)) for column in columns]))
    return columns, rows[: len(report.overview.sample) * 2]


def _text(report: ReportData, outcome: Outcome) -> str:
    fields = dict(outcome.record.fields)
    return display_text(fields, fields_in_prompt(report.manifest.get("fingerprint") or {})) or plain(fields)
