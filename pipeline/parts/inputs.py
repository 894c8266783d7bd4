"""Finds the inputs of the settings, describes them for the manifest, and finds them again for `verify`."""

import os
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, MissingInputError
from pipeline.parts.selection import InputSelection, select_records, selection_of
from pipeline.readers import (
    Query,
    ReadProgress,
    RecordInput,
    Records,
    Source,
    TextDialect,
    iterable_source,
    read_records,
    resolve_sources,
)
from pipeline.settings import InputSettings, Settings, variable
from pipeline.store import Change, RunDir, diff
from pipeline.threads import in_daemon

#: What the manifest contains instead of paths if a program passed the records.
GIVEN = "records from Python"
#: The keys of [input] that decide how many of its records are taken.
_HOW_MANY = {"limit", "sample", "seed", "keys", "shard"}
#: The config value for no such character, or no such list.
_NONE = "none"


def sources_of(settings: Settings, records: RecordInput | None = None) -> list[Source]:
    """Find and number the inputs; `records` from a program replace all others. Raises SetupError."""
    if records is not None:
        return [iterable_source(records)]
    settings.need_input()
    hidden = settings.hidden_address()
    paths = settings.inputs() if hidden is None else hidden
    try:
        return resolve_inputs(paths, settings.input, Path(), Path(settings.output.dir), secret=hidden is not None)
    except MissingInputError as error:
        folder = settings.config_path and settings.config_path.absolute().parent
        if folder in (None, Path.cwd()):
            raise
        raise MissingInputError(f"{error} It is not beside the config either ({folder}).") from error


def input_settings(path: str, sets: Sequence[str]) -> tuple[Settings, list[str]]:
    """Return settings only for reading a file that is not in a config, and the keys that `sets` names."""
    # Nothing is asked, so the prompt and the model are dummies.
    stub: dict[str, Any] = {"task": {"prompt": "-", "labels": {"label": ["a", "b"]}}, "model": {"name": "-"}}
    settings = Settings.load(None, sets, input={"path": path}, **stub)
    return settings, [key for key, origin in settings.origins().items() if origin.kind == "--set"]


def resolve_inputs(
    paths: str | Sequence[str], options: InputSettings, base: Path, own: Path | None, *, secret: bool
) -> list[Source]:
    has_query = options.query is not None or options.table is not None
    query = Query(options.query, options.table) if has_query else None
    header = tuple(options.header) if isinstance(options.header, list) else options.header
    quote, escape, records = (
        "" if sign == _NONE else sign for sign in (options.quote, options.escape, options.records)
    )
    dialect = TextDialect(
        options.encoding,
        options.delimiter,
        quote,
        header,
        escape,
        records,
        skip_lines=options.skip_lines,
        skip_initial_space=options.skip_initial_space,
    )
    return resolve_sources(
        paths, format=options.format, base=base, query=query, secret=secret, dialect=dialect, run_dir=own
    )


async def read(
    sources: Sequence[Source],
    settings: Settings,
    *,
    progress: ReadProgress | None = None,
    every: bool = False,
) -> Records:
    """Yield the records that the settings choose. Raises ConfigError, InputError.

    With `every`, only `input.where` (and a shard) chooses: the others decide how many are taken this time.
    """
    options = settings.input
    keys_file = None if options.keys is None or every else settings.find(options.keys)
    choice = await selection_of(options, keys_file)
    if every:
        choice = InputSelection(choice.where, shard=choice.shard)
    async with aclosing(_read(sources, options, choice, progress or ReadProgress())) as batches:
        async for records in batches:
            yield records


def _read(
    sources: Sequence[Source],
    options: InputSettings,
    choice: InputSelection,
    progress: ReadProgress,
    *,
    left_out: bool = False,
) -> Records:
    if choice.takes_all:
        return read_records(sources, key=options.key, limit=choice.limit, progress=progress)
    return select_records(sources, choice, key=options.key, progress=progress, left_out=left_out)


