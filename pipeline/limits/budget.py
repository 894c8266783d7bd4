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
PICO_PER_USD = _PICO**2
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


@dataclass(frozen=True, slots=True)
class TokenBound:
    """The most that calls can use: the bound of their prompts, and the room for their answers, in tokens."""

    prompt: int
    output: int

    def __add__(self, other: TokenBound) -> TokenBound:
        return TokenBound(self.prompt + other.prompt, self.output + other.output)

    def __sub__(self, other: TokenBound) -> TokenBound:
        return TokenBound(self.prompt - other.prompt, self.output - other.output)


class Reservation:
    """What is set aside for one call. It ends once: settled, released or lost; `close` may always follow."""

    __slots__ = ("_budget", "_ended", "most")

    def __init__(self, budget: Budget, most: TokenBound) -> None:
        self._budget = budget
        self._ended = False
        self.most = most

    def settle(self, usage: Usage, cost_usd: float | None = None) -> None:
        """An answer came and used this. An answer that tells no usage is counted as lost.

        `cost_usd` is what it cost, where that is known; None: by the budget's own price.
        """
        if not usage.total:
            self.lose()
            return
        self._end()
        self._budget._settle(self.most, usage, cost_usd)

    def release(self) -> None:
        """The call was certainly not billed: refused, or never sent."""
        self._end()

    def lose(self) -> None:
        """No answer came; it may have been billed."""
        self._end()
        self._budget._lose(self.most)

    def close(self) -> None:
        """Lose it, unless it has ended: for a `finally`."""
        if not self._ended:
            self.lose()

    def _end(self) -> None:
        if self._ended:
            raise RuntimeError("this reservation has ended")
        self._ended = True
        self._budget._free(self.most)


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
        # All state that changes: the caps; spent (picodollars and tokens) and perhaps spent, the worst case of what is
        # in flight and of the batches at the server (picodollars and tokens), what is written down, and how many times
        # the worst case of prompt and output was used at most.
        self._spent = (math.ceil(spent_usd * PICO_PER_USD), spent_tokens)
        self._maybe = self._reserved = TokenBound(0, 0)
        self._queued = (0, 0)
        self._saved_bound = (-1, -1)
        self._factors = (1.0, 1.0)

    def set_caps(self, *, usd: float | None, tokens: int | None) -> None:
        """Take over other caps. A cap below what is spent lets no further call through."""
        if usd is not None and not self._priced:
            raise ConfigError(
                f"limits.budget_usd = {plain(usd)}, but the price of the model is unknown; set model.price (input and "
                "output, US dollars for a million tokens), or cap the tokens instead: limits.budget_tokens"
            )
        self._caps = (None if usd is None else math.floor(usd * PICO_PER_USD), tokens)

    def set_exact_caps(self, caps: tuple[int | None, int | None]) -> None:
        """Take over caps in picodollars and tokens: the part of a budget that this process may spend."""
        self._caps = caps if self._priced else (None, caps[1])

    @property
    def _usd(self) -> float:
        """The cap in US dollars as it was given, 0 where there is none."""
        return round((self._caps[0] or 0) / PICO_PER_USD, 11)

    def fits(self, most: TokenBound, *, alone: bool = False) -> bool:
        """Whether so much can be set aside; with `alone`, once nothing is in flight."""
        reserved = TokenBound(0, 0) if alone else self._reserved
        return not any(self._passes(self._plus_queued(self._count(reserved + self._maybe + most)), self._caps))

    def exactly(self, most: TokenBound | None = None) -> tuple[int, int]:
        """What is spent and in flight, with the worst case of one more call: picodollars and tokens."""
        return self._plus_queued(self._count(self._reserved + self._maybe + (most or TokenBound(0, 0))))

    @property
    def holds(self) -> bool:
        """Whether something is set aside for calls in flight or for batches, which may cost less."""
        return self._reserved != TokenBound(0, 0) or self._queued != (0, 0)

    @property
    def is_capped(self) -> bool:
        """Whether there is a cap. Without one it only counts, so that a cap can begin in mid-run."""
        return self._caps != (None, None)

    @property
    def needs_saving(self) -> bool:
        """Whether the next session is to know what was counted: there is a cap, or was."""
        return self.is_capped or self._saved_bound[1] >= 0

    # -- setting aside -------------------------------------------------------------------------------------------

    def reserve(self, prompt_tokens_most: int, output_tokens_most: int) -> Reservation | None:
        """Set the worst case of a call aside. None: it fits once something in flight has ended; wait for that.

        Raises BudgetReachedError where it would not fit with nothing in flight either.
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
        """Whether so much more fits beside all that is spent, in flight and queued."""
        return not any(self._passes(self.exactly_beside(usd, tokens), self._caps))

    def exactly_beside(self, usd: float, tokens: int) -> tuple[int, int]:
        """What is spent, in flight and queued, with so much more: picodollars and tokens."""
        pico, counted = self.exactly()
        return pico + math.ceil(usd * PICO_PER_USD), counted + tokens

    def reached(self, usd: float, tokens: int) -> BudgetReachedError:
        """The error for a batch that can cost so much, and does not fit."""
        spent, left = self.spent, self.left()
        if left.usd is not None and usd > left.usd:
            key, cap, was, needed = "limits.budget_usd", self._usd, spent.usd or 0.0, usd
            message = f"{exact_dollars(was)} is spent, and the next batch could cost up to {exact_dollars(usd)}"
        else:
            key, cap, was, needed = "limits.budget_tokens", self._caps[1] or 0, spent.tokens or 0, tokens
            message = f"{was:,} tokens are used, and the next batch could use up to {tokens:,}"
        return BudgetReachedError(f"{key} = {plain(cap)}: {message}", key=key, cap=cap, spent=was, needed=needed)

    def set_queued(self, usd: float, tokens: int) -> None:
        """Batches at the server can cost so much at most. The ledger knows them, so no saved bound counts it."""
        self._queued = (math.ceil(usd * PICO_PER_USD), tokens)

    def add_batch_answer(self, usage: Usage, cost_usd: float | None) -> None:
        """An answer of a batch came. What it could cost at most is taken out of what is queued by `set_queued`."""
        pico = self._pico_of(usage) if cost_usd is None else round(cost_usd * PICO_PER_USD)
        self._spent = (self._spent[0] + pico, self._spent[1] + usage.total)

    def _plus_queued(self, count: tuple[int, int]) -> tuple[int, int]:
        return count[0] + self._queued[0], count[1] + self._queued[1]

    def _passes(self, count: tuple[int, int], bounds: tuple[int | None, int | None]) -> tuple[bool, bool]:
        """Whether a count of picodollars, and one of tokens, passes a bound; only what is capped can."""
        pico, tokens = (
            cap is not None and bound is not None and one > bound
            for cap, one, bound in zip(self._caps, count, bounds, strict=True)
        )
        return pico, tokens

    def _worst(self, most: TokenBound) -> tuple[int, int]:
        """The most that so many tokens can come to: picodollars and tokens."""
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

    # -- what it comes to ----------------------------------------------------------------------------------------

    @property
    def spent(self) -> Spend:
        """What the run has cost in all sessions, with what it perhaps has. `usd` is None where no price is known."""
        return self._as_spend(self._count(self._maybe))

    @property
    def maybe_usd(self) -> float:
        """What the lost calls of this session have cost at most; 0 where no price is known."""
        return self._worst(self._maybe)[0] / PICO_PER_USD

    @property
    def counted(self) -> Spend:
        """What the run can have cost at most, with all that is in flight."""
        return self._as_spend(self._plus_queued(self._count(self._reserved + self._maybe)))

    def left(self) -> Spend:
        """What may still be set aside, never below 0; None where there is no cap."""
        pico, tokens = self._plus_queued(self._count(self._reserved + self._maybe))
        most_pico, most_tokens = self._caps
        return Spend(
            None if most_pico is None else max(0, most_pico - pico) / PICO_PER_USD,
            None if most_tokens is None else max(0, most_tokens - tokens),
        )

    def _count(self, open_calls: TokenBound) -> tuple[int, int]:
        """What is spent, with the worst case of these calls. Rounded as one, so that losing one adds nothing."""
        (spent_pico, spent_tokens), (pico, tokens) = self._spent, self._worst(open_calls)
        return spent_pico + pico, spent_tokens + tokens

    def _as_spend(self, count: tuple[int, int]) -> Spend:
        return Spend(count[0] / PICO_PER_USD if self._priced else None, count[1])

    def bound_to_save(self) -> Spend | None:
        """What has to be in the ledger before the next call leaves, or None where what is there is enough.

        A killed process cannot say what it had in flight. So the count is written down ahead, a small share of the
        cap at a time, and the next session begins with it; a clean end writes `spent` over it.
        """
        count = self._count(self._reserved + self._maybe)
        if not any(self._passes(count, self._saved_bound)):
            return None
        self._saved_bound = (_ahead(count[0], self._caps[0]), _ahead(count[1], self._caps[1]))
        return self._as_spend(self._saved_bound)


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


def plain(number: float) -> str:
    """A number as a person writes it: 0.00001, not 1e-05."""
    return f"{Decimal(repr(number)).normalize():f}"
