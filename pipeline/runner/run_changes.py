"""Compares a run folder with the settings and the input, before anything is spent."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline import codec
from pipeline.engine import renamed
from pipeline.errors import ChangedError, RenderError
from pipeline.parts import changes_of_input, input_identity, is_simulated, read, reading_of, voters_of
from pipeline.readers import Source, Stamp
from pipeline.records import JSON, Record
from pipeline.runner.lookups import find_repeated
from pipeline.settings import Settings, to_toml
from pipeline.store import Change, Ledger, MatchCounts, RunDir, Selection, UnmatchedRecord, diff
from pipeline.targets import run_origin_facts
from pipeline.task import Task
from pipeline.units import dollars
from pipeline.version import __version__

#: The version of how records are named and compared. The manifests of earlier versions have no such number.
NAMES = 2
_PRINTS_RECORD = (
    "The prompt prints the whole record ({{ record }}): any field that is added, renamed or edited changes what is\n"
    "asked. A prompt that names its fields, like {{ text }}, depends on these alone."
)
_REFRESHED = "{} changed in fields that no prompt uses, and the files show that"
_REORDERED = (
    "{} changed in nothing but the order of the fields and kept the label, at no cost (the prompt prints the whole "
    "record, in the new order from now on; a prompt that names its fields does not depend on the order)"
)
#: Parts of the manifest that record what was done to the run. Each session carries them over.
_CARRIED_OVER = ("renames", "history")
#: Parts of the fingerprint that affect how an answer is read, and not only what is asked.
_READ_AGAIN = frozenset({"tools", "call", "rows", "max_turns", "reply", "validators"})


def stamps_of(sources: Sequence[Source]) -> list[Stamp | None]:
    """Return what differs when the inputs do, without reading them."""
    return [source.stamp() for source in sources]


def fingerprint_of(settings: Settings, task: Task, sources: Sequence[Source]) -> dict[str, Any]:
    """Return what decides the labels, in named, readable parts."""
    return {
        **task.fingerprint,
        **voters_of(settings, task),
        "input": input_identity(settings, sources),
        "simulated": is_simulated(settings),
    }


def manifest_of(
    settings: Settings,
    task: Task,
    sources: Sequence[Source],
    before: Mapping[str, Any] | None,
    overrides: Sequence[str] | None,
    stamps: Sequence[Stamp | None],
) -> dict[str, Any]:
    """Return the manifest that is written when a session begins. `reading` is how `verify` reads the input again.

    `stamps` were taken before anything of the inputs was read, so that later changes are noticed.
    `overrides` are those of the config, if the settings have more (as a pilot's do).
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "labelpipe": __version__,
        "created_at": (before or {}).get("created_at", now),
        "session_at": now,
        "reading": reading_of(settings, sources),
        "started_by": run_origin_facts(settings, overrides),
        "simulated": is_simulated(settings) or bool((before or {}).get("simulated")),
        "fingerprint": fingerprint_of(settings, task, sources),
        "columns": settings.output.columns,
        "label_columns": list(task.columns),
        "names": NAMES,
        "sources": stamps,
        **{name: before[name] for name in _CARRIED_OVER if before and name in before},
        # For people; without secrets. The config file may have changed, or be gone, by then.
        "config": to_toml(settings),
    }


def job_digest(settings: Settings, task: Task, sources: Sequence[Source]) -> str:
    """Return a digest of what a shard asks, equal for all shards of a run."""
    return codec.digest128(codec.canonical(fingerprint_of(settings, task, sources))).hex()


