"""Finds what a command refers to: a config, its run folder or the reverse, or the latest run."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, SetupError
from pipeline.settings import Settings
from pipeline.store import Ledger, RunDir
from pipeline.units import shorten_list

#: A config is a page or two. A larger file that is not named *.toml is data.
CONFIG_BYTES_MAX = 1_000_000
#: Folders that are searched for configs if a name does not exist.
CONFIG_FOLDERS = ("", "config", "configs")
SHOWN_MAX = 6


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """How a run was started, from its manifest.

    `config` is the file, None if Python gave the settings; `overrides` were given in addition; `hidden` are the keys of
    overrides that hold a secret and were not stored; `base` is the folder in which the run was started.
    """

    config: Path | None
    base: Path
    overrides: Sequence[str] = field(default=())
    hidden: Sequence[str] = field(default=())


def run_origin_facts(settings: Settings, overrides: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what the manifest stores to find the config again. `overrides` replace the settings' own."""
    folder, config = Path(settings.output.dir).absolute(), settings.config_path
    words, hidden = settings.overrides()
    return {
        "config": None if config is None else os.path.relpath(config.absolute(), folder),
        "said": list(words if overrides is None else overrides),
        "said_hidden": list(hidden),
    }


def run_origin_of(folder: Path) -> RunOrigin:
    """Return how the run in this folder was started. Raises SetupError if the manifest is missing or lacks it."""
    manifest = RunDir(folder).read_manifest()
    if manifest is None:
        raise SetupError(f"{folder}: this run folder has no manifest.json, so its config is not known: name the config")
    origin: Any = manifest.get("started_by")
    if not isinstance(origin, dict):
        raise SetupError(
            f"{folder}: the run was started by an older labelpipe, which did not store its config: name the config"
        )
    config = origin.get("config")
    reading: Any = manifest["reading"]
    return RunOrigin(
        None if config is None else _normalize(folder / config),
        _normalize(folder / reading["base"]),
        origin.get("said", ()),
        origin.get("said_hidden", ()),
    )


def _normalize(path: Path) -> Path:
    """Return the path without `..`, and relative if it is below the current directory."""
    plain = Path(os.path.normpath(path.absolute()))
    return plain.relative_to(Path.cwd()) if plain.is_relative_to(Path.cwd()) else plain


# -- a name -> a config ----------------------------------------------------------------------------------------------


def load_settings(named: str | Path, overrides: Sequence[str] = (), **direct: Any) -> Settings:
    """Load the settings of a config, or those that the run in a folder was started with. Raises SetupError.

    For a run folder, the current directory becomes the one in which the run was started, so that its relative paths
    mean the same files.
    """
    path = Path(named)
    if is_run(path):
        return _settings_of_run(path, overrides, direct)
    if looks_like_config(path):
        return Settings.load(path, overrides, **direct)
    raise SetupError(_no_config(path))


@contextmanager
def run_settings(folder: Path) -> Iterator[Settings]:
    """Yield the settings of the run in a folder, in the current directory in which it was started."""
    with chdir(Path.cwd()):
        yield load_settings(folder)


def _settings_of_run(folder: Path, overrides: Sequence[str], direct: Mapping[str, Any]) -> Settings:
    run_origin = run_origin_of(folder)
    if run_origin.config is None:
        raise SetupError(f"{folder}: the run was started from Python, without a config file: call run again there")
    if not run_origin.config.is_file():
        raise SetupError(
            f"{folder}: the run was started with {run_origin.config}, which no longer exists: name its config"
        )
    override_keys = {text.partition("=")[0].strip() for text in overrides}
    if missing := [key for key in run_origin.hidden if key not in override_keys]:
        again = " ".join(f"--set {key}=..." for key in missing)
        raise SetupError(
            f"{folder}: the run was started with {', '.join(missing)} set to values that are not stored. "
            f"Give them again: {again}"
        )
    config, base = run_origin.config.absolute(), run_origin.base
    dir_ = {"dir": str(folder)} if base == Path() else {"dir": os.path.relpath(folder.absolute(), base.absolute())}
    if base != Path():
        os.chdir(base)
    tables = {name: dict(table) for name, table in direct.items()}
    tables["output"] = {**dir_, **tables.get("output", {})}
    return Settings.load(_normalize(config), [*run_origin.overrides, *overrides], **tables)


