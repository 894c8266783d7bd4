"""What an answer costs in each lane and tier, worked out by hand and for any usage; US dollars a million tokens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.limits import Price
from pipeline.parts import batch_price, budget_of, flex_price, lane_price, price_for, standard_price, tariff_of
from pipeline.records import Usage
from pipeline.settings import Settings

#: 2,000 prompt tokens, of which 1,200 are read from the cache and 300 written to it; 100 of completion, 60 of them
#: reasoning, which is a part of these.
USED = Usage(prompt=2_000, completion=100, cached=1_200, reasoning=60, cache_write=300)
LUNA = (500 * 0.10 + 1_200 * 0.01 + 300 * 0.125 + 100 * 0.50) / 1e6


def settings(**model: Any) -> Settings:
    return Settings(
        input={"path": "in.csv"},
        task={"labels": {"mood": ["good", "bad"]}, "prompt": "{{ text }}"},
        model={"name": "gpt-6-luna", **model},
        output={"dir": "run"},
    )


def test_live_flex_and_batch_by_hand() -> None:
    tariff = tariff_of(settings())
    assert tariff.cost_usd(USED) == pytest.approx(LUNA)
    assert tariff.cost_usd(USED, "default") == pytest.approx(LUNA)
    assert tariff.cost_usd(USED, "flex") == pytest.approx(LUNA / 2)
    assert tariff.cost_usd(USED, "priority") == pytest.approx(LUNA * 2)
    batch = batch_price(settings())
    assert batch is not None
    assert batch.cost_usd(USED) == pytest.approx(LUNA / 2)


def test_a_batch_of_an_older_model_gives_nothing_off_for_what_is_cached() -> None:
    """As the price list has it: input 0.15, cached 0.075, output 0.60; in a batch 0.075, cached too, and 0.30."""
    live, batch = price_for(settings(name="gpt-4o-mini")), batch_price(settings(name="gpt-4o-mini"))
    assert live is not None
    assert batch is not None
    used = Usage(prompt=2_000, completion=100, cached=1_200)
    assert live.cost_usd(used) == pytest.approx((800 * 0.15 + 1_200 * 0.075 + 100 * 0.60) / 1e6)
    assert batch.cost_usd(used) == pytest.approx((2_000 * 0.075 + 100 * 0.30) / 1e6)
    assert live.saved_usd(used) == pytest.approx(1_200 * 0.075 / 1e6)
    assert batch.saved_usd(used) == 0.0


@pytest.mark.parametrize(
    ("model", "share"),
    [
        ({}, 0.5),
        ({"name": "gpt-4o-mini"}, 0.5),
        ({"price": {"input": 0.1, "output": 0.5, "cached_input": 0.01}}, 0.5),
        ({"base_url": "https://here.openai.azure.com/openai/v1"}, 0.5),
        ({"base_url": "https://api.groq.com/openai/v1", "price": {"input": 0.1, "output": 0.5}}, 1.0),
    ],
)
def test_the_flex_lane_costs_half_of_live_where_nobody_says_otherwise(model: dict[str, Any], share: float) -> None:
    """`gpt-4o-mini` has no flex price in the list; Groq's flex tier costs what its standard one does."""
    chosen = settings(lane="flex", **model)
    live, flex, tariff = standard_price(chosen), flex_price(chosen), tariff_of(chosen)
    assert live is not None
    assert flex is not None
    assert lane_price(chosen) == flex
    assert flex.cost_usd(USED) == pytest.approx(live.cost_usd(USED) * share)
    assert tariff.cost_usd(USED, "flex") == flex.cost_usd(USED)
    for tier in (None, "default"):
        assert tariff.cost_usd(USED, tier) == live.cost_usd(USED), "an answer that names no tier may be a standard one"
    bounded = settings(lane="flex", parameters={"max_completion_tokens": 9}, **model)
    budget = budget_of(bounded, spent_usd=0, spent_tokens=0)
    assert budget is not None
    budget.reserve(1_000, 9)
    least = pytest.approx((1_000 * max(live.input, live.written) + 9 * live.output) / 1e6)
    assert budget.counted.usd == least, "what may be sent without flex is reserved so"


def test_a_tier_of_the_config_halves_no_batch_once_more() -> None:
    tiered = settings(parameters={"service_tier": "flex"})
    flex, batch, standard = price_for(tiered), batch_price(tiered), standard_price(tiered)
    assert flex is not None
    assert standard is not None
    assert flex.cost_usd(USED) == pytest.approx(LUNA / 2)
    assert batch == flex
    assert standard.cost_usd(USED) == pytest.approx(LUNA)


def test_a_price_of_the_config_holds_for_live_calls_and_half_of_it_for_batches() -> None:
    given_price = {"input": 2.0, "output": 8.0}
    mine = settings(lane="batch", price=given_price)
    by_hand = (1_700 * 2.0 + 300 * 2.5 + 100 * 8.0) / 1e6  # cached tokens as the others, written ones at 1.25 times
    assert tariff_of(mine).cost_usd(USED) == pytest.approx(by_hand)
    price = lane_price(mine)
    assert price is not None
    assert price.origin == "config"
    assert price.cost_usd(USED) == pytest.approx(by_hand / 2)
    older = price_for(settings(name="gpt-5.5", price=given_price))
    assert older is not None
    assert older.written == 2.0, "before gpt-5.6 nothing is charged for writing"


@pytest.mark.parametrize("lane", ["live", "batch"])
def test_an_unknown_price_is_unknown_in_each_lane(lane: str) -> None:
    unknown = settings(name="nobody-knows-this-model", base_url="http://localhost:8000/v1", lane=lane)
    assert lane_price(unknown) is None
    assert batch_price(unknown) is None
    assert standard_price(unknown) is None
    assert tariff_of(unknown).cost_usd(USED) is None


PRICES = st.builds(
    Price,
    input=st.floats(0.01, 50),
    output=st.floats(0.01, 200),
    cached_input=st.floats(0, 50),
    origin=st.just("x"),
    cache_write=st.none() | st.floats(0, 70),
)
TOKENS = st.integers(0, 10**7)
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)


@given(price=PRICES, usage=USAGES, share=st.floats(0.01, 2))
def test_a_cost_is_that_of_its_tokens_each_counted_once(price: Price, usage: Usage, share: float) -> None:
    """Whatever a server tells: cached and written tokens are parts of the prompt."""
    cost = price.cost_usd(usage)
    plain = (usage.prompt * price.input + usage.completion * price.output) / 1e6
    assert cost == pytest.approx(plain - price.saved_usd(usage) + price.cache_write_usd(usage), abs=1e-9)
    dearest = max(price.input, price.cached_input, price.written)
    assert -1e-9 <= cost <= (usage.prompt * dearest + usage.completion * price.output) / 1e6 + 1e-9
    cheaper = price.times(share)
    assert cheaper.cost_usd(usage) == pytest.approx(share * cost)
    assert cheaper.saved_usd(usage) == pytest.approx(share * price.saved_usd(usage), abs=1e-12)


@given(price=PRICES, usages=st.lists(st.builds(Usage, TOKENS, TOKENS), max_size=5), cached=st.floats(0, 1))
def test_the_cost_of_a_sum_is_the_sum_of_the_costs(price: Price, usages: list[Usage], cached: float) -> None:
    parts = [Usage(one.prompt, one.completion, int(one.prompt * cached)) for one in usages]
    assert price.cost_usd(sum(parts, Usage())) == pytest.approx(sum(map(price.cost_usd, parts)), abs=1e-12)
