"""Renames labels in the ledger, the output files, and the user's own files, without a call.

The manifest records the plan before anything changes, and the completion after everything has. A second call finishes
what a kill interrupted, and no session starts before that.
"""

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, RenderError, SetupError
from pipeline.labelfields import LabelField, Rename, Renamed, json_identity, plain_choices, renamer
from pipeline.parts import FileEdit, edit_of, file_edits, label_fields, open_sinks, panel_of, renamed_pairs, task_of
from pipeline.records import Outcome
from pipeline.runlog import log_event, run_log
from pipeline.runner.corrections import write_late
from pipeline.runner.lanes import refuse_open_batches
from pipeline.runner.sql_export import export
from pipeline.runner.summary import recount_summary
from pipeline.settings import Settings, renamed_example, to_toml
from pipeline.store import Ledger, NewDigest, RunDir, move_changed_files, rename_key, renames_of, write_whole
from pipeline.task import Task

_DONE = "these labels were renamed before"
Pairs = Mapping[Any, Any] | Sequence[tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class _Step:
    """A rename that has begun: the manifest's entry, and the task before and after it, if these are known."""

    rename: Rename
    entry: Mapping[str, Any]
    before: Task | None = None
    after: Task | None = None


async def rename(settings: Settings, column: str, pairs: Pairs, *, dry_run: bool = False) -> Renamed:
    """Rename labels of `column` everywhere in the run and in its config. Makes no call. Raises SetupError.

    Two labels that get the same name are merged. With `dry_run` nothing changes, and the counts are what they would be.
    """
    run_dir = RunDir(Path(settings.output.dir))
    if not run_dir.ledger.exists():
        raise SetupError(f"{run_dir.path}: there is no run here to rename labels in")
    pair_list = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    async with AsyncExitStack() as stack:
        stack.enter_context(run_dir.open_for_writing())
        run_dir.refuse_leftovers()
        run_dir.refuse_shards()
        manifest = run_dir.read_manifest() or {}
        half = half_renamed(manifest)
        if half is not None and not _is_same_rename(half, column, pair_list):
            raise SetupError(describe_half_renamed(run_dir, half))
        ledger = await stack.enter_async_context(await Ledger.open(run_dir.ledger))
        await refuse_open_batches(run_dir, ledger, "labels are renamed")
        target = renames_of({"renames": [half]})[0] if half else renamed_pairs(settings, column, pair_list)
        if half is None and (done := _done_before(settings, manifest, target)) is not None:
            result = _result(settings, run_dir, target, done, (), dry_run=dry_run)
            return replace(result, notes=(*result.notes, _DONE))
        if dry_run:
            edits = [] if half else file_edits(settings, target)
            count, _ = await ledger.before_renaming(target)
            return _result(settings, run_dir, target, count, [str(edit.path) for edit in edits], dry_run=True)
        stack.enter_context(run_log(run_dir.log))
        moved = await move_changed_files(run_dir, ledger)
        step = _Step(target, half) if half else await _begin(settings, run_dir, ledger, manifest, target)
        count = await _in_ledger(settings, ledger, step)
        files = [_apply_edit(run_dir, settings, one, step.rename) for one in step.entry["edits"]]
        renamed = settings.again() if settings.config_path is not None else settings
        task = step.after or task_of(renamed)
        sinks = await open_sinks(renamed, task, run_dir, ledger, moved)
        try:
            await sinks.finish()
        finally:
            await sinks.close()
        await recount_summary(run_dir, ledger, task.columns)
        _finish(run_dir, renamed, step, count)
        log_event("labels renamed", column=column, pairs=step.entry["pairs"], records=count)
    result = _result(renamed, run_dir, step.rename, count, files)
    if renamed.output.sql is not None:
        await export(run_dir.path)
    await write_late(run_dir)
    return result


def half_renamed(manifest: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the entry of an interrupted rename; None if there is none."""
    return next((one for one in (manifest or {}).get("renames", ()) if not one.get("done", True)), None)


def refuse_half_renamed(run_dir: RunDir) -> None:
    """Raise SetupError if a rename was interrupted: parts of the run have the new names, and parts the old ones."""
    if half := half_renamed(run_dir.read_manifest()):
        raise SetupError(describe_half_renamed(run_dir, half))


def describe_half_renamed(run_dir: RunDir, entry: Mapping[str, Any]) -> str:
    """Say how to finish an interrupted rename."""
    words = " ".join(f"{old}={new}" for old, new in entry["pairs"])
    return (
        f"{run_dir.path}: renaming labels was interrupted. Finish it first: "
        f"labelpipe rename {run_dir.path} {entry['column']} {words}"
    )


def _is_same_rename(entry: Mapping[str, Any], column: str, pairs: Sequence[tuple[Any, Any]]) -> bool:
    now = [(str(old), str(new)) for old, new in pairs]
    return entry["column"] == column and [(str(old), str(new)) for old, new in entry["pairs"]] == now


def _done_before(settings: Settings, manifest: Mapping[str, Any], target: Rename) -> int | None:
    """Return how many records the last rename changed, if it was the same and the old names are gone; else None."""
    last = next(iter(reversed(manifest.get("renames", ()))), None)
    is_gone = not _old_names(target) & _names_in_config(settings, target.column)
    return last["records"] if last and is_gone and _is_same_rename(last, target.column, target.pairs) else None


def _old_names(rename: Rename) -> set[tuple[bool, object]]:
    return {json_identity(old) for old, _ in rename.pairs}


def _names_in_config(settings: Settings, column: str) -> set[tuple[bool, object]]:
    return {json_identity(value) for value in label_fields(settings)[column].values}


# -- the beginning ---------------------------------------------------------------------------------------------------


async def _begin(
    settings: Settings, run_dir: RunDir, ledger: Ledger, manifest: Mapping[str, Any], target: Rename
) -> _Step:
    """Check everything that may be wrong, and record the plan. Nothing else changes yet."""
    field = label_fields(settings)[target.column]
    count, latest = await ledger.before_renaming(target)
    _refuse(field, target, count)
    edits = file_edits(settings, target)
    # If the user has already put the new names into the config, the task before is unknown.
    before = task_of(settings) if _old_names(target) & _names_in_config(settings, target.column) else None
    after = task_of(settings, target)
    at = max(time.time(), latest + 0.001)
    rename = Rename(target.column, target.pairs, at)
    entry = {
        "column": rename.column,
        "pairs": [list(pair) for pair in rename.pairs],
        "at": at,
        "done": False,
        "order": list(rename.field(field).values),
        "edits": [_edit_entry(run_dir, edit) for edit in edits],
        "fingerprint": _new_fingerprint(manifest["fingerprint"], before, after, rename),
    }
    run_dir.write_manifest({**manifest, "renames": [*manifest.get("renames", ()), entry]})
    return _Step(rename, entry, before, after)


def _refuse(field: LabelField, target: Rename, count: int) -> None:
    """Raise ConfigError for impossible names; `count` is how many records of the run have an old one."""
    olds = [old for old, _ in target.pairs]
    if not olds:
        raise ConfigError("no labels are named; expected pairs such as account=login")
    for old, new in target.pairs:
        if json_identity(old) == json_identity(new) or olds.count(old) > 1:
            raise ConfigError(f"{old}={new}: a label can have only one new name")
        if isinstance(new, str) and not new.strip():
            raise ConfigError(f"{old}=: the new name is empty")
        if isinstance(new, str) and new != new.strip():
            raise ConfigError(f"{old}={new}: the new name begins or ends with white space; take that out")
    unknown = [old for old in olds if json_identity(old) not in set(map(json_identity, field.values))]
    if unknown and not count:
        there = ", ".join(map(str, field.values))
        raise ConfigError(f"{target.column} has no label {unknown[0]!r}, in the config or in the run; it has {there}")


def _new_fingerprint(
    fingerprint: Mapping[str, Any], before: Task | None, after: Task, rename: Rename
) -> dict[str, Any]:
    """Return the manifest's fingerprint with what the rename changes, and with no other change of the config."""
    adopted = dict(fingerprint)
    for name, new in after.fingerprint.items():
        old = _loosely(fingerprint.get(name), rename) if before is None else fingerprint.get(name)
        was = _loosely(new, rename) if before is None else before.fingerprint.get(name)
        if old == was:
            adopted[name] = new
    return adopted


def _loosely(part: Any, rename: Rename) -> Any:
    """Return a part of a fingerprint with the new names, unique and sorted, and without the labels' meanings."""
    if isinstance(part, list):
        return [_loosely(renamed_example(one, rename.column, renamer(rename.pairs)), rename) for one in part]
    if not isinstance(part, dict):
        return part
    if "enum" in part:
        field = LabelField(choices=plain_choices(part["enum"]))
        values = Rename(rename.column, rename.pairs).field(field).values
        return {"enum": sorted(map(str, values))}
    return {
        name: _loosely(one, rename)
        for name, one in part.items()
        if name != "description" or not isinstance(one, str) or not one.startswith("- ")
    }


def _edit_entry(run_dir: RunDir, edit: FileEdit) -> dict[str, str]:
    path = os.path.relpath(edit.path.absolute(), run_dir.path.absolute())
    return {"path": path, "kind": edit.kind, "before": _digest(edit.before), "after": _digest(edit.after)}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- the steps -------------------------------------------------------------------------------------------------------


async def _in_ledger(settings: Settings, ledger: Ledger, step: _Step) -> int:
    """Rename in the ledger, and update its counts and request digests. Return how many records changed."""
    if (done := await ledger.meta_get(rename_key(step.rename))) is not None:
        return int(done)
    before, after = step.before, step.after
    if after is None and _old_names(step.rename) <= _names_in_config(settings, step.rename.column):
        before, after = task_of(settings), task_of(settings, step.rename)
    new_digest = _new_digest(before, after) if before is not None and after is not None else None
    panel = panel_of(settings, after or task_of(settings))
    recount = None if panel is None else panel.renamed
    return await ledger.rename_labels(step.rename, step.entry["order"], new_digest, recount)


def _new_digest(before: Task, after: Task) -> NewDigest:
    """Return a function for a record's new request digest; None if a callback's keys depend on the old one."""

    def digest(outcome: Outcome) -> bytes | None:
        if before.has_callback and not outcome.record.is_canary:
            return None
        try:
            is_of_before = before.render(outcome.record).digest == outcome.request_digest
            return after.render(outcome.record).digest if is_of_before else None
        except RenderError:
            return None

    return digest


def _apply_edit(run_dir: RunDir, settings: Settings, entry: Mapping[str, str], rename: Rename) -> str:
    """Edit one of the user's files, unless that was done before a kill. Return its path. Raises SetupError."""
    path = Path(os.path.normpath(run_dir.path / entry["path"]))
    now = _digest(path.read_bytes()) if path.is_file() else ""
    if now != entry["after"]:
        edit = edit_of(path, entry["kind"], rename) if now == entry["before"] else None
        if edit is None or _digest(edit.after) != entry["after"]:
            raise SetupError(
                f"{path}: has changed while its labels were being renamed. Put it back as it was before, and give the "
                "same command again"
            )
        mode = path.stat().st_mode
        write_whole(path, edit.after)
        path.chmod(mode)
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


def _finish(run_dir: RunDir, settings: Settings, step: _Step, count: int) -> None:
    manifest = run_dir.read_manifest() or {}
    rename, renames = step.rename, [one for one in manifest.get("renames", ()) if one.get("done", True)]
    done = {name: step.entry[name] for name in ("column", "pairs", "at")}
    done |= {"done": True, "records": count, "done_at": max(time.time(), rename.at)}
    names = ", ".join(f"{old} -> {new}" for old, new in rename.pairs)
    line = {
        "at": datetime.fromtimestamp(rename.at, UTC).isoformat(timespec="seconds"),
        "what": f"renamed labels of {rename.column}: {names}; {count:,} records",
    }
    run_dir.write_manifest(
        {
            **manifest,
            "fingerprint": step.entry["fingerprint"],
            "config": to_toml(settings),
            "renames": [*renames, done],
            "history": [*manifest.get("history", ()), line],
        }
    )


# -- the result ------------------------------------------------------------------------------------------------------


def _result(
    settings: Settings, run_dir: RunDir, rename: Rename, count: int, files: Sequence[str], *, dry_run: bool = False
) -> Renamed:
    return Renamed(
        run_dir=str(run_dir.path),
        column=rename.column,
        pairs=tuple((str(old), str(new)) for old, new in rename.pairs),
        records=count,
        files=tuple(files),
        notes=tuple(_notes(settings, rename)),
        dry_run=dry_run,
    )


def _notes(settings: Settings, rename: Rename) -> list[str]:
    """Return notes on config texts with an old label. Only the user may change these: they are part of the request."""
    task = settings.task
    texts = {"task.system": task.system, "task.prompt": task.prompt, "task.description": task.description}
    texts |= {f"task.validators, number {at}": one.expression for at, one in enumerate(task.validators, 1)}
    notes = []
    for old, _ in rename.pairs:
        keys = [key for key, text in texts.items() if re.search(rf"\b{re.escape(str(old))}\b", text or "")]
        notes += [f"{key} still says {old!r}" for key in keys]
    if settings.quality.gold is not None:
        notes.append(f"quality.gold = {settings.quality.gold!r} keeps its names: rename them there too")
    if settings.config_path is None:
        notes.append("the settings come from a program: put the new names into it")
    return notes
