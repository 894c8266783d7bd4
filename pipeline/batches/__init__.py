"""The batch lane: defers requests into parts, sends the parts as batches, and collects the answers."""

from __future__ import annotations

from pipeline.batches.auto_lane import AutoLane, LaneChoice, LaneInputs, Route, choose_lane, open_spans, uses_flex
from pipeline.batches.config import BatchesCancelledError, BatchesOpenError, BatchMode, LaneConfig
from pipeline.batches.lane import BatchLane
from pipeline.batches.messages import OpenBatches, return_hint
from pipeline.batches.part_progress import remaining_s
from pipeline.batches.queue import BatchQueue