def looks_like_config(path: Path) -> bool:
    """Whether a file is a config, valid or not: by its name, or because it contains one of its tables."""
    if path.suffix == ".toml":
        return path.is_file()
    try:
        if not path.is_file() or path.stat().st_size > CONFIG_BYTES_MAX:
            return False
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return any(name in Settings.model_fields for name in tables)


def _no_config(path: Path) -> str:
    """Explain why this name leads to no config, and what to do."""
    if url_match := re.match(r"([a-z][a-z0-9+]+):/+(?=\w)", str(path)):
        address = f"{url_match[1]}://{str(path)[url_match.end() :]}"
        return f"{address} is not a config. Write a config for what is there first: labelpipe init {address}"
    if not path.exists():
        return describe_missing(path)
    if path.is_file():
        if (around := _run_containing(path)) is not None:
            return f"{path} is a file of the run in {around}. To continue that run, name the folder: {around}"
        return f"{path} is not a config. To label what is in it, write a config for it first: labelpipe init {path}"
    if below := list(runs_below(path)):
        return f"{path} holds no run itself. The runs in it: {shorten_list(below, SHOWN_MAX)}"
    if inside := [file for file in sorted(path.glob("*.toml")) if _has_table(file)]:
        return f"{path} is a folder. The configs in it: {shorten_list(inside, SHOWN_MAX)}"
    return (
        f"{path} is a folder without a run in it, and not a config. "
        f"To label the files in it, write a config first: labelpipe init {path}"
    )


def refuse_as_input(path: str) -> None:
    """Raise SetupError if the named input is a config or a run."""
    named = Path(path)
    if named.suffix == ".toml" and looks_like_config(named):
        raise SetupError(f"{named} is already a config. To label with it: labelpipe run {named}")
    if is_run(named):
        raise SetupError(f"{named} is a run folder. To continue it: labelpipe run {named}")


# -- a name -> a run folder ------------------------------------------------------------------------------------------


def is_run(path: Path) -> bool:
    """Whether the folder contains a run, damaged or not."""
    return any((path / name).is_file() for name in ("manifest.json", "ledger.db"))


def find_run(named: str | Path | None, *, at_work: bool = False) -> Path:
    """Return the run folder for a folder, a file in it, or a config; the latest run without a name.

    `at_work`: prefer a run that is at work now. Raises SetupError, also if two are at work.
    """
    if named is None:
        return _latest(at_work=at_work)
    path = Path(named)
    if is_run(path):
        return path
    if looks_like_config(path):
        return _run_of_config(path)
    if path.is_file() and (around := _run_containing(path)) is not None:
        return around
    if path.is_file():
        raise SetupError(f"{path} is neither a config nor a run folder. {_runs_here()}")
    if path.is_dir():
        below = list(runs_below(path))
        raise SetupError(f"{path}: there is no run here (no manifest.json). {_runs_here(below)}")
    raise SetupError(describe_missing(path))


def run_and_manifest(named: str | Path | None) -> tuple[RunDir, dict[str, Any]]:
    """Return the run that `find_run` finds, and its manifest. Raises SetupError."""
    run_dir = RunDir(find_run(named))
    manifest = run_dir.read_manifest()
    if manifest is None:
        raise SetupError(f"{run_dir.path}: there is no run here (no manifest.json)")
    return run_dir, manifest


async def merged_run_and_manifest(named: str | Path | None) -> tuple[RunDir, dict[str, Any]]:
    """Do the same as `run_and_manifest`, but raise SetupError if all outcomes are in shards that were not merged."""
    run_dir, manifest = run_and_manifest(named)
    if run_dir.has_shards:
        async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
            if not await ledger.last_seq():
                raise SetupError(
                    f"{run_dir.path} is in shards, and their labels are not merged yet. Merge them first, also while "
                    f"they run: labelpipe merge {run_dir.path}"
                )
    return run_dir, manifest


