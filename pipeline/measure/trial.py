"""`try`: tries a new prompt or model on some records of an old run, before a full run is paid for."""

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
from pipeline.targets import merged_run_and_manifest

#: The suffix of a trial's folder, if the config would write into the run that it is compared with.
SUFFIX = "-try"
#: The file in the trial's folder with the keys of its records.
KEYS = "try.jsonl"
#: The column of keys if the input has none of its own.
_KEY = "key"


@dataclass(frozen=True, slots=True)
class TryOptions:
    """The options of `try`.

    `n`            how many records to draw from those that the old run has labeled
    `seed`         the same seed draws the same records, and a larger `n` adds to them; another seed draws others
    `relabel`      label the records again if the folder has a trial of another prompt; its answers are archived
    `differences`  the file for the records on which the runs differ
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
    """Label some records of a run with other settings, and compare; return plain values. Makes calls.

    The answers are kept in the run folder of the settings, so that a run there does not pay for them again; if that is
    the old run's, in a folder next to it. `tell` receives a message at the start. Raises SetupError.
    """
    options = options or TryOptions()
    old, manifest = await merged_run_and_manifest(against)
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
    """Return the settings with a folder of their own."""
    folder = Path(settings.output.dir)
    if folder.resolve() != old.path.resolve():
        return settings
    if (card := card_of(settings)) is not None:  # same server, model, and API as the old run
        RunDir(Path(f"{folder}{SUFFIX}")).write_server(card)
    return override_settings(settings, {"output.dir": f"{folder}{SUFFIX}"})


def _next_command(settings: Settings) -> str:
    """Return the command that labels all records and reuses the trial's answers; empty for settings from Python."""
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
    """Draw the keys of records that have a label. Raises SetupError if there are none."""
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
    """Return how many of the records already have an outcome."""
    if not new.ledger.exists():
        return 0
    async with await Ledger.open(new.ledger, read_only=True) as ledger:
        return len(await ledger.known(keys))


async def _label(settings: Settings, new: RunDir, keys: Sequence[str], options: TryOptions) -> RunSummary:
    """Run a session with only these records. Somebody waits for it, so it does not wait for hours or the next day."""
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
