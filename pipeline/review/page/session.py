"""One person's review of a draw: its records, earlier answers about them, and new answers."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline import codec
from pipeline.records import JSON, Outcome
from pipeline.review.cell_values import is_equal
from pipeline.review.page.page_fields import fields_of
from pipeline.review.reviewed_run import ReviewedRun, answer_about, load_reviewed_run, missing_in
from pipeline.store import (
    Answer,
    CorrectionSet,
    Draw,
    DrawItem,
    Ledger,
    Reviews,
    is_same_content,
    label_digest,
    read_corrections,
    retraction,
)
from pipeline.terminal import printable

#: How many records' outcomes are read at once.
CHUNK = 500
#: The most characters of a note.
NOTE_CHARS = 10_000


class RefusedAnswer(ValueError):  # noqa: N818 - what it is called on the page
    """An answer that cannot be saved. The text explains why."""


@dataclass(frozen=True, slots=True)
class LabelSnapshot:
    """The ledger's present state of a record of the draw: the model's label, and the digests of its content."""

    label: Mapping[str, JSON] | None
    record: int | None
    request: bytes | None

    def is_about(self, answer: Answer) -> bool:
        """Whether an answer is about the record as it is now."""
        return is_same_content(answer, self.record, self.request)


class ReviewSession:
    """A draw, the person who reviews it, and the run's ledger, open for reading."""

    def __init__(self, run: ReviewedRun, draw: Draw, items: Sequence[DrawItem], reviews: Reviews, by: str) -> None:
        self.run = run
        self.draw = draw
        self.items = items
        self.by = by
        self._reviews = reviews
        self._place = {item.key: at for at, item in enumerate(items)}
        design: Any = draw.spec.get("certify") or {}
        # A draw of `certify` may continue one of a review, whose answers count here too.
        self._draws = {draw.id, design.get("extends") or draw.id}
        # Mutable state: the label fields and their schema; the answers of this draw by key, the keys that this person
        # has answered outside of it (and so may know the model's label), the answers that were withdrawn, the last one
        # that was read, the labels and the corrections as last read, and how many answers this session has saved.
        self.fields = fields_of(run.columns)
        self._schema = self._schema_now()
        self._answers: dict[str, list[Answer]] = {}
        self.answered_elsewhere: set[str] = set()
        self._retracted: set[int] = set()
        self._last = 0
        self.snapshots: dict[str, LabelSnapshot] = {}
        self._corrected = CorrectionSet()
        self.saved_count = 0
        self._lock = asyncio.Lock()

    async def open(self, ledger: Ledger) -> None:
        """Read the draw's records and answers."""
        self.ledger = ledger
        await self.reload_labels()
        await self.refresh()

    async def reload_labels(self) -> None:
        """Read the labels of all records again: a run may be changing them."""
        keys = [item.key for item in self.items]
        for start in range(0, len(keys), CHUNK):
            self._store_snapshots(await self.ledger.outcomes_of(keys[start : start + CHUNK]))

    async def reload_schema(self) -> None:
        """Read the label fields again if labels were renamed or the run's fields have changed."""
        if (schema := await asyncio.to_thread(self._schema_now)) != self._schema:
            self.run = await load_reviewed_run(self.run.run_dir.path)
            self.fields, self._schema = fields_of(self.run.columns), schema
            for collection in (self._answers, self.answered_elsewhere, self._retracted):
                collection.clear()
            self._last = 0

    async def refresh(self) -> None:
        """Read new answers, by anybody."""
        for answer in await asyncio.to_thread(self._reviews.answers, self._last):
            self._last = max(self._last, answer.id)
            if answer.draw in self._draws and answer.key in self._place:
                self._add(answer)
            elif answer.by == self.by:
                self.answered_elsewhere.add(answer.key)

    # -- earlier answers ---------------------------------------------------------------------------------------------

    def current_answer(self, key: str, *, blind: bool = False) -> Answer | None:
        """Return the last answer in this draw that was not withdrawn; with `blind`, the last blind one."""
        answers = (one for one in reversed(self._answers.get(key, ())) if one.blind or not blind)
        return next((one for one in answers if one.id not in self._retracted), None)

    def has_answered(self, key: str) -> bool:
        """Whether this person has ever answered the record: then the model's label was shown."""
        return any(one.by == self.by for one in self._answers.get(key, ()))

    def may_show_label(self, key: str) -> bool:
        """Whether the model's label may be shown to this person."""
        return not self.draw.blind or self.has_answered(key)

    def counts(self) -> dict[str, int]:
        """Return how many records of the draw are answered, confirmed, corrected, unclear, and answered blind."""
        answers = [one for item in self.items if (one := self.current_answer(item.key)) is not None]
        changed = sum(bool(one.fields) and self.differs(one) for one in answers)
        with_value = sum(bool(one.fields) for one in answers)
        return {
            "records": len(self.items),
            "answered": len(answers),
            "corrected": changed,
            "confirmed": with_value - changed,
            "unclear": sum(one.unclear for one in answers),
            "blind_answers": sum(one.blind for one in answers),
            "given": self.saved_count,
        }

    def differs(self, answer: Answer) -> bool:
        """Whether the answer differs from the model's present label."""
        snapshot = self.snapshots.get(answer.key)
        label = (snapshot.label if snapshot else None) or {}
        return any(not is_equal(label.get(name), value) for name, value in answer.fields.items())

    # -- new answers -------------------------------------------------------------------------------------------------

    async def outcome(self, at: int) -> tuple[Outcome, Outcome]:
        """Return the record's outcome as the model left it, and with people's corrections. Raises RefusedAnswer."""
        key = self.items[at].key
        outcomes = await self.ledger.outcomes_of([key])
        if key not in outcomes:
            raise RefusedAnswer("The record is not in the run any more.")
        self._store_snapshots(outcomes)
        # This reads all answers, so it is done only if there are new ones.
        if await asyncio.to_thread(self._reviews.version) != self._corrected.version:
            self._corrected = await asyncio.to_thread(read_corrections, self.run.run_dir.path)
        return outcomes[key], self._corrected.apply(outcomes[key])

    def version_token(self, outcome: Outcome) -> str:
        """Return a token that changes with the record and its label. In a blind draw it does not reveal the label."""
        label = "" if self.draw.blind else label_digest(outcome.label, outcome.rows)
        return codec.digest128(codec.canonical([outcome.record.digest, label])).hex()

    async def save_answer(self, at: int, body: Mapping[str, Any]) -> Answer:
        """Save this person's answer about a record. When it returns, the answer is on the disk.

        `body` has `fields` (by name, as `PageField.from_page` takes them), `unclear`, `note`, and `mark`. A repeated
        answer is saved only once. Raises RefusedAnswer, StoreError.
        """
        async with self._lock:
            outcome, corrected = await self.outcome(at)
            if await asyncio.to_thread(self._schema_now) != self._schema:
                raise RefusedAnswer(
                    "The labels of the run have changed since this page was opened. Load the page again."
                )
            if body.get("mark") != self.version_token(outcome):
                raise RefusedAnswer("The record or its label has changed in the meantime. Look at it again.")
            await self.refresh()
            answer = self._answer(outcome, corrected.label, body)
            before = self.current_answer(answer.key)
            if before is not None and before.by == self.by and _answer_digest(before) == _answer_digest(answer):
                return before
            [saved] = await asyncio.to_thread(self._reviews.add_answers, [answer])
            await self.refresh()
            self.saved_count += 1
            return saved

    async def undo(self) -> int | None:
        """Withdraw this person's last active answer in the draw; return the record's place, or None without any."""
        async with self._lock:
            await self.refresh()
            mine = [one for answers in self._answers.values() for one in answers if one.by == self.by]
            last = max((one for one in mine if one.id not in self._retracted), key=lambda one: one.id, default=None)
            if last is None:
                return None
            await asyncio.to_thread(self._reviews.add_answers, [retraction(last, self.by)])
            await self.refresh()
            return self._place[last.key]

    def _answer(self, outcome: Outcome, label: Mapping[str, JSON] | None, body: Mapping[str, Any]) -> Answer:
        new = self._values(body.get("fields"), label or {})
        note, unclear = body.get("note", ""), body.get("unclear", False)
        if not isinstance(note, str) or not isinstance(unclear, bool):
            raise RefusedAnswer("The note is not text.")
        if len(note) > NOTE_CHARS:
            raise RefusedAnswer(f"The note has {len(note):,} characters; at most {NOTE_CHARS:,} are allowed.")
        if not new and not unclear and not note.strip():
            raise RefusedAnswer("Nothing was answered: choose a label, or say that the guideline is unclear.")
        if label is None and new and (missing := missing_in(self.run, new)):
            raise RefusedAnswer(f"The record has no label, so it needs a value for {', '.join(missing)} too.")
        old = None if label is None else {name: label.get(name) for name in self.run.names}
        is_right = old is not None and new.keys() == old.keys() and all(is_equal(old[name], new[name]) for name in new)
        answer = answer_about(
            self.run, outcome, label, None if is_right else new, unclear=unclear, note=codec.clean_text(note.strip()),
            by=self.by,
        )  # fmt: skip
        blind = self.draw.blind and not self.has_answered(answer.key) and answer.key not in self.answered_elsewhere
        return replace(answer, blind=blind, draw=self.draw.id)

    def _values(self, sent: Any, old: Mapping[str, JSON]) -> dict[str, JSON]:
        """Return the values by field. A value that comes back as it was shown keeps even its control characters."""
        if not isinstance(sent, dict):
            raise RefusedAnswer("The answer has no fields.")
        known = {printable(field.name): field for field in self.fields}
        values: dict[str, JSON] = {}
        if unknown := [name for name in sent if name not in known]:
            raise RefusedAnswer(f"There is no label field {unknown[0]}.")
        try:
            for name, value in sent.items():
                field = known[name]
                is_same = field.name in old and value == field.to_page(old[field.name])
                values[field.name] = old[field.name] if is_same else field.from_page(value)
        except ValueError as error:
            raise RefusedAnswer(str(error)) from error
        return values

    def _schema_now(self) -> bytes:
        """Return bytes that identify the label fields in the run's manifest, and the number of renames."""
        manifest: Any = self.run.run_dir.read_manifest() or {}
        return codec.canonical([manifest["fingerprint"].get("tools"), len(manifest.get("renames", ()))])

    def _add(self, answer: Answer) -> None:
        if answer.takes_back is not None:
            self._retracted.add(answer.takes_back)
        elif all(one.id != answer.id for one in self._answers.get(answer.key, ())):
            self._answers.setdefault(answer.key, []).append(answer)

    def _store_snapshots(self, outcomes: Mapping[str, Outcome]) -> None:
        for key, one in outcomes.items():
            self.snapshots[key] = LabelSnapshot(one.label, one.record.digest, one.request_digest)


def _answer_digest(answer: Answer) -> bytes:
    """Return a value that is equal for answers with the same content about the same record."""
    return codec.canonical([answer.record, answer.about, dict(answer.fields), answer.unclear, answer.note])
