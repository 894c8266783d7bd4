"""What people have said about one label field of a run: who checked which record, and what they answered blind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.gold import MeasuredField, class_name
from pipeline.quality import normalize_text
from pipeline.records import JSON
from pipeline.store import Answer, ColumnLabel, Correction, Reviews, is_same_content


@dataclass(frozen=True, slots=True)
class HumanAnswers:
    """What stands of people's answers, by the record's key.

    `corrections` are the records that somebody has checked and has a value for. `blind` is the last answer of those who
    had not seen the model's label; `last` the last one of all. Both hold those that say that the guideline is unclear.
    """

    corrections: Mapping[str, Correction]
    blind: Mapping[str, Answer]
    last: Mapping[str, Answer]

    def has_checked(self, one: ColumnLabel) -> bool:
        """Whether a person stands for this record's label, as the record is now."""
        correction = self.corrections.get(one.key)
        return correction is not None and is_same_content(correction, one.record, one.request)

    def values_of(self, one: ColumnLabel, blind: Answer, field: str) -> Iterator[JSON]:
        """What was answered blind, and what stands for the record now: who has seen the label may have changed it."""
        yield blind.fields[field]
        if self.has_checked(one):
            yield self.corrections[one.key].fields[field]

    def blind_answer(self, one: ColumnLabel) -> Answer | None:
        """The blind answer about this record, as the record is now."""
        answer = self.blind.get(one.key)
        return answer if answer is not None and is_same_content(answer, one.record, one.request) else None


def human_answers(reviews: Reviews, field: str, upto: int | None = None) -> HumanAnswers:
    """What people said about this label field, up to a version of the reviews or until now. Waits for the disk."""
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
        # Who says "unclear" after others have answered takes back that it is checked.
        if field in one.fields and not (key in last and last[key].unclear)
    }
    return HumanAnswers(corrections, blind, last)


def is_right(field: MeasuredField, label: JSON, answer: JSON) -> bool:
    """Whether a label says the same as a person: sets without their order, texts apart from case and white space."""
    if isinstance(label, list) and isinstance(answer, list):
        return set(map(class_name, label)) == set(map(class_name, answer))
    if field.kind == "text" and isinstance(label, str) and isinstance(answer, str):
        return normalize_text(label) == normalize_text(answer)
    return class_name(label) == class_name(answer)
