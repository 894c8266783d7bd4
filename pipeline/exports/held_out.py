"""Reads the records that must not be trained on: those of a gold file, and the run's own gold."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.exports.exported_run import ExportedRun
from pipeline.exports.near_duplicates import comparable_text
from pipeline.exports.selection import Selection
from pipeline.parts import gold_source
from pipeline.readers import key_from_value, read_records
from pipeline.targets import run_settings


@dataclass(frozen=True, slots=True)
class HeldOutGold:
    """Records by their keys, and by their normalized texts."""

    keys: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    def holds(self, key: str, text: str) -> bool:
        """Whether the record with this key and text is one of them."""
        return key in self.keys or (bool(self.texts) and comparable_text(text) in self.texts)


async def load_held_out(
    path: str | Path | None, run: ExportedRun, selection: Selection, sets: Sequence[str] = ()
) -> HeldOutGold:
    """Read the records of a gold file, and the run's own gold. Raises SetupError for a file without key and text."""
    own = await _own_gold(run, selection)
    if path is None:
        return own
    gold = await _read(Path(path), run, selection, sets)
    if not gold.keys and not gold.texts:
        names = " or ".join(map(repr, _names(run)))
        raise SetupError(f"--gold {path}: none of its records has a key; expected the column {names}")
    return HeldOutGold(gold.keys | own.keys, gold.texts | own.texts)


async def _own_gold(run: ExportedRun, selection: Selection) -> HeldOutGold:
    """Read the gold of [quality]: its records by their texts if it has the prompt's fields, otherwise by their keys."""
    canary_texts = [selection.text_of(outcome.record.fields) for outcome in await run.ledger.canaries()]
    texts = frozenset(map(comparable_text, canary_texts)) if selection.texts else frozenset[str]()
    path = _file_of(run)
    if path is None or not path.is_file():
        return HeldOutGold(texts=texts)
    gold = await _read(path, run, selection)
    return HeldOutGold(texts=texts | gold.texts) if gold.texts else HeldOutGold(gold.keys, texts)


def _file_of(run: ExportedRun) -> Path | None:
    """Return the gold file of the run's config; None if there is none, or the config is gone."""
    with suppress(SetupError), run_settings(run.folder.path.absolute()) as settings:
        name = settings.quality.gold
        return None if name is None else settings.find(name).absolute()
    return None


def _names(run: ExportedRun) -> list[str]:
    return list(dict.fromkeys(name for name in (run.key, "key") if name is not None))


async def _read(path: Path, run: ExportedRun, selection: Selection, sets: Sequence[str] = ()) -> HeldOutGold:
    """Read keys from the run's key field or `key`, and texts from the fields by which records are compared."""
    keys, texts = set[str](), set[str]()
    source = await asyncio.to_thread(gold_source, str(path), sets, _names(run))
    async with aclosing(read_records([source])) as batches:
        async for batch in batches:
            for record in batch:
                keys |= {name for field in _names(run) if (name := key_from_value(record.fields.get(field)))}
                if selection.texts and all(name in record.fields for name in selection.texts):
                    texts.add(comparable_text(selection.text_of(record.fields)))
    return HeldOutGold(frozenset(keys), frozenset(texts - {""}))
