"""Prices usage by the config's price or by genai-prices. An unknown model has no price, never 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pipeline.records import Usage

_MILLION = 1_000_000
#: The most service tiers whose prices are remembered.
MOST_TIERS = 16


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. `origin` names the source.

    `cache_write` is the price of a prompt token that is written to the server's prompt cache; None: that of `input`.
    """

    input: float
    output: float
    cached_input: float
    origin: str
    cache_write: float | None = None

    @property
    def written(self) -> float:
        """US dollars per million prompt tokens that are written to the cache."""
        return self.input if self.cache_write is None else self.cache_write

    def times(self, share: float) -> Price:
        """Return this share of the price, for each kind of token."""
        return replace(
            self,
            input=self.input * share,
            output=self.output * share,
            cached_input=self.cached_input * share,
            cache_write=self.written * share,
        )

    def cost_usd(self, usage: Usage) -> float:
        """Return the cost of one usage, in US dollars."""
        cached, written, fresh = split(usage)
        prompt = fresh * self.input + cached * self.cached_input + written * self.written
        return (prompt + usage.completion * self.output) / _MILLION

    def saved_usd(self, usage: Usage) -> float:
        """Return how much more the cached tokens would have cost without the cache, in US dollars."""
        return split(usage)[0] * (self.input - self.cached_input) / _MILLION

    def cache_write_usd(self, usage: Usage) -> float:
        """Return what writing to the cache cost beyond the price of the same tokens as input, in US dollars."""
        return split(usage)[1] * (self.written - self.input) / _MILLION


class Tariff:
    """What answers cost, each by the service tier that the server reports.

    `price` is that of the requested tier; None: unknown. `of_tier` returns that of another tier; without it all have
    the same. `others` are the tariffs of further models that the run asks.
    """

    def __init__(
        self,
        price: Price | None,
        of_tier: Callable[[str], Price | None] | None = None,
        others: Mapping[str, Tariff] | None = None,
    ) -> None:
        self.price = price
        self._of_tier = of_tier
        self._others = others or {}
        # Mutable state: the prices of the tiers seen so far.
        self._prices: dict[str, Price | None] = {}

    def at(self, tier: str | None) -> Price | None:
        """Return the price of a tier; None: the requested one."""
        if tier is None or self._of_tier is None:
            return self.price
        if tier not in self._prices:
            # The server chooses the names, so only as many as there can be are remembered.
            if len(self._prices) >= MOST_TIERS:
                return self.price
            self._prices[tier] = self._of_tier(tier)
        return self._prices[tier]

    def cost_usd(self, usage: Usage, tier: str | None = None, model: str = "") -> float | None:
        """Return the US dollars of one answer; None if unknown: no price, or an answer without usage.

        `model` is the one that was asked, if the run asks several.
        """
        price = self._others.get(model, self).at(tier)
        return None if price is None or not usage.total else price.cost_usd(usage)


def split(usage: Usage) -> tuple[int, int, int]:
    """Return the prompt's tokens: read from the cache, written to it, neither. Never more than the prompt has."""
    cached = min(usage.cached, usage.prompt)
    written = min(usage.cache_write, usage.prompt - cached)
    return cached, written, usage.prompt - cached - written


def price_of(model: str, *, service_tier: str | None = None, batch: bool = False) -> Price | None:
    """Return the base price of a model by genai-prices (no tiers of length); None if it is unknown.

    If the list has no price of its own for the service tier or for batches, it is that of an ordinary call.

    Its price of a cache write is 1.25 times that of input from gpt-5.6 on, as OpenAI's guide to prompt caching says
    (developers.openai.com/api/docs/guides/prompt-caching, read in November 2026), and that of input before.
    """
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    context = {"service_tier": service_tier} if service_tier else {}
    context |= {"processing": "batch"} if batch else {}

    def cost(usage: Tokens) -> float:
        return float(calc_price(usage, model_ref=model, provider_id="openai", price_context=context).total_price)

    small = 1000  # below every long-context tier
    try:
        fresh = cost(Tokens(input_tokens=small)) / small
        output = cost(Tokens(output_tokens=small)) / small
        cached = cost(Tokens(input_tokens=small, cache_read_tokens=small)) / small
        written = cost(Tokens(input_tokens=small, cache_write_tokens=small)) / small
    except LookupError:
        return None
    return Price(
        fresh * _MILLION, output * _MILLION, cached * _MILLION, origin="genai-prices", cache_write=written * _MILLION
    )
