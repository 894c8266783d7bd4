"""The batch lane: requests are put off into parts, sent as batches, and their answers are collected."""

from __future__ import annotations

from pipeline.batches.courier import CourierRules
from pipeline.batches.lane import BatchesCancelledError, BatchesOpenError, Lane, LaneRules, Mode

__all__ = ["BatchesCancelledError", "BatchesOpenError", "CourierRules", "Lane", "LaneRules", "Mode"]
