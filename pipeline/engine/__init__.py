"""The engine: producer -> bounded queue -> workers -> bounded queue -> one writer. It knows no HTTP and no SDK."""

from __future__ import annotations

from pipeline.engine.attempt import Asker, AskRules, Provider, TaskPart, is_hopeless
from pipeline.engine.feed import Feed, Job, Lookups, renamed
from pipeline.engine.pool import Ending, Pool, PoolSizes
from pipeline.engine.retry import Verdict, backoff_s, verdict_of
from pipeline.engine.stop import InterruptedRunError, StopSwitch
from pipeline.engine.writer import Writer

__all__ = [
    "AskRules",
    "Asker",
    "Ending",
    "Feed",
    "InterruptedRunError",
    "Job",
    "Lookups",
    "Pool",
    "PoolSizes",
    "Provider",
    "StopSwitch",
    "TaskPart",
    "Verdict",
    "Writer",
    "backoff_s",
    "is_hopeless",
    "renamed",
    "verdict_of",
]