def _run_of_config(config: Path) -> Path:
    others = (run for run in runs_below(Path()) if _config_of(run) == _normalize(config))
    try:
        folder = Path(Settings.load(config).output.dir)
    except ConfigError:
        # The config may be in the middle of an edit, while its run continues.
        if known := sorted(others, key=_started_at):
            return known[-1]
        raise
    if is_run(folder):
        return folder
    if known := list(others):
        raise SetupError(
            f"{config}: there is no run in {folder}. Runs that were started with it: {shorten_list(known, SHOWN_MAX)}"
        )
    raise SetupError(f"{config}: it has no run yet ({folder} is not there). Start one: labelpipe run {config}")


def _config_of(run: Path) -> Path | None:
    with suppress(SetupError):
        return run_origin_of(run).config
    return None


def _run_containing(path: Path) -> Path | None:
    return path.parent if is_run(path.parent) else None


#: Runs that `try` and `plan --rehearse` create within a run: used only if they are named, or if there is nothing else.
_SIDE_RUNS = ("-try", "-rehearsal")


def _latest(*, at_work: bool) -> Path:
    runs_by_age = sorted(runs_below(Path()), key=_started_at)
    if not runs_by_age:
        raise SetupError(f"there is no run in or below {Path.cwd()}: name a run folder or a config")
    working = [run for run in runs_by_age if RunDir(run).is_running()] if at_work else []
    if len(working) > 1:
        raise SetupError(f"several runs are in progress here: {shorten_list(working, SHOWN_MAX)}. Name one of them")
    runs = [run for run in runs_by_age if not run.name.endswith(_SIDE_RUNS)]
    return (working or runs or runs_by_age)[-1]


def _started_at(run: Path) -> float:
    """Return when the run's last session began."""
    with suppress(OSError):
        return (run / "manifest.json").stat().st_mtime
    return 0.0


def runs_below(folder: Path) -> Iterator[Path]:
    """Yield the run folders in this folder, two levels deep, and the folder itself if it is one."""
    for pattern in ("manifest.json", "*/manifest.json", "*/*/manifest.json"):
        yield from sorted(manifest.parent for manifest in folder.glob(pattern) if is_run(manifest.parent))


# -- words -----------------------------------------------------------------------------------------------------------


def describe_missing(path: Path) -> str:
    """Say where a name was searched, and what resembles it."""
    configs, runs = find_configs(), list(runs_below(Path()))
    guess = _closest(path, [*configs, *runs])
    where = f"{path}: no such file or folder (looked for in {path.absolute().parent})."
    if guess is not None:
        return f"{where} Did you mean {guess}?"
    return f"{where} {describe_targets()}"


def find_configs() -> list[Path]:
    """Return the configs of the current directory and of its config folders."""
    files = [file for name in CONFIG_FOLDERS for file in sorted(Path(name).glob("*.toml"))]
    return [file for file in files if _has_table(file)]


def _has_table(file: Path) -> bool:
    """Whether a file is a config and not another program's TOML. A broken one counts: its user looks for it."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return True
    return "task" in tables or "model" in tables


def _closest(path: Path, known: Sequence[Path]) -> Path | None:
    """Return the known path that was most likely meant: by the same last name, else by a similar one."""
    names = {str(one): one for one in reversed(known)} | {one.name: one for one in reversed(known)}
    names |= {one.stem: one for one in reversed(known)}
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    close = close or difflib.get_close_matches(str(path), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def _runs_here(runs: Sequence[Path] = ()) -> str:
    known = list(runs) or list(runs_below(Path()))
    return f"Runs here: {shorten_list(known, SHOWN_MAX)}" if known else "No folder below the current one holds a run"


def describe_targets() -> str:
    """List the configs and runs that could be meant here."""
    configs, runs = find_configs(), sorted(runs_below(Path()), key=_started_at, reverse=True)
    if not configs and not runs:
        return "There is no config here yet: `labelpipe init FILE` writes one for the file you want to label."
    sentences = [f"Configs here: {shorten_list(configs, SHOWN_MAX)}."] * bool(configs) + [
        f"Runs here: {shorten_list(runs, SHOWN_MAX)}."
    ] * bool(runs)
    return " ".join(sentences)