@dataclass(frozen=True, slots=True)
class RunChanges:
    """The differences between the folder's run and the settings.

    `parts` are those of the task; `reading` covers which input it is and how it is read. `match` is the result of
    comparing the records; None if nothing indicates a difference, or if they can be read only once. `each_usd` is the
    average cost of a record so far, None if unknown; `paid` is how many outcomes a call was made for (the others cost
    nothing). `prints_record`: the prompt prints the whole record, so all of its fields count.
    `is_other_task` and `has_other_voters` also apply if no record has an outcome yet.
    """

    parts: Sequence[Change]
    reading: Sequence[Change]
    match: MatchCounts | None
    done: int
    each_usd: float | None = None
    paid: int | None = None
    prints_record: bool = False
    is_other_task: bool = False
    has_other_voters: bool = False

    def __bool__(self) -> bool:
        """Whether the user must choose: a label would be thrown away, or paid for again."""
        match = self.match or MatchCounts()
        # If a few records are gone, it is still the same input; if most are gone, it is another.
        is_other = bool(self.reading) or match.gone > match.stays + match.changed
        return bool(self.parts or match.changed or (match.gone and is_other) or self.cannot_match)

    @property
    def cannot_match(self) -> bool:
        """Whether records may have other names now and cannot be compared before the run."""
        return bool(self.reading) and self.match is None

    def refuse(self, run_dir: RunDir, *, relabel: bool, keep: bool) -> None:
        """Raise ChangedError if the user must choose and has not, or has chosen the impossible."""
        if not self or relabel or (keep and not self.cannot_match):
            return
        message = self.describe(run_dir)
        if keep:
            message += (
                "\n\n--keep cannot find out which record is which: this input can be read only once. Write it to a "
                "file, and name that."
            )
        raise ChangedError(message)

    def describe(self, run_dir: RunDir) -> str:
        """Describe the differences and options."""
        match = self.match or MatchCounts()
        lines = [f"{run_dir.path} holds a run that was made with other settings:"]
        for part in (*self.parts, *self.reading):
            lines += ["", *part.lines()]
        if match.changed:
            keys = _key_list(match.changed_keys, match.changed)
            lines += ["", f"input: {_records(match.changed)} with an outcome and changed content: {keys}"]
            lines += [_PRINTS_RECORD] if self.prints_record else []
        if match.gone:
            keys = _key_list(match.gone_keys, match.gone)
            lines += ["", f"input: {_records(match.gone)} with a label cannot be found in it: {keys}"]
        return "\n".join([*lines, "", *self._ways(match)])

    def _ways(self, match: MatchCounts) -> Iterator[str]:
        everything = bool(self.parts) or self.match is None
        again = self.done if everything else match.changed
        touched = self.done if everything else match.changed + match.gone
        yield f"It affects {touched:,} of {self.done:,} records that have an outcome. Nothing was sent. Choose:"
        if again:
            paid = again if self.paid is None else min(again, self.paid)
            cost = "" if self.each_usd is None else f", about {dollars(again * self.each_usd)}"
            price = f"the answers to {_records(paid)} are paid for again{cost}" if paid else "none of them was paid for"
            yield f"  --relabel   label them again ({price})"
        nothing_stays = bool(match.gone) and not match.stays + match.changed
        if nothing_stays:
            yield "  (none of the labelled records is in the input as it is read now: look at input.key and input.path)"
        elif not self.cannot_match:
            yield "  --keep      keep the labels of the records that are there and continue with the rest"
        if match.gone and not nothing_stays:
            yield "              (the rows of the others leave the files; the ledger keeps their answers)"
        yield "  --output    start a separate run in another folder"
        if any(part.part in _READ_AGAIN for part in self.parts):
            yield "If the stored answers are right and only their reading has changed (schema, validators, columns):"
            yield "  labelpipe replay   reads them again, makes no call and costs nothing; then run with --keep"

    def notes(self) -> list[str]:
        """Return what became of a changed input, if it has more than new records."""
        match = self.match or MatchCounts()
        counts = [
            (match.renamed, "{} moved and kept the label (found by content)"),
            (match.refreshed, _REORDERED if self.prints_record else _REFRESHED),
            (match.fixed, "{} without a label changed and will be asked again"),
            (match.back, "{} came back with the label it had"),
            (
                match.gone + match.dropped,
                "{} left the input, and their rows were removed from the files (the ledger keeps them)",
            ),
        ]
        lines = [text.format(_records(count)) for count, text in counts if count]
        if lines and match.fresh:
            lines.append(f"{_records(match.fresh)} {'is' if match.fresh == 1 else 'are'} new")
        return [f"The input has changed since the last session: {'; '.join(lines)}."] if lines else []


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"


def _key_list(keys: Sequence[str], count: int) -> str:
    return ", ".join(keys) + (" ..." if count > len(keys) else "")


