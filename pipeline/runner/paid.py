"""What a run has paid for so far, conversations that were broken off included."""

from __future__ import annotations

from dataclasses import replace

from pipeline import codec
from pipeline.limits import Price
from pipeline.store import Ledger, Totals

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


async def spent_of(ledger: Ledger, price: Price | None) -> tuple[float, int]:
    """What the run has cost so far at most, in US dollars and in tokens, over all its sessions."""
    totals = await paid_so_far(ledger, price)
    mark = codec.loads(await ledger.meta_get(BUDGET_MARK) or "{}")
    return max(totals.cost_usd, mark.get("usd") or 0.0), max(totals.usage.total, mark.get("tokens") or 0)
