"""How the reader tests read: from real files, in any chunk size."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from hypothesis import settings

from pipeline.readers import TextDialect, read_records, resolve_sources
from pipeline.records import Record

#: for property tests: the machine may be busy with other things
unhurried = settings(deadline=None)


def read_files(path: str | Sequence[str], base: Path, **choices: Any) -> list[Record]:
    names = ("encoding", "delimiter", "quote", "header", "escape", "records", "skip_lines", "skip_initial_space")
    said = {name: choices.pop(name) for name in names if name in choices}
    own = choices.pop("own", None)
    dialect = TextDialect(**said)
    sources = resolve_sources(path, format=choices.pop("format", "auto"), base=base, dialect=dialect, run_dir=own)

    async def main() -> list[Record]:
        found: list[Record] = []
        async with aclosing(read_records(sources, **choices)) as batches:
            async for batch in batches:
                assert 0 < len(batch) <= choices.get("batch", 256)
                found += batch
        return found

    return asyncio.run(main())


def read_bytes(data: bytes, name: str, **choices: Any) -> list[Record]:
    """The records of a file of these bytes and this name."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(data)
        return read_files(name, Path(folder), **choices)


def fields(records: list[Record]) -> list[Any]:
    return [record.fields for record in records if record.problem is None]


def troubles(records: list[Record]) -> list[tuple[int, str]]:
    """Line and message of each record with a problem."""
    return [(record.line, record.problem.message) for record in records if record.problem]
