"""Prints the start of a run: how many records there are, what is asked where, and about what it takes."""

import asyncio
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing

from pipeline import codec
from pipeline.errors import LabelpipeError
from pipeline.parts import (
    BASE_URL,
    LANE_SHARE,
    address,
    describe_card,
    flex_patience_s,
    is_groq,
    is_simulated,
    lane_price,
    read,
    votes_usd,
)
from pipeline.readers import FILE_FORMATS, ReadProgress, Source
from pipeline.records import FLEX, Record, Usage
from pipeline.runlog import log_event
from pipeline.settings import Settings
from pipeline.task import Task
from pipeline.units import DAY_S, UNPRICED, dollars, duration

#: How many records the estimate is based on.
SAMPLE = 50
#: How long counting runs at full speed, and its share of the time after that, which leaves the run the rest.
AT_ONCE_S, SHARE = 0.5, 0.2
#: How long the opening lines wait for the count.
PATIENCE_S = 1.0
_BYTES_PER_TOKEN = 4
#: Kinds of origins outside the config.
_OUTSIDE = frozenset({"environment", ".env"})
#: Formats whose records can be read twice at no cost.
LOCAL = frozenset({"jsonl", "csv", "tsv", "text", "parquet"}) | FILE_FORMATS
#: What happens to batches that are open shortly before `limits.stop_at`, by `batch.finish`.
_AT_THE_END = {
    "live": 'shortly before it, what no batch will answer is asked live (batch.finish = "live")',
    "batch": "open batches are left for the next session",
}


async def count(sources: Sequence[Source], settings: Settings, reading: ReadProgress, first: list[Record]) -> None:
    """Set `reading.exact_total`, and add the first records to `first`, if all sources are on this machine.

    The records are read as the run reads them: only that counts records and not lines.
    """
    if not all(is_local(source) for source in sources):
        return
    began, records = time.monotonic(), 0
    async with aclosing(read(sources, settings)) as batches:
        at = began
        async for batch in batches:
            records += len(batch)
            first += batch[: SAMPLE - len(first)]
            if reading.exact_total is not None and len(first) == SAMPLE:
                break
            elapsed_s = time.monotonic() - at
            await asyncio.sleep(elapsed_s * (1 / SHARE - 1) if time.monotonic() - began > AT_ONCE_S else 0)
            at = time.monotonic()
    if reading.exact_total is None:
        reading.exact_total = records


async def print_opening(
    echo: Callable[[str], None],
    settings: Settings,
    task: Task,
    sources: Sequence[Source],
    reading: ReadProgress,
    done: int,
) -> None:
    """Print the opening lines, and later the count if it is slow."""
    first: list[Record] = []
    counting = asyncio.create_task(count(sources, settings, reading, first), name="counting")
    try:
        await asyncio.wait({counting}, timeout=PATIENCE_S)
        prompt = reading.exact_total
        echo("\n".join(opening_lines(settings, task, sources, prompt, done, first)))
        await counting
        if prompt is None and reading.exact_total is not None:
            takes = _takes_text(settings, task, first, max(0, reading.exact_total - done))
            echo(f"labelpipe: {reading.exact_total:,} records were counted" + (f"; they take {takes}" if takes else ""))
    except (LabelpipeError, OSError) as error:
        log_event("the records were not counted", reason=str(error))  # the run reads them too, and reports the error
    finally:
        counting.cancel()
        await asyncio.wait({counting})  # until it has closed its file


def is_local(source: Source) -> bool:
    """Whether the source is on this machine, so reading it twice costs nothing."""
    return (
        not source.single_pass and source.format in LOCAL and (source.path is not None or source.format in FILE_FORMATS)
    )


