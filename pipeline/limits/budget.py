"""A hard cap on what a run may cost, by reservation, over all its sessions. Arithmetic only.

Before a call is sent, the most that it can cost is set aside; its answer turns that into what it did cost. So spent +
set aside never passes the cap, whatever the answers are:

    reserve    the worst case is set aside (no cache discount, all of the prompt written to the cache where that is
               dearer), or it does not fit: now, or at all
    settle     an answer came: its usage is spent
    release    the call was certainly not billed
    lose       nobody knows: the worst case stays counted

Money is counted in whole picodollars and model tokens in ones, so that sums are exact. A call that uses more than was
set aside for it is counted as it is, and from then on more is set aside for each, in flight or to come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from pipeline.errors import ConfigError, LabelpipeError
from pipeline.limits.price import Price, split
from pipeline.records import Usage
from pipeline.units import exact_dollars

#: US dollars a million tokens are picodollars a token, times this.
_PICO = 1_000_000
_PICO_PER_USD = 1_000_000_000_000
#: What a server's chat template may add to a request that shows nowhere in its bytes: the preamble for tools (up to
#: some 350 tokens where it is published) and a system text of its own.
FRAMING_TOKENS = 512
#: A call that used more than was set aside for it: so much more than that is set aside from then on.
SAFETY = 1.1
#: How far ahead the count is written down: this share of the cap is the most that a killed process counts for nothing.
AHEAD_SHARE = 0.005


def prompt_bound(request_bytes: int) -> int:
    """The most prompt tokens that a request can have whose messages and tools are so many bytes of JSON in UTF-8.

    A token of a byte-level vocabulary stands for at least one byte. The two to four tokens that frame a message are
    fewer than the bytes of its JSON (`{"role":"user","content":""}` has 28); what is there once a request is
    FRAMING_TOKENS. Holds for text; an image that is only named by its address costs what its bytes here do not show.
    """
    return request_bytes + FRAMING_TOKENS


class BudgetReachedError(LabelpipeError):
    """The budget is used up.

    `key` is the setting that holds the cap; `cap`, `spent` and `needed` are in its unit, US dollars or tokens.
    """

    code = "budget"

    def __init__(self, message: str | None = None, *, key: str, cap: float, spent: float, needed: float) -> None:
        super().__init__(message)
        self.key, self.cap, self.spent, self.needed = key, cap, spent, needed


@dataclass(frozen=True, slots=True)
class Spend:
    """An amount of money and of model tokens. None where it is unknown or not limited."""

    usd: float | None
    tokens: int | None


NOTHING = Spend(0.0, 0)


class Reservation:
    """What is set aside for one call. It ends once: settled, released or lost; `close` may always follow."""

    __slots__ = ("_budget", "_ended", "output", "prompt")

    def __init__(self, budget: Budget, prompt: int, output: int) -> None:
        self._budget = budget
        self._ended = False
        self.prompt, self.output = prompt, output

    def settle(self, usage: Usage, cost_usd: float | None = None) -> None:
        """An answer came and used this. An answer that tells no usage is counted as lost.

        `cost_usd` is what it cost, where that is known; None: by the budget's own price.
        """
        self._end()
        if usage.total:
            self._budget._settle(self.prompt, self.output, usage, cost_usd)
        else:
            self._budget._lose(self.prompt, self.output)

    def release(self) -> None:
        """The call was certainly not billed: refused, or never sent."""
        self._end()
        self._budget._release(self.prompt, self.output)

    def lose(self) -> None:
        """No answer came; it may have been billed."""
        self._end()
        self._budget._lose(self.prompt, self.output)

    def close(self) -> None:
        """Lose it, unless it has ended: for a `finally`."""
        if not self._ended:
            self.lose()

    def _end(self) -> None:
        if self._ended:
            raise RuntimeError("this reservation has ended")
        self._ended = True


class Budget:
    """Caps in US dollars and in model tokens; None: no cap. `spent_*` is what earlier sessions of the run have cost.

    `maybe` is the part of it that no kept answer tells of: calls without an answer, or what a kill cut off.

    Raises ConfigError for a cap in US dollars where no price is known.
    """

    def __init__(
        self,
        *,
        usd: float | None,
        tokens: int | None,
        price: Price | None,
        spent_usd: float = 0.0,
        spent_tokens: int = 0,
        maybe: Spend = NOTHING,
    ) -> None:
        self._input, self._cached, self._written, self._output = _pico_rates(price)
        self._priced = price is not None
        self._maybe_before = maybe
        self.set_caps(usd=usd, tokens=tokens)
        # All state that changes: spent and perhaps spent, the worst case of what is in flight, what is written down,
        self._spent_pico, self._spent_tokens = math.ceil(spent_usd * _PICO_PER_USD), spent_tokens
        self._prompt_maybe = self._output_maybe = 0
        self._prompt_held = self._output_held = 0
        self._marked_pico = self._marked_tokens = -1
        # and how many times the worst case was used at most.
        self._prompt_factor = self._output_factor = 1.0

    def set_caps(self, *, usd: float | None, tokens: int | None) -> None:
        """Take over other caps. A cap below what is spent lets no further call through."""
        if usd is not None and not self._priced:
            raise ConfigError(
                f"limits.budget_usd = {plain(usd)}, but nobody knows what the model costs; set model.price (input and "
                "output, US dollars for a million tokens), or cap the tokens instead: limits.budget_tokens"
            )
        self._cap_usd, self._cap_tokens = usd, tokens
        self._cap_pico = None if usd is None else math.floor(usd * _PICO_PER_USD)

    @property
    def is_capped(self) -> bool:
        """Whether there is a cap. Without one it only counts, so that a cap can begin in mid-run."""
        return self._cap_pico is not None or self._cap_tokens is not None

    @property
    def is_kept(self) -> bool:
        """Whether the next session is to know what was counted: there is a cap, or was."""
        return self.is_capped or self._marked_tokens >= 0

    # -- setting aside -------------------------------------------------------------------------------------------

    def reserve(self, prompt_tokens_most: int, output_tokens_most: int) -> Reservation | None:
        """Set the worst case of a call aside. None: it fits once something in flight has ended; wait for that.

        Raises BudgetReachedError where it would not fit with nothing in flight either.
        """
        self._check_alone(prompt_tokens_most, output_tokens_most)
        self._prompt_held += prompt_tokens_most
        self._output_held += output_tokens_most
        if not self._exceeds(*self._count()):
            return Reservation(self, prompt_tokens_most, output_tokens_most)
        self._release(prompt_tokens_most, output_tokens_most)
        return None

    def _check_alone(self, prompt: int, output: int) -> None:
        """Refuse a call that would not fit with nothing else in flight."""
        pico, tokens = self._worst(self._prompt_maybe + prompt, self._output_maybe + output)
        if self._cap_pico is not None and self._spent_pico + pico > self._cap_pico:
            raise self._reached_usd(prompt, output)
        if self._cap_tokens is not None and self._spent_tokens + tokens > self._cap_tokens:
            raise self._reached_tokens(prompt, output)

    def _exceeds(self, pico: int, tokens: int) -> bool:
        too_dear = self._cap_pico is not None and pico > self._cap_pico
        return too_dear or (self._cap_tokens is not None and tokens > self._cap_tokens)

    def _worst(self, prompt: int, output: int) -> tuple[int, int]:
        """The most that so many tokens can come to: picodollars and tokens."""
        prompt, output = math.ceil(prompt * self._prompt_factor), math.ceil(output * self._output_factor)
        return prompt * max(self._input, self._cached, self._written) + output * self._output, prompt + output

    def _reached_usd(self, prompt: int, output: int) -> BudgetReachedError:
        cap, spent = self._cap_usd or 0.0, self.spent.usd or 0.0
        maybe = self.maybe_usd + (self._maybe_before.usd or 0.0)
        needed = self._worst(prompt, output)[0] / _PICO_PER_USD
        perhaps = f", {exact_dollars(maybe)} of it perhaps only (no answer came)" if maybe else ""
        told = f"limits.budget_usd = {plain(cap)}: {exact_dollars(spent)} is spent{perhaps}"
        told += f", and one more call could cost up to {exact_dollars(needed)}"
        return BudgetReachedError(told, key="limits.budget_usd", cap=cap, spent=spent, needed=needed)

    def _reached_tokens(self, prompt: int, output: int) -> BudgetReachedError:
        cap, spent = self._cap_tokens or 0, self.spent.tokens or 0
        maybe = self._worst_maybe()[1] + (self._maybe_before.tokens or 0)
        needed = self._worst(prompt, output)[1]
        perhaps = f", {maybe:,} of them perhaps only (no answer came)" if maybe else ""
        told = f"limits.budget_tokens = {cap}: {spent:,} tokens are used{perhaps}"
        told += f", and one more call could use up to {needed:,}"
        return BudgetReachedError(told, key="limits.budget_tokens", cap=cap, spent=spent, needed=needed)

    # -- how calls end -------------------------------------------------------------------------------------------

    def _settle(self, prompt: int, output: int, usage: Usage, cost_usd: float | None) -> None:
        self._release(prompt, output)
        self._spent_pico += self._pico_of(usage) if cost_usd is None else round(cost_usd * _PICO_PER_USD)
        self._spent_tokens += usage.total
        self._prompt_factor = _learned(self._prompt_factor, usage.prompt, prompt)
        self._output_factor = _learned(self._output_factor, usage.completion, output)

    def _pico_of(self, usage: Usage) -> int:
        cached, written, fresh = split(usage)
        prompt = fresh * self._input + cached * self._cached + written * self._written
        return prompt + usage.completion * self._output

    def _release(self, prompt: int, output: int) -> None:
        self._prompt_held -= prompt
        self._output_held -= output

    def _lose(self, prompt: int, output: int) -> None:
        self._release(prompt, output)
        self._prompt_maybe += prompt
        self._output_maybe += output

    # -- what it comes to ----------------------------------------------------------------------------------------

    @property
    def spent(self) -> Spend:
        """What the run has cost in all sessions, with what it perhaps has. `usd` is None where no price is known."""
        pico, tokens = self._worst_maybe()
        return self._as_spend(self._spent_pico + pico, self._spent_tokens + tokens)

    @property
    def maybe_usd(self) -> float:
        """What the lost calls of this session have cost at most; 0 where no price is known."""
        return self._worst_maybe()[0] / _PICO_PER_USD

    @property
    def counted(self) -> Spend:
        """What the run can have cost at most, with all that is in flight."""
        return self._as_spend(*self._count())

    def left(self) -> Spend:
        """What may still be set aside, never below 0; None where there is no cap."""
        pico, tokens = self._count()
        return Spend(
            None if self._cap_pico is None else max(0, self._cap_pico - pico) / _PICO_PER_USD,
            None if self._cap_tokens is None else max(0, self._cap_tokens - tokens),
        )

    def _worst_maybe(self) -> tuple[int, int]:
        return self._worst(self._prompt_maybe, self._output_maybe)

    def _count(self) -> tuple[int, int]:
        """All that is or may be spent. In flight and lost are rounded as one, so that losing a call adds nothing."""
        pico, tokens = self._worst(self._prompt_held + self._prompt_maybe, self._output_held + self._output_maybe)
        return self._spent_pico + pico, self._spent_tokens + tokens

    def _as_spend(self, pico: int, tokens: int) -> Spend:
        return Spend(pico / _PICO_PER_USD if self._priced else None, tokens)

    # -- across sessions -----------------------------------------------------------------------------------------

    def mark(self) -> Spend | None:
        """What has to be in the ledger before the next call leaves, or None where what is there is enough.

        A killed process cannot say what it had in flight. So the count is written down ahead, a small share of the
        cap at a time, and the next session begins with it; a clean end writes `spent` over it.
        """
        pico, tokens = self._count()
        if not self._passes_mark(pico, tokens):
            return None
        self._marked_pico, self._marked_tokens = _ahead(pico, self._cap_pico), _ahead(tokens, self._cap_tokens)
        return self._as_spend(self._marked_pico, self._marked_tokens)

    def _passes_mark(self, pico: int, tokens: int) -> bool:
        dearer = self._cap_pico is not None and pico > self._marked_pico
        return dearer or (self._cap_tokens is not None and tokens > self._marked_tokens)


def _pico_rates(price: Price | None) -> tuple[int, int, int, int]:
    """Picodollars a token: fresh prompt, cached prompt, prompt written to the cache, output."""
    if price is None:
        return 0, 0, 0, 0
    rates = (price.input, price.cached_input, price.written, price.output)
    fresh, cached, written, output = (round(rate * _PICO) for rate in rates)
    return fresh, cached, written, output


def _learned(factor: float, used: int, most: int) -> float:
    """The factor on the worst case, after a call that used so much of its own."""
    ratio = used / max(1, most)
    return factor if ratio <= factor else ratio * SAFETY


def _ahead(count: int, cap: int | None) -> int:
    """A count to write down, with some room, but not beyond the cap for the room's sake."""
    return count if cap is None else max(count, min(cap, count + math.floor(AHEAD_SHARE * cap)))


