"""Reads people's answers about one label field of a run: who checked which record, and the blind answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.gold import MeasuredField, class_name
from pipeline.quality import normalize_text
from pipeline.records import JSON
from pipeline.store import Answer, ColumnLabel, Correction, Reviews, is_same_content


@dataclass(frozen=True, slots=True)
class HumanAnswers:
    """The answers that are in effect, by the record's key.

    `corrections` are the records that somebody has checked and has a value for. `blind` is the last answer by somebody
    who had not seen the model's label; `last` is the last of all. Both include answers that the guideline is unclear.
    """

    corrections: Mapping[str, Correction]
    blind: Mapping[str, Answer]
    last: Mapping[str, Answer]

    def has_checked(self, one: ColumnLabel) -> bool:
        """Whether a person has checked this record's label, and the record has not changed since."""
        correction = self.corrections.get(one.key)
        return correction is not None and is_same_content(correction, one.record, one.request)

    def values_of(self, one: ColumnLabel, blind: Answer, field: str) -> Iterator[JSON]:
        """Yield the blind answer, and the current correction: somebody who saw the label may have changed it."""
        yield blind.fields[field]
        if self.has_checked(one):
            yield self.corrections[one.key].fields[field]

    def blind_answer(self, one: ColumnLabel) -> Answer | None:
        """Return the blind answer about this record, unless the record has changed since."""
        answer = self.blind.get(one.key)
        return answer if answer is not None and is_same_content(answer, one.record, one.request) else None


def human_answers(reviews: Reviews, field: str, upto: int | None = None) -> HumanAnswers:
    """Return people's answers about this label field, up to a version of the reviews or now. Waits for the disk."""
    blind: dict[str, Answer] = {}
    last: dict[str, Answer] = {}
    for answer in reviews.active_answers(upto):
        if answer.unclear or field in answer.fields:
            last[answer.key] = answer
            if answer.blind:
                blind[answer.key] = answer
    corrections = {
        key: one
        for key, one in reviews.corrections(upto).items()
        # A later "unclear" withdraws the check.
        if field in one.fields and not (key in last and last[key].unclear)
    }
    return HumanAnswers(corrections, blind, last)


def is_right(field: MeasuredField, label: JSON, answer: JSON) -> bool:
    """Whether a label equals a person's answer: sets without their order, texts apart from case and white space."""
    if isinstance(label, list) and isinstance(answer, list):
        return set(map(class_name, label)) == set(map(class_name, answer))
    if field.kind == "text" and isinstance(label, str) and isinstance(answer, str):
        return normalize_text(label) == normalize_text(answer)
    return class_name(label) == class_name(answer)
