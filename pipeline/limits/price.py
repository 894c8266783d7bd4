"""What a usage costs: by the config's price or by genai-prices. An unknown model has no price, never 0."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.records import Usage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a million tokens. `origin` says who says so."""

    input: float
    output: float
    cached_input: float
    origin: str

    def cost_usd(self, usage: Usage) -> float:
        """The cost of one usage, in US dollars."""
        fresh = usage.prompt - usage.cached
        return (fresh * self.input + usage.cached * self.cached_input + usage.completion * self.output) / _MILLION


def price_of(model: str) -> Price | None:
    """The base price of a model by genai-prices (no tiers), or None where it is unknown."""
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    def cost(usage: Tokens) -> float:
        return float(calc_price(usage, model_ref=model, provider_id="openai").total_price)

    small = 1000  # below every long-context tier
    try:
        fresh = cost(Tokens(input_tokens=small)) / small
        output = cost(Tokens(output_tokens=small)) / small
        cached = cost(Tokens(input_tokens=small, cache_read_tokens=small)) / small
    except LookupError:
        return None
    return Price(fresh * _MILLION, output * _MILLION, cached * _MILLION, origin="genai-prices")
