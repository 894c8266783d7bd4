"""What a run has paid for so far, conversations that were broken off included."""

from dataclasses import replace
from typing import Any

from pipeline import codec
from pipeline.limits import Price
from pipeline.records import Usage
from pipeline.store import BatchBook, Ledger, Totals

#: Where the ledger keeps what the run has cost at most, for the budget of the next session.
BUDGET_MARK = "budget"


async def paid_so_far(ledger: Ledger, price: Price | None) -> Totals:
    """The ledger's totals; kept answers whose cost was not known when they came are priced now."""
    totals = await ledger.totals()
    if not totals.unpriced_usage.total:
        return totals
    if price is None:
        return replace(totals, unpriced=totals.unpriced + 1)
    return replace(totals, cost_usd=totals.cost_usd + price.cost_usd(totals.unpriced_usage))


async def cache_money(ledger: Ledger, totals: Totals, price: Price | None) -> dict[str, Any]:
    """What the prompt cache saved, and what writing to it cost beyond the input's price, as RunSummary has them.

    Answers count at the price of their lane: those of batches as these were read, the others at `price`, or at the
    share of it that they have really cost together, as the server may have used another tier.
    """
    if price is None:
        return {"saved_usd": None, "cache_write_usd": None}
    rest, rest_usd, saved_usd, write_usd = totals.usage, totals.cost_usd, 0.0, 0.0
    for part in await BatchBook(ledger).parts():
        if part.books.get("cost_usd") is not None and part.books.get("cached_usd") is not None:
            rest, rest_usd = rest - Usage(*part.books["usage"]), rest_usd - part.books["cost_usd"]
            saved_usd, write_usd = saved_usd + part.books["cached_usd"], write_usd + part.books["cache_write_usd"]
    listed_usd = price.cost_usd(rest)
    if not totals.unpriced and rest_usd > 0 and listed_usd > 0:
        price = price.times(rest_usd / listed_usd)
    return {
        "saved_usd": saved_usd + price.saved_usd(rest),
        "cache_write_usd": write_usd + price.cache_write_usd(rest),
    }


async def total_spend(ledger: Ledger, price: Price | None) -> tuple[float, int]:
    """What the run has cost so far at most, in US dollars and in tokens, over all its sessions."""
    totals = await paid_so_far(ledger, price)
    mark = codec.loads(await ledger.meta_get(BUDGET_MARK) or "{}")
    return max(totals.cost_usd, mark.get("usd") or 0.0), max(totals.usage.total, mark.get("tokens") or 0)