async def find_changes(
    settings: Settings,
    task: Task,
    sources: Sequence[Source],
    manifest: Mapping[str, Any],
    ledger: Ledger,
    stamps: Sequence[Stamp | None] | None = None,
) -> RunChanges:
    """Compare. Reads the input only if its stamps, or how it is read, differ from the manifest."""
    now = fingerprint_of(settings, task, sources)
    done = sum((await ledger.count_by_status()).values())
    before = manifest["fingerprint"]
    differs = diff(_without_input(before), _without_input(now))
    parts = differs if done else []
    reading = changes_of_input(manifest, now["input"]) if done else []
    stamps = stamps_of(sources) if stamps is None else stamps
    trust = manifest.get("names") == NAMES
    # Inputs without a stamp, like the rows of a query, must be read.
    same = trust and not reading and None not in stamps and stamps == manifest.get("sources")
    match = None
    if not same and await ledger.last_seq() and not any(source.single_pass for source in sources):
        match = await _match(settings, task, sources, ledger, trust=trust, ask_alike=not parts)
    each_usd = await _each_usd(settings, ledger)
    changes = RunChanges(
        parts,
        reading,
        match,
        done,
        each_usd,
        prints_record=task.prints_record,
        is_other_task=bool(differs),
        has_other_voters=_has_other_voters(before, now),
    )
    return replace(changes, paid=await ledger.count_paid()) if changes else changes


def _has_other_voters(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a saved vote may now be another voter's. Voters at the end may come and go."""
    votes = [one.get("votes", {"votes": 1}) for one in (before, now)]
    old, new = (one.get("voters") or [None] * (one["votes"] - 1) for one in votes)
    return any(a != b for a, b in zip(old, new, strict=False))


async def _each_usd(settings: Settings, ledger: Ledger) -> float | None:
    totals, done = await ledger.totals(), sum((await ledger.count_by_status()).values())
    records = done + totals.archived
    known = records and totals.cost_usd and not totals.unpriced and not is_simulated(settings)
    return totals.cost_usd / records if known else None


def _without_input(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in fingerprint.items() if name != "input"}


async def _match(
    settings: Settings, task: Task, sources: Sequence[Source], ledger: Ledger, *, trust: bool, ask_alike: bool
) -> MatchCounts:
    """Find each record's outcome: by its name and content, by its content, or by its current request."""
    await ledger.match_begin()
    async with aclosing(read(sources, settings, every=True)) as batches:
        async for batch in batches:
            if settings.input.key is not None:
                # If a key came before, the first record's outcome is not the second's.
                batch = renamed(batch, await find_repeated(ledger, batch))  # noqa: PLW2901
            await ledger.match_add(batch, trust=trust)
    await ledger.begin_pass()
    # If a file is a record, its content is in no field, so only the digest can show that it is the same.
    is_whole = all(source.format != "files" for source in sources)
    if await ledger.match_by_content(trust=trust or not is_whole) and is_whole:
        after = -1
        while block := await ledger.match_unpaired(after):
            after = block[-1].record.ordinal
            await ledger.match_pair(*_compare_block(block, task if ask_alike else None))
        await ledger.match_by_request()
    return await ledger.match_counts()


def _compare_block(
    block: Sequence[UnmatchedRecord], task: Task | None
) -> tuple[list[tuple[int, int]], list[tuple[int, bytes]]]:
    """Return which records match the outcome of their name, by fields or request, and the others' requests.

    Without a task, because that has changed, a record matches if it has only additional fields.
    """
    pairs, requests = [], []
    for one in block:
        at, record = one.record.ordinal, one.record
        digest = _request_of(record, task)
        same = digest == one.request_digest if digest is not None else _has_all(record.fields, one.fields)
        if one.seq is not None and (same or codec.canonical(record.fields) == codec.canonical(one.fields)):
            pairs.append((at, one.seq))
        elif digest is not None:
            requests.append((at, digest))
    return pairs, requests


def _request_of(record: Record, task: Task | None) -> bytes | None:
    try:
        return None if task is None else task.render(record).digest
    except RenderError:
        return None


def _has_all(fields: Mapping[str, JSON], before: Mapping[str, JSON]) -> bool:
    return all(
        name in fields and codec.canonical(fields[name]) == codec.canonical(value) for name, value in before.items()
    )


async def accept_changes(changes: RunChanges, ledger: Ledger, *, relabel: bool, keep: bool) -> None:
    """Carry out what the user chose, and what needs no choice."""
    if changes.is_other_task:
        await ledger.invalidate_canaries(votes=changes.has_other_voters)
    if relabel and (changes.parts or changes.cannot_match):
        await ledger.archive(Selection(), "relabel")
    elif changes.match is not None:
        await ledger.match_apply(keep=keep)
