"""`try`: a new prompt or model on some records of an old run, before all of it is paid for again."""

import heapq
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import ChangedError, SetupError
from pipeline.measure.compare import CompareOptions, compare
from pipeline.measure.gold_pairs import BLOCK
from pipeline.parts import card_of, override_settings, sample_rank, task_of, validate_prompt, validate_settings
from pipeline.runner import RunOptions, arun
from pipeline.settings import Settings
from pipeline.show import codes_text
from pipeline.stats import RunSummary
from pipeline.store import Ledger, RunDir
from pipeline.targets import run_and_manifest

#: What the folder of a trial is called after, where the config would write into the run that it is tried against.
SUFFIX = "-try"
#: The keys of the records that are tried, in the folder of the trial.
KEYS = "try.jsonl"
#: The column of keys where the input has none of its own.
_KEY = "key"


@dataclass(frozen=True, slots=True)
class TryOptions:
    """How a config is tried.

    `n`            how many records are drawn from those that the old run has labelled
    `seed`         another seed draws others; the same one the same, and a larger `n` adds to them
    `relabel`      label them again where the folder holds a trial of another prompt; its answers are archived
    `differences`  the file into which the records are written on which the runs differ
    `quiet`        show no progress
    """

    n: int = 50
    seed: int = 0
    relabel: bool = False
    differences: str | Path | None = None
    quiet: bool = True


async def try_config(
    settings: Settings,
    against: str | Path,
    options: TryOptions | None = None,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Label some records of a run with other settings, and compare; as plain values. This makes calls.

    The answers are kept in the run folder of the settings, so that a run there does not pay for them again; where that
    is the old run's, in a folder beside it. `tell` hears what begins. Raises SetupError.
    """
    options = options or TryOptions()
    old, manifest = run_and_manifest(against)
    settings = _with_own_folder(settings, old)
    validate_settings(settings)
    validate_prompt(task_of(settings))
    new = RunDir(Path(settings.output.dir))
    keys = await _draw_keys(old, options.n, options.seed)
    reading = manifest.get("reading") or {}
    if reading.get("key") != settings.input.key:
        raise SetupError(
            f"{old.path} names its records by {_describe_key(reading.get('key'))}, and the config by "
            f"{_describe_key(settings.input.key)}: set input.key to the same field"
        )
    before = await _count_known(new, keys)
    tell(
        f"labels {len(keys):,} records of {old.path} with {settings.model.name}, {before:,} of them done before; "
        f"the answers are kept in {new.path}"
    )
    summary = await _label(settings, new, keys, options)
    if not summary.labelled:
        none = f"is it the input of {old.path}? It seems to have none of the records that were drawn; "
        why = codes_text(summary.problems) or f"{none if not summary.calls else ''}{summary.reason}"
        raise SetupError(f"no record was labelled, so nothing can be compared: {why}")
    facts = await compare(old.path, new.path, options=CompareOptions(differences=options.differences), keys=keys)
    return {
        **facts,
        "tried": {
            "drawn": len(keys),
            "seed": options.seed,
            "known_before": before,
            "calls": summary.calls,
            "ended": summary.ended,
            "reason": summary.reason,
            "exit_code": 0 if summary.ended == "complete" else summary.exit_code,
            "next_step": _next_command(settings),
        },
    }


def _describe_key(key: str | None) -> str:
    return "their place" if key is None else repr(key)


def _with_own_folder(settings: Settings, old: RunDir) -> Settings:
    """The settings with a folder of their own."""
    folder = Path(settings.output.dir)
    if folder.resolve() != old.path.resolve():
        return settings
    if (card := card_of(settings)) is not None:  # it asks as the old run does
        RunDir(Path(f"{folder}{SUFFIX}")).write_server(card)
    return override_settings(settings, {"output.dir": f"{folder}{SUFFIX}"})


def _next_command(settings: Settings) -> str:
    """What labels all records and keeps the answers of the trial; empty where a program gave the settings."""
    if settings.config_path is None:
        return ""
    words = ["labelpipe", "run", str(settings.config_path)]
    for override in settings.overrides()[0]:
        if not override.startswith("output.dir"):
            words += ["--set", override]
    origin = settings.origins().get("output.dir")
    if origin is not None and origin.kind != "file":
        words += ["--output", settings.output.dir]
    return shlex.join(words)


async def _draw_keys(old: RunDir, n: int, seed: int) -> list[str]:
    """The keys of records that have a label, drawn at random. Raises SetupError where there are none."""
    sample: list[tuple[int, str]] = []
    async with await Ledger.open(old.ledger, read_only=True) as ledger:
        seq = 0
        while rows := await ledger.labels_after(seq, BLOCK):
            seq = rows[-1].seq
            marks = ((sample_rank(row.key, seed), row.key) for row in rows if row.label is not None)
            sample = heapq.nsmallest(n, (*sample, *marks))
    if not sample:
        raise SetupError(f"{old.path}: no record has a label, so there is nothing to compare with")
    return [key for _, key in sample]


async def _count_known(new: RunDir, keys: Sequence[str]) -> int:
    """How many of the records have an outcome already."""
    if not new.ledger.exists():
        return 0
    async with await Ledger.open(new.ledger, read_only=True) as ledger:
        return len(await ledger.known(keys))


async def _label(settings: Settings, new: RunDir, keys: Sequence[str], options: TryOptions) -> RunSummary:
    """A session about these records only. Somebody waits for it: neither for its hours nor for tomorrow."""
    column = settings.input.key or _KEY
    path = new.path / KEYS
    with new.open_for_writing():
        path.write_bytes(b"".join(codec.dumps({column: key}) + b"\n" for key in keys))
    ready = override_settings(
        settings,
        {
            "input.keys": str(path),
            "input.limit": None,
            "input.sample": None,
            "limits.run_between": None,
            "limits.stop_at": None,
            "limits.on_day_limit": "stop",
            "notify.url": None,
            "notify.command": None,
        },
    )
    options_of_run = RunOptions(
        quiet=options.quiet, title="try", relabel=options.relabel, overrides=settings.overrides()[0]
    )
    try:
        return await arun(ready, options_of_run)
    except ChangedError as error:
        raise ChangedError(
            f"{error}\n\nTo try the new settings in the same folder: labelpipe try ... --relabel"
        ) from error
