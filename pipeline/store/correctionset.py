"""Applies people's corrections to outcomes. The ledger itself keeps the model's answers."""

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline import codec
from pipeline.errors import SetupError
from pipeline.records import Outcome, Status
from pipeline.store.answers import Correction, Place, is_same_content
from pipeline.store.layout import REVIEWED, Layout
from pipeline.store.projection import RowFormat
from pipeline.store.queries import of_keys, outcomes_of
from pipeline.store.reviews import open_reviews, read_reviews
from pipeline.store.reviewsfile import NAME
from pipeline.store.rows import unbound
from pipeline.store.schema import connect_reader
from pipeline.units import shorten_list


@dataclass(frozen=True, slots=True)
class CorrectionSet:
    """The corrections of a run as of one version of its reviews. With `column`, each row shows who corrected it."""

    version: int = 0
    by_key: Mapping[str, Correction] = field(default_factory=dict)
    column: bool = False

    def apply(self, outcome: Outcome) -> Outcome:
        """Return the outcome with its correction, or unchanged if none applies."""
        correction = self.by_key.get(outcome.record.key)
        if correction is None or misfit(correction, outcome):
            return outcome
        who = {REVIEWED: correction.by} if self.column else {}
        # If the votes asked for a review, a person has done it now.
        voted = isinstance((outcome.label or {}).get("votes"), list) and "needs_review" not in correction.fields
        done = {"needs_review": False} if voted else {}
        label = {**(outcome.label or {}), **done, **correction.fields, **who}
        return replace(outcome, status=Status.LABELLED, label=label, problem=None)

    def apply_all(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Do the same for several outcomes."""
        return list(map(self.apply, outcomes)) if self.by_key else outcomes

    def apply_to_block(self, block: list[tuple[int, Outcome]]) -> list[tuple[int, Outcome]]:
        """Do the same for outcomes with their seqs."""
        return [(seq, self.apply(outcome)) for seq, outcome in block] if self.by_key else block


NOTHING = CorrectionSet()


def misfit(correction: Correction, outcome: Outcome) -> str:
    """Return why a correction does not apply to the outcome of its key, or an empty text."""
    if not is_same_content(correction, outcome.record.digest, outcome.request_digest):
        return "the record has changed since"
    if outcome.rows is not None:
        return "the record has several rows now"
    if outcome.label is None and not correction.is_whole:
        return "the record has no label now, and the correction has no value for some of the columns"
    return ""


def read_corrections(folder: Path, version: int | None = None, *, column: bool = False) -> CorrectionSet:
    """Return the corrections in a run folder as of this version of its reviews, or the latest. Reads the disk."""
    reviews = read_reviews(folder)
    if reviews is None:
        return CorrectionSet(column=column)
    with reviews:
        at = reviews.version() if version is None else version
        return CorrectionSet(at, reviews.corrections(at), column)


async def corrections_for(folder: Path, rows: Layout | RowFormat) -> CorrectionSet:
    """Return the corrections that these rows contain."""
    if not rows.corrected:
        return CorrectionSet(column=rows.reviewed)
    return await asyncio.to_thread(read_corrections, folder, rows.corrected, column=rows.reviewed)


def refuse_lost(folder: Path, rows: Layout | RowFormat) -> None:
    """Raise SetupError if the rows contain corrections from a file of reviews that no longer exists."""
    path = folder / NAME
    if rows.corrected and not path.exists():
        raise SetupError(
            f"{path}: is gone, and the rows of this run have corrections of it. Restore a copy of it. To go on "
            "without them, make an empty file of this name: the rows are then those of the model."
        )


def latest_corrections(ledger: Path, *, column: bool) -> CorrectionSet:
    """Return the latest corrections, after `follow_records`. Reads the disk."""
    folder = ledger.parent
    if not (folder / NAME).exists():
        return CorrectionSet(column=column)
    with closing(connect_reader(ledger)) as connection:
        follow_records(folder, connection)
    return read_corrections(folder, column=column)


@dataclass(frozen=True, slots=True)
class CorrectionsSummary:
    """The number of corrections, a sentence about whether the rows contain them, and how many are unused."""

    count: int
    text: str
    unused: int = 0


def summarize_corrections(ledger: Path, version: int, *, is_waiting: bool) -> CorrectionsSummary | None:
    """Summarize the corrections of a run whose files contain this version of them; None if there are none.

    `is_waiting` means that a file will be rebuilt. Reads the disk.
    """
    corrected = read_corrections(ledger.parent)
    if not corrected.by_key:
        return None
    with closing(connect_reader(ledger)) as connection:
        outcomes = outcomes_of(connection, list(corrected.by_key))
    others: dict[str, list[str]] = {}
    confirmed = 0
    for key, one in corrected.by_key.items():
        why = misfit(one, outcomes[key]) if key in outcomes else "the record has no outcome now"
        if why:
            others.setdefault(why, []).append(key)
        else:
            confirmed += _agrees(one, outcomes[key])
    count, rest = len(corrected.by_key) - confirmed, sum(map(len, others.values()))
    where = "all in the rows"
    if is_waiting or version != corrected.version:
        where = "not all in the rows yet: the end of the session, or the next session, writes them"
    elif rest:
        where = f"{count - rest:,} in the rows"
    unused = "".join(f"; {shorten_list(keys)}: {why}" for why, keys in others.items())
    labels = f"; {confirmed:,} {'label was' if confirmed == 1 else 'labels were'} confirmed" * bool(confirmed)
    return CorrectionsSummary(
        count, f"{count:,} {'correction' if count == 1 else 'corrections'}, {where}{unused}{labels}.", rest
    )


def _agrees(correction: Correction, outcome: Outcome) -> bool:
    """Whether the correction equals the model's label."""
    label = outcome.label or {}
    return all(
        name in label and codec.canonical(label[name]) == codec.canonical(value)
        for name, value in correction.fields.items()
    )


def follow_records(folder: Path, connection: sqlite3.Connection) -> None:
    """Store where corrected records are now, if the input or the prompt has changed. Reads the disk.

    A record with a new key is found by its content, if only one moved record has this content.
    """
    with open_reviews(folder) as reviews:
        corrections = reviews.corrections()
        contents = _contents(connection, list(corrections))
        lost = {
            key: one
            for key, one in corrections.items()
            if key not in contents or not is_same_content(one, *contents[key])
        }
        places = [
            (correction, (key, *contents[key]))
            for key, correction in corrections.items()
            if key not in lost and contents[key] != (correction.record, correction.request)
        ]
        places += _moved(connection, lost) if lost else []
        reviews.add_places([Place(answer, *place) for one, place in places for answer in one.answers])


_Content = tuple[int | None, bytes | None]


def _contents(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, _Content]:
    """Return the digests of content and request for the keys that have an outcome."""
    rows = of_keys(connection, "SELECT key, digest, request_digest FROM outcomes", keys)
    return {unbound(key): (digest, request) for key, digest, request in rows}


def _moved(
    connection: sqlite3.Connection, lost: Mapping[str, Correction]
) -> Iterator[tuple[Correction, tuple[str, int | None, bytes | None]]]:
    """Yield the corrections whose records have a new key, each with its new place."""
    at: dict[int | bytes, list[tuple[str, int, bytes | None]]] = {}
    for key, digest, request in connection.execute(
        "SELECT key, digest, request_digest FROM outcomes WHERE asked_as IS NOT NULL"
    ):
        for content in (digest, request):
            at.setdefault(content, []).append((unbound(key), digest, request))
    for correction in lost.values():
        for content in (correction.record, correction.request):
            if content is not None and len(places := at.get(content, [])) == 1:
                yield correction, places[0]
                break