def opening_lines(
    settings: Settings, task: Task, sources: Sequence[Source], total: int | None, done: int, first: Sequence[Record]
) -> list[str]:
    """Return lines on what is labeled, the model, the cost, how to stop and watch it, and environment overrides."""
    name = sources[0].name if len(sources) == 1 else f"{sources[0].name} and {len(sources) - 1:,} more"
    records = "the records" if total is None else f"{total:,} record{'s' * (total != 1)}"
    if total is not None and done:
        records = f"{max(0, total - done):,} of {records}"
    whose = "from Python" if sources[0].format == "records" else f"of {name}"
    lines = [f"labelpipe: {records} {whose} · {settings.model.name} at {address(settings)}"]
    if settings.input.where is not None:
        lines.append(f"  where     {settings.input.where}")
    if settings.input.sample is not None:
        lines.append(f"  sample    {settings.input.sample:,} records, drawn with seed {settings.input.seed}")
    if settings.input.keys is not None:
        lines.append(f"  keys      those in {settings.input.keys}")
    left = None if total is None else max(0, total - done)
    if left and (takes := _takes_text(settings, task, first, left)):
        lines.append(f"  estimate  {takes}")
    if settings.model.lane in ("batch", "auto") and settings.limits.stop_at is not None:
        lines.append(f"  stop_at   {settings.limits.stop_at}: {_AT_THE_END[settings.batch.finish]}")
    lines.append("  stop      Ctrl-C stops after the calls in flight; the same command resumes")
    lines.append(f"  watch     labelpipe status {settings.output.dir} --watch")
    if card := describe_card(settings):
        lines.append(f"  server    {card}: see server-card.json")
    if overridden := describe_overrides(settings):
        lines.append(f"  set by    {overridden}")
    return lines


def expected_usage(task: Task, records: Sequence[Record]) -> Usage | None:
    """Estimate the usage of one of these records from the length of its request; None if that is not enough (media)."""
    if task.media_kinds or task.max_turns > 1:
        return None
    prompt = size = count = 0
    for record in records:
        if record.problem is not None:
            continue
        try:
            request = task.render(record)
        except LabelpipeError:
            continue
        count += 1
        size += request.size_tokens
        prompt += len(codec.dumps((request.messages, request.tools))) // _BYTES_PER_TOKEN
    if not count:
        return None
    # All calls but the first read the marked prefix from the server's cache.
    cached = task.constant_tokens if task.marks_prefix else 0
    return Usage(prompt // count, max(0, size - prompt) // count, cached=cached)


def _takes_text(settings: Settings, task: Task, first: Sequence[Record], left: int) -> str:
    """Return what is known, like `about $12.30; at least 100 min within the limits`. Counts the fewest votes needed."""
    usage = expected_usage(task, first)
    usd = None if usage is None else votes_usd(settings, usage)
    cost = "" if usd is None else f"about {dollars(left * usd)}"
    if usd and settings.model.lane == FLEX and flex_patience_s(settings) is None and not is_groq(settings):
        cost += f" if the server has a flex tier at half the price, or else {dollars(left * usd / LANE_SHARE)}"
    if lane_price(settings) is None and not is_simulated(settings):
        cost = UNPRICED
    if cost and is_simulated(settings):
        cost = f"free (the model would cost {cost})"
    seconds = _least_s(settings, left * settings.quality.fewest, usage)
    return "; ".join(filter(None, [cost, f"at least {duration(seconds)} within the limits" if seconds else ""]))


def _least_s(settings: Settings, left: int, usage: Usage | None) -> float:
    """Return the least time that the limits allow; 0 without limits."""
    limits = settings.limits
    by_limit = [
        left / limits.requests_per_minute * 60 if limits.requests_per_minute else 0.0,
        left * usage.total / limits.tokens_per_minute * 60 if limits.tokens_per_minute and usage is not None else 0.0,
        (math.ceil(left / limits.requests_per_day) - 1) * DAY_S if limits.requests_per_day else 0.0,
    ]
    return max(by_limit)


def describe_overrides(settings: Settings) -> str:
    """Return what is set outside the file, like `environment LABELPIPE_LIMITS__CONCURRENCY: limits.concurrency`."""
    lines = [f"{origin}: {key}" for key, origin in settings.origins().items() if origin.kind in _OUTSIDE]
    if settings.model.base_url is None and os.environ.get(BASE_URL):
        lines.append(f"environment {BASE_URL}: the address")
    return ", ".join(lines)
