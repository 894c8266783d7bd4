"""Stops a run if its answers are paid for and the first records get too few labels, for one reason."""

from collections import Counter
from collections.abc import Callable, Mapping

from pipeline.errors import LabelpipeError, NoLabelError
from pipeline.records import Answer, Outcome, Status

#: Records that are asked before the decision. If one label in ten is valid, this many in a row without one is no
#: chance.
FIRST_RECORDS = 40
#: The share of the records without a label that must have the same reason.
ONE_REASON = 0.75
#: The most characters of an answer in a message.
SHOWN_CHARS = 300

#: What is likely to fix it, by the reason's code.
TO_CHANGE: Mapping[str, str] = {
    "no_tool_call": 'Set model.tool_choice = "required", or "schema" where it is that, or use another model',
    "invalid_json": "Use another model, or set model.strict = true where the server knows it",
    "invalid_label": "Look at task.labels, the function's schema and the validators: they refuse what the model says",
    "truncated": "Raise model.parameters.max_completion_tokens, or lower model.parameters.reasoning_effort",
    "refused": "Look at task.prompt and task.system, or use another model in model.name: it declines to answer",
    "unfinished": "Raise task.max_turns, or tell the model in task.system when it is done",
    "callback_error": "Fix the function in task.callback; the answers are kept, and labelpipe replay uses them",
    "bad_request": "Look at task.prompt and at the model in model.name: the server refuses each of these records",
    "too_large": "Shorten task.prompt, or lower model.parameters.max_completion_tokens: no request fits the limit",
    "timeout": "Raise model.timeout_s, or lower limits.concurrency",
    "record_deadline": "Raise limits.max_attempts or model.timeout_s, or lower limits.concurrency",
    "unavailable": "Look at the server's own log, and at model.parameters: it answers none of these records",
}


class FirstRecordsBreaker:
    """Stops a run that pays and gets no labels. `share` returns the current `limits.stop_rejected`."""

    def __init__(self, share: Callable[[], float], stop: Callable[[LabelpipeError], None]) -> None:
        self._share = share
        self._stop = stop
        # Mutable state: whether the run has proved that it works, how many were asked, and why they got no label.
        self.is_off = False
        self._count = 0
        self._codes: Counter[str] = Counter()

    def ended(self, outcome: Outcome) -> None:
        """Note the outcome of a record."""
        if self.is_off or not outcome.attempts:
            return
        self._count += 1
        if outcome.status is not Status.LABELLED and outcome.problem is not None:
            self._codes[outcome.problem.code] += 1
        share, without = self._share(), self._codes.total()
        if self._count < FIRST_RECORDS:
            self.is_off = share >= 1 and without < self._count
        elif without < share * self._count or not share:
            self.is_off = True
        elif outcome.problem is not None and self._codes[outcome.problem.code] >= ONE_REASON * without:
            self._stop(self._error(outcome, outcome.problem.code, without))

    def _error(self, outcome: Outcome, code: str, without: int) -> NoLabelError:
        first = "none" if without == self._count else f"only {self._count - without}"
        sentences = [f"{first} of the first {self._count} records got a label, for one reason: {code}"]
        sentences += [TO_CHANGE[code]] if code in TO_CHANGE else []
        sentences += last_of(outcome)
        return NoLabelError(". ".join(sentences), reason=code)


def last_of(outcome: Outcome) -> list[str]:
    """Describe the last record without a label, and how to let such a run continue."""
    assert outcome.problem is not None
    sentences = [f"The last one: {outcome.problem.message.rstrip('.')}"]
    sentences += [] if outcome.answer is None else [f"Its answer as it came: {_excerpt(outcome.answer)}"]
    return [*sentences, "limits.stop_rejected = 0 lets such a run continue"]


def _excerpt(answer: Answer) -> str:
    """Return the beginning of the answer, calls first."""
    parts = [f"{call.name}({call.arguments})" for call in answer.calls]
    words = " ".join(filter(None, [*parts, answer.text, answer.refusal]))
    return repr(words if len(words) <= SHOWN_CHARS else words[:SHOWN_CHARS] + "...") if words else "nothing at all"
