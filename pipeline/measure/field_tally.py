"""Counts one label field against gold, with the measures for its kind."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pipeline.gold import NONE, MeasuredField, as_class, as_number, as_set, class_name
from pipeline.quality import (
    Calibration,
    ClassScore,
    NumberTally,
    SetTally,
    TextTally,
    class_scores,
    cohen_kappa,
    macro_f1,
    normalize_text,
    weighted_f1,
    wilson,
)
from pipeline.records import JSON

#: The label field that counts as the model's own confidence, if it is a number.
CONFIDENCE = "confidence"
#: The share of votes for a label, which can serve as a confidence.
AGREEMENT = "agreement"
#: The most distinct gold values that are no label of the task (further ones are one class), and how many are reported.
FOREIGN_MOST, FOREIGN_SHOWN = 1_000, 20
OTHERS = "(other values)"
#: The most spellings of classes that are cached, so that each is parsed only once.
_REMEMBERED = 10_000
#: With fewer ordered classes, all pairs are kept for a rank correlation, however often each occurs.
_FEW = 300


class FieldTally:
    """Counts one label field of the records that have gold."""

    def __init__(self, field: MeasuredField, column: str) -> None:
        self.field, self.column = field, column
        # Mutable state: the results of the comparison, by kind; records of gold without a label, by status and by code;
        # gold values that are no label, or no number; and the confidences.
        self.n = self.right = 0
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.sets: SetTally[str] = SetTally()
        self.numbers = NumberTally()
        self.texts = TextTally()
        self.unlabelled: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.foreign: Counter[str] = Counter()
        self.examples = self.excluded = self.no_value = 0
        self.calibration = Calibration()
        self._classes: dict[str, str] = {}
        self._order = field.order if field.is_ordered else {}
        ways: Mapping[str, Callable[[JSON, JSON, int], bool | None]] = {
            "set": self._add_set,
            "number": self._add_number,
            "text": self._add_text,
        }
        self._compare = ways.get(field.kind, self._add_class)

    @property
    def counts_alike(self) -> bool:
        """Whether identical records may be counted together.

        The last digit of a sum of fractions depends on their order, and so does the sample of many distinct numbers.
        """
        order = self._order.values()
        return self.field.kind not in ("set", "number") and len(order) < _FEW and all(x == int(x) for x in order)

    def without_label(self, status: str, code: str | None, times: int = 1) -> None:
        """Count one or more records of gold that have no label."""
        self.unlabelled[status] += times
        self.codes[code or status] += times

    def add(self, gold: JSON, label: JSON, confidence: float | None = None, times: int = 1) -> bool | None:
        """Count a record's gold value and label; return whether they are equal. None: they cannot be compared.

        `times` above 1 counts identical records together: only if `counts_alike`, and without a confidence.
        """
        is_right = self._compare(gold, label, times)
        if is_right is None:
            return None
        self.n += times
        self.right += is_right * times
        if confidence is not None:
            self.calibration.add(confidence, is_right)
        return is_right

    def _add_class(self, gold: JSON, label: JSON, times: int) -> bool:
        right = self._known(self._class_of(gold), times)
        answer = NONE if label is None else class_name(label)
        self.pairs[right, answer] += times
        if right in self._order and answer in self._order:
            self.numbers.add(self._order[right], self._order[answer], times)
        return right == answer

    def _class_of(self, gold: JSON) -> str:
        if not isinstance(gold, str):
            return as_class(self.field, gold)
        class_ = self._classes.get(gold)
        if class_ is None:
            class_ = as_class(self.field, gold)
            if len(self._classes) < _REMEMBERED:
                self._classes[gold] = class_
        return class_

    def _known(self, name: str, times: int) -> str:
        """Return the class, and count it if the task has no such label. Beyond FOREIGN_MOST, all are one class."""
        if self.field.values and name not in self.field.values:
            if name not in self.foreign and len(self.foreign) >= FOREIGN_MOST:
                name = OTHERS
            self.foreign[name] += times
        return name

    def _add_set(self, gold: JSON, label: JSON, times: int) -> bool:
        right = frozenset(self._known(name, times) for name in as_set(self.field, gold))
        items = label if isinstance(label, list) else [] if label is None else [label]
        answer = frozenset(class_name(item) for item in items if item is not None)
        self.sets.add(right, answer, times)
        return right == answer

    def _add_number(self, gold: JSON, label: JSON, times: int) -> bool | None:
        right, answer = as_number(gold), as_number(label)
        if right is None:
            self.foreign[_limited_name(self.foreign, class_name(gold))] += times
            return None
        if answer is None:
            self.no_value += times
            return False
        self.numbers.add(right, answer, times)
        return right == answer

    def _add_text(self, gold: JSON, label: JSON, times: int) -> bool:
        right, answer = class_name(gold), "" if label is None else class_name(label)
        self.texts.add(right, answer, times)
        return right == answer

    # -- results --------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Return the figures as plain values, for JSON."""
        low, high = wilson(self.right, self.n)
        return {
            "column": self.column,
            "kind": "ordered" if self._order and self.field.kind == "class" else self.field.kind,
            "n": self.n,
            "right": self.right,
            "accuracy": self.right / self.n if self.n else None,
            "accuracy_low": low if self.n else None,
            "accuracy_high": high if self.n else None,
            "kappa": cohen_kappa(self.pairs),
            "macro_f1": None,
            "weighted_f1": None,
            "classes": {},
            **self._by_kind(),
            "unlabelled": {"n": self.unlabelled.total(), **self.unlabelled, "codes": dict(self.codes.most_common())},
            "examples": self.examples,
            "set_aside": self.excluded,
            "no_label": self._no_label(),
            "calibration": self._calibration(),
        }

    def _by_kind(self) -> dict[str, Any]:
        match self.field.kind:
            case "set":
                classes = self.sets.classes(self.field.values)
                return _class_facts(classes) | {
                    "subset_accuracy": self.right / self.n if self.n else None,
                    "micro_f1": self.sets.micro.f1 if self.n else None,
                    "jaccard": self.sets.jaccard,
                }
            case "number":
                return _number_facts(self.numbers) | {"no_value": self.no_value}
            case "text":
                n = self.texts.n
                exact, alike = self.texts.exact, self.texts.alike
                return {"exact": exact / n if n else None, "normalised": alike / n if n else None}
            case _:
                return self._of_class()

    def _of_class(self) -> dict[str, Any]:
        scores = _class_facts(class_scores(self.pairs, self.field.values))
        confusion: dict[str, dict[str, int]] = {name: {} for name in scores["classes"]}
        for (gold, label), count in self.pairs.most_common():
            confusion[gold][label] = count
        scores["confusion"] = {name: row for name, row in confusion.items() if row}
        if self._order:
            scores |= _number_facts(self.numbers)
            order = [name for name in self.field.values if name in scores["classes"]]
            inside = {pair: n for pair, n in self.pairs.items() if pair[0] in self._order and pair[1] in self._order}
            scores["quadratic_kappa"] = cohen_kappa(inside, order)
        return scores

    def _no_label(self) -> dict[str, Any]:
        """Return gold values that are no label, each with the label it equals but for case, white space, or renames."""
        alike = {normalize_text(name): name for name in (*self.field.former, *self.field.values)}
        values = dict(self.foreign.most_common(FOREIGN_SHOWN))
        matches = {value: alike[normalize_text(value)] for value in values if normalize_text(value) in alike}
        like = {value: self.field.former.get(name, name) for value, name in matches.items()}
        return {"n": self.foreign.total(), "values": values, "like": like}

    def _calibration(self) -> dict[str, Any] | None:
        calibration = self.calibration
        if not calibration.n and not calibration.left_out:
            return None
        return {
            "n": calibration.n,
            "left_out": calibration.left_out,
            "expected_error": calibration.expected_error(),
            "brier": calibration.brier(),
            "temperature": calibration.temperature(),
            "isotonic": None if (isotonic := calibration.isotonic()) is None else asdict(isotonic),
            "bins": [asdict(one) for one in calibration.bins()],
        }


def _class_facts(classes: Mapping[str, ClassScore]) -> dict[str, Any]:
    return {
        "macro_f1": macro_f1(classes),
        "weighted_f1": weighted_f1(classes),
        "classes": {name: asdict(one) for name, one in classes.items()},
    }


def _number_facts(numbers: NumberTally) -> dict[str, Any]:
    n = numbers.n
    return {
        "mae": numbers.mae,
        "rmse": numbers.rmse,
        "within_one": numbers.within_one / n if n else None,
        "spearman": numbers.spearman,
        "spearman_n": numbers.ranked,
    }


def _limited_name(known: Mapping[str, int], name: str) -> str:
    return name if name in known or len(known) < FOREIGN_MOST else OTHERS
