"""Caps what a run may cost over all its sessions, by reservation. Arithmetic only.

Before a call is sent, the most that it can cost is reserved; its answer replaces that with the true cost. So spent plus
reserved never exceeds the cap, whatever the answers are:

    reserve    the worst case is reserved (no cache discount, all of the prompt written to the cache if that costs
               more), or it does not fit: now, or at all
    settle     an answer came: its usage is spent
    release    the call was certainly not billed
    lose       nobody knows: the worst case stays counted

Money is counted in whole picodollars and model tokens in ones, so that sums are exact. A call that uses more than was
reserved is counted in full, and from then on more is reserved for each call, in flight or to come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from pipeline.errors import ConfigError, LabelpipeError
from pipeline.limits.price import Price, split
from pipeline.records import Usage
from pipeline.units import exact_dollars

#: US dollars per million tokens, times this, are picodollars per token.
_PICO = 1_000_000
PICO_PER_USD = _PICO**2
#: What a server's chat template may add to a request beyond its bytes: the preamble for tools (up to about 350 tokens
#: where it is published) and a system text of its own.
FRAMING_TOKENS = 512
#: If a call used more than was reserved, this many times its use is reserved from then on.
SAFETY = 1.1
#: How far ahead the count is saved: this share of the cap is the most that a killed process counts in vain.
AHEAD_SHARE = 0.005


def prompt_bound(request_bytes: int) -> int:
    """Return the most prompt tokens of a request whose messages and tools are this many bytes of JSON in UTF-8.

    A token of a byte-level vocabulary has at least one byte. The two to four tokens that frame a message are fewer than
    the bytes of its JSON (`{"role":"user","content":""}` has 28); FRAMING_TOKENS covers what is added once per request.
    This holds for text; the bytes here do not show the cost of an image that is only named by its address.
    """
    return request_bytes + FRAMING_TOKENS


class BudgetReachedError(LabelpipeError):
    """The budget is used up.

    `key` is the setting with the cap; `cap`, `spent`, and `needed` are in its unit, US dollars or tokens.
    """

    code = "budget"

    def __init__(self, message: str | None = None, *, key: str, cap: float, spent: float, needed: float) -> None:
        super().__init__(message)
        self.key, self.cap, self.spent, self.needed = key, cap, spent, needed


@dataclass(frozen=True, slots=True)
class Spend:
    """An amount of money and of model tokens. None: unknown, or not limited."""

    usd: float | None
    tokens: int | None


NOTHING = Spend(0.0, 0)


@dataclass(frozen=True, slots=True)
class TokenBound:
    """The most tokens that calls can use: the bound of their prompts, and the room for their answers."""

    prompt: int
    output: int

    def __add__(self, other: TokenBound) -> TokenBound:
        return TokenBound(self.prompt + other.prompt, self.output + other.output)

    def __sub__(self, other: TokenBound) -> TokenBound:
        return TokenBound(self.prompt - other.prompt, self.output - other.output)


class Reservation:
    """What is reserved for one call. It ends once: settled, released, or lost; `close` may always follow."""

    __slots__ = ("_budget", "_ended", "most")

    def __init__(self, budget: Budget, most: TokenBound) -> None:
        self._budget = budget
        self._ended = False
        self.most = most

    def settle(self, usage: Usage, cost_usd: float | None = None) -> None:
        """Count what the answer used. An answer without usage counts as lost.

        `cost_usd` is its cost, if that is known; None: by the budget's own price.
        """
        if not usage.total:
            self.lose()
            return
        self._end()
        self._budget._settle(self.most, usage, cost_usd)

    def release(self) -> None:
        """Free it: the call was certainly not billed (refused, or never sent)."""
        self._end()

    def lose(self) -> None:
        """Count it as perhaps spent: no answer came."""
        self._end()
        self._budget._lose(self.most)

    def close(self) -> None:
        """Lose it unless it has ended; for a `finally`."""
        if not self._ended:
            self.lose()

    def _end(self) -> None:
        if self._ended:
            raise RuntimeError("this reservation has ended")
        self._ended = True
        self._budget._free(self.most)


class Budget:
    """Caps in US dollars and in model tokens; None: no cap. `spent_*` is what earlier sessions of the run have cost.

    `maybe` is the part of it without a saved answer: calls that were not answered, or what a kill cut off.

    Raises ConfigError for a cap in US dollars if no price is known.
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
        # Mutable state: the caps; spent (picodollars and tokens) and perhaps spent; the worst case of what is in flight
        # and of the batches at the server (picodollars and tokens); what is saved; and the most times that the worst
        # case of prompt and output was used.
        self._spent = (math.ceil(spent_usd * PICO_PER_USD), spent_tokens)
        self._maybe = self._reserved = TokenBound(0, 0)
        self._queued = (0, 0)
        self._saved_bound = (-1, -1)
        self._factors = (1.0, 1.0)

    def set_caps(self, *, usd: float | None, tokens: int | None) -> None:
        """Set other caps. A cap below what is spent lets no further call through."""
        if usd is not None and not self._priced:
            raise ConfigError(
                f"limits.budget_usd = {plain(usd)}, but the price of the model is unknown; set model.price (input and "
                "output, US dollars for a million tokens), or cap the tokens instead: limits.budget_tokens"
            )
        self._caps = (None if usd is None else math.floor(usd * PICO_PER_USD), tokens)

    def set_exact_caps(self, caps: tuple[int | None, int | None]) -> None:
        """Set caps in picodollars and tokens: the part of a budget that this process may spend."""
        self._caps = caps if self._priced else (None, caps[1])

    @property
    def _usd(self) -> float:
        """The cap in US dollars as it was given; 0 if there is none."""
        return round((self._caps[0] or 0) / PICO_PER_USD, 11)

    def fits(self, most: TokenBound, *, alone: bool = False) -> bool:
        """Whether this much can be reserved; with `alone`, once nothing is in flight."""
        reserved = TokenBound(0, 0) if alone else self._reserved
        return not any(self._passes(self._plus_queued(self._count(reserved + self._maybe + most)), self._caps))

    def exactly(self, most: TokenBound | None = None) -> tuple[int, int]:
        """Return what is spent and in flight plus the worst case of one more call, in picodollars and tokens."""
        return self._plus_queued(self._count(self._reserved + self._maybe + (most or TokenBound(0, 0))))

    @property
    def holds(self) -> bool:
        """Whether something is reserved for calls in flight or for batches, which may cost less."""
        return self._reserved != TokenBound(0, 0) or self._queued != (0, 0)

    @property
    def is_capped(self) -> bool:
        """Whether there is a cap. Without one the budget only counts, so that a cap can begin in mid-run."""
        return self._caps != (None, None)

    @property
    def needs_saving(self) -> bool:
        """Whether the next session needs the count: there is a cap, or was one."""
        return self.is_capped or self._saved_bound[1] >= 0

    # -- reserving -----------------------------------------------------------------------------------------------

    def reserve(self, prompt_tokens_most: int, output_tokens_most: int) -> Reservation | None:
        """Reserve the worst case of a call. None: it fits once something in flight has ended; wait for that.

        Raises BudgetReachedError if it would not fit even with nothing in flight.
        """
        most = TokenBound(prompt_tokens_most, output_tokens_most)
        dear, long = self._passes(self._count(self._maybe + most), self._caps)
        if dear:
            raise self._reached_usd(most)
        if long:
            raise self._reached_tokens(most)
        if any(self._passes(self._plus_queued(self._count(self._reserved + self._maybe + most)), self._caps)):
            return None
        self._reserved += most
        return Reservation(self, most)

    def has_room(self, usd: float, tokens: int) -> bool:
        """Whether this much fits in addition to all that is spent, in flight, and queued."""
        return not any(self._passes(self.exactly_beside(usd, tokens), self._caps))

    def exactly_beside(self, usd: float, tokens: int) -> tuple[int, int]:
        """Return what is spent, in flight, and queued plus this much, in picodollars and tokens."""
        pico, counted = self.exactly()
        return pico + math.ceil(usd * PICO_PER_USD), counted + tokens

    def reached(self, usd: float, tokens: int) -> BudgetReachedError:
        """Return the error for a batch that can cost this much and does not fit."""
        spent, left = self.spent, self.left()
        if left.usd is not None and usd > left.usd:
            key, cap, was, needed = "limits.budget_usd", self._usd, spent.usd or 0.0, usd
            message = f"{exact_dollars(was)} is spent, and the next batch could cost up to {exact_dollars(usd)}"
        else:
            key, cap, was, needed = "limits.budget_tokens", self._caps[1] or 0, spent.tokens or 0, tokens
            message = f"{was:,} tokens are used, and the next batch could use up to {tokens:,}"
        return BudgetReachedError(f"{key} = {plain(cap)}: {message}", key=key, cap=cap, spent=was, needed=needed)

    def set_queued(self, usd: float, tokens: int) -> None:
        """Set the most that batches at the server can cost. The ledger knows them, so no saved bound counts it."""
        self._queued = (math.ceil(usd * PICO_PER_USD), tokens)

    def add_batch_answer(self, usage: Usage, cost_usd: float | None) -> None:
        """Count an answer of a batch. `set_queued` takes the most that it could cost out of what is queued."""
        pico = self._pico_of(usage) if cost_usd is None else round(cost_usd * PICO_PER_USD)
        self._spent = (self._spent[0] + pico, self._spent[1] + usage.total)

    def _plus_queued(self, count: tuple[int, int]) -> tuple[int, int]:
        return count[0] + self._queued[0], count[1] + self._queued[1]

    def _passes(self, count: tuple[int, int], bounds: tuple[int | None, int | None]) -> tuple[bool, bool]:
        """Whether a count of picodollars, and one of tokens, exceeds its bound; only what is capped can."""
        pico, tokens = (
            cap is not None and bound is not None and one > bound
            for cap, one, bound in zip(self._caps, count, bounds, strict=True)
        )
        return pico, tokens

    def _worst(self, most: TokenBound) -> tuple[int, int]:
        """Return the most that these tokens can come to, in picodollars and tokens."""
        prompt, output = math.ceil(most.prompt * self._factors[0]), math.ceil(most.output * self._factors[1])
        return prompt * max(self._input, self._cached, self._written) + output * self._output, prompt + output

    def _reached_usd(self, most: TokenBound) -> BudgetReachedError:
        cap, spent = self._usd, self.spent.usd or 0.0
        maybe = self.maybe_usd + (self._maybe_before.usd or 0.0)
        needed = self._worst(most)[0] / PICO_PER_USD
        perhaps = f", {exact_dollars(maybe)} of it perhaps only (no answer came)" if maybe else ""
        message = f"limits.budget_usd = {plain(cap)}: {exact_dollars(spent)} is spent{perhaps}"
        message += f", and one more call could cost up to {exact_dollars(needed)}"
        return BudgetReachedError(message, key="limits.budget_usd", cap=cap, spent=spent, needed=needed)

    def _reached_tokens(self, most: TokenBound) -> BudgetReachedError:
        cap, spent = self._caps[1] or 0, self.spent.tokens or 0
        maybe = self._worst(self._maybe)[1] + (self._maybe_before.tokens or 0)
        needed = self._worst(most)[1]
        perhaps = f", {maybe:,} of them perhaps only (no answer came)" if maybe else ""
        message = f"limits.budget_tokens = {cap}: {spent:,} tokens are used{perhaps}"
        message += f", and one more call could use up to {needed:,}"
        return BudgetReachedError(message, key="limits.budget_tokens", cap=cap, spent=spent, needed=needed)

    def _free(self, most: TokenBound) -> None:
        self._reserved -= most

    def _lose(self, most: TokenBound) -> None:
        self._maybe += most

    def _settle(self, most: TokenBound, usage: Usage, cost_usd: float | None) -> None:
        self.add_batch_answer(usage, cost_usd)
        prompt, output = self._factors
        self._factors = (_learned(prompt, usage.prompt, most.prompt), _learned(output, usage.completion, most.output))

    def _pico_of(self, usage: Usage) -> int:
        cached, written, fresh = split(usage)
        prompt = fresh * self._input + cached * self._cached + written * self._written
        return prompt + usage.completion * self._output

    # -- totals --------------------------------------------------------------------------------------------------

    @property
    def spent(self) -> Spend:
        """What the run has cost in all sessions, with what is perhaps spent. `usd` is None if no price is known."""
        return self._as_spend(self._count(self._maybe))

    @property
    def maybe_usd(self) -> float:
        """The most that the lost calls of this session have cost; 0 if no price is known."""
        return self._worst(self._maybe)[0] / PICO_PER_USD

    @property
    def counted(self) -> Spend:
        """The most that the run can have cost, with all that is in flight."""
        return self._as_spend(self._plus_queued(self._count(self._reserved + self._maybe)))

    def left(self) -> Spend:
        """Return what may still be reserved, never below 0; None: there is no cap."""
        pico, tokens = self._plus_queued(self._count(self._reserved + self._maybe))
        most_pico, most_tokens = self._caps
        return Spend(
            None if most_pico is None else max(0, most_pico - pico) / PICO_PER_USD,
            None if most_tokens is None else max(0, most_tokens - tokens),
        )

    def _count(self, open_calls: TokenBound) -> tuple[int, int]:
        """Return what is spent plus the worst case of these calls, rounded once, so that losing one adds nothing."""
        (spent_pico, spent_tokens), (pico, tokens) = self._spent, self._worst(open_calls)
        return spent_pico + pico, spent_tokens + tokens

    def _as_spend(self, count: tuple[int, int]) -> Spend:
        return Spend(count[0] / PICO_PER_USD if self._priced else None, count[1])

    def bound_to_save(self) -> Spend | None:
        """Return what must be in the ledger before the next call leaves; None if what is there is enough.

        A killed process cannot report what it had in flight. So the count is saved ahead, a small share of the cap at a
        time, and the next session begins with it; a clean end overwrites it with `spent`.
        """
        count = self._count(self._reserved + self._maybe)
        if not any(self._passes(count, self._saved_bound)):
            return None
        self._saved_bound = (_ahead(count[0], self._caps[0]), _ahead(count[1], self._caps[1]))
        return self._as_spend(self._saved_bound)


def _pico_rates(price: Price | None) -> tuple[int, int, int, int]:
    """Return picodollars per token: fresh prompt, cached prompt, prompt written to the cache, output."""
    if price is None:
        return 0, 0, 0, 0
    rates = (price.input, price.cached_input, price.written, price.output)
    fresh, cached, written, output = (round(rate * _PICO) for rate in rates)
    return fresh, cached, written, output


def _learned(factor: float, used: int, most: int) -> float:
    """Return the factor on the worst case after a call that used this much of its own."""
    ratio = used / max(1, most)
    return factor if ratio <= factor else ratio * SAFETY


def _ahead(count: int, cap: int | None) -> int:
    """Return a count to save, with some room; the room itself does not exceed the cap."""
    return count if cap is None else max(count, min(cap, count + math.floor(AHEAD_SHARE * cap)))


def plain(number: float) -> str:
    """Return a number as a person writes it: 0.00001, not 1e-05."""
    return f"{Decimal(repr(number)).normalize():f}"