def input_identity(settings: Settings, sources: Sequence[Source]) -> dict[str, Any]:
    """Return which input it is and how it is read, to compare with an earlier run. Contains no secrets.

    This includes every option of [input], even future ones, because each affects how a record is read or, as `where`,
    whether it exists. Options for how many records are taken this time do not.
    """
    options = settings.input.model_dump(mode="json", exclude=_HOW_MANY)
    identity = {name: value for name, value in options.items() if not _is_usual(name, value)}
    if any(source.single_pass and source.path for source in sources):
        identity["path"] = [source.name for source in sources]  # the path of a pipe differs each time
    return {"path": None, "key": None} | identity | ({"path": GIVEN} if _is_from_program(sources) else {})


def _is_usual(name: str, value: Any) -> bool:
    # UTF-8 was once the default encoding, and most inputs without an encoding are in UTF-8.
    return value == _usual(name) or (name, value) == ("encoding", "utf-8")


def _usual(name: str) -> Any:
    return InputSettings.model_fields[name].default if name in InputSettings.model_fields else None


def changes_of_input(manifest: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Return the differences between a manifest's input and this one."""
    before = dict(manifest["fingerprint"].get("input") or {})
    # Earlier versions recorded the format with the paths, and defaults too.
    before.setdefault("format", manifest.get("reading", {}).get("format"))
    if before.get("quote") == "":
        before["quote"] = _NONE
    before = {name: value for name, value in before.items() if not _is_usual(name, value)}
    names = dict.fromkeys(["path", "key", *before, *now])
    old, new = ({name: each.get(name, _usual(name)) for name in names} for each in (before, now))
    return diff({"input": old}, {"input": new})


def _is_from_program(sources: Sequence[Source]) -> bool:
    return any(source.format == "records" for source in sources)


def reading_of(settings: Settings, sources: Sequence[Source]) -> dict[str, Any]:
    """Return how `verify` reads the input again. Addresses from variables are not saved."""
    options, folder = settings.input, Path(settings.output.dir).absolute()
    from_program, hidden = _is_from_program(sources), options.url_env is not None
    reading: dict[str, Any] = {
        "paths": [] if from_program else settings.inputs(),
        "once": any(source.single_pass for source in sources),
        "base": os.path.relpath(Path.cwd(), folder),
        **options.model_dump(mode="json", exclude={"path", "url_env"}),
    }
    if options.keys is not None:
        reading["keys"] = str(settings.find(options.keys))
    if hidden and not from_program:
        config = settings.config_path
        reading |= {"url_env": options.url_env, "config": config and os.path.relpath(config.absolute(), folder)}
    return reading


def can_be_read_again(manifest: Mapping[str, Any]) -> bool:
    """Whether the input can be read a second time, unlike stdin, a pipe, or records from a program."""
    reading = manifest.get("reading", {})
    paths = reading.get("paths")
    return bool(reading.get("url_env")) or (bool(paths) and "-" not in paths and not reading.get("once"))


def is_elsewhere(manifest: Mapping[str, Any]) -> bool:
    """Whether a second reading would use addresses or databases. The run folder may be from somebody else."""
    reading = manifest.get("reading", {})
    return bool(reading.get("url_env")) or any("://" in str(path) for path in reading.get("paths") or ())


async def read_again(run_dir: RunDir, reading: Mapping[str, Any], *, left_out: bool = False) -> Records:
    """Yield the records of a run's input, by its manifest. Raises SetupError.

    With `left_out`, also those that the run does not take, with the problem LEFT_OUT.
    """
    names = InputSettings.model_fields.keys() - {"path", "url_env"}
    options = InputSettings(**{name: reading[name] for name in names & reading.keys()})
    name = reading.get("url_env")
    paths = [_address(name, run_dir, reading)] if name else reading["paths"]
    base = run_dir.path / reading["base"]
    sources = await in_daemon(lambda: resolve_inputs(paths, options, base, run_dir.path, secret=bool(name)))
    choice = await selection_of(options, None if options.keys is None else base / options.keys)
    async with aclosing(_read(sources, options, choice, ReadProgress(), left_out=left_out)) as batches:
        async for batch in batches:
            yield batch


def _address(name: str, run_dir: RunDir, reading: Mapping[str, Any]) -> str:
    config = reading.get("config")
    setting = variable(name, run_dir.path / config if config else None)
    if setting is None:
        raise InputError(f"input.url_env: {name} is not set: put {name}=... into the environment or .env")
    return setting[0].get_secret_value()