@dataclass(frozen=True, slots=True)
class Left:
    """What is left to do. `more` is what it would cost at what the records done cost so far.

    `records` is None where nobody knows; `exact` is false where the input was not read to its end. `more` is then, or
    where no record is done, None.
    """

    records: int | None
    exact: bool
    more: Spend | None
    text: str


def what_is_left(records: int | None, spent_so_far: Spend, records_done: int, *, exact: bool = True) -> Left:
    """What is left to do, and what it would cost; as numbers and for a person."""
    more = None
    if records is not None and records_done > 0:
        share = records / records_done
        usd = None if spent_so_far.usd is None else spent_so_far.usd * share
        tokens = None if spent_so_far.tokens is None else round(spent_so_far.tokens * share)
        more = Spend(usd, tokens)
    text = estimate_left(records, spent_so_far, records_done)
    return Left(records, exact, more, text if exact or not records else f"about {text}")


def estimate_left(records_left: int | None, spent_so_far: Spend, records_done: int) -> str:
    """What is left to do and what it would cost, for a person. None: the input was not read to its end."""
    if records_left == 0:
        return "no record is left"
    left = "how many records are left is not known" if records_left is None else f"{_records(records_left)} left"
    if records_done <= 0:
        return f"{left}; what they would cost is not known, since none is done"
    if records_left is None:
        return f"{left}; a thousand cost about {_amount(spent_so_far, 1000 / records_done)}"
    more = _amount(spent_so_far, records_left / records_done)
    whole = _amount(spent_so_far, 1 + records_left / records_done)
    return f"{left}; at what {records_done:,} cost so far they need about {more} more, the whole run {whole}"


def _records(count: int) -> str:
    return "1 record is" if count == 1 else f"{count:,} records are"


def _amount(spend: Spend, times: float) -> str:
    parts = [] if spend.usd is None else [exact_dollars(spend.usd * times)]
    if spend.tokens is not None:
        parts.append(f"{round(spend.tokens * times):,} tokens")
    return " and ".join(parts) or "an unknown amount"


def plain(number: float) -> str:
    """A number as a person writes it: 0.00001, not 1e-05."""
    return f"{Decimal(repr(number)).normalize():f}"


def spent_text(spend: Spend) -> str:
    """What is spent, for a person."""
    return f"{_amount(spend, 1.0)} are spent"
