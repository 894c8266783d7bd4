"""Settings -> the inputs of a run, what the manifest says of them, and the same inputs again for `verify`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.readers import Given, Query, Source, given_source, resolve_sources
from pipeline.settings import Settings, variable
from pipeline.store import RunDir

#: what the manifest says instead of paths where a program gave the records
GIVEN = "records from Python"


def sources_of(settings: Settings, records: Given | None = None) -> list[Source]:
    """The inputs, found and numbered; `records` that a program gives stand for all others. Raises SetupError."""
    if records is not None:
        return [given_source(records)]
    settings.need_input()
    wanted, hidden = settings.input, settings.hidden_address()
    return resolve_sources(
        settings.inputs() if hidden is None else hidden,
        format=wanted.format,
        base=Path(),
        query=_query(wanted.query, wanted.table),
        secret=hidden is not None,
    )


def _query(select: str | None, table: str | None) -> Query | None:
    return None if select is None and table is None else Query(select, table)


def named_of(settings: Settings, sources: Sequence[Source]) -> dict[str, Any]:
    """What names the input, for the comparison with an earlier run: nothing that may be a secret."""
    wanted = settings.input
    more = {"query": wanted.query, "table": wanted.table, "url_env": wanted.url_env}
    return {
        "path": GIVEN if _is_given(sources) else wanted.path,
        "key": wanted.key,
        "encoding": wanted.encoding,
        **{name: value for name, value in more.items() if value is not None},
    }


def _is_given(sources: Sequence[Source]) -> bool:
    return any(source.format == "records" for source in sources)


def reading_of(settings: Settings, sources: Sequence[Source]) -> dict[str, Any]:
    """How `verify` reads the input again. An address out of the environment stays there."""
    wanted, folder = settings.input, Path(settings.output.dir).absolute()
    given, hidden = _is_given(sources), wanted.url_env is not None
    found: dict[str, Any] = {
        "paths": [] if given else settings.inputs(),
        "base": os.path.relpath(Path.cwd(), folder),
        "format": wanted.format,
        "key": wanted.key,
        "encoding": wanted.encoding,
        "limit": wanted.limit,
        "query": wanted.query,
        "table": wanted.table,
    }
    if hidden and not given:
        config = settings.config_path
        found |= {"url_env": wanted.url_env, "config": config and os.path.relpath(config.absolute(), folder)}
    return found


def can_be_read_again(manifest: Mapping[str, Any]) -> bool:
    """Whether the input is there for a second reading: stdin and what a program gave is not."""
    reading = manifest.get("reading", {})
    paths = reading.get("paths")
    return bool(reading.get("url_env")) or (bool(paths) and "-" not in paths)


def sources_again(run_dir: RunDir, reading: Mapping[str, Any]) -> list[Source]:
    """The inputs of a run, as its manifest says. Raises SetupError."""
    name = reading.get("url_env")
    return resolve_sources(
        [_address(name, run_dir, reading)] if name else reading["paths"],
        format=reading["format"],
        base=run_dir.path / reading["base"],
        query=_query(reading.get("query"), reading.get("table")),
        secret=bool(name),
    )


def _address(name: str, run_dir: RunDir, reading: Mapping[str, Any]) -> str:
    config = reading.get("config")
    found = variable(name, run_dir.path / config if config else None)
    if found is None:
        raise InputError(f"input.url_env: {name} is not set: put {name}=... into the environment or .env")
    return found[0].get_secret_value()
