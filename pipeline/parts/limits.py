"""Builds admission, budget, prices, and retry rules from the settings."""

from collections.abc import Mapping

from pipeline.engine import AskRules
from pipeline.errors import ConfigError
from pipeline.limits import (
    ALONE_S,
    NOTHING,
    WARM_UP_S,
    Admission,
    Budget,
    DayMeter,
    Gate,
    Hours,
    LocalResource,
    Price,
    Resource,
    SaveSpendBound,
    Spend,
    Tariff,
    TopUp,
    Tuner,
    price_of,
)
from pipeline.parts.server import is_groq, is_openai, is_simulated, service_tier_of
from pipeline.records import FLEX, Usage, room_in
from pipeline.settings import PriceSettings, Settings
from pipeline.task import MIN_CACHED_TOKENS, supports_breakpoint

#: The price of prompt cache writes as a multiple of input, from gpt-5.6 on (OpenAI's guide to prompt caching).
CACHE_WRITE_TIMES = 1.25
#: The price of batches and flex relative to live calls, if no list has a separate one (OpenAI's guides to both).
LANE_SHARE = 0.5
#: The origin of a price that the user set.
OF_CONFIG = "config"


def price_for(settings: Settings) -> Price | None:
    """Return the config's price, or else the list price for the requested service tier; None if neither is known."""
    return _price(settings, settings.model.name, settings.model.price)


def standard_price(settings: Settings) -> Price | None:
    """Return the price of a live answer at the standard tier; None if unknown."""
    return price_of(settings.model.name) if settings.model.price is None else price_for(settings)


def batch_price(settings: Settings) -> Price | None:
    """Return the price of an answer from a batch; None if unknown."""
    # Batches do not use the configured service tier.
    return _reduced(settings, settings.model.name, standard_price(settings), batch=True)


def flex_price(settings: Settings) -> Price | None:
    """Return the price of an answer at the flex tier; None if unknown."""
    return _reduced(settings, settings.model.name, standard_price(settings), service_tier=FLEX)


def _reduced(
    settings: Settings, model: str, live: Price | None, *, batch: bool = False, service_tier: str | None = None
) -> Price | None:
    """Return the list price for this lane, if there is one; else a share of the live price."""
    if live is None:
        return None
    if live.origin != OF_CONFIG and (is_openai(settings) or is_simulated(settings)):
        price = price_of(model, batch=batch, service_tier=service_tier)
        if price is not None and price.input < live.input:
            return price
    return live if is_groq(settings) and not batch else live.times(LANE_SHARE)


def fewest_for_batches(settings: Settings) -> int:
    """Return the most records that are not worth waiting for batches: the first part, and one more."""
    return settings.batch.first_part + settings.batch.part_records


def lane_price(settings: Settings) -> Price | None:
    """Return the price of an answer in the lane that the settings choose; None if unknown."""
    of_lane = {"batch": batch_price, "flex": flex_price}.get(settings.model.lane, price_for)
    return of_lane(settings)


def _dearest(settings: Settings) -> Price | None:
    """Return the highest price of a call by any voter; None if one of the prices is unknown.

    Raises ConfigError if only a voter's price is unknown, and the run has a cap in US dollars.
    """
    models = [(settings.model.name, settings.model.price)]
    models += [(one.model, one.price) for one in settings.quality.voters if one.model is not None]
    prices = [_price(settings, model, own_price) for model, own_price in models]
    known = [price for price in prices if price is not None]
    if len(known) < len(prices):
        unknown = [model for (model, _), price in zip(models, prices, strict=True) if price is None]
        if prices[0] is not None and settings.limits.budget_usd is not None:
            raise ConfigError(
                f"limits.budget_usd = {settings.limits.budget_usd:g}, but nobody knows what {unknown[0]} costs, which "
                "votes too: give that voter a price (input and output, US dollars for a million tokens)"
            )
        return None
    return Price(
        input=max(price.input for price in known),
        output=max(price.output for price in known),
        cached_input=max(price.cached_input for price in known),
        origin=known[0].origin,
        cache_write=max(price.written for price in known),
    )


def _price(settings: Settings, model: str, own_price: PriceSettings | None) -> Price | None:
    if own_price is None:
        return price_of(model, service_tier=service_tier_of(settings))
    cached = own_price.input if own_price.cached_input is None else own_price.cached_input
    written = own_price.cache_write
    if written is None and supports_breakpoint(model):
        written = CACHE_WRITE_TIMES * own_price.input
    return Price(own_price.input, own_price.output, cached, origin=OF_CONFIG, cache_write=written)


def tariff_of(settings: Settings) -> Tariff:
    """Return the prices of answers. A price in the config applies to all; the price list has one per service tier."""
    voters = [one for one in settings.quality.voters if one.model is not None]
    others = {one.model: _tariff(settings, one.model, one.price) for one in voters if one.model is not None}
    return _tariff(settings, settings.model.name, settings.model.price, others)


