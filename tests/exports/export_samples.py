"""Run folders with outcomes of one's choice, without a run; and what an export wrote."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import DataExport, Outcome, Record, Status, export
from pipeline.codec import digest64, dumps
from pipeline.store import Layout, Ledger, RunDir

NAMES = ("train", "val", "test")


def labelled(
    number: int, fields: Mapping[str, Any], label: Any = "a", *, key: str | None = None, rows: Any = None
) -> Outcome:
    """A record with its label."""
    name = f"r{number:05}" if key is None else key
    record = Record("in.csv", number, name, fields, number + 2, digest64(dumps(fields)))
    values = label if isinstance(label, dict) else {"label": label}
    return Outcome(record, Status.LABELLED, values, rows=rows)


def made(folder: Path, outcomes: Sequence[Outcome], *, prompt: str = "{{ text }}", **layout: Any) -> Path:
    """A run folder that holds these outcomes; given again, it is the same run with more of them."""
    folder.mkdir(exist_ok=True)
    manifest = {
        "labelpipe": "0",
        "simulated": False,
        "session_at": "2026-11-30T00:00:00+00:00",
        "reading": {"key": "id", "base": "."},
        "fingerprint": {"prompt": prompt, "model": "some-model"},
        "label_columns": list(layout.get("labels", ("label",))),
    }
    RunDir(folder).write_manifest(manifest)

    async def fill() -> None:
        async with await Ledger.open(folder / "ledger.db") as ledger:
            await ledger.run_id()
            grown = Layout(**{"labels": ("label",), **layout}).grown(outcomes)
            await ledger.meta_set("layout", grown.to_text())
            there = await ledger.known([one.record.key for one in outcomes])
            await ledger.commit([one for one in outcomes if one.record.key not in there])

    asyncio.run(fill())
    return folder


def exported(run: Path, to: Path, **options: Any) -> DataExport:
    """An export into a folder."""
    done = export(run, to, **options)
    assert isinstance(done, DataExport)
    return done


def read(folder: Path, kind: str = "csv") -> dict[str, list[dict[str, Any]]]:
    """The rows of each file."""
    return {path.stem: rows_of(path) for path in sorted(folder.glob(f"*.{kind}"))}


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    csv.field_size_limit(10**9)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def where(folder: Path, field: str = "id", kind: str = "csv") -> dict[str, str]:
    """The split of each record."""
    return {str(row[field]): name for name, rows in read(folder, kind).items() for row in rows}


def texts(numbers: Iterable[int]) -> list[str]:
    """Texts that share nothing but a few words."""
    words = [
        f"{syllable}{tail}" for syllable in ("kar", "mil", "tov", "zen", "pul", "gra") for tail in ("a", "en", "ost")
    ]
    found = []
    for number in numbers:
        state = number * 7919 + 13
        chosen = []
        for _ in range(12):
            state = (state * 1103515245 + 12345) % 2**31
            chosen.append(words[state // 65536 % len(words)] + str(state % 97))
        found.append(" ".join(chosen))
    return found
