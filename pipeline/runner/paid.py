"""What a run has paid for so far, conversations that were broken off included."""

from __future__ import annotations

from dataclasses import replace

from pipeline.limits import Price
from pipeline.store import Ledger, Totals


async def paid_so_far(ledger: Ledger, price: Price | None) -> Totals:
    """The ledger's totals, with the price of what records without an outcome have used."""
    totals = await ledger.totals()
    if not totals.under_way.total:
        return totals
    if price is None:
        return replace(totals, unpriced=totals.unpriced + 1)
    return replace(totals, cost_usd=totals.cost_usd + price.cost_usd(totals.under_way))
