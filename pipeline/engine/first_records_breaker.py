"""The brake: answers come and are paid for, and the first records have not one label, for one reason."""

from collections import Counter
from collections.abc import Callable, Mapping

from pipeline.errors import LabelpipeError, NoLabelError
from pipeline.records import Answer, Outcome, Status

#: Records that were asked before it is judged: so many in a row are no chance where a label in ten is valid.
FIRST_RECORDS = 40
#: The share of those without a label that one reason must have.
ONE_REASON = 0.75
#: So much of an answer is shown.
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
    """Stops a run that pays and gets no label. `share` is `limits.stop_rejected`, asked anew each time."""

    def __init__(self, share: Callable[[], float], stop: Callable[[LabelpipeError], None]) -> None:
        self._share = share
        self._stop = stop
        # All state that changes: whether the run has shown that it works, how many were asked, and why they got none.
        self.is_off = False
        self._count = 0
        self._codes: Counter[str] = Counter()

    def ended(self, outcome: Outcome) -> None:
        """A record has its outcome."""
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
    """The last record without a label, for the message, and how the user has such a run go on."""
    assert outcome.problem is not None
    sentences = [f"The last one: {outcome.problem.message.rstrip('.')}"]
    sentences += [] if outcome.answer is None else [f"Its answer as it came: {_excerpt(outcome.answer)}"]
    return [*sentences, "limits.stop_rejected = 0 lets such a run continue"]


def _excerpt(answer: Answer) -> str:
    """What the model said, its calls first."""
    parts = [f"{call.name}({call.arguments})" for call in answer.calls]
    words = " ".join(filter(None, [*parts, answer.text, answer.refusal]))
    return repr(words if len(words) <= SHOWN_CHARS else words[:SHOWN_CHARS] + "...") if words else "nothing at all"
