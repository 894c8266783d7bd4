"""What answers took that nothing is made of: it stays counted, in the ledger too."""

from __future__ import annotations

from dataclasses import replace

from pipeline.records import KeptAnswer, Response, added_usd


class WrittenOff:
    """What one or several such answers took."""

    def __init__(self, response: Response, calls: int = 0, repairs: int = 0) -> None:
        self.usage, self.cost_usd = response.usage, response.cost_usd
        self.calls, self.repairs = calls, repairs

    def and_(self, more: WrittenOff) -> WrittenOff:
        """Both together."""
        self.usage += more.usage
        self.cost_usd = added_usd(self.cost_usd, more.cost_usd)
        self.calls += more.calls
        self.repairs += more.repairs
        return self

    def with_(self, kept: KeptAnswer) -> KeptAnswer:
        """A row that carries this too."""
        response = kept.response
        usage, cost_usd = response.usage + self.usage, added_usd(response.cost_usd, self.cost_usd)
        return replace(
            kept,
            response=replace(response, usage=usage, cost_usd=cost_usd),
            calls=kept.calls + self.calls,
            repairs=kept.repairs + self.repairs,
        )
