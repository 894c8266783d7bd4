"""Defines draws, people's answers about labels, and the resulting corrections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline import codec
from pipeline.records import JSON


@dataclass(frozen=True, slots=True)
class Draw:
    """A set of records that were drawn together.

    `spec` describes the draw in plain values, and `seed` is its random seed. `purpose` is review, certify, or another
    word. With `blind`, the model's label is not shown. `population` is the number of records to draw from, and `digest`
    identifies their keys. `at` is a Unix time. `add_draw` sets `id`.
    """

    seed: int
    spec: Mapping[str, JSON]
    purpose: str
    population: int
    digest: str
    blind: bool = False
    at: float = 0.0
    id: int = 0


@dataclass(frozen=True, slots=True)
class DrawItem:
    """One record of a draw.

    `probability` is its chance of being in this draw, above 0 and at most 1. `stratum` is the group that it was drawn
    from, or empty if there is only one. `answer` is the last valid answer in this draw, or None if there is none yet.
    """

    key: str
    probability: float
    stratum: str = ""
    position: int = 0
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's answer about one record.

    `about` is the digest of the model's label (`label_digest`) in the ledger at that time. `record` and `request` are
    the record's `digest` and `request_digest` at that time, and show whether its content is still the same.

    `old` is the label fields as in the rows, with corrections; None for a record without a label. `new` is the fields
    that the person filled in, with their values; the person did not answer the other fields. None confirms the label as
    it is; an empty mapping confirms no field (the person only left a note).

    `unclear` means that the guideline is unclear. `draw` is the id of the draw that it answers, or None.
    `takes_back` is the id of an earlier answer that no longer counts; such an answer contains nothing else.
    `add_answers` sets `id`, which grows with each answer, and `at`, a Unix time, unless it is set.
    """

    key: str
    by: str
    about: str
    old: Mapping[str, JSON] | None = None
    new: Mapping[str, JSON] | None = None
    record: int | None = None
    request: bytes | None = None
    blind: bool = False
    unclear: bool = False
    note: str = ""
    draw: int | None = None
    takes_back: int | None = None
    at: float = 0.0
    id: int = 0

    @property
    def fields(self) -> Mapping[str, JSON]:
        """The label fields whose values this person has confirmed or set; empty if there are none."""
        return (self.old or {}) if self.new is None else self.new


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answered record is after its input changed: its key, and the digests of its content and request."""

    answer: int
    key: str
    record: int | None
    request: bytes | None


@dataclass(frozen=True, slots=True)
class Correction:
    """A record's label according to people: the last value of each field, and who gave the last answer, and when.

    `record` and `request` are the digests of the content and the request that it is about. `answer` is the id of the
    last answer, and `answers` are the ids of all answers that count. `is_whole` means that every label field has a
    value, so that a record without a label gets a row.
    """

    key: str
    fields: Mapping[str, JSON]
    by: str
    at: float
    record: int | None
    request: bytes | None
    answer: int
    answers: tuple[int, ...]
    is_whole: bool = False


def label_digest(label: Mapping[str, JSON] | None, rows: Sequence[Mapping[str, JSON]] | None = None) -> str:
    """Return the digest of a model's label (`Outcome.label`, `Outcome.rows`), 32 hex digits; equal for equal values."""
    return codec.digest128(codec.canonical([label, list(rows) if rows is not None else None])).hex()


def retraction(answer: Answer, by: str) -> Answer:
    """Return an answer that takes this one back."""
    return replace(answer, by=by, old=None, new={}, unclear=False, note="", takes_back=answer.id, at=0.0, id=0)


def is_same_content(one: Answer | Correction | Place, record: int | None, request: bytes | None) -> bool:
    """Whether a record with these digests has the content that was answered, or sends an identical request."""
    return one.record == record or (request is not None and one.request == request)


def with_answer(before: Correction | None, answer: Answer, place: Place) -> Correction:
    """Return a record's correction with one more answer. Answers about other content no longer count."""
    is_same = before is not None and is_same_content(before, place.record, place.request)
    if before is None or not is_same:
        before = Correction(place.key, {}, "", 0.0, place.record, place.request, 0, ())
    fields = {**before.fields, **answer.fields}
    return replace(
        before,
        fields=fields,
        by=answer.by,
        at=answer.at,
        record=place.record,
        request=place.request,
        answer=answer.id,
        answers=(*before.answers, answer.id),
        # A record without a label gets one only with all of its fields. The code that takes the answer checks this.
        is_whole=before.is_whole or answer.old is None or fields.keys() >= answer.old.keys(),
    )
