"""Computes a run's cost so far from its ledger, in total and by lane, and what is left to pay."""

from dataclasses import replace
from typing import Any

from pipeline import codec
from pipeline.limits import Price, Spend, estimate_remaining
from pipeline.records import Status, Usage, add_usd
from pipeline.stats import Stats
from pipeline.store import BUDGET_KEY, FLEX_KEY, BatchBook, Ledger, Totals


async def paid_so_far(ledger: Ledger, price: Price | None) -> Totals:
    """Return the ledger's totals. Saved answers whose cost was unknown are priced now."""
    totals = await ledger.totals()
    if not totals.unpriced_usage.total:
        return totals
    if price is None:
        return replace(totals, unpriced=totals.unpriced + 1)
    return replace(totals, cost_usd=totals.cost_usd + price.cost_usd(totals.unpriced_usage))


async def ledger_facts(ledger: Ledger, price: Price | None) -> tuple[dict[str, Any], Totals]:
    """Return what a ledger contains and has cost, as in RunSummary; and its totals."""
    counts, rows, totals = await ledger.count_by_status(), await ledger.row_counts(), await paid_so_far(ledger, price)
    is_unknown = totals.unpriced and (price is None or not totals.cost_usd)
    facts = {
        "labelled": counts[Status.LABELLED],
        "rejected": counts[Status.REJECTED],
        "failed": counts[Status.FAILED],
        "rows": None if rows is None else rows.rows,
        "without_row": None if rows is None else rows.without,
        "problems": await ledger.problem_counts(),
        "cost_usd": None if is_unknown else totals.cost_usd,
        "untold": 0 if price is None else totals.unpriced,
        "lanes": await _lanes(ledger),
        **await _cache_money(ledger, totals, price),
    }
    return facts, totals


def left_facts(total: float | None, done: int, totals: Totals, *, exact: bool) -> dict[str, Any]:
    """Return what is left of `total` records, and its cost estimated from the records so far."""
    spent = Spend(None if totals.unpriced else totals.cost_usd, totals.usage.total)
    left = estimate_remaining(None if total is None else max(0, round(total) - done), spent, done, exact=exact)
    more = left.more or Spend(None, None)
    return {"records": left.records, "exact": left.exact, "usd": more.usd, "tokens": more.tokens, "text": left.text}


async def _cache_money(ledger: Ledger, totals: Totals, price: Price | None) -> dict[str, Any]:
    """Return what the prompt cache saved, and what writing to it cost beyond the input price, as in RunSummary.

    Answers count at the price of their lane: those of batches as priced when they were read, and the others at `price`,
    scaled to what they cost together, because the server may have used another tier.
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
    """Return the most that the run has cost so far, in US dollars and tokens, over all sessions."""
    totals = await paid_so_far(ledger, price)
    mark = codec.loads(await ledger.meta_get(BUDGET_KEY) or "{}")
    return max(totals.cost_usd, mark.get("usd") or 0.0), max(totals.usage.total, mark.get("tokens") or 0)


async def _lanes(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Return the totals of each cheaper lane, over all sessions; see RunSummary."""
    text = await ledger.meta_get(FLEX_KEY)
    flex = {} if text is None else {"flex": codec.loads(text)}
    parts = [part for part in await BatchBook(ledger).parts() if part.books.get("usage")]
    if not parts:
        return flex
    cost: float | None = 0.0
    saved: float | None = 0.0
    for part in parts:
        cost_usd, standard_usd = part.books["cost_usd"], part.books.get("standard_usd")
        cost = add_usd(cost, cost_usd)
        saved = None if cost_usd is None or standard_usd is None else add_usd(saved, standard_usd - cost_usd)
    return {
        "batch": {
            "batches": len(parts),
            "cancelled": sum(part.facts.get("status") == "cancelled" for part in parts),
            "records": sum(part.books.get("records", 0) for part in parts),
            "answers": sum(part.books["lines"].get("answered", 0) for part in parts),
            "cost_usd": cost,
            "saved_usd": saved,
        },
        **flex,
    }


class FlexTotals:
    """The totals of the flex lane, saved in the ledger with the answers."""

    def __init__(self, ledger: Ledger, stats: Stats) -> None:
        self._ledger = ledger
        self._stats = stats
        # Mutable state: what earlier sessions have saved, and how many answers of this session are saved.
        self._before: dict[str, Any] | None = None
        self._saved = 0

    async def save(self) -> None:
        """Save the totals if they have changed."""
        stats, answers = self._stats, self._stats.flex.total()
        if answers == self._saved:
            return
        if self._before is None:
            self._before = codec.loads(await self._ledger.meta_get(FLEX_KEY) or "{}")
        now: dict[str, float] = {name: stats.flex[name] for name in ("answers", "standard", "other")}
        now |= {"cost_usd": stats.flex_usd, "saved_usd": stats.flex_saved_usd}
        total = {name: value + self._before.get(name, 0) for name, value in now.items()}
        await self._ledger.meta_set(FLEX_KEY, codec.dumps(total).decode())
        self._saved = answers