def votes_usd(settings: Settings, usage: Usage) -> float | None:
    """Return the cost of the fewest answers that decide a label, with this usage each; None if a price is unknown."""
    quality, own = settings.quality, lane_price(settings)
    voters = [own if one.model is None else _price(settings, one.model, one.price) for one in quality.voters]
    prices = [own, *(voters or [own] * quality.size)][: quality.fewest]
    costs = [price.cost_usd(usage) for price in prices if price is not None]
    return sum(costs) if len(costs) == len(prices) else None


def _tariff(
    settings: Settings, model: str, own_price: PriceSettings | None, others: Mapping[str, Tariff] | None = None
) -> Tariff:
    price, is_flex = _price(settings, model, own_price), settings.model.lane in (FLEX, "auto")

    def at(tier: str) -> Price | None:
        if is_flex and tier == FLEX:
            return _reduced(settings, model, price, service_tier=FLEX)
        return price if own_price is not None else price_of(model, service_tier=tier)

    fixed = price is None or (own_price is not None and not is_flex)
    return Tariff(price, None if fixed else at, others)


def admission_of(
    settings: Settings,
    *,
    constant_tokens: int = 0,
    day: DayMeter | None = None,
    budget: Budget | None = None,
    save_spend_bound: SaveSpendBound | None = None,
    resource: Resource | None = None,
    top_up: TopUp | None = None,
) -> Admission:
    """Build the admission with the limits of the settings, and those that need a ledger.

    `resource` decides how much may be sent; None: what this process finds out, within the limits of the settings.
    `top_up` raises a budget that is a part of a larger one.
    `constant_tokens` is the length of the prompts' shared prefix: one that servers cache is worth waiting for.
    """
    limits = settings.limits
    tuner = tuner_of(settings)
    concurrency = tuner.limit if tuner is not None else int(limits.concurrency)
    return Admission(
        gate=Gate(
            concurrency,
            probe_max_s=limits.probe_max_s,
            alone_s=ALONE_S if constant_tokens < MIN_CACHED_TOKENS else WARM_UP_S,
        ),
        resource=LocalResource(limits.requests_per_minute, limits.tokens_per_minute) if resource is None else resource,
        stop_at_day_limit=limits.on_day_limit == "stop",
        tuner=tuner,
        hours=hours_of(settings),
        day=day,
        budget=budget,
        save_spend_bound=save_spend_bound,
        top_up=top_up,
    )


def tuner_of(settings: Settings, start: int | None = None) -> Tuner | None:
    """Return what tunes the concurrency, if that is "auto"."""
    limits = settings.limits
    if limits.concurrency != "auto":
        return None
    begin = {} if start is None else {"start": start}
    return Tuner(lowest=1, highest=limits.concurrency_max, timeout_s=settings.model.timeout_s, **begin)


def hours_of(settings: Settings) -> Hours | None:
    """Return the hours for calls, and when the run stops. Raises ConfigError."""
    between, stop_at = settings.limits.run_between, settings.limits.stop_at
    if between is None and stop_at is None:
        return None
    return Hours((between[0], between[1]) if between is not None else None, stop_at)


def budget_of(settings: Settings, *, spent_usd: float, spent_tokens: int, maybe: Spend = NOTHING) -> Budget | None:
    """Return what counts the run's cost, with the caps that are set; one may be set during the run.

    None if a call's worst case has no bound, so nothing can be capped. Raises ConfigError if there is a cap then.
    `maybe` is the part of the cost that no saved answer accounts for.
    """
    limits = settings.limits
    is_capped = limits.budget_usd is not None or limits.budget_tokens is not None
    if not has_bound(settings):
        if not is_capped:
            return None
        raise ConfigError(
            "a budget needs a bound on what one answer can cost: set model.parameters.max_completion_tokens "
            "(64 is plenty for one label)"
        )
    return Budget(
        usd=limits.budget_usd,
        tokens=limits.budget_tokens,
        price=_dearest(settings),
        spent_usd=spent_usd,
        spent_tokens=spent_tokens,
        maybe=maybe,
    )


def has_bound(settings: Settings) -> bool:
    """Whether the tokens of one answer are bounded."""
    return room_in(settings.model.parameters) is not None


def rules_of(settings: Settings) -> AskRules:
    """Return how often and how long a record is asked."""
    return AskRules(
        max_attempts=settings.limits.max_attempts,
        max_repairs=settings.limits.max_repairs,
        timeout_s=settings.model.timeout_s,
        hedge_after_p=settings.limits.hedge_after_p,
        stop_rejected=settings.limits.stop_rejected,
        flex_patience_s=settings.flex.patience_s if settings.model.lane == "flex" else None,
    )
