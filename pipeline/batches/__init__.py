"""The batch lane: requests are put off into parts, sent as batches, and their answers are collected."""

from __future__ import annotations

from pipeline.batches.auto import Ahead, AutoLane, Bulk, Choice, choose, open_s, takes_flex
from pipeline.batches.lane import Lane
from pipeline.batches.outlook import back_in_s
from pipeline.batches.queue import Queue
from pipeline.batches.rules import BatchesCancelledError, BatchesOpenError, CourierRules, LaneRules, Mode
from pipeline.batches.words import Waiting, when_text
