"""What a run folder was made of, and what has changed since: told before anything is spent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline import __version__
from pipeline.engine import renamed
from pipeline.errors import ChangedError
from pipeline.readers import Source
from pipeline.records import Record
from pipeline.runner.inputs import changes_of_input, named_of, read, reading_of
from pipeline.runner.keys import repeated_in
from pipeline.runner.parts import is_simulated
from pipeline.settings import Settings
from pipeline.store import Change, Known, Ledger, RunDir, Selection, diff
from pipeline.targets import origin_to_keep
from pipeline.task import Task


def fingerprint_of(settings: Settings, task: Task, sources: Sequence[Source]) -> dict[str, Any]:
    """What decides the labels, in named parts that a person can read."""
    return {
        **task.fingerprint,
        "input": named_of(settings, sources),
        "simulated": is_simulated(settings),
    }


def manifest_of(
    settings: Settings,
    task: Task,
    sources: Sequence[Source],
    before: Mapping[str, Any] | None,
    said: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What is written into the run folder when a session begins. `reading` is how `verify` reads the input again.

    `said` is what was said beside the config, where the settings say more (a pilot's do).
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "labelpipe": __version__,
        "created_at": (before or {}).get("created_at", now),
        "session_at": now,
        "reading": reading_of(settings, sources),
        "started_by": origin_to_keep(settings, said),
        "simulated": is_simulated(settings) or bool((before or {}).get("simulated")),
        "fingerprint": fingerprint_of(settings, task, sources),
        "columns": settings.output.columns,
        "label_columns": list(task.columns),
        "sources": [source.stamp() for source in sources],
    }


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between the folder's manifest and the settings.

    `changed_keys` are records with another content; `moved` says whether any has another place in the input.
    """

    parts: Sequence[Change]
    changed_keys: Sequence[str]
    moved: bool
    done: int

    def __bool__(self) -> bool:
        return bool(self.parts or self.changed_keys)

    def told(self, run_dir: RunDir) -> str:
        """The difference and the ways on, for a person."""
        lines = [f"{run_dir.path} holds a run that was made otherwise:"]
        for part in self.parts:
            lines.append("")
            lines += part.lines()
        if self.changed_keys:
            shown = ", ".join(self.changed_keys[:5]) + (" ..." if len(self.changed_keys) > 5 else "")
            lines += ["", f"input: {_records(len(self.changed_keys))} with an outcome read otherwise now: {shown}"]
        touched = self.done if self.parts else len(self.changed_keys)
        lines += [
            "",
            f"It touches {touched:,} of {self.done:,} records that have an outcome. Nothing was sent. Choose:",
            f"  --relabel   label them again (the answers to {_records(touched)} are paid for again)",
            "  --keep      keep what is there and go on with the rest",
            "  --output    another folder, for a run of its own",
        ]
        return "\n".join(lines)


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"


async def find_changes(
    settings: Settings, task: Task, sources: Sequence[Source], manifest: Mapping[str, Any], ledger: Ledger
) -> Changes:
    """Compare. The input is read through only where a file's size or time differs from the manifest's."""
    now = fingerprint_of(settings, task, sources)
    parts = diff(_without_input(manifest["fingerprint"]), _without_input(now))
    parts += changes_of_input(manifest, now["input"])
    counts = await ledger.count_by_status()
    done = sum(counts.values())
    stamps = [source.stamp() for source in sources]
    changed: list[str] = []
    moved = False
    # What has no stamp, like a query's rows, can only be read through.
    same = None not in stamps and stamps == manifest.get("sources")
    if done and not same and not any(source.once for source in sources):
        async for batch, known in _known_batches(settings, sources, ledger):
            pairs = [(record, known[record.key]) for record in batch if record.key in known]
            changed += [record.key for record, before in pairs if before.digest != record.digest]
            moved |= any(_has_moved(record, before) for record, before in pairs)
    return Changes(parts=parts if done else (), changed_keys=changed, moved=moved, done=done)


def _without_input(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in fingerprint.items() if name != "input"}


async def _known_batches(
    settings: Settings, sources: Sequence[Source], ledger: Ledger
) -> AsyncIterator[tuple[list[Record], dict[str, Known]]]:
    """The input in batches, each with what the ledger knows of its records, by the names that the run gives them."""
    async for batch in read(sources, settings.input):
        if settings.input.key is not None:
            # A key that came before: the first record's outcome is not the second's.
            batch = renamed(batch, await repeated_in(ledger, batch))  # noqa: PLW2901
        yield batch, await ledger.known([record.key for record in batch])
    await ledger.forget_seen()


def _has_moved(record: Record, before: Known) -> bool:
    return (record.ordinal, record.line, record.source) != (before.ordinal, before.line, before.source)


async def follow_moves(settings: Settings, sources: Sequence[Source], ledger: Ledger) -> None:
    """Give the outcomes the places that their records have now: rows in the input's order go by them."""
    async for batch, known in _known_batches(settings, sources, ledger):
        moved = [record for record in batch if record.key in known and _has_moved(record, known[record.key])]
        if moved:
            await ledger.update_places(moved)


async def accept_changes(changes: Changes, run_dir: RunDir, ledger: Ledger, *, relabel: bool, keep: bool) -> None:
    """Carry out what the user chose. Raises ChangedError where nothing was chosen."""
    if not changes or keep:
        return
    if not relabel:
        raise ChangedError(changes.told(run_dir))
    keys = None if changes.parts else changes.changed_keys
    await ledger.supersede(Selection(keys=keys), "relabel")
