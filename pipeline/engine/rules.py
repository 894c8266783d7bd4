"""How often a record is asked, for how long, and what one call of it can use."""

from dataclasses import dataclass

from pipeline import codec
from pipeline.limits import TokenBound, prompt_bound
from pipeline.records import Request

#: What a record may take beside its calls at their longest, where the user gave no deadline.
DEADLINE_MORE_S = 60.0


@dataclass(frozen=True, slots=True)
class AskRules:
    """How often, and how long.

    `hedge_after_p`: at the end of the input, a call that takes longer than this percentile of all is asked a second
    time; None: never. `record_s` is what one record may take over all its calls and waits while the gate is open;
    None: what `max_attempts` calls of `timeout_s` take, and a minute. `stop_rejected` is the share of the first records
    without a label from which on the run stops; 0: never. `flex_patience_s` is how long a call waits for room at the
    flex tier, before it goes out at the standard one; None: calls do not ask for flex.
    """

    max_attempts: int = 6
    max_repairs: int = 2
    timeout_s: float = 60.0
    hedge_after_p: float | None = None
    record_s: float | None = None
    stop_rejected: float = 1.0
    flex_patience_s: float | None = None

    def deadline_of(self, turns: int) -> float:
        """Seconds that one record of so many turns at the most may take while the gate is open."""
        return self.record_s or turns * self.max_attempts * self.timeout_s + DEADLINE_MORE_S


def most_of(request: Request) -> TokenBound:
    """What a call can use at most."""
    # What media cost is not in their names, which is all that their JSON holds.
    prompt = prompt_bound(len(codec.dumps((request.messages, request.tools)))) + request.media_tokens
    return TokenBound(prompt, request.room or 0)
