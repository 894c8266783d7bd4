"""Defines how often and how long a record is asked, and what a call can use."""

from dataclasses import dataclass

from pipeline import codec
from pipeline.limits import TokenBound, prompt_bound
from pipeline.records import Request

#: Without a deadline, the seconds that a record may take beyond its longest calls.
DEADLINE_MORE_S = 60.0


@dataclass(frozen=True, slots=True)
class AskRules:
    """How often and how long a record is asked.

    `hedge_after_p`: at the end of the input, a call that takes longer than this percentile of all is made a second
    time; None: never. `record_s` limits all calls and waits of a record while the gate is open; None: the time of
    `max_attempts` calls of `timeout_s`, plus a minute. `stop_rejected`: the run stops if this share of the first
    records has no label; 0: never. `flex_patience_s` is how long a call waits for capacity at the flex tier before it
    is sent at the standard tier; None: calls do not ask for flex.
    """

    max_attempts: int = 6
    max_repairs: int = 2
    timeout_s: float = 60.0
    hedge_after_p: float | None = None
    record_s: float | None = None
    stop_rejected: float = 1.0
    flex_patience_s: float | None = None

    def deadline_of(self, turns: int) -> float:
        """Return the seconds that a record of at most `turns` turns may take while the gate is open."""
        return self.record_s or turns * self.max_attempts * self.timeout_s + DEADLINE_MORE_S


def most_of(request: Request) -> TokenBound:
    """Return the most that a call can use."""
    # The JSON of media has only their names, which does not show their cost.
    prompt = prompt_bound(len(codec.dumps((request.messages, request.tools)))) + request.media_tokens
    return TokenBound(prompt, request.room or 0)
